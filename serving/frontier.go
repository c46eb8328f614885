package serving

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/millrace/millrace/features/online"
	"github.com/millrace/millrace/internal/failure"
	"github.com/millrace/millrace/project"
)

// frontier reads features no sooner than they are there. Under clock: event a record of the past asks for features as of its own time,
// and the feature groups, which read other topics, may not have come so far: a score would then rest on less than the training set
// did. So a batch waits until each partition that it reads from has applied an event at least as new as the batch's newest, or has
// nothing left to apply, and is not being rebuilt. The wait is bounded: a group that stands still delays scores, it does not stop them.
type frontier struct {
	scorer *streamScorer
	admin  *kadm.Client
}

func newFrontier(s *streamScorer, admin *kadm.Client) *frontier {
	return &frontier{scorer: s, admin: admin}
}

// The pauses between two looks at the groups' positions.
const (
	firstPause = 2 * time.Millisecond
	lastPause  = 50 * time.Millisecond
)

// read gives the entries of refs, having waited, under clock: event, for event time t. While one of them is being rebuilt it is
// Unavailable, as when Redis does not answer: a prediction is made once, and what it would be made of is on its way.
func (f *frontier) read(ctx context.Context, refs []online.Ref, t int64) ([]online.Entry, error) {
	entries, err := f.readAt(ctx, refs, t)
	if err != nil {
		return nil, err
	}
	for i := range entries {
		if e := &entries[i]; e.Rebuilding {
			g := f.scorer.stage.catalog.now.Load().numbers[refs[i].Group].group
			return nil, failure.New(failure.Unavailable, g.Name, "partition %d is being computed from its history", e.Partition).
				WithHint("it is as soon as the stream role has done so")
		}
	}
	return entries, nil
}

func (f *frontier) readAt(ctx context.Context, refs []online.Ref, t int64) ([]online.Entry, error) {
	entries, err := f.get(ctx, refs)
	if err != nil || !f.scorer.event || t == noTime {
		return entries, err
	}
	behind := probes(refs, entries, t)
	if len(behind) == 0 {
		return entries, nil
	}
	m, name := f.scorer.stage.metrics, f.scorer.d.model.Name
	start := f.scorer.stage.deps.Clock()
	reached, err := f.await(ctx, behind, t)
	m.waitSeconds.WithLabelValues(name).Observe(f.scorer.stage.deps.Clock().Sub(start).Seconds())
	if err != nil {
		return nil, err
	}
	if !reached {
		m.waitGivenUp.WithLabelValues(name).Inc()
	}
	return f.get(ctx, refs)
}

func (f *frontier) get(ctx context.Context, refs []online.Ref) ([]online.Entry, error) {
	ctx, cancel := context.WithTimeout(ctx, f.scorer.stage.cfg.ReadTimeout)
	defer cancel()
	return f.scorer.stage.fetch.get(ctx, refs)
}

// isAt reports whether all is there that a partition will have of the time before t, as far as its position tells.
func isAt(e *online.Entry, t int64) bool { return !e.Rebuilding && e.Position.Newest >= t }

// probes is one of the refs for each partition that has not reached t.
func probes(refs []online.Ref, entries []online.Entry, t int64) []online.Ref {
	seen := map[place]bool{}
	var behind []online.Ref
	for i := range entries {
		p := place{refs[i].Group, entries[i].Partition}
		if !isAt(&entries[i], t) && !seen[p] {
			seen[p] = true
			behind = append(behind, refs[i])
		}
	}
	return behind
}

// await waits until every partition behind has reached t or has nothing left; false when it did not come to that in time.
func (f *frontier) await(ctx context.Context, behind []online.Ref, t int64) (reached bool, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	over := time.NewTimer(f.scorer.stage.cfg.FeatureWait)
	defer over.Stop()
	for pause := firstPause; ; pause = min(2*pause, lastPause) {
		// The ends are asked for before the positions: what a position has reached after that, it had all there was.
		ends := f.ends(ctx, behind)
		entries, err := f.get(ctx, behind)
		if err != nil {
			return false, err
		}
		var left []online.Ref
		for i, e := range entries {
			end, drained := ends[behind[i].Group][e.Partition]
			if !isAt(&e, t) && (e.Rebuilding || !drained || e.Position.Next < end) {
				left = append(left, behind[i])
			}
		}
		if behind = left; len(behind) == 0 {
			return true, nil
		}
		again := time.NewTimer(pause)
		select {
		case <-again.C:
		case <-over.C:
			again.Stop()
			return false, nil
		case <-ctx.Done():
			again.Stop()
			return false, ctx.Err()
		}
	}
}

// ends gives, for each group whose source has been re-keyed to its end, the end offsets of the topic it is computed from. A group whose
// records are still on their way from the source is left out, as is one that Kafka does not answer for: both are looked at again.
func (f *frontier) ends(ctx context.Context, behind []online.Ref) map[int]map[int32]int64 {
	ctx, cancel := context.WithTimeout(ctx, f.scorer.stage.cfg.ReadTimeout)
	defer cancel()
	ends := map[int]map[int32]int64{}
	for _, ref := range behind {
		if _, done := ends[ref.Group]; done {
			continue
		}
		ends[ref.Group] = nil
		g := f.scorer.stage.catalog.now.Load().numbers[ref.Group].group
		if !g.Direct && slices.ContainsFunc(g.Source.Roots(), func(s *project.Source) bool { return !f.rekeyed(ctx, s) }) {
			continue
		}
		listed, err := f.admin.ListEndOffsets(ctx, g.KeyedTopic)
		if err != nil || listed.Error() != nil {
			continue
		}
		ends[ref.Group] = map[int32]int64{}
		listed.Each(func(o kadm.ListedOffset) { ends[ref.Group][o.Partition] = o.Offset })
	}
	return ends
}

// rekeyed reports whether the stream role has handed on every record of a source, by the offsets that it committed.
func (f *frontier) rekeyed(ctx context.Context, source *project.Source) bool {
	group := f.scorer.stage.deps.Project.Name + ".source." + source.Name
	listed, err := f.admin.ListEndOffsets(ctx, source.Topic)
	if err != nil || listed.Error() != nil {
		return false
	}
	committed, err := f.admin.FetchOffsetsForTopics(ctx, group, source.Topic)
	if err != nil && !errors.Is(err, kerr.GroupIDNotFound) {
		return false
	}
	starts, err := f.admin.ListStartOffsets(ctx, source.Topic)
	if err != nil {
		return false
	}
	all := true
	listed.Each(func(end kadm.ListedOffset) {
		c, ok := committed.Lookup(end.Topic, end.Partition)
		done := ok && c.Err == nil && c.At >= end.Offset
		if start, ok := starts.Lookup(end.Topic, end.Partition); ok && start.Offset == end.Offset {
			done = true // there is nothing in it, and so nothing was ever committed
		}
		all = all && done
	})
	return all
}
