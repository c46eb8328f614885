package ingest

import (
	"context"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/sync/errgroup"

	"github.com/millrace/millrace/features/online"
	"github.com/millrace/millrace/internal/failure"
	"github.com/millrace/millrace/streams"
)

// filler computes the state of one version of a group from its source's history: the offline events, and behind them what the source's
// topic has. It fills those partitions that have no position, or that an earlier filler left unfinished.
//
//	reader per source partition ─► merge by event time ─► fillWorker per core: entities of its partitions ─► Redis
//
// Each source partition is read in the order of its offsets, as its worker read it; between them the one goes first that has come less far
// in event time, so that an event is not late which was not. An entity whose events are all in one source partition gets the very bits
// that it had.
//
// The position of a partition that is being filled has Next = online.Filling, and in Sources what was applied; each write carries the states and
// that position, on condition of the last one. So a filler that dies is taken up where it was, and of two at once one loses.
//
// What is filled ends where the version's own worker had come, by the offset that it committed to Kafka, so that this does what is left: rows
// and dead letters come of the same events as if nothing had been. A version that is new ends where the source's worker has come; its
// worker goes on in the topic that it reads, from its start, and tells by their source offset the records that were filled.
// Where that topic has everything itself (whole.go), nothing is filled: it is read from its start.
type filler struct {
	*Stage
	group   *group
	writer  *online.Writer
	sources []past          // of all roots, one after the other, by partition
	rootAt  []int           // of each root, the index of its partition 0 in sources
	targets []*target       // that are to be filled, by partition; nil for others
	cached  cacheShare      // of the targets: as much as what runs beside the filling has
	begins  []int64         // of the topic that the group reads, by partition: first offset that it has
	ends    []int64         // the same: first offset that it has not
	own     map[int32]int64 // the same: offset that the version's own worker has committed
	total   int64
}

// past is the history of one source partition: offline [0, kept), then the topic [max(kept, first), end).
type past struct {
	root              int // index in the group's roots
	partition         int32
	kept, first, next int64 // next: first offset wanted
	end               int64
}

// FillProgress is called with source offsets done and in all.
type FillProgress func(done, total int64)

// fill fills what is not. It returns when every partition of the version has a position to go on from.
func (s *Stage) fill(ctx context.Context, g *group, progress FillProgress) error {
	f := &filler{Stage: s, group: g, writer: online.NewWriter(s.deps.Redis, s.deps.Project.Name, g.Name, g.version.ID)}
	if err := f.begin(ctx); err != nil {
		return err
	}
	if len(f.unfilled()) == 0 {
		return nil
	}
	if err := f.checkKept(); err != nil {
		return err
	}
	s.log.Info("filling", "group", g.Name, "version", g.version.ID, "offsets", f.total)
	if progress == nil {
		progress = func(int64, int64) {}
	}
	if err := f.run(ctx, progress); err != nil {
		return err
	}
	progress(f.total, f.total)
	return nil
}

// checkKept refuses to look up again what was looked up for events that nothing is kept of: the tables may have changed.
func (f *filler) checkKept() error {
	for _, src := range f.group.roots {
		if src.Chained() && src.events == nil && f.total > 0 {
			return failure.New(failure.BadProject, f.group.Name, "version %s cannot be computed from history: the events of %s are not kept offline", f.group.version.ID, src.Name).
				WithHint("give the stream role a folder for offline files")
		}
		if len(src.Enrichments) > 0 && src.events == nil && f.total > 0 {
			return failure.New(failure.BadProject, f.group.Name, "version %s cannot be computed from history: %s looks up in tables, and its events are not kept offline", f.group.version.ID, src.Name).
				WithHint("give the stream role a folder for offline files")
		}
	}
	return nil
}

// begin finds out what is there and what is to be done.
func (f *filler) begin(ctx context.Context) (err error) {
	if f.begins, err = streams.FirstOffsets(ctx, f.producer, f.group.KeyedTopic); err != nil {
		return err
	}
	if err := f.survey(ctx); err != nil {
		return err
	}
	whole, err := f.whole(ctx)
	if err != nil {
		return err
	}
	if err := f.clear(ctx); err != nil {
		return err
	}
	if f.own, err = streams.Committed(ctx, f.producer, GroupGroup(f.deps.Project, f.group.Name, f.group.version.ID)+f.suffix, f.group.KeyedTopic); err != nil {
		return err
	}
	if f.ends, err = streams.EndOffsets(ctx, f.producer, f.group.KeyedTopic); err != nil {
		return err
	}
	f.targets = make([]*target, f.group.version.Partitions)
	f.cached.bytes = f.cfg.CacheBytes
	f.cached.caches.Store(int64(len(f.targets)))
	for k := range f.targets {
		l, err := f.writer.LoadRows(ctx, int32(k))
		if err != nil {
			return err
		}
		switch {
		case filled(l):
		case whole && f.begins[k] == 0 && len(l.Raw) == 0:
			begin := online.Position{Until: f.reached(int32(k))}
			if _, err := f.writer.Write(ctx, int32(k), online.Batch{Next: begin}); err != nil { // to be read from its start
				return err
			}
		default:
			f.targets[k] = newTarget(f, int32(k), l)
		}
	}
	if err := f.limit(ctx); err != nil {
		return err
	}
	for p := range f.sources {
		h := &f.sources[p]
		h.next = h.end
		for _, t := range f.unfilled() {
			h.next = min(h.next, t.seen[p]+1)
		}
		f.total += h.end - h.next
	}
	return nil
}

// clear deletes the states of partitions that have no position: what is computed again must not be added to them. A version that was
// declared beside another and has no position at all was never begun.
func (f *filler) clear(ctx context.Context) error {
	var without []int32
	for k := range f.group.version.Partitions {
		_, raw, err := f.writer.Load(ctx, k)
		if err != nil {
			return err
		}
		if len(raw) == 0 {
			without = append(without, k)
		}
	}
	active, err := f.isActive(ctx, f.group)
	if err != nil || len(without) == 0 || !active && len(without) == int(f.group.version.Partitions) {
		return err
	}
	return f.writer.Clear(ctx, without...)
}

// reached is the offset of a partition up to which its states were once computed, as far as Kafka knows: what was committed to it by the
// version's own worker, and by that of the source where the group is computed there. Nothing was of a new project.
func (f *filler) reached(k int32) int64 {
	until := f.own[k]
	if f.group.Direct {
		until = max(until, f.sources[k].end)
	}
	return max(0, min(until, f.ends[k]))
}

// limit finds for each partition where its worker goes on, and up to where the history of each source partition is its: what lies on the
// topic from there on is the worker's.
func (f *filler) limit(ctx context.Context) error {
	for _, t := range f.unfilled() {
		k := t.partition
		for p := range f.sources {
			t.limit[p] = f.sources[p].end
		}
		applied, known := f.own[k]
		t.next = max(f.begins[k], min(applied, f.ends[k]))
		if f.group.Direct {
			if known && !f.anew() {
				t.limit[k] = t.next
			}
			t.next = max(t.next, t.limit[k], t.seen[k]+1)
		}
		if f.group.Direct || !known {
			continue
		}
		err := f.records(ctx, f.group.KeyedTopic, k, t.next, f.ends[k], func(r *kgo.Record) error {
			root, o, err := f.originOf(r, f.group.roots)
			if p, ok := f.index(root, o.partition); err == nil && ok {
				t.limit[p] = min(t.limit[p], o.offset)
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// index finds a partition of a root in sources.
func (f *filler) index(root int, partition int32) (int, bool) {
	end := len(f.sources)
	if root+1 < len(f.rootAt) {
		end = f.rootAt[root+1]
	}
	p := f.rootAt[root] + int(partition)
	return p, p < end
}

// survey finds the history of each source partition, up to where the source's worker has come.
func (f *filler) survey(ctx context.Context) error {
	for i := range f.group.roots {
		f.rootAt = append(f.rootAt, len(f.sources))
		if err := f.surveyRoot(ctx, i); err != nil {
			return err
		}
	}
	return nil
}

func (f *filler) surveyRoot(ctx context.Context, root int) error {
	src := f.group.roots[root]
	topic := src.Topic
	done, err := streams.Committed(ctx, f.producer, SourceGroup(f.deps.Project, src.Source)+f.suffix, topic)
	if err != nil {
		return err
	}
	ends, err := streams.EndOffsets(ctx, f.producer, topic)
	if err != nil {
		return err
	}
	firsts, err := streams.FirstOffsets(ctx, f.producer, topic)
	if err != nil {
		return err
	}
	for p := range ends {
		h := past{root: root, partition: int32(p), first: firsts[p], end: min(done[int32(p)], ends[p])}
		if src.events != nil {
			if h.kept, err = f.keptOf(ctx, src, &h); err != nil {
				return err
			}
		}
		switch {
		case src.Chained() && src.events != nil: // what is committed to Kafka is in the files, which have it by its name
			h.first, h.end = 0, h.kept
		case f.group.Direct && f.anew():
			h.end = ends[p] // what lies where another partition count put it would not be found by its worker
		case h.kept < min(h.first, h.end): // the source has lost records that the group's own topic may have
			h.end = h.kept
		}
		f.sources = append(f.sources, h)
	}
	return nil
}

// keptOf is the end of the offline events of a source partition. What was looked up for an event is kept with it, so that history ends
// where it is not kept yet: this waits until everything is that the source's worker has passed on.
func (f *filler) keptOf(ctx context.Context, src *source, h *past) (int64, error) {
	tick := time.NewTicker(fillLook)
	defer tick.Stop()
	over := time.NewTimer(keptWait)
	defer over.Stop()
	for {
		kept, err := src.events.Next(h.partition)
		if err != nil || len(src.Enrichments) == 0 || kept >= h.end {
			return kept, err
		}
		select {
		case <-ctx.Done():
			return 0, ctx.Err()
		case <-over.C:
			return 0, failure.New(failure.Unavailable, src.Name, "events of partition %d from offset %d on are not kept offline yet, with what was looked up for them", h.partition, kept).
				WithHint("they are as soon as the stream role runs")
		case <-tick.C:
		}
	}
}

// keptWait is how long filling waits for the events of a source that looks up to be kept offline.
const keptWait = 30 * time.Second

func (f *filler) unfilled() (all []*target) {
	for _, t := range f.targets {
		if t != nil {
			all = append(all, t)
		}
	}
	return all
}

// run reads, merges and applies.
func (f *filler) run(ctx context.Context, progress FillProgress) error {
	all, ctx := errgroup.WithContext(ctx)
	streamsOf := make([]*eventStream, len(f.sources))
	for p := range f.sources {
		h := &f.sources[p]
		st := &eventStream{source: p, batches: make(chan []event, readAhead)}
		streamsOf[p] = st
		all.Go(func() error {
			defer close(st.batches)
			return f.read(ctx, h, st.batches)
		})
	}
	workers := f.workers()
	for _, a := range workers {
		all.Go(func() error { return a.run(ctx) })
	}
	all.Go(func() error {
		defer func() {
			for _, a := range workers {
				close(a.work)
			}
		}()
		return f.merge(ctx, streamsOf, workers, progress)
	})
	return all.Wait()
}

// final is the position that a filled partition has.
func (f *filler) final(t *target) online.Position {
	for p, limit := range t.limit {
		t.seen[p] = max(t.seen[p], limit-1)
	}
	end := online.Position{Next: t.next, Newest: t.newest}
	if !f.group.Direct {
		end.Sources = t.progress()
	}
	return end
}
