package dataset

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"strings"

	"github.com/apache/arrow/go/v17/arrow"
	"github.com/apache/arrow/go/v17/arrow/ipc"
	"github.com/apache/arrow/go/v17/arrow/memory"
	pqfile "github.com/apache/arrow/go/v17/parquet/file"
	"github.com/apache/arrow/go/v17/parquet/pqarrow"

	"github.com/millrace/millrace/internal/failure"
	"github.com/millrace/millrace/schemas"
)

// Columnar is a file of columns that can be read several times.
type Columnar interface {
	Schema() *arrow.Schema
	// Records reads the fields of the given positions (nil: all), in order of the file.
	// A record is its reader's, until the next one: who keeps it retains it.
	Records(ctx context.Context, fields []int) iter.Seq2[arrow.Record, error]
	Rows() int64 // -1 where the format does not say
	Close() error
}

// readRows is how many rows are read from a Parquet file at once.
const readRows = 1 << 15

// Open opens a Parquet, Arrow or CSV file, which its extension tells. CSV is converted to a temporary file first; kinds are those that its columns
// must have.
func Open(ctx context.Context, path, tempDir string, kinds map[string]schemas.Kind) (Columnar, error) {
	switch strings.ToLower(filepath.Ext(path)) {
	case ".parquet", ".pq":
		return openParquet(path)
	case ".arrow", ".feather", ".ipc":
		f, err := os.Open(path)
		if err != nil {
			return nil, openFailed(path, err)
		}
		return openArrow(path, f)
	case ".csv":
		return convertCSV(ctx, path, tempDir, kinds)
	default:
		return nil, failure.New(failure.BadRequest, path, "the file's format is not known by its name").
			WithHint("name it .parquet, .arrow, .feather or .csv")
	}
}

func openFailed(path string, err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return failure.New(failure.NotFound, path, "there is no such file")
	}
	return failure.Wrap(failure.Unavailable, path, "opening file", err)
}

type parquetFile struct {
	path   string
	file   *pqfile.Reader
	reader *pqarrow.FileReader
	schema *arrow.Schema
}

func openParquet(path string) (_ Columnar, err error) {
	defer recoverCorrupt(path, &err)
	if _, err := os.Stat(path); err != nil {
		return nil, openFailed(path, err)
	}
	f, err := pqfile.OpenParquetFile(path, false)
	if err != nil {
		return nil, failure.Wrap(failure.Corrupt, path, "opening Parquet file", err)
	}
	p := &parquetFile{path: path, file: f}
	if p.reader, err = pqarrow.NewFileReader(f, pqarrow.ArrowReadProperties{BatchSize: readRows}, memory.DefaultAllocator); err == nil {
		p.schema, err = p.reader.Schema()
	}
	if err != nil {
		_ = f.Close()
		return nil, failure.Wrap(failure.Corrupt, path, "reading Parquet schema", err)
	}
	return p, nil
}

func (p *parquetFile) Schema() *arrow.Schema { return p.schema }
func (p *parquetFile) Rows() int64           { return p.file.NumRows() }
func (p *parquetFile) Close() error          { return p.file.Close() }

func (p *parquetFile) Records(ctx context.Context, fields []int) iter.Seq2[arrow.Record, error] {
	return func(yield func(arrow.Record, error) bool) {
		r, err := p.records(ctx, fields)
		if err != nil {
			yield(nil, err)
			return
		}
		defer r.Release()
		for {
			record, err := readNext(p.path, r.Read)
			if record == nil && err == nil {
				return
			}
			if !yield(record, err) || err != nil {
				return
			}
		}
	}
}

func (p *parquetFile) records(ctx context.Context, fields []int) (r pqarrow.RecordReader, err error) {
	defer recoverCorrupt(p.path, &err)
	var leaves []int
	if fields != nil {
		leaves = []int{}
		for _, f := range fields {
			field := &p.reader.Manifest.Fields[f]
			if field.ColIndex < 0 {
				return nil, failure.New(failure.BadRequest, p.schema.Field(f).Name, "is nested: the times and entities of rows are plain columns")
			}
			leaves = append(leaves, field.ColIndex)
		}
	}
	if r, err = p.reader.GetRecordReader(ctx, leaves, nil); err != nil {
		return nil, failure.Wrap(failure.Corrupt, p.path, "reading Parquet file", err)
	}
	return r, nil
}

// readNext reads a record; nil is the end.
func readNext(path string, read func() (arrow.Record, error)) (record arrow.Record, err error) {
	defer recoverCorrupt(path, &err)
	record, err = read()
	switch {
	case errors.Is(err, io.EOF):
		return nil, nil
	case errors.Is(err, context.Canceled):
		return nil, err
	case err != nil:
		return nil, failure.Wrap(failure.Corrupt, path, "reading file", err)
	}
	return record, nil
}

type arrowFile struct {
	path string
	file *os.File
	r    *ipc.FileReader
}

// openArrow takes a file over, also when it fails.
func openArrow(path string, f *os.File) (_ Columnar, err error) {
	defer func() {
		if err != nil {
			f.Close()
		}
	}()
	defer recoverCorrupt(path, &err)
	r, err := ipc.NewFileReader(f)
	if err != nil {
		return nil, failure.Wrap(failure.Corrupt, path, "opening Arrow file", err).WithHint("the IPC file format is read, not the stream format")
	}
	return &arrowFile{path, f, r}, nil
}

func (a *arrowFile) Schema() *arrow.Schema { return a.r.Schema() }

func (a *arrowFile) Rows() int64 {
	return -1 // the format does not say
}

func (a *arrowFile) Close() error { return a.file.Close() }

func (a *arrowFile) Records(ctx context.Context, fields []int) iter.Seq2[arrow.Record, error] {
	return func(yield func(arrow.Record, error) bool) {
		for i := range a.r.NumRecords() {
			record, err := readNext(a.path, func() (arrow.Record, error) { return a.r.Record(i) })
			if err == nil && fields != nil {
				record = pick(record, fields)
			}
			if err == nil {
				err = ctx.Err()
			}
			if !yield(record, err) || err != nil {
				return
			}
		}
	}
}

// recoverCorrupt turns the panics with which the Arrow library meets bad bytes into an error.
func recoverCorrupt(path string, err *error) {
	if r := recover(); r != nil {
		*err = failure.New(failure.Corrupt, path, "reading file: %v", r)
	}
}

// spool is a temporary Arrow file, to be written once and then read.
type spool struct {
	file *os.File
	w    *ipc.FileWriter
}

func newSpool(dir string, schema *arrow.Schema) (*spool, error) {
	f, err := os.CreateTemp(dir, "millrace-spine-")
	if err != nil {
		return nil, failure.Wrap(failure.Unavailable, dir, "making a temporary file", err)
	}
	if err := os.Remove(f.Name()); err != nil { // it goes when it is closed
		f.Close()
		return nil, failure.Wrap(failure.Unavailable, dir, "making a temporary file", err)
	}
	w, err := ipc.NewFileWriter(f, ipc.WithSchema(schema), ipc.WithLZ4())
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("writing temporary file: %w", err)
	}
	return &spool{f, w}, nil
}

func (s *spool) write(r arrow.Record) error {
	if err := s.w.Write(r); err != nil {
		return failure.Wrap(failure.Unavailable, s.file.Name(), "writing temporary file", err)
	}
	return nil
}

// open ends the writing and gives what can be read.
func (s *spool) open(name string) (Columnar, error) {
	if err := s.w.Close(); err != nil {
		s.file.Close()
		return nil, failure.Wrap(failure.Unavailable, s.file.Name(), "writing temporary file", err)
	}
	return openArrow(name, s.file)
}
