package offline

import (
	"cmp"
	"context"
	"errors"
	"fmt"

	"github.com/millrace/millrace/project"
	"github.com/millrace/millrace/schemas"
)

// Events is a sorted scan of a source's events, whole rows as its groups take them. Those of a source that is merged of others come in the
// order of (event time, name of the part, partition, offset), which is that of project.Source.Sequence; all others in that of Table.Sorted.
// It is for one goroutine, and must be closed.
type Events struct {
	source *project.Source
	parts  []*partEvents // those that have a next event
	closed []*Iterator
	top    *partEvents
	err    error
}

// partEvents is the events of one root of the source.
type partEvents struct {
	*Iterator
	root     *project.Source
	row      schemas.Row
	sequence int64
}

// SourceEvents opens the log of a source, or of all that it is merged of. Columns of the options must be nil: the rows are whole.
func SourceEvents(ctx context.Context, dir string, s *project.Source, opts ScanOptions) (*Events, error) {
	e := &Events{source: s}
	for _, root := range s.Roots() {
		t, err := EventsTable(dir, root.Name, root.Schema)
		if err != nil {
			return nil, errors.Join(err, e.Close())
		}
		it, err := t.Sorted(ctx, opts)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("sorting %s: %w", root.Name, err), e.Close())
		}
		e.closed = append(e.closed, it)
		e.parts = append(e.parts, &partEvents{Iterator: it, root: root})
	}
	for i := len(e.parts) - 1; i >= 0; i-- {
		e.advance(i)
	}
	return e, e.err
}

// advance moves a part to its next event that the source takes, and lets go of it where there is none.
func (e *Events) advance(i int) {
	p := e.parts[i]
	for p.Next() {
		row, ok := e.source.From(p.root, p.Iterator.Row(), p.Time(), p.row)
		if p.row = row; ok {
			p.sequence = e.source.Sequence(p.root, p.Partition(), p.Offset())
			return
		}
	}
	if err := p.Err(); err != nil {
		e.err = fmt.Errorf("reading %s: %w", p.root.Name, err)
	}
	e.parts = append(e.parts[:i], e.parts[i+1:]...)
}

// Next moves to the next event and reports whether there is one. When there is not, Err says whether that is the end.
func (e *Events) Next() bool {
	if e.top != nil {
		for i, p := range e.parts {
			if p == e.top {
				e.advance(i)
				break
			}
		}
	}
	e.top = nil
	if e.err != nil {
		return false
	}
	for _, p := range e.parts {
		if e.top == nil || cmp.Or(cmp.Compare(p.Time(), e.top.Time()), cmp.Compare(p.sequence, e.top.sequence)) < 0 {
			e.top = p
		}
	}
	return e.top != nil
}

// Row is the event as a row of the source. It is valid until the next call of Next; the text in it stays valid.
func (e *Events) Row() schemas.Row { return e.top.row }

// Time is the event's time in Unix milliseconds.
func (e *Events) Time() int64 { return e.top.Time() }

// Root is the source on whose topic the event lies.
func (e *Events) Root() *project.Source { return e.top.root }

// Partition is the event's Kafka partition.
func (e *Events) Partition() int32 { return e.top.Partition() }

// Offset is the event's Kafka offset.
func (e *Events) Offset() int64 { return e.top.Offset() }

// Err is what ended the iteration early; nil at the end of the log.
func (e *Events) Err() error { return e.err }

// Close lets go of what is in memory; there are no events after it. It may be called again.
func (e *Events) Close() error {
	e.parts, e.top = nil, nil
	var errs []error
	for _, it := range e.closed {
		errs = append(errs, it.Close())
	}
	return errors.Join(errs...)
}
