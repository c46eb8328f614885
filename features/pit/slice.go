package pit

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/millrace/millrace/internal/failure"
	"github.com/millrace/millrace/schemas"
)

// slice is a stretch of the merged order of rows and events: every event in it that was known before a row's time belongs
// to that row or to an earlier one.
type slice struct {
	number   int
	rows     []int64
	times    []int64
	entities []uint32 // of each row, one per lookup
	events   []eventList
}

// eventList is the events of one source in a slice.
type eventList struct {
	seq   int64 // events of the source before the first: what breaks ties of event time
	times []int64
	known []int64
	rows  []schemas.Row
	cells []schemas.Value // what rows are slices of
}

func (l *eventList) add(e *head) {
	l.times, l.known = append(l.times, e.Time()), append(l.known, e.known)
	n := len(l.cells)
	if n+e.width > cap(l.cells) { // earlier rows keep what they are slices of
		l.cells = make([]schemas.Value, 0, max(2*cap(l.cells), 1024*e.width))
		n = 0
	}
	l.cells = l.cells[:n+e.width]
	row := schemas.Row(l.cells[n : n+e.width : n+e.width])
	clear(row)
	e.Row(row)
	l.rows = append(l.rows, row)
}

func (l *eventList) reset(seq int64) {
	l.seq = seq
	l.times, l.known, l.rows, l.cells = l.times[:0], l.known[:0], l.rows[:0], l.cells[:0]
}

// head is where the events of a source stand.
type head struct {
	Events
	name  string
	width int
	more  bool
	known int64
	seq   int64
}

func (h *head) advance() error {
	before := h.known
	if h.more = h.Next(); !h.more {
		if err := h.Err(); err != nil {
			return fmt.Errorf("reading events of %s: %w", h.name, err)
		}
		return nil
	}
	if h.known = h.Known(); h.known < before {
		return failure.New(failure.Internal, h.name, "events are not in the order in which they became known")
	}
	return nil
}

// slicer cuts the merged order of rows and events into slices.
type slicer struct {
	cfg    Config
	rows   *rowMerge
	row    spineRow
	more   bool // row is one
	heads  []*head
	number int
}

// nextRow moves to the next row.
func (s *slicer) nextRow() (err error) {
	s.row, err = s.rows.next()
	s.more = err == nil
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

// fill makes the next slice; it is empty after the last row.
func (s *slicer) fill(ctx context.Context, into *slice) error {
	s.number++
	into.number = s.number
	into.rows, into.times, into.entities = into.rows[:0], into.times[:0], into.entities[:0]
	for i := range into.events {
		into.events[i].reset(s.heads[i].seq)
	}
	for events := 0; s.more && len(into.rows) < s.cfg.SliceRows && events < s.cfg.SliceEvents; {
		if i := s.earliest(); i >= 0 {
			h := s.heads[i]
			into.events[i].add(h)
			h.seq++
			if err := h.advance(); err != nil {
				return err
			}
			events++
			continue
		}
		into.rows, into.times = append(into.rows, s.row.row), append(into.times, s.row.time)
		into.entities = append(into.entities, s.row.entities...)
		if err := s.nextRow(); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// earliest is the source whose next event comes before the next row, the earliest of them; -1 when there is none. An event
// that became known at the row's time comes after it.
func (s *slicer) earliest() int {
	best, known := -1, s.row.time
	for i, h := range s.heads {
		if h.more && h.known < known {
			best, known = i, h.known
		}
	}
	return best
}

func (s *slicer) close() {
	for _, h := range s.heads {
		_ = h.Close() // they were only read from
	}
}
