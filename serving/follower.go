package serving

import (
	"context"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

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
		fetches.EachRecord(func(r *kgo.Record) { s.look(ctx, string(r.Key)) })
	}
}
