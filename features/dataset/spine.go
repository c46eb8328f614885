package dataset

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/apache/arrow/go/v17/arrow"
	"github.com/apache/arrow/go/v17/arrow/array"

	"github.com/millrace/millrace/features"
	"github.com/millrace/millrace/features/offline"
	"github.com/millrace/millrace/features/pit"
	"github.com/millrace/millrace/internal/failure"
	"github.com/millrace/millrace/schemas"
)

// openSpine opens the rows and gives the column of their times.
func (q *Request) openSpine(ctx context.Context, lookups []lookup) (Columnar, string, error) {
	s := &q.Spine
	switch {
	case s.Source != "":
		source := q.Project.Source(s.Source)
		if source == nil {
			return nil, "", failure.New(failure.BadRequest, s.Source, "the project has no such source")
		}
		if source.Merged() || source.Where != nil {
			return nil, "", failure.New(failure.BadRequest, s.Source, "the source is merged of others or has a condition (where): its offline log is not its events").
				WithHint("name the rows by a file or a query")
		}
		t, err := offline.EventsTable(q.OfflineDir, source.Name, source.Schema)
		if err != nil {
			return nil, "", err
		}
		c, err := OpenEvents(ctx, t, offline.ScanOptions{From: s.From, Until: s.Until}, nil, q.Limits.TempDir, source.Name)
		if s.Time != "" {
			return c, s.Time, err
		}
		return c, source.Time, err
	case s.Time == "":
		return nil, "", failure.New(failure.BadRequest, "time", "the column of the rows' times is not named")
	case s.Query != "":
		c, err := convertQuery(ctx, s.Postgres, s.Query, q.Limits.TempDir)
		return c, s.Time, err
	case s.File != "":
		kinds := map[string]schemas.Kind{s.Time: schemas.Time}
		for i := range lookups {
			for k, column := range lookups[i].columns {
				kinds[column] = lookups[i].kindOf(k)
			}
		}
		c, err := Open(ctx, s.File, q.Limits.TempDir, kinds)
		return c, s.Time, err
	default:
		return nil, "", failure.New(failure.BadRequest, "spine", "there is none").WithHint("name a file, a query or a source")
	}
}

// spineReader takes the times and entities of rows from records.
type spineReader struct {
	rows    *pit.Spine
	time    string
	fields  []int // of the file, ascending
	timeAt  int   // index in fields
	lookups []lookupReader
	keys    []string
	n       int64
	first   int64 // time
	last    int64
	without []int64 // rows that name no entity, by lookup
}

// lookupReader makes the keys of one lookup.
type lookupReader struct {
	*lookup
	at  []int       // index in spineReader.fields of each entity column
	to  []int       // its index in a row of the group's source
	row schemas.Row // of the group's source
}

// newSpineReader finds the columns in the file and checks their types.
func newSpineReader(rows *pit.Spine, file Columnar, timeColumn string, lookups []lookup) (*spineReader, error) {
	r := &spineReader{rows: rows, time: timeColumn, keys: make([]string, len(lookups)), without: make([]int64, len(lookups))}
	timeField, err := field(file.Schema(), timeColumn, schemas.Time, "the time of a row")
	if err != nil {
		return nil, err
	}
	r.fields = []int{timeField}
	entities := make([][]int, len(lookups))
	for i := range lookups {
		l := &lookups[i]
		for k, column := range l.columns {
			f, err := field(file.Schema(), column, l.kindOf(k), fmt.Sprintf("%s of %s", l.group.Entity[k], l.name))
			if err != nil {
				return nil, err
			}
			entities[i] = append(entities[i], f)
			r.fields = append(r.fields, f)
		}
	}
	slices.Sort(r.fields)
	r.fields = slices.Compact(r.fields)
	r.timeAt = slices.Index(r.fields, timeField)
	for i := range lookups {
		lr := lookupReader{lookup: &lookups[i], row: make(schemas.Row, lookups[i].group.Width())}
		for k, f := range entities[i] {
			lr.at = append(lr.at, slices.Index(r.fields, f))
			lr.to = append(lr.to, lr.group.Source.Schema.Index(lr.group.Entity[k]))
		}
		r.lookups = append(r.lookups, lr)
	}
	return r, nil
}

// field is the position of a column that must be of a kind.
func field(s *arrow.Schema, name string, want schemas.Kind, what string) (int, error) {
	at := s.FieldIndices(name)
	if len(at) == 0 {
		names := make([]string, s.NumFields())
		for i, f := range s.Fields() {
			names[i] = f.Name
		}
		e := failure.New(failure.BadRequest, name, "the spine has no such column, which is to be %s", what)
		if near := schemas.Nearest(name, names); near != "" {
			return 0, e.WithHint("did you mean %q? its columns are %s", near, strings.Join(names, ", "))
		}
		return 0, e.WithHint("its columns are %s", strings.Join(names, ", "))
	}
	if len(at) > 1 {
		return 0, failure.New(failure.BadRequest, name, "the spine has %d columns of this name", len(at))
	}
	if have := offline.KindOf(s.Field(at[0]).Type); have != want {
		return 0, failure.New(failure.BadRequest, name, "the column is %s, but %s is %s", s.Field(at[0]).Type, what, want).
			WithHint("cast it where the spine is made")
	}
	return at[0], nil
}

// read adds all rows of a file.
func (r *spineReader) read(ctx context.Context, file Columnar, progress func(rows int64)) error {
	for record, err := range file.Records(ctx, r.fields) {
		if err != nil {
			return err
		}
		if err := r.add(record); err != nil {
			return err
		}
		progress(r.n)
	}
	return ctx.Err()
}

func (r *spineReader) add(record arrow.Record) error {
	all := make([]int, len(r.fields))
	for i := range all {
		all[i] = i
	}
	b, err := offline.NewBatch(record, all)
	if err != nil {
		return err
	}
	for row := range b.Len() {
		at := b.Value(row, r.timeAt)
		if at.IsNull() {
			return failure.New(failure.BadRequest, r.time, "row %d has no time", r.n).WithHint("leave such rows out of the spine")
		}
		for i := range r.lookups {
			if r.keys[i], err = r.lookups[i].key(b, row); err != nil {
				return fmt.Errorf("reading row %d: %w", r.n, err)
			}
			if r.keys[i] == "" {
				r.without[i]++
			}
		}
		if r.n == 0 {
			r.first, r.last = at.Int(), at.Int()
		}
		r.first, r.last = min(r.first, at.Int()), max(r.last, at.Int())
		r.n++
		if err := r.rows.Add(at.Int(), r.keys); err != nil {
			return err
		}
	}
	return nil
}

// key is the key of the row's entity, empty where its columns cannot name one: null, empty, or what would make the event a dead letter.
func (l *lookupReader) key(b *offline.Batch, row int) (string, error) {
	for i, at := range l.at {
		v := b.Value(row, at)
		if v.IsNull() || v.Kind() == schemas.String && v.Str() == "" {
			return "", nil
		}
		l.row[l.to[i]] = v
	}
	key, err := l.group.Key(l.row)
	if failure.Of(err) == failure.BadRecord {
		return "", nil
	}
	if err != nil {
		return "", failure.Wrap(failure.BadRequest, strings.Join(l.columns, ", "), "naming the entity of "+l.name, err)
	}
	return key, nil
}

// pick is some columns of a record.
func pick(record arrow.Record, fields []int) arrow.Record {
	picked, columns := make([]arrow.Field, len(fields)), make([]arrow.Array, len(fields))
	for i, f := range fields {
		picked[i], columns[i] = record.Schema().Field(f), record.Column(f)
	}
	return array.NewRecord(arrow.NewSchema(picked, nil), columns, record.NumRows())
}

// outputType is the type of a feature's column.
func outputType(o features.Output) arrow.DataType { return offline.ArrowType(o.Kind) }
