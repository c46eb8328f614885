package pit

import (
	"context"
	"fmt"
	"slices"

	"github.com/millrace/millrace/features/offline"
	"github.com/millrace/millrace/internal/failure"
	"github.com/millrace/millrace/project"
	"github.com/millrace/millrace/schemas"
)

// Source is events that groups are folded from.
type Source struct {
	Name string
	// Open starts to hand out the events that became known before until (Unix milliseconds), in the order in which they did.
	Open func(ctx context.Context, until int64) (Events, error)
}

// Events are the events of a source in ascending order of Known. They are for one goroutine, and must be closed.
type Events interface {
	Next() bool
	Time() int64  // event time, Unix milliseconds
	Known() int64 // when it became known, Unix milliseconds: the event time or later
	// Row sets the columns of row, which has those of the source's schema and is all null. Columns that no group reads may stay so.
	Row(row schemas.Row)
	Err() error // what ended the events early
	Close() error
}

// TableEvents is the source of a table of the offline log with a schema's columns. Of these it reads the named ones.
// An event is known delay milliseconds after its event time.
func TableEvents(name string, t *offline.Table, s *schemas.Schema, columns []string, delay int64) Source {
	return Source{Name: name, Open: func(ctx context.Context, until int64) (Events, error) {
		it, err := t.Sorted(ctx, offline.ScanOptions{Until: until - delay, Columns: columns})
		if err != nil {
			return nil, fmt.Errorf("sorting %s: %w", name, err)
		}
		e := &tableEvents{Iterator: it, delay: delay}
		for _, c := range columns {
			i := s.Index(c)
			if i < 0 {
				return nil, failure.New(failure.BadProject, s.Name, "there is no column %q", c)
			}
			e.columns = append(e.columns, i)
		}
		return e, nil
	}}
}

// LogEvents is the source of a project's source in the offline log in dir, merged or not, with the columns that the groups computed from it read.
// Its events are known at their event time.
func LogEvents(dir string, s *project.Source, groups []*project.Group) (Source, error) {
	if s.Merged() {
		return MergedEvents(dir, s, 0), nil
	}
	t, err := offline.EventsTable(dir, s.Name, s.Schema)
	if err != nil {
		return Source{}, err
	}
	var columns []string
	for _, g := range groups {
		if g.Source == s {
			columns = append(columns, g.Columns()...)
		}
	}
	slices.Sort(columns)
	return TableEvents(s.Name, t, s.Schema, slices.Compact(columns), 0), nil
}

type tableEvents struct {
	*offline.Iterator
	columns []int // of the schema, of each column read
	delay   int64
}

func (e *tableEvents) Known() int64 { return e.Time() + e.delay }

func (e *tableEvents) Row(row schemas.Row) {
	for i, v := range e.Iterator.Row() {
		row[e.columns[i]] = v
	}
}

// MergedEvents is the source of a merged source's events in the offline log in dir, in the order in which its groups take them: by event
// time, part, partition and offset. An event is known delay milliseconds after its event time.
func MergedEvents(dir string, s *project.Source, delay int64) Source {
	return Source{Name: s.Name, Open: func(ctx context.Context, until int64) (Events, error) {
		e, err := offline.SourceEvents(ctx, dir, s, offline.ScanOptions{Until: until - delay})
		if err != nil {
			return nil, err
		}
		return &mergedEvents{e, delay}, nil
	}}
}

type mergedEvents struct {
	*offline.Events
	delay int64
}

func (e *mergedEvents) Known() int64 { return e.Time() + e.delay }

func (e *mergedEvents) Row(row schemas.Row) { copy(row, e.Events.Row()) }
