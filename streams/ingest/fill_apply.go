package ingest

import (
	"context"
	"runtime"

	"github.com/millrace/millrace/features"
	"github.com/millrace/millrace/features/online"
	"github.com/millrace/millrace/internal/failure"
)

// routed is an event with the source partition that it is of, as index of filler.sources.
type routed struct {
	source int
	event
}

// lot is events of one partition. mark, when there is one, says behind them how far each source partition has been read.
type lot struct {
	partition int32
	events    []routed
	mark      []int64
}

// fillWorker applies the events of some of the partitions.
type fillWorker struct {
	*filler
	work chan lot
	mine []*target

	materializer materializer
}

// target is a partition that is being filled.
type target struct {
	partition int32
	raw       []byte                   // its position as Redis has it
	seen      []int64                  // by index of filler.sources: highest offset applied or passed
	limit     []int64                  // the same: first offset that is not filled
	next      int64                    // where the group's worker goes on
	sources   []online.SourcePartition // what seen and limit are of
	newest    int64
	cache     *cache
	dirty     []*cached
	bytes     int64 // of the dirty, about
}

// rebuildBytes is the most states that one write carries while a partition is filled, about.
const rebuildBytes = 16 << 20

func newTarget(f *filler, partition int32, l online.Loaded) *target {
	t := &target{partition: partition, raw: l.Raw, seen: make([]int64, len(f.sources)), limit: make([]int64, len(f.sources)), newest: l.Position.Newest}
	for p := range t.seen {
		t.seen[p] = -1
	}
	for p := range f.sources {
		h := &f.sources[p]
		from := online.SourcePartition{Source: f.group.roots[h.root].Name, Partition: h.partition}
		t.sources = append(t.sources, from)
		if offset, there := l.Position.Sources[from]; there {
			t.seen[p] = offset
		}
	}
	t.cache = newCache(&f.cached, f.group.Group.Group)
	return t
}

func (f *filler) workers() []*fillWorker {
	targets := f.unfilled()
	all := make([]*fillWorker, min(runtime.GOMAXPROCS(0), len(f.targets)))
	for i := range all {
		all[i] = &fillWorker{filler: f, work: make(chan lot, readAhead)}
	}
	for _, t := range targets {
		a := all[int(t.partition)%len(all)]
		a.mine = append(a.mine, t)
	}
	return all
}

func (a *fillWorker) give(ctx context.Context, l lot) error {
	select {
	case a.work <- l:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// run applies until there is no more, and then lets the group's workers have the partitions.
func (a *fillWorker) run(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case l, more := <-a.work:
			if !more {
				return a.finish(ctx)
			}
			t := a.targets[l.partition]
			if err := a.apply(ctx, t, l.events); err != nil {
				return err
			}
			if l.mark != nil {
				for p, next := range l.mark {
					t.seen[p] = max(t.seen[p], min(next, t.limit[p])-1)
				}
				if err := a.write(ctx, t, online.Position{Next: online.Filling, Newest: t.newest, Sources: t.progress()}); err != nil {
					return err
				}
			}
		}
	}
}

func (a *fillWorker) finish(ctx context.Context) error {
	if err := ctx.Err(); err != nil { // the merge may have ended for that
		return err
	}
	for _, t := range a.mine {
		if err := a.write(ctx, t, a.final(t)); err != nil {
			return err
		}
	}
	return nil
}

// progress is seen as the position has it.
func (t *target) progress() map[online.SourcePartition]int64 {
	var all map[online.SourcePartition]int64
	for p, offset := range t.seen {
		if offset >= 0 {
			if all == nil {
				all = map[online.SourcePartition]int64{}
			}
			all[t.sources[p]] = offset
		}
	}
	return all
}

// apply adds events to their entities; those of which the cache has none are read from Redis together first.
func (a *fillWorker) apply(ctx context.Context, t *target, events []routed) error {
	var missing []*cached
	entities := make([]*cached, len(events))
	for i := range events {
		e := &events[i]
		if e.offset <= t.seen[e.source] || e.offset >= t.limit[e.source] {
			continue
		}
		t.seen[e.source] = e.offset
		if e.passed {
			t.newest = max(t.newest, e.at)
			continue
		}
		if entities[i] = t.cache.get(e.key); entities[i] == nil {
			entities[i] = t.cache.add(e.key)
			missing = append(missing, entities[i])
		}
	}
	if err := a.fetch(ctx, t, missing); err != nil {
		return err
	}
	for i, c := range entities {
		if c == nil {
			continue
		}
		entity := t.cache.open(c)
		outcome, err := a.group.Add(entity, events[i].row, events[i].at, a.sequence(&events[i]))
		if err != nil && !failure.Of(err).DeadLetter() {
			return err
		}
		if err != nil || outcome == features.TooLate {
			continue // a dead letter, when it was first applied
		}
		t.newest = max(t.newest, events[i].at, 1) // 0 says that there was no event (online.Position.Untouched)
		if outcome != features.Applied {
			continue
		}
		t.cache.keep(c, entity)
		if !c.dirty {
			c.dirty = true
			t.dirty = append(t.dirty, c)
			t.bytes += c.bytes
		}
	}
	if len(t.dirty) >= a.cfg.RebuildEntities || t.bytes >= rebuildBytes {
		if err := a.write(ctx, t, online.Position{Next: online.Filling, Newest: t.newest, Sources: t.progress()}); err != nil {
			return err
		}
	}
	t.cache.trim()
	return nil
}

func (f *filler) sequence(e *routed) int64 {
	h := &f.sources[e.source]
	return f.group.Source.Sequence(f.group.roots[h.root].Source, h.partition, e.offset)
}

// fetch reads entities from Redis, where there may be any.
func (a *fillWorker) fetch(ctx context.Context, t *target, missing []*cached) error {
	if len(missing) == 0 {
		return nil
	}
	var states [][]byte
	if len(t.raw) > 0 {
		keys := make([]string, len(missing))
		for i, c := range missing {
			keys[i] = c.key
		}
		var raw []byte
		var err error
		if states, raw, err = a.writer.StatesAt(ctx, t.partition, keys); err != nil {
			return err
		}
		if string(raw) != string(t.raw) {
			return failure.New(failure.Conflict, a.group.Name, "partition %d is filled by another, too", t.partition)
		}
	}
	for i, c := range missing {
		var state []byte
		if states != nil {
			state = states[i]
		}
		if err := t.cache.decode(c, state); err != nil {
			return err
		}
	}
	return nil
}

// write writes what has changed, with the position.
func (a *fillWorker) write(ctx context.Context, t *target, next online.Position) error {
	b := online.Batch{Expected: t.raw, Next: next, TTL: a.group.expiry, RowsMode: online.RowsKeep}
	a.materializer.batch(&b, a.group, t.cache, t.dirty, a.asOf(t.newest))
	for _, c := range t.dirty {
		b.Keys, b.States = append(b.Keys, c.key), append(b.States, t.cache.open(c).AppendBinary(nil))
		t.cache.measure(c)
		c.dirty = false
	}
	t.dirty, t.bytes = t.dirty[:0], 0
	var err error
	if t.raw, err = a.writer.Write(ctx, t.partition, b); err != nil {
		return err
	}
	return a.at("group: rebuilding")
}
