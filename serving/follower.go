package serving

import (
	"context"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace/millrace/registry"
	"github.com/millrace/millrace/schemas"
	"github.com/millrace/millrace/streams"
)

// The registry's alias is the one truth about who is champion. The models topic only says when to look, so that a promotion is live at
// once; where it is lost, late or compacted away, the regular look finds the same.

func (s *Stage) lookAll(ctx context.Context) {
	for _, m := range s.deps.Project.Models {
		s.look(ctx, m.Name)
	}
}

// look logs what is wrong: there is nobody above to return it to, and the next look may find it mended.
func (s *Stage) look(ctx context.Context, model string) {
	d, ok := s.models[model]
	if !ok {
		return
	}
	if err := d.look(ctx); err != nil && ctx.Err() == nil {
		s.deps.Log.Error("the champion cannot be served", "model", model, "error", err)
	}
}

func (s *Stage) lookRegularly(ctx context.Context) error {
	tick := time.NewTicker(s.cfg.FollowEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			s.lookAll(ctx)
		case <-ctx.Done():
			return nil
		}
	}
}

// followTopic reads the models topic, without a group: every replica must see every event.
func (s *Stage) followTopic(ctx context.Context) error {
	client, err := streams.NewClient(s.deps.Kafka, kgo.ConsumeTopics(s.deps.Project.Own().Models.Name), kgo.ConsumeResetOffset(kgo.NewOffset().AtEnd()))
	if err != nil {
		return err
	}
	defer client.Close()
	for {
		fetches := client.PollFetches(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if err := fetches.Err0(); err != nil || len(fetches.Errors()) > 0 {
			if !sleep(ctx, s.cfg.Backoff) {
				return nil
			}
		}
		fetches.EachRecord(func(r *kgo.Record) {
			model, _, _ := strings.Cut(string(r.Key), "/")
			s.look(ctx, model)
		})
	}
}

// eventQueue is how many events wait to be published. They are few, and what they tell is in the registry.
const eventQueue = 16

func (s *Stage) tell(e schemas.ModelEvent) {
	select {
	case s.events <- e:
	default:
		s.deps.Log.Error("an event is not published, because too many wait", "model", e.Model, "kind", e.Kind)
	}
}

// publishEvents puts events on the models topic until ctx ends. Their key is not the model's alone: compaction would leave them in the place
// of the latest word on its champion.
func (s *Stage) publishEvents(ctx context.Context) error {
	client, err := streams.NewClient(s.deps.Kafka)
	if err != nil {
		return err
	}
	defer client.Close()
	for {
		select {
		case e := <-s.events:
			value, err := e.Marshal()
			if err == nil {
				r := &kgo.Record{Topic: s.deps.Project.Own().Models.Name, Key: []byte(e.Model + "/" + registry.Challenger), Value: value}
				err = client.ProduceSync(ctx, r).FirstErr()
			}
			if err != nil && ctx.Err() == nil {
				s.deps.Log.Error("an event is not published", "model", e.Model, "kind", e.Kind, "error", err)
			}
		case <-ctx.Done():
			return nil
		}
	}
}
