package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace/millrace/internal/failure"
	"github.com/millrace/millrace/schemas"
)

// watcher follows the topics that the stages meet at, as any consumer outside could, and keeps what the demo tells.
type watcher struct {
	client *kgo.Client
	topics schemas.OwnSet

	mu          sync.Mutex
	changed     chan struct{} // closed and replaced at every change
	predictions int64
	newestAt    int64 // event time of the newest prediction seen that was made from the stream
	drifts      []schemas.Drift
	windows     int
	retrains    []schemas.Retrain
	models      []schemas.ModelEvent
}

// sourceHTTP is the source of a prediction that was asked for over HTTP.
const sourceHTTP = "http"

func newWatcher(ctx context.Context, rt *runtime) (*watcher, error) {
	w := &watcher{topics: rt.own, changed: make(chan struct{})}
	client, err := rt.kafkaClient(ctx,
		kgo.ConsumeTopics(w.topics.Predictions.Name, w.topics.Drift.Name, w.topics.Retrain.Name, w.topics.Models.Name),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()))
	if err != nil {
		return nil, err
	}
	w.client = client
	return w, nil
}

// run follows until ctx ends.
func (w *watcher) run(ctx context.Context) error {
	defer w.client.Close()
	for {
		fetches := w.client.PollFetches(ctx)
		if ctx.Err() != nil {
			return nil
		}
		for _, e := range fetches.Errors() {
			return failure.Wrap(failure.Unavailable, e.Topic, "following the demo's topics", e.Err)
		}
		w.mu.Lock()
		var err error
		fetches.EachPartition(func(p kgo.FetchTopicPartition) {
			for i, r := range p.Records {
				// Of the predictions, which are many, only the newest of a partition is looked into.
				if r.Topic == w.topics.Predictions.Name {
					w.predictions++
					if i < len(p.Records)-1 {
						continue
					}
				}
				err = errors.Join(err, w.take(r))
			}
		})
		close(w.changed)
		w.changed = make(chan struct{})
		w.mu.Unlock()
		if err != nil {
			return err
		}
	}
}

// take notes one record; w.mu is held.
func (w *watcher) take(r *kgo.Record) error {
	var err error
	switch r.Topic {
	case w.topics.Predictions.Name:
		var p schemas.Prediction
		if p, err = schemas.UnmarshalPrediction(r.Value); err == nil && p.Source != sourceHTTP {
			w.newestAt = max(w.newestAt, p.At)
		}
	case w.topics.Drift.Name:
		var d schemas.Drift
		if d, err = schemas.UnmarshalDrift(r.Value); err == nil {
			switch d.Kind {
			case schemas.DriftWindowClosed:
				w.windows++
			case schemas.DriftSuspected, schemas.DriftConfirmed, schemas.DriftResolved, schemas.DriftQuality:
				w.drifts = append(w.drifts, d)
			}
		}
	case w.topics.Retrain.Name:
		var t schemas.Retrain
		if t, err = schemas.UnmarshalRetrain(r.Value); err == nil {
			w.retrains = append(w.retrains, t)
		}
	case w.topics.Models.Name:
		var m schemas.ModelEvent
		if m, err = schemas.UnmarshalModelEvent(r.Value); err == nil {
			w.models = append(w.models, m)
		}
	}
	if err != nil {
		return fmt.Errorf("reading %s/%d/%d: %w", r.Topic, r.Partition, r.Offset, err)
	}
	return nil
}

// await blocks until ok, which is called with the lock held, holds.
func (w *watcher) await(ctx context.Context, ok func() bool) error {
	for {
		w.mu.Lock()
		done, changed := ok(), w.changed
		w.mu.Unlock()
		if done {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// undecided is the retrain requests that no model event has answered yet; w.mu is held.
func (w *watcher) undecided() []schemas.Retrain {
	var open []schemas.Retrain
	for _, t := range w.retrains {
		if !slices.ContainsFunc(w.models, func(m schemas.ModelEvent) bool { return m.RetrainID == t.ID && decided(m) }) {
			open = append(open, t)
		}
	}
	return open
}

// promoted is the promotions so far, in order; w.mu is held.
func (w *watcher) promoted() []schemas.ModelEvent {
	var events []schemas.ModelEvent
	for _, m := range w.models {
		if m.Kind == schemas.ModelPromoted {
			events = append(events, m)
		}
	}
	return events
}

func decided(m schemas.ModelEvent) bool {
	return m.Kind == schemas.ModelPromoted || m.Kind == schemas.ModelRefused
}
