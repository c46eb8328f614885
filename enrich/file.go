package enrich

import (
	"bufio"
	"context"
	"encoding/base64"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/millrace/millrace/features"
	"github.com/millrace/millrace/features/offline"
	"github.com/millrace/millrace/internal/failure"
	"github.com/millrace/millrace/project"
	"github.com/millrace/millrace/schemas"
)

// maxLine is the longest line of a JSONL file in bytes.
const maxLine = 16 << 20

// file is a table in a file of the project's folder.
type file struct {
	table *project.Table
	dir   string

	size    int64 // when it was last read
	changed time.Time
}

// Files loads those tables of a project that are in its folder; the others are empty. It is what feature tests start from.
func Files(ctx context.Context, p *project.Project) (project.Tables, error) {
	tables := project.Tables{}
	for _, t := range p.Tables {
		tables[t.Name] = features.NewTable(t.Name, t.MaxRows)
		if t.File == "" {
			continue
		}
		if err := (&file{table: t, dir: p.Dir}).read(ctx, tables[t.Name]); err != nil {
			return nil, fmt.Errorf("loading table %s: %w", t.Name, err)
		}
	}
	return tables, nil
}

// read fills an empty table; errSame when the file is as it was when it was last read.
func (f *file) read(ctx context.Context, into *features.Table) error {
	path := filepath.Join(f.dir, f.table.File)
	info, err := os.Stat(path)
	if err != nil {
		return failure.Wrap(failure.NotFound, f.table.File, "opening the table", err)
	}
	if info.Size() == f.size && info.ModTime().Equal(f.changed) {
		return errSame
	}
	put := func(row schemas.Row) error { return f.table.Put(into, row, features.Always) }
	switch strings.ToLower(filepath.Ext(path)) {
	case ".csv":
		err = f.csv(path, put)
	case ".jsonl":
		err = f.jsonl(ctx, path, put)
	default:
		err = f.parquet(ctx, path, put)
	}
	if err == nil {
		f.size, f.changed = info.Size(), info.ModTime()
	}
	return err
}

// csv reads a file whose first line names its columns; those that the schema does not have are passed over. Texts stand for values as in
// schemas.Value.Text, times also as dates or Unix milliseconds; nothing at all is null.
func (f *file) csv(path string, put func(schemas.Row) error) error {
	in, err := os.Open(path)
	if err != nil {
		return failure.Wrap(failure.Unavailable, f.table.File, "opening the table", err)
	}
	defer func() { _ = in.Close() }()
	r := csv.NewReader(in)
	r.ReuseRecord = true
	names, err := r.Read()
	if err != nil {
		return failure.Wrap(failure.BadProject, f.table.File, "reading the line of column names", err)
	}
	s := f.table.Schema
	columns := make([]int, len(names))
	seen := make([]bool, len(s.Columns))
	for i, name := range names {
		if columns[i] = s.Index(strings.TrimPrefix(name, "\ufeff")); columns[i] >= 0 {
			seen[columns[i]] = true
		}
	}
	for i, c := range s.Columns {
		if !seen[i] && !c.Nullable {
			return failure.New(failure.BadProject, f.table.File, "there is no column %q", c.Name)
		}
	}
	row := make(schemas.Row, len(s.Columns))
	for {
		fields, err := r.Read()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return failure.Wrap(failure.BadProject, f.table.File, "reading the table", err)
		}
		for i, text := range fields {
			if columns[i] < 0 {
				continue
			}
			if row[columns[i]], err = valueOf(text, s.Columns[columns[i]]); err != nil {
				line, _ := r.FieldPos(i)
				return failure.New(failure.BadProject, fmt.Sprintf("%s:%d", f.table.File, line), "%v", err)
			}
		}
		if err := put(row); err != nil {
			return err
		}
	}
}

// valueOf reads a value of a column from text.
func valueOf(text string, c schemas.Column) (v schemas.Value, err error) {
	if text == "" {
		if c.Nullable {
			return schemas.NullValue(), nil
		}
		if c.Kind != schemas.String {
			return v, fmt.Errorf("%s is empty, but not nullable", c.Name)
		}
	}
	switch c.Kind {
	case schemas.Bool:
		var b bool
		b, err = strconv.ParseBool(text)
		v = schemas.BoolValue(b)
	case schemas.Int:
		var i int64
		i, err = strconv.ParseInt(text, 10, 64)
		v = schemas.IntValue(i)
	case schemas.Float:
		var f float64
		f, err = strconv.ParseFloat(text, 64)
		v = schemas.FloatValue(f)
	case schemas.Time:
		v, err = timeOf(text)
	case schemas.Bytes:
		var b []byte
		b, err = base64.StdEncoding.DecodeString(text)
		v = schemas.BytesValue(string(b))
	default:
		v = schemas.StringValue(text)
	}
	if err != nil {
		return v, fmt.Errorf("%s is %q, not %s", c.Name, text, c.Kind)
	}
	return v, nil
}

func timeOf(text string) (schemas.Value, error) {
	if ms, err := strconv.ParseInt(text, 10, 64); err == nil {
		return schemas.TimeValue(ms), nil
	}
	for _, layout := range []string{time.RFC3339Nano, time.DateOnly, time.DateTime} {
		if t, err := time.Parse(layout, text); err == nil {
			return schemas.TimeValue(t.UnixMilli()), nil
		}
	}
	return schemas.Value{}, fmt.Errorf("no time")
}

// jsonl reads a file of JSON objects, one a line, as records of the schema.
func (f *file) jsonl(ctx context.Context, path string, put func(schemas.Row) error) error {
	in, err := os.Open(path)
	if err != nil {
		return failure.Wrap(failure.Unavailable, f.table.File, "opening the table", err)
	}
	defer func() { _ = in.Close() }()
	decoder, err := schemas.NewDecoder(f.table.Schema, schemas.JSON, nil)
	if err != nil {
		return err
	}
	lines := bufio.NewScanner(in)
	lines.Buffer(nil, maxLine)
	var row schemas.Row
	for n := 1; lines.Scan(); n++ {
		if strings.TrimSpace(lines.Text()) == "" {
			continue
		}
		if row, err = decoder.Decode(ctx, lines.Bytes(), row); err != nil {
			return failure.New(failure.BadProject, fmt.Sprintf("%s:%d", f.table.File, n), "%v", err)
		}
		if err := put(row); err != nil {
			return err
		}
	}
	if err := lines.Err(); err != nil {
		return failure.Wrap(failure.BadProject, f.table.File, "reading the table", err)
	}
	return nil
}

// parquet reads the schema's columns of a Parquet file.
func (f *file) parquet(ctx context.Context, path string, put func(schemas.Row) error) error {
	s := f.table.Schema
	names := make([]string, len(s.Columns))
	for i, c := range s.Columns {
		names[i] = c.Name
	}
	var row schemas.Row
	return offline.ReadParquet(ctx, path, names, func(b *offline.Batch) error {
		for i := range b.Len() {
			row = b.Row(i, row)
			if err := f.fit(row); err != nil {
				return err
			}
			if err := put(row); err != nil {
				return err
			}
		}
		return nil
	})
}

// fit gives the values of a row the kinds of the schema's columns.
func (f *file) fit(row schemas.Row) error {
	for k, c := range f.table.Schema.Columns {
		v, err := fit(row[k], c)
		if err != nil {
			return failure.New(failure.BadProject, f.table.File, "%v", err)
		}
		row[k] = v
	}
	return nil
}

func fit(v schemas.Value, c schemas.Column) (schemas.Value, error) {
	switch f, number := v.Float(); {
	case v.IsNull() && !c.Nullable:
		return v, fmt.Errorf("%s is null, but not nullable", c.Name)
	case v.IsNull() || v.Kind() == c.Kind:
		return v, nil
	case c.Kind == schemas.Float && number && v.Kind() == schemas.Int:
		return schemas.FloatValue(f), nil
	default:
		return v, fmt.Errorf("%s is %s, not %s", c.Name, v.Kind(), c.Kind)
	}
}
