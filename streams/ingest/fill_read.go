package ingest

import (
	"container/heap"
	"context"
	"strings"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace/millrace/features/offline"
	"github.com/millrace/millrace/features/online"
	"github.com/millrace/millrace/internal/failure"
	"github.com/millrace/millrace/schemas"
)

// event is an event of the past on its way to its entity.
type event struct {
	offset int64
	at     int64
	key    string
	row    schemas.Row
	passed bool // the source does not take it: it counts for the time alone
}

const (
	readBatch = 512 // events of one hand-over
	readAhead = 4   // hand-overs that a reader is ahead by
)

// reader reads one source partition.
type reader struct {
	*filler
	from   *past
	to     chan<- []event
	batch  []event
	values []schemas.Value // of the batch's rows
	merged schemas.Row
}

// read hands out the events of a source partition that are for the group, in the order of their offsets.
func (f *filler) read(ctx context.Context, h *past, to chan<- []event) error {
	r := &reader{filler: f, from: h, to: to}
	if h.next < min(h.kept, h.end) {
		if err := r.offline(ctx); err != nil {
			return err
		}
	}
	if from := max(h.next, h.kept, h.first); from < h.end {
		if err := r.topic(ctx, from); err != nil {
			return err
		}
	}
	return r.hand(ctx)
}

func (r *reader) root() *source { return r.group.roots[r.from.root] }

func (r *reader) offline(ctx context.Context) error {
	var row schemas.Row
	return r.root().offlineRows(ctx, r.from.partition, r.from.next, min(r.from.kept, r.from.end), func(b *offline.Batch, i int) error {
		row = b.Row(i, row)
		return r.add(ctx, b.Offset(i), b.Time(i), row)
	})
}

// topic reads what is not offline yet, or never was, and judges it as the source's worker does.
func (r *reader) topic(ctx context.Context, from int64) error {
	var it item
	judge := &sourceWorker{Stage: r.Stage, src: r.root(), time: newEventTime(r.deps.Project, r.root().Source, r.deps.Clock), links: newLinks(0)}
	return r.records(ctx, r.root().Topic, r.from.partition, from, r.from.end, func(record *kgo.Record) error {
		it.record = record
		_, err := judge.place(&it, false)
		if err == nil {
			err = judge.check(ctx, &it)
		}
		switch {
		case err == nil:
			return r.add(ctx, it.origin.offset, it.at, it.row)
		case failure.Of(err).DeadLetter():
			return nil
		default:
			return err
		}
	})
}

// add takes an event, unless it can name no entity: the source's worker has made a dead letter of that.
func (r *reader) add(ctx context.Context, offset, at int64, of schemas.Row) error {
	if at < r.group.version.From {
		return nil
	}
	row, takes := r.group.Source.From(r.root().Source, of, at, r.merged)
	if r.group.Source.Merged() {
		r.merged = row
	}
	key, err := r.group.Key(row)
	if err != nil {
		return nil //nolint:nilerr // see above
	}
	if len(r.values)+len(row) > cap(r.values) {
		r.values = make([]schemas.Value, 0, readBatch*len(row))
	}
	first := len(r.values)
	r.values = append(r.values, row...)
	r.batch = append(r.batch, event{offset: offset, at: at, key: strings.Clone(key), row: r.values[first:len(r.values):len(r.values)], passed: !takes})
	if len(r.batch) < readBatch {
		return nil
	}
	return r.hand(ctx)
}

func (r *reader) hand(ctx context.Context) error {
	if len(r.batch) == 0 {
		return nil
	}
	select {
	case r.to <- r.batch:
	case <-ctx.Done():
		return ctx.Err()
	}
	r.batch, r.values = nil, nil
	return nil
}

// eventStream is what comes of one source partition.
type eventStream struct {
	source  int
	batches chan []event
	batch   []event
	newest  int64 // event time up to which it has been handed out
}

// more sees to it that there is a next event; false when there is none.
func (s *eventStream) more(ctx context.Context) bool {
	if len(s.batch) > 0 {
		return true
	}
	select {
	case batch, ok := <-s.batches:
		s.batch = batch
		return ok
	case <-ctx.Done():
		return false
	}
}

// due is how far the stream will have come in event time with its next event.
func (s *eventStream) due() int64 { return max(s.newest, s.batch[0].at) }

// behind is a heap of streams, the one that has come least far on top.
type behind []*eventStream

func (h behind) Len() int { return len(h) }
func (h behind) Less(i, j int) bool {
	a, b := h[i].due(), h[j].due()
	return a < b || a == b && h[i].source < h[j].source
}
func (h behind) Swap(i, j int) { h[i], h[j] = h[j], h[i] }
func (h *behind) Push(x any)   { *h = append(*h, x.(*eventStream)) }
func (h *behind) Pop() any {
	old := *h
	last := old[len(old)-1]
	*h = old[:len(old)-1]
	return last
}

// markEvery is after how many events every partition is told, and writes, how far the source partitions have been read, so that
// one without events does not begin anew.
const markEvery = 1 << 18

// merge hands the events of all source partitions to the workers.
func (f *filler) merge(ctx context.Context, from []*eventStream, workers []*fillWorker, progress FillProgress) error {
	var order behind
	at := make([]int64, len(from)) // by source partition: first offset not handed out
	for p, s := range from {
		at[p] = f.sources[p].next
		if s.more(ctx) {
			order = append(order, s)
		} else {
			at[p] = f.sources[p].end
		}
	}
	heap.Init(&order)
	lots := make([][]routed, len(f.targets))
	most := max(16, min(readBatch, 1<<18/len(lots)))
	for n := 1; len(order) > 0; n++ {
		s := order[0]
		e := s.batch[0]
		s.newest, s.batch = s.due(), s.batch[1:]
		at[s.source] = e.offset + 1
		if k := online.Partition(f.group.version.Partitioner, e.key, f.group.version.Partitions); f.targets[k] != nil {
			if lots[k] = append(lots[k], routed{s.source, e}); len(lots[k]) >= most {
				if err := workers[int(k)%len(workers)].give(ctx, lot{k, lots[k], nil}); err != nil {
					return err
				}
				lots[k] = nil
			}
		}
		if s.more(ctx) {
			heap.Fix(&order, 0)
		} else {
			at[s.source] = f.sources[s.source].end
			heap.Pop(&order)
		}
		if n%markEvery == 0 {
			if err := f.mark(ctx, lots, at, workers, progress); err != nil {
				return err
			}
		}
	}
	if err := ctx.Err(); err != nil { // a stream may have ended for that
		return err
	}
	return f.mark(ctx, lots, at, workers, progress)
}

// mark has every partition apply what was read so far and note how far that is.
func (f *filler) mark(ctx context.Context, lots [][]routed, at []int64, workers []*fillWorker, progress FillProgress) error {
	var done int64
	for p, next := range at {
		done += max(0, next-f.sources[p].next)
	}
	progress(min(done, f.total), f.total)
	mark := append([]int64(nil), at...)
	for k, t := range f.targets {
		if t == nil {
			continue
		}
		if err := workers[k%len(workers)].give(ctx, lot{int32(k), lots[k], mark}); err != nil {
			return err
		}
		lots[k] = nil
	}
	return nil
}
