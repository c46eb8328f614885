package ingest

import (
	"context"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace/millrace/internal/failure"
	"github.com/millrace/millrace/schemas"
	"github.com/millrace/millrace/streams"
)

// groupWorker is the way of one partition of a keyed topic: tell duplicates, decode, apply.
type groupWorker struct {
	*applier
	eventTimes []eventTime // of each root
	holes      []holes     // of each root
	untold     bool        // Kafka's committed offset is behind the position that the worker started from
	items      []item
	events     []schemas.Row // of the items, as their sources have them
}

func newGroupWorker(s *Stage, g *group, partition int32) *groupWorker {
	return &groupWorker{applier: newApplier(s, g, partition, make(chan landing, 1)), items: make([]item, chunk), events: make([]schemas.Row, chunk)}
}

// Start is in streams.Worker.
func (w *groupWorker) Start(ctx context.Context, committed int64) (int64, error) {
	if declared, err := w.stillDeclared(ctx); err != nil {
		return 0, err
	} else if !declared {
		return 0, failure.New(failure.Unavailable, w.group.Name, "version %s is not kept any more", w.group.version.ID)
	}
	w.landed = make(chan landing, 1) // what still flies belongs to the past
	w.eventTimes = w.eventTimes[:0]
	for _, root := range w.group.roots {
		w.eventTimes = append(w.eventTimes, newEventTime(w.deps.Project, root.Source, w.deps.Clock))
	}
	err := w.start(ctx, committed)
	w.holes = make([]holes, len(w.group.roots))
	for i := range w.holes {
		w.holes[i].next = w.next
	}
	if w.untold = false; err == nil && w.next > committed {
		w.untold, err = w.within(ctx, w.next)
	}
	return w.next, err
}

// within reports whether the topic is as long as a position says. One that was made anew may not be: what is committed of it must not be said
// before the records have shown that.
func (w *groupWorker) within(ctx context.Context, next int64) (bool, error) {
	end, err := streams.EndOffset(ctx, w.producer, w.group.KeyedTopic, w.partition)
	return err == nil && next <= end, err
}

// Run is in streams.Worker. While a write is on its way, the next records are applied.
func (w *groupWorker) Run(ctx context.Context, in *streams.Input) error {
	w.entered(&w.progress, in)
	defer w.left(&w.progress)
	if w.untold { // else Kafka would have it behind until the next record comes
		in.Done(w.next)
	}
	flushing := time.NewTimer(w.flushEvery(0, in))
	defer flushing.Stop()
	keeping := time.NewTicker(w.cfg.OfflineEvery)
	defer keeping.Stop()
	verifying := time.NewTicker(w.cfg.VerifyEvery)
	defer verifying.Stop()
	always := make(chan struct{})
	close(always)

	var records []*kgo.Record
	ended := false
	for {
		if err := w.flushIfDue(ctx); err != nil {
			return err
		}
		if ended && len(records) == 0 {
			return w.finish(ctx, in)
		}
		var ready, work <-chan struct{}
		switch {
		case w.full():
		case len(records) > 0:
			work = always
		default:
			ready = in.Ready()
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case l := <-w.landed:
			if err := w.settle(l); err != nil {
				return err
			}
			in.Done(w.done)
			flushing.Reset(w.flushEvery(l.took, in))
		case <-flushing.C:
			w.due = true
		case <-keeping.C:
			if err := w.keep(); err != nil {
				return err
			}
		case <-verifying.C:
			if err := w.verify(ctx); err != nil {
				return err
			}
		case <-ready:
			records, ended = in.Take()
		case <-work:
			n := min(len(records), chunk)
			if err := w.process(ctx, records[:n]); err != nil {
				return err
			}
			records = records[n:]
			in.Processed(n)
		}
	}
}

// finish writes what is pending, and returns when Redis has it.
func (w *groupWorker) finish(ctx context.Context, in *streams.Input) error {
	if err := w.keep(); err != nil {
		return err
	}
	for w.flight != nil || w.pending() {
		if w.flight == nil {
			if err := w.flush(ctx); err != nil {
				return err
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case l := <-w.landed:
			if err := w.settle(l); err != nil {
				return err
			}
			in.Done(w.done)
		}
	}
	return w.closeRows()
}

// process decodes records and applies them.
func (w *groupWorker) process(ctx context.Context, records []*kgo.Record) error {
	items := w.items[:len(records)]
	for i, r := range records {
		if err := w.read(ctx, r, &items[i], &w.events[i]); err != nil {
			return err
		}
	}
	if err := w.apply(ctx, items, records[len(records)-1].Offset+1); err != nil {
		return err
	}
	streams.Recycle(records)
	return nil
}

// read decodes a record, unless it was applied before or is none of ours. event is the memory for it as its source has it, which is also
// the item's row where the group reads that source alone.
func (w *groupWorker) read(ctx context.Context, r *kgo.Record, it *item, event *schemas.Row) (err error) {
	it.record, it.root, it.ok = r, 0, false
	if r.Offset < w.next {
		return nil
	}
	if r.Attrs.IsControl() {
		return nil
	}
	for i := range w.holes {
		w.holes[i].pass(r.Offset)
	}
	if it.root, it.origin, err = w.originOf(r, w.group.roots); err != nil {
		it.origin = origin{partition: r.Partition, offset: r.Offset}
		w.dead(it, classForeign, err)
		return nil
	}
	seen, holes := &w.seen[it.root], &w.holes[it.root]
	if seen.has(it.origin) {
		w.tally.duplicate.Inc()
		return nil
	}
	if !seen.follows(it.origin) && !holes.before(it.origin) {
		w.tally.early.Inc()
		return nil
	}
	seen.add(it.origin)
	holes.mended(it.origin)
	root := w.group.roots[it.root]
	if *event, err = root.decoder.Borrow(ctx, r.Value, *event); err != nil {
		return w.reject(it, err)
	}
	if err := readJoined(r, root.Schema, *event); err != nil {
		return w.reject(it, err)
	}
	if it.at, err = w.eventTimes[it.root].of(r, *event); err != nil {
		return w.reject(it, err)
	}
	w.times.add(it.root, it.origin.partition, it.at)
	if it.row, it.ok = w.group.Source.From(root.Source, *event, it.at, it.row); !it.ok {
		w.passOver(it)
	}
	return nil
}
