package offline

import (
	"context"

	"github.com/millrace/millrace/schemas"
)

// Sorted hands out what is committed when it is called, all partitions merged in the order of (_time, _partition, _offset).
//
// It is a merge of files that are sorted each: a file is opened when its first row may be next and let go after its last, so that
// memory holds one batch of each file whose times overlap (and the rest of that file, compressed), whatever the size of the table.
func (t *Table) Sorted(ctx context.Context, opts ScanOptions) (*Iterator, error) {
	plan, err := t.plan(opts)
	if err != nil {
		return nil, err
	}
	plan.byTime()
	return &Iterator{ctx: ctx, plan: plan, row: make(schemas.Row, 0, len(plan.columns))}, nil
}

// Iterator is a sorted scan. It is for one goroutine, and must be closed.
type Iterator struct {
	ctx    context.Context
	plan   *scanPlan
	opened int       // files of the plan opened so far
	heap   []*cursor // a binary heap, the next row on top
	top    *cursor   // what the last Next stands on; nil before
	row    schemas.Row
	err    error
	steps  int
}

// cursor is a place in an open file.
type cursor struct {
	file      *arrowFile // nil once its last batch is decoded
	next      int        // batch
	batch     *Batch
	at        int
	time      int64
	offset    int64
	partition int32
	order     int // of opening, which is the last tie
}

func (c *cursor) before(d *cursor) bool {
	switch {
	case c.time != d.time:
		return c.time < d.time
	case c.partition != d.partition:
		return c.partition < d.partition
	case c.offset != d.offset:
		return c.offset < d.offset
	default:
		return c.order < d.order
	}
}

// Next moves to the next row and reports whether there is one. When there is not, Err says whether that is the end.
func (it *Iterator) Next() bool {
	if it.err != nil {
		return false
	}
	if it.steps++; it.steps%1024 == 0 {
		if it.err = it.ctx.Err(); it.err != nil {
			return false
		}
	}
	if it.top != nil {
		it.advance()
	}
	if it.err == nil && (len(it.heap) == 0 || it.due()) {
		it.open()
	}
	if it.err != nil || len(it.heap) == 0 {
		it.top = nil
		return false
	}
	it.top = it.heap[0]
	return true
}

// advance moves the cursor on top by one row.
func (it *Iterator) advance() {
	c := it.top
	if c.at++; c.at >= c.batch.rows {
		more, err := it.plan.fill(c)
		if err != nil {
			it.err = err
			return
		}
		if !more {
			last := len(it.heap) - 1
			it.heap[0] = it.heap[last]
			it.heap[last] = nil
			it.heap = it.heap[:last]
			it.sink()
			return
		}
	}
	c.time, c.offset = c.batch.times[c.at], c.batch.offsets[c.at]
	it.sink()
}

// fill decodes the cursor's next batch that has rows, and lets go of the file behind the last.
func (p *scanPlan) fill(c *cursor) (bool, error) {
	for c.file != nil && c.next < c.file.batches() {
		b, err := p.read(c.file, c.next)
		if err != nil {
			return false, err
		}
		c.next++
		if c.next == c.file.batches() {
			c.file = nil
		}
		if b.rows > 0 {
			c.batch, c.at, c.partition = b, 0, b.partition
			return true, nil
		}
	}
	return false, nil
}

// due reports whether the next file may hold a row that comes before (or with) the one on top.
func (it *Iterator) due() bool {
	return it.opened < len(it.plan.files) && it.plan.files[it.opened].From <= it.heap[0].time
}

// open opens the files that are due, and one at least when no other is open.
func (it *Iterator) open() {
	for it.opened < len(it.plan.files) && (len(it.heap) == 0 || it.due()) {
		f, err := it.plan.open(it.plan.files[it.opened])
		if err != nil {
			it.err = err
			return
		}
		c := &cursor{file: f, order: it.opened}
		it.opened++
		more, err := it.plan.fill(c)
		if err != nil {
			it.err = err
			return
		}
		if more {
			c.time, c.offset = c.batch.times[0], c.batch.offsets[0]
			it.heap = append(it.heap, c)
			it.rise()
		}
	}
}

// sink restores the heap after the top grew. Spelt out, as it runs for every row.
func (it *Iterator) sink() {
	h := it.heap
	if len(h) == 0 {
		return
	}
	i, c := 0, h[0]
	for {
		child := 2*i + 1
		if child >= len(h) {
			break
		}
		if right := child + 1; right < len(h) && h[right].before(h[child]) {
			child = right
		}
		if !h[child].before(c) {
			break
		}
		h[i] = h[child]
		i = child
	}
	h[i] = c
}

// rise restores the heap after one was added at the end.
func (it *Iterator) rise() {
	h, i := it.heap, len(it.heap)-1
	for i > 0 {
		parent := (i - 1) / 2
		if !h[i].before(h[parent]) {
			return
		}
		h[i], h[parent] = h[parent], h[i]
		i = parent
	}
}

// Row is the row's columns in the order asked for. It is valid until the next call of Next; the text in it stays valid.
func (it *Iterator) Row() schemas.Row {
	it.row = it.top.batch.Row(it.top.at, it.row)
	return it.row
}

// Time is the row's event time in Unix milliseconds.
func (it *Iterator) Time() int64 { return it.top.time }

// Partition is the row's Kafka partition.
func (it *Iterator) Partition() int32 { return it.top.partition }

// Offset is the row's Kafka offset.
func (it *Iterator) Offset() int64 { return it.top.offset }

// Err is what ended the iteration early; nil at the end of the table.
func (it *Iterator) Err() error { return it.err }

// Close lets go of what is in memory; there are no rows after it. It may be called again.
func (it *Iterator) Close() error {
	it.heap, it.top, it.opened = nil, nil, len(it.plan.files)
	return nil
}
