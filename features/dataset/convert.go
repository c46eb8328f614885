package dataset

import (
	"context"
	"encoding/csv"
	"errors"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/apache/arrow/go/v17/arrow"
	"github.com/apache/arrow/go/v17/arrow/array"
	"github.com/apache/arrow/go/v17/arrow/memory"

	"github.com/millrace/millrace/features/offline"
	"github.com/millrace/millrace/internal/failure"
	"github.com/millrace/millrace/schemas"
)

// converter writes rows of values to a spool.
type converter struct {
	*spool
	kinds   []schemas.Kind
	builder *array.RecordBuilder
	rows    int
}

func newConverter(dir string, names []string, kinds []schemas.Kind) (*converter, error) {
	fields := make([]arrow.Field, len(names))
	for i, name := range names {
		fields[i] = arrow.Field{Name: name, Type: offline.ArrowType(kinds[i]), Nullable: true}
	}
	schema := arrow.NewSchema(fields, nil)
	s, err := newSpool(dir, schema)
	if err != nil {
		return nil, err
	}
	return &converter{spool: s, kinds: kinds, builder: array.NewRecordBuilder(memory.DefaultAllocator, schema)}, nil
}

// add adds a value to a column; after the last column's comes endRow.
func (c *converter) add(column int, v schemas.Value) {
	b := c.builder.Field(column)
	if v.IsNull() {
		b.AppendNull()
		return
	}
	switch b := b.(type) {
	case *array.BooleanBuilder:
		b.Append(v.Bool())
	case *array.Int64Builder:
		b.Append(v.Int())
	case *array.Float64Builder:
		f, _ := v.Float()
		b.Append(f)
	case *array.TimestampBuilder:
		b.Append(arrow.Timestamp(v.Int()))
	case *array.StringBuilder:
		b.Append(v.Str())
	case *array.BinaryBuilder:
		b.AppendString(v.Str())
	}
}

func (c *converter) endRow(ctx context.Context) error {
	if c.rows++; c.rows < readRows {
		return nil
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	return c.flush()
}

func (c *converter) flush() error {
	c.rows = 0
	r := c.builder.NewRecord()
	defer r.Release()
	return c.write(r)
}

// finish ends the writing.
func (c *converter) finish(name string) (Columnar, error) {
	if c.rows > 0 {
		if err := c.flush(); err != nil {
			c.file.Close()
			return nil, err
		}
	}
	return c.open(name)
}

// convertCSV reads a CSV file with a header twice: to find what kinds its columns are, and to convert it. A column is of
// the given kind, else the narrowest of int, float, bool, time and string that takes all its values. Empty fields are null.
func convertCSV(ctx context.Context, path, tempDir string, kinds map[string]schemas.Kind) (Columnar, error) {
	names, found, err := csvKinds(ctx, path, kinds)
	if err != nil {
		return nil, err
	}
	c, err := newConverter(tempDir, names, found)
	if err != nil {
		return nil, err
	}
	err = eachCSV(ctx, path, func(line int, fields []string) error {
		if line == 0 {
			return nil
		}
		for i, text := range fields {
			v, ok := parseField(text, found[i])
			if !ok && found[i] == schemas.Int { // pandas writes integers so, where some are missing
				v, ok = parseField(strings.TrimSuffix(text, ".0"), schemas.Int)
			}
			if !ok {
				return failure.New(failure.BadRequest, names[i], "%s line %d: %q is no %s", path, line, text, found[i])
			}
			c.add(i, v)
		}
		return c.endRow(ctx)
	})
	if err != nil {
		c.file.Close()
		return nil, err
	}
	return c.finish(path)
}

// eachCSV hands out the header as line 0, then the records.
func eachCSV(ctx context.Context, path string, fn func(line int, fields []string) error) error {
	f, err := os.Open(path)
	if err != nil {
		return openFailed(path, err)
	}
	defer f.Close()
	r := csv.NewReader(f)
	r.ReuseRecord = true
	for first := true; ; first = false {
		fields, err := r.Read()
		if errors.Is(err, io.EOF) {
			return ctx.Err()
		}
		if err != nil {
			return failure.Wrap(failure.BadRequest, path, "reading CSV", err)
		}
		line, _ := r.FieldPos(0)
		if first {
			line = 0
		}
		if err := fn(line, fields); err != nil {
			return err
		}
		if line%readRows == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
	}
}

func csvKinds(ctx context.Context, path string, given map[string]schemas.Kind) (names []string, kinds []schemas.Kind, err error) {
	var still [][]schemas.Kind // what each column may be
	err = eachCSV(ctx, path, func(line int, fields []string) error {
		if line == 0 {
			for _, name := range fields {
				names = append(names, name)
				if k, ok := given[name]; ok {
					still = append(still, []schemas.Kind{k})
				} else {
					still = append(still, []schemas.Kind{schemas.Int, schemas.Float, schemas.Bool, schemas.Time, schemas.String})
				}
			}
			return nil
		}
		for i, text := range fields {
			for len(still[i]) > 1 {
				if _, ok := parseField(text, still[i][0]); ok {
					break
				}
				still[i] = still[i][1:]
			}
		}
		return nil
	})
	if err == nil && names == nil {
		err = failure.New(failure.BadRequest, path, "the file is empty: it has no header")
	}
	for _, s := range still {
		kinds = append(kinds, s[0])
	}
	return names, kinds, err
}

// timeLayouts are the spellings of a time in a CSV file; without a zone it is UTC.
var timeLayouts = []string{time.RFC3339Nano, "2006-01-02 15:04:05.999999999", "2006-01-02T15:04:05.999999999", time.DateOnly, "2006-01-02 15:04:05.999999999Z07:00"}

func parseField(text string, kind schemas.Kind) (schemas.Value, bool) {
	if text == "" {
		return schemas.NullValue(), true
	}
	switch kind {
	case schemas.Int:
		i, err := strconv.ParseInt(text, 10, 64)
		return schemas.IntValue(i), err == nil
	case schemas.Float:
		f, err := strconv.ParseFloat(text, 64)
		return schemas.FloatValue(f), err == nil
	case schemas.Bool:
		b, ok := map[string]bool{"true": true, "false": false, "True": true, "False": false, "TRUE": true, "FALSE": false}[text]
		return schemas.BoolValue(b), ok
	case schemas.Time:
		for _, layout := range timeLayouts {
			if t, err := time.Parse(layout, text); err == nil {
				return schemas.TimeValue(t.UnixMilli()), true
			}
		}
		return schemas.NullValue(), false
	case schemas.Bytes:
		return schemas.BytesValue(text), true
	default:
		return schemas.StringValue(text), true
	}
}

// OpenEvents makes a spine of a source's events that accept takes (nil: of all): its columns, in the order of event time.
func OpenEvents(ctx context.Context, t *offline.Table, opts offline.ScanOptions, accept func(schemas.Row) bool, tempDir, name string) (Columnar, error) {
	columns := t.Columns()
	names, kinds := make([]string, len(columns)), make([]schemas.Kind, len(columns))
	for i, c := range columns {
		names[i], kinds[i] = c.Name, c.Kind
	}
	it, err := t.Sorted(ctx, opts)
	if err != nil {
		return nil, err
	}
	defer func() { _ = it.Close() }() // it was only read from
	c, err := newConverter(tempDir, names, kinds)
	if err != nil {
		return nil, err
	}
	for it.Next() {
		row := it.Row()
		if accept != nil && !accept(row) {
			continue
		}
		for i, v := range row {
			c.add(i, v)
		}
		if err = c.endRow(ctx); err != nil {
			break
		}
	}
	if err == nil {
		err = it.Err()
	}
	if err != nil {
		c.file.Close()
		return nil, err
	}
	return c.finish(name)
}
