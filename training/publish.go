package training

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace/millrace/internal/failure"
	"github.com/millrace/millrace/registry"
	"github.com/millrace/millrace/schemas"
)

// publish puts a run's outcome on the models topic and notes that it is there.
func (s *Stage) publish(ctx context.Context, run string, event schemas.ModelEvent) error {
	s.log.Info("model "+event.Kind, "model", event.Model, "version", event.Version, "digest", event.Digest,
		"reason", event.Reason, "auc", event.Metrics["auc"], "run", run)
	if s.producer == nil {
		return nil
	}
	return Publish(ctx, s.producer, s.project.Own().Models.Name, s.registry, run, event)
}

// Publish puts a run's outcome on the models topic and notes in the registry that it is there.
func Publish(ctx context.Context, producer *kgo.Client, topic string, r *registry.Registry, run string, event schemas.ModelEvent) error {
	value, err := event.Marshal()
	if err != nil {
		return fmt.Errorf("encoding model event: %w", err)
	}
	if err := producer.ProduceSync(ctx, &kgo.Record{Topic: topic, Key: []byte(event.Model), Value: value}).FirstErr(); err != nil {
		return failure.Wrap(failure.Unavailable, topic, "publishing model event", err)
	}
	// It can be read by now: that the caller ends must not keep it from being noted, or the next one would publish it again.
	return r.Published(context.WithoutCancel(ctx), event.Model, run)
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
