package serving

import (
	"context"
	"errors"
	"math"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/millrace/millrace/features/online"
	"github.com/millrace/millrace/internal/failure"
	"github.com/millrace/millrace/project"
	"github.com/millrace/millrace/streams"
)

// frontier reads features no sooner than they are there. Under clock: event a record of the past asks for features as of its own time,
// and the feature groups, which read other topics, may not have come so far: a score would then rest on less than the training set
// did. So a batch waits until each partition that it reads from has applied, of every partition of every source behind it, an event newer than
// the batch's newest by the source's lateness, or all that there was when the batch came. The wait is bounded: a group that stands still
// delays scores, it does not stop them.
//
// How far a partition of a group has come is told in three ways, of which any will do:
//
//   - Its position has, by source partition, the newest event time that it applied. Records come in the order of their source partition, so
//     what was before has been applied. Of a source partition that seldom has an entity of this one, the position knows nothing new.
//   - The source's workers tell, with the offsets that they commit, up to which event time they have handed on their partition. Once all are
//     past the batch, the end of the group's topic is asked for: a position there has all of it.
//   - Where a source partition has no such event, all that it had when the batch came has to be handed on.
type frontier struct {
	scorer *streamScorer
	admin  *kadm.Client
	counts map[string]int // partitions of topics, as they were listed last
	marks  map[int]mark   // by number of a version
}

// mark says that every event from before a time that can still count is below these offsets of a group's topic, one for each partition.
type mark struct {
	until int64
	ends  []int64
}

func newFrontier(s *streamScorer, admin *kadm.Client) *frontier {
	return &frontier{scorer: s, admin: admin, counts: map[string]int{}, marks: map[int]mark{}}
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
			return nil, failure.New(failure.Unavailable, f.group(refs[i].Group).Name, "partition %d is being computed from its history", e.Partition).
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
	behind := f.behind(refs, entries, t)
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

// behind is the partitions, by group, that are not known to have reached t.
func (f *frontier) behind(refs []online.Ref, entries []online.Entry, t int64) map[int]map[int32]bool {
	seen := map[place]bool{}
	behind := map[int]map[int32]bool{}
	for i := range entries {
		p := place{refs[i].Group, entries[i].Partition}
		if seen[p] {
			continue
		}
		seen[p] = true
		if f.reached(p, &entries[i].Position, t) {
			continue
		}
		if behind[p.group] == nil {
			behind[p.group] = map[int32]bool{}
		}
		behind[p.group][p.partition] = true
	}
	return behind
}

// reached reports whether a position alone tells that its partition has come to t.
func (f *frontier) reached(p place, at *online.Position, t int64) bool {
	if at.Rebuilding() {
		return false
	}
	if m, ok := f.marks[p.group]; ok && m.until >= t && int(p.partition) < len(m.ends) && at.Next >= m.ends[p.partition] {
		return true
	}
	g := f.group(p.group)
	if g.Direct {
		return inOrder(g.Source) && at.Newest >= past(g.Source, t)
	}
	for _, root := range g.Source.Roots() {
		n := f.counts[root.Topic]
		if n == 0 || !inOrder(root) {
			return false
		}
		for partition := range n {
			newest, known := at.SourceTimes[online.SourcePartition{Source: root.Name, Partition: int32(partition)}]
			if !known || newest < past(root, t) {
				return false
			}
		}
	}
	return true
}

func (f *frontier) group(number int) *project.Group {
	return f.scorer.stage.catalog.now.Load().numbers[number].group
}

// past is the event time at which a source has no events before t any more, late ones included.
func past(s *project.Source, t int64) int64 { return t + s.Lateness.Milliseconds() }

// inOrder reports whether the partitions of a source are each in the order of its events, but for their lateness. What a re-keyed group gives
// out is in the order in which it came to the group, from partitions that do not wait for each other.
func inOrder(s *project.Source) bool { return !s.Chained() || s.Of.Direct && inOrder(s.Of.Source) }

// await waits until every partition behind has reached t; false when it did not come to that in time.
func (f *frontier) await(ctx context.Context, behind map[int]map[int32]bool, t int64) (reached bool, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	over := time.NewTimer(f.scorer.stage.cfg.FeatureWait)
	defer over.Stop()
	w := &wait{frontier: f, t: t, ends: map[string][]int64{}}
	for pause := firstPause; ; pause = min(2*pause, lastPause) {
		if reached, err := w.look(ctx, behind); reached || err != nil {
			return reached, err
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

// wait is a batch's. What it has listed once it does not list again: of what comes after the batch it waits for none.
type wait struct {
	*frontier
	t    int64
	ends map[string][]int64 // of topics, by partition
}

// look reports whether all have come to the batch's time.
func (w *wait) look(ctx context.Context, behind map[int]map[int32]bool) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, w.scorer.stage.cfg.ReadTimeout)
	defer cancel()
	all := true
	for number, partitions := range behind {
		reached, err := w.groupReached(ctx, number, func(p int32) bool { return partitions[p] })
		if err != nil {
			return false, err
		}
		all = all && reached
	}
	return all, nil
}

// groupReached reports whether the partitions of a version that are needed have come to the batch's time. Kafka that does not answer is asked
// again by the next look.
func (w *wait) groupReached(ctx context.Context, number int, needed func(int32) bool) (bool, error) {
	g := w.group(number)
	handed, until := true, int64(math.MaxInt64)
	for _, root := range g.Source.Roots() {
		ok, to, err := w.handedOn(ctx, g, root)
		if err != nil {
			return false, err
		}
		handed, until = handed && ok, min(until, to)
	}
	var ends []int64
	if handed {
		listed := w.ends[g.KeyedTopic] != nil
		ends = w.endsOf(ctx, g.KeyedTopic)
		if ends != nil && !listed && until >= w.t { // ends from before do not know what has been handed on since
			w.marks[number] = mark{until, ends}
		}
	}
	positions, err := w.scorer.stage.catalog.now.Load().reader.Positions(ctx, number) // after the ends: who is there had all there was
	if err != nil {
		return false, err
	}
	for p := range positions {
		partition, at := int32(p), &positions[p]
		drained := p < len(ends) && at.Next >= ends[p]
		if needed(partition) && !drained && !w.reached(place{number, partition}, at, w.t) {
			return false, nil
		}
	}
	return true, nil
}

// handedOn reports whether a source's records of before the batch are in the topic of a group that reads it, and up to which event time that
// holds for whatever else is written to the source; math.MinInt64 when for none.
func (w *wait) handedOn(ctx context.Context, by *project.Group, s *project.Source) (handed bool, until int64, err error) {
	until = math.MinInt64
	if s.Chained() { // its own records are still to come while the group that gives them out is behind
		number, _ := w.scorer.stage.catalog.activeOf(s.Of.Name)
		given, err := w.groupReached(ctx, number, func(int32) bool { return true })
		if err != nil || !given {
			return false, until, err
		}
	}
	if by.Direct { // its workers read the source's topic themselves
		return true, until, nil
	}
	ends := w.endsOf(ctx, s.Topic)
	if ends == nil {
		return false, until, nil
	}
	progress := w.progress(ctx, s, len(ends))
	if progress == nil {
		return false, until, nil
	}
	handed, until = true, math.MaxInt64
	for p, end := range ends {
		newest := int64(math.MinInt64)
		if inOrder(s) && progress[p].Newest != 0 {
			newest = progress[p].Newest - s.Lateness.Milliseconds()
		}
		handed, until = handed && (newest >= w.t || progress[p].Next >= end), min(until, newest)
	}
	return handed, until, nil
}

// endsOf is the ends of a topic's partitions when the wait first asked, and nil while Kafka does not tell.
func (w *wait) endsOf(ctx context.Context, topic string) []int64 {
	if ends := w.ends[topic]; ends != nil {
		return ends
	}
	listed, err := w.admin.ListEndOffsets(ctx, topic)
	if err != nil || listed.Error() != nil || len(listed[topic]) == 0 {
		return nil
	}
	ends := make([]int64, len(listed[topic]))
	listed.Each(func(o kadm.ListedOffset) { ends[o.Partition] = o.Offset })
	w.ends[topic], w.counts[topic] = ends, len(ends)
	return ends
}

// progress is how far the workers of a source say that they have handed on n partitions, and nil when Kafka does not tell.
func (w *wait) progress(ctx context.Context, s *project.Source, n int) []streams.Progress {
	committed, err := w.admin.FetchOffsetsForTopics(ctx, w.scorer.stage.deps.Project.Name+".source."+s.Name, s.Topic)
	if err != nil && !errors.Is(err, kerr.GroupIDNotFound) {
		return nil
	}
	starts, err := w.admin.ListStartOffsets(ctx, s.Topic)
	if err != nil || starts.Error() != nil {
		return nil
	}
	progress := make([]streams.Progress, n)
	starts.Each(func(start kadm.ListedOffset) { // what is below was handed on, or is gone: nothing is committed of an empty partition
		if int(start.Partition) < n {
			progress[start.Partition].Next = start.Offset
		}
	})
	committed.Each(func(c kadm.OffsetResponse) {
		if c.Err != nil || c.Topic != s.Topic || c.At < 0 || int(c.Partition) >= n {
			return
		}
		p, told := streams.ParseProgress(c.Metadata)
		if !told {
			p.Next = c.At
		}
		progress[c.Partition] = streams.Progress{Next: max(p.Next, progress[c.Partition].Next), Newest: p.Newest}
	})
	return progress
}
