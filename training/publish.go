package training

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace/millrace/internal/failure"
	"github.com/millrace/millrace/schemas"
)

// publish puts a run's outcome on the models topic and notes that it is there.
func (s *Stage) publish(ctx context.Context, run string, event schemas.ModelEvent) error {
	s.log.Info("model "+event.Kind, "model", event.Model, "version", event.Version, "digest", event.Digest,
		"reason", event.Reason, "auc", event.Metrics["auc"], "run", run)
	if s.producer == nil {
		return nil
	}
	value, err := event.Marshal()
	if err != nil {
		return fmt.Errorf("encoding model event: %w", err)
	}
	r := &kgo.Record{Topic: s.project.Own().Models.Name, Key: []byte(event.Model), Value: value}
	if err := s.producer.ProduceSync(ctx, r).FirstErr(); err != nil {
		return failure.Wrap(failure.Unavailable, r.Topic, "publishing model event", err)
	}
	// It can be read by now: that the stage ends must not keep it from being noted, or the next one would publish it again.
	return s.registry.Published(context.WithoutCancel(ctx), event.Model, run)
}

// publishKept publishes what was concluded by a process that did not live to publish it. Readers know an event by its
// id, so that one published twice does no harm.
func (s *Stage) publishKept(ctx context.Context) error {
	for _, m := range s.project.Models {
		open, err := s.registry.Unpublished(m.Name)
		if err != nil {
			return err
		}
		for _, e := range open {
			var event schemas.ModelEvent
			if err := json.Unmarshal(e.Outcome, &event); err != nil {
				return failure.Wrap(failure.Corrupt, m.Name, "decoding the outcome of run "+e.Run, err)
			}
			if err := s.publish(ctx, e.Run, event); err != nil {
				return err
			}
		}
	}
	return nil
}
