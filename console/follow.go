package console

import (
	"context"
	"sync"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace/millrace/schemas"
	"github.com/millrace/millrace/streams"
)

// tail keeps the newest of what the stages have told each other.
type tail struct {
	cfg Config
	own schemas.OwnSet

	mu       sync.Mutex
	drifts   map[string][]schemas.Drift // by model, oldest first
	models   []schemas.ModelEvent
	retrains []schemas.Retrain
	letters  []schemas.DeadLetter
	lettered map[string]int64 // dead letters by class
	latest   *schemas.Prediction
}

func newTail(cfg Config, own schemas.OwnSet) tail {
	return tail{cfg: cfg, own: own, drifts: map[string][]schemas.Drift{}, lettered: map[string]int64{}}
}

// follow reads the project's own topics from their beginning. The predictions are read from their end: the page shows only
// the newest.
func (c *Console) follow(ctx context.Context) error {
	own := c.deps.Project.Own()
	history, err := c.deps.NewClient(ctx, kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.ConsumeTopics(own.Drift.Name, own.Retrain.Name, own.Models.Name, own.DeadLetters.Name),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	if err != nil {
		return err
	}
	defer history.Close()
	newest, err := c.deps.NewClient(ctx, kgo.ConsumeTopics(own.Predictions.Name),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtEnd()), kgo.FetchIsolationLevel(kgo.ReadCommitted()))
	if err != nil {
		return err
	}
	defer newest.Close()
	var wg sync.WaitGroup
	for _, client := range []*kgo.Client{history, newest} {
		wg.Go(func() { c.poll(ctx, client) })
	}
	wg.Wait()
	return nil
}

func (c *Console) poll(ctx context.Context, client *kgo.Client) {
	for {
		fetches := client.PollFetches(ctx)
		if ctx.Err() != nil {
			return
		}
		for _, e := range fetches.Errors() {
			c.deps.Log.Warn("following a topic for the console", "topic", e.Topic, "err", e.Err)
		}
		c.tail.mu.Lock()
		fetches.EachPartition(func(p kgo.FetchTopicPartition) {
			records := p.Records
			if p.Topic == c.tail.own.Predictions.Name && len(records) > 0 { // only the newest is shown, and they are many
				records = records[len(records)-1:]
			}
			for _, r := range records {
				if err := c.tail.take(r); err != nil {
					c.deps.Log.Warn("reading an event for the console", "topic", r.Topic, "partition", r.Partition, "offset", r.Offset, "err", err)
				}
			}
		})
		c.tail.mu.Unlock()
	}
}

// take notes one record; t.mu is held.
func (t *tail) take(r *kgo.Record) error {
	switch r.Topic {
	case t.own.Drift.Name:
		d, err := schemas.UnmarshalDrift(r.Value)
		if err != nil {
			return err
		}
		t.drifts[d.Model] = keep(append(t.drifts[d.Model], d), t.cfg.Verdicts)
	case t.own.Models.Name:
		m, err := schemas.UnmarshalModelEvent(r.Value)
		if err != nil {
			return err
		}
		t.models = keep(append(t.models, m), t.cfg.Events)
	case t.own.Retrain.Name:
		m, err := schemas.UnmarshalRetrain(r.Value)
		if err != nil {
			return err
		}
		t.retrains = keep(append(t.retrains, m), t.cfg.Events)
	case t.own.Predictions.Name:
		p, err := schemas.UnmarshalPrediction(r.Value)
		if err != nil {
			return err
		}
		t.latest = &p
	case t.own.DeadLetters.Name:
		d, err := streams.ParseDeadLetter(&kgo.Record{Headers: r.Headers}) // without its bytes, which are not shown
		if err != nil {
			return err
		}
		t.lettered[d.Class]++
		t.letters = keep(append(t.letters, d), t.cfg.DeadLetters)
	}
	return nil
}

// keep is the newest n of a list.
func keep[T any](list []T, n int) []T {
	if len(list) > n {
		return append(list[:0:0], list[len(list)-n:]...)
	}
	return list
}
