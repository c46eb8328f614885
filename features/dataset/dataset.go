package dataset

import (
	"context"
	"fmt"

	"github.com/millrace/millrace/features/pit"
	"github.com/millrace/millrace/internal/failure"
)

// Progress is told how far a run has come: done rows of total, 0 where that is not known.
type Progress func(stage string, done, total int64)

// Make makes a training set: the file and its manifest. After an error there is neither.
func Make(ctx context.Context, q Request, progress Progress) (*Manifest, error) {
	lookups, err := q.lookups()
	if err != nil {
		return nil, err
	}
	spine, timeColumn, err := q.openSpine(ctx, lookups)
	if err != nil {
		return nil, fmt.Errorf("opening the spine: %w", err)
	}
	defer func() { _ = spine.Close() }()
	sources, err := q.eventSources(lookups)
	if err != nil {
		return nil, err
	}
	rows, err := q.newRows(lookups, sources)
	if err != nil {
		return nil, err
	}
	defer func() { _ = rows.Close() }()
	reader, err := newSpineReader(rows, spine, timeColumn, lookups)
	if err != nil {
		return nil, err
	}
	out, err := newOutput(ctx, &q, spine, lookups)
	if err != nil {
		return nil, err
	}
	total := max(spine.Rows(), 0)
	if err := reader.read(ctx, spine, func(n int64) { progress("rows", n, total) }); err != nil {
		out.abandon()
		return nil, fmt.Errorf("reading the spine: %w", err)
	}
	if err := q.join(ctx, rows, sources, out, progress); err != nil {
		out.abandon()
		return nil, err
	}
	if err := out.close(ctx); err != nil {
		return nil, err
	}
	m, err := q.manifest(ctx, lookups, sources, reader, out)
	if err != nil {
		return nil, err
	}
	return m, m.write(q.Out)
}

// newRows is the spine of the join.
func (q *Request) newRows(lookups []lookup, sources []*eventSource) (*pit.Spine, error) {
	joined := make([]pit.Lookup, 0, len(lookups))
	for _, l := range lookups {
		for i, s := range sources {
			if s.Source == l.group.Source {
				joined = append(joined, pit.Lookup{Group: l.group.Group, Source: i, Outputs: l.outputs})
			}
		}
	}
	return pit.NewSpine(q.Limits, joined)
}

// join prepares the events and writes what comes out.
func (q *Request) join(ctx context.Context, rows *pit.Spine, sources []*eventSource, out *output, progress Progress) error {
	var joined []pit.Source
	for i, s := range sources {
		progress("events", int64(i), int64(len(sources)))
		defer func() { s.close() }()
		if err := s.prepare(ctx, q); err != nil {
			return fmt.Errorf("reading events: %w", err)
		}
		joined = append(joined, s.join)
	}
	done := int64(0)
	return rows.JoinInOrder(ctx, joined, func(b *pit.Block) error {
		done += int64(len(b.Rows))
		progress("features", done, rows.Len())
		return out.write(b)
	})
}

func (q *Request) manifest(ctx context.Context, lookups []lookup, sources []*eventSource, reader *spineReader, out *output) (*Manifest, error) {
	m := &Manifest{
		Project: q.Project.Name, Code: q.Code,
		Spine:  SpineReport{File: q.Spine.File, Query: q.Spine.Query, Source: q.Spine.Source, Time: reader.time, Rows: reader.n},
		Output: OutputReport{File: q.Out, Format: out.format, Digest: out.Digest(), Bytes: out.Bytes(), Rows: out.rows, Order: "spine"},
	}
	if reader.n != out.rows {
		return nil, failure.New(failure.Internal, q.Out, "%d rows in, %d rows out", reader.n, out.rows)
	}
	if reader.n > 0 {
		m.Spine.First, m.Spine.Last = instant(reader.first), instant(reader.last)
	}
	if q.Spine.File != "" {
		var err error
		if m.Spine.Digest, err = FileDigest(ctx, q.Spine.File); err != nil {
			return nil, err
		}
	}
	for _, s := range sources {
		m.Events = append(m.Events, s.report)
	}
	for i, l := range lookups {
		m.Groups = append(m.Groups, GroupReport{
			Name: l.name, Group: l.group.Name, Version: l.group.Version, Entity: l.group.Entity, Columns: l.columns,
			Entities: reader.rows.Entities(i), Without: reader.without[i],
		})
	}
	own := out.schema.NumFields() - len(out.columns)
	for i := range out.columns {
		f := out.schema.Field(own + i)
		m.Output.Column = append(m.Output.Column, ColumnReport{f.Name, f.Type.String(), out.columns[i].allNulls})
	}
	return m, nil
}
