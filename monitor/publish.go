package monitor

import (
	"context"
	"fmt"
	"slices"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace/millrace/internal/failure"
	"github.com/millrace/millrace/schemas"
	"github.com/millrace/millrace/streams"
)

// published is what the drift and retrain topics already say: a new leader's memory.
type published struct {
	drift    []schemas.Drift
	requests []schemas.Retrain
	ids      map[string]struct{}
}

func newPublished(drift []schemas.Drift, requests []schemas.Retrain) *published {
	p := &published{drift: drift, requests: requests, ids: map[string]struct{}{}}
	for _, e := range drift {
		p.ids[e.ID] = struct{}{}
	}
	for _, e := range requests {
		p.ids[e.ID] = struct{}{}
	}
	return p
}

func (p *published) has(id string) bool { _, ok := p.ids[id]; return ok }

// closedUntil is the end of the last window of a model that was judged.
func (p *published) closedUntil(model string) int64 {
	until := int64(never)
	for i := range p.drift {
		if e := &p.drift[i]; e.Model == model && e.Kind == schemas.DriftWindowClosed {
			until = max(until, e.WindowEnd)
		}
	}
	return until
}

// rebuilding reports whether a window was judged but its performance is still to be reported.
func (p *published) rebuilding(model, digest string, end int64) bool {
	judged := p.has(eventID(model, digest, schemas.DriftWindowClosed, end))
	return judged && !p.has(eventID(model, digest, schemas.DriftPerformance, end))
}

// restore brings a judge to where the one before it was, and gives the number of windows that one judged.
func (p *published) restore(j *Judge) (windows int) {
	j.Restore(p.drift, p.requests)
	for i := range p.drift {
		if e := &p.drift[i]; e.Model == j.model && e.Digest == j.digest && e.Kind == schemas.DriftWindowClosed {
			windows++
		}
	}
	return windows
}

func (p *published) lastRetrain(model string) (until int64) {
	for i := range p.requests {
		if p.requests[i].Model == model {
			until = max(until, p.requests[i].Until)
		}
	}
	return until
}

// last is the newest event of a kind of a model.
func (p *published) last(model, kind string) (schemas.Drift, bool) {
	for _, e := range slices.Backward(p.drift) {
		if e.Model == model && e.Kind == kind {
			return e, true
		}
	}
	return schemas.Drift{}, false
}

// readPublished reads the last records of the drift and retrain topics. The caller's transactional id must have been taken over
// before, so that no other leader adds to them.
func (s *Stage) readPublished(ctx context.Context) (*published, error) {
	own := s.project.Own()
	var drift []schemas.Drift
	err := s.readTail(ctx, own.Drift.Name, func(r *kgo.Record) {
		if e, err := schemas.UnmarshalDrift(r.Value); err == nil { // what another version wrote is none of our memory
			drift = append(drift, e)
		}
	})
	if err != nil {
		return nil, fmt.Errorf("reading verdicts: %w", err)
	}
	var requests []schemas.Retrain
	err = s.readTail(ctx, own.Retrain.Name, func(r *kgo.Record) {
		if e, err := schemas.UnmarshalRetrain(r.Value); err == nil {
			requests = append(requests, e)
		}
	})
	if err != nil {
		return nil, fmt.Errorf("reading retrain requests: %w", err)
	}
	return newPublished(drift, requests), nil
}

// readTail hands over the last MaxTail committed records of each partition.
func (s *Stage) readTail(ctx context.Context, topic string, fn func(*kgo.Record)) error {
	client, err := streams.NewClient(s.kafka, kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.KeepControlRecords(), kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{}))
	if err != nil {
		return err
	}
	defer client.Close()
	starts, ends, err := bounds(ctx, client, topic)
	if err != nil {
		return err
	}
	next, left := map[int32]kgo.Offset{}, map[int32]int64{}
	for partition, end := range ends[topic] {
		if first := max(starts[topic][partition], end-int64(s.cfg.MaxTail)); first < end {
			next[partition], left[partition] = kgo.NewOffset().At(first), end
		}
	}
	client.AddConsumePartitions(map[string]map[int32]kgo.Offset{topic: next})
	for len(left) > 0 {
		fetches := client.PollFetches(ctx)
		if err := fetches.Err0(); err != nil {
			return failure.Wrap(failure.Unavailable, topic, "reading", err)
		}
		fetches.EachRecord(func(r *kgo.Record) {
			end, ok := left[r.Partition]
			if !ok || r.Offset >= end {
				return
			}
			if !r.Attrs.IsControl() {
				fn(r)
			}
			if r.Offset+1 >= end {
				delete(left, r.Partition)
			}
		})
	}
	return nil
}

// bounds is the first offsets of topics and the ones after their last committed records.
func bounds(ctx context.Context, client *kgo.Client, topics ...string) (starts, ends map[string]map[int32]int64, err error) {
	admin := kadm.NewClient(client)
	first, err := admin.ListStartOffsets(ctx, topics...)
	if err == nil {
		err = first.Error()
	}
	if err != nil {
		return nil, nil, failure.Wrap(failure.Unavailable, "kafka", "listing first offsets", err)
	}
	last, err := admin.ListCommittedOffsets(ctx, topics...)
	if err == nil {
		err = last.Error()
	}
	if err != nil {
		return nil, nil, failure.Wrap(failure.Unavailable, "kafka", "listing last offsets", err)
	}
	return plain(first), plain(last), nil
}

func plain(listed kadm.ListedOffsets) map[string]map[int32]int64 {
	out := map[string]map[int32]int64{}
	for topic, partitions := range listed {
		out[topic] = map[int32]int64{}
		for partition, o := range partitions {
			out[topic][partition] = o.Offset
		}
	}
	return out
}

// publish writes verdicts in one transaction, but for what was published before: a window that was closed is not judged again, and this
// holds should that ever fail. When it fails nothing is visible, and the session
// has to start anew from what is.
func (s *session) publish(ctx context.Context, verdicts []Verdict) error {
	records, err := s.records(verdicts)
	if err != nil || len(records) == 0 {
		return err
	}
	if err := s.writer.BeginTransaction(); err != nil {
		return failure.Wrap(failure.Unavailable, "kafka", "beginning a transaction", err)
	}
	commit := kgo.TryCommit
	produced := s.writer.ProduceSync(ctx, records...).FirstErr()
	if produced != nil {
		commit = kgo.TryAbort
	}
	if err := s.writer.EndTransaction(ctx, commit); err != nil && produced == nil {
		produced = err
	}
	if produced != nil {
		return failure.Wrap(failure.Unavailable, "kafka", "publishing verdicts", produced)
	}
	return nil
}

func (s *session) records(verdicts []Verdict) (records []*kgo.Record, err error) {
	own, now := s.stage.project.Own(), s.stage.clock().UnixMilli()
	for _, v := range verdicts {
		for _, e := range v.Events {
			if s.known.has(e.ID) {
				continue
			}
			e.EmittedAt = now
			value, err := e.Marshal()
			if err != nil {
				return nil, fmt.Errorf("encoding verdict: %w", err)
			}
			records = append(records, &kgo.Record{Topic: own.Drift.Name, Key: []byte(e.Model), Value: value})
		}
		if v.Retrain == nil || s.known.has(v.Retrain.ID) {
			continue
		}
		request := *v.Retrain
		request.RequestedAt = now
		value, err := request.Marshal()
		if err != nil {
			return nil, fmt.Errorf("encoding retrain request: %w", err)
		}
		records = append(records, &kgo.Record{Topic: own.Retrain.Name, Key: []byte(request.Model), Value: value})
	}
	return records, nil
}
