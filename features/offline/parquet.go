package offline

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"

	"github.com/apache/arrow/go/v17/arrow"
	"github.com/apache/arrow/go/v17/arrow/memory"
	"github.com/apache/arrow/go/v17/parquet"
	"github.com/apache/arrow/go/v17/parquet/compress"
	pqfile "github.com/apache/arrow/go/v17/parquet/file"
	"github.com/apache/arrow/go/v17/parquet/pqarrow"

	"github.com/millrace/millrace/internal/failure"
)

// rowsPerRowGroup is how many rows a row group of an exported Parquet file holds at most.
const rowsPerRowGroup = 1 << 18

// ReadParquet hands out the rows of a Parquet file in their order, batch by batch, with the named columns (nil: all) in the order named.
// Integers of any width read as Int, floats as Float, dates and timestamps (without a zone: taken for UTC) as Time, text as String. The
// batches have no times, partitions or offsets of their own. It holds the compressed columns of one row group and one batch in memory.
// An error of fn ends the reading and is returned.
func ReadParquet(ctx context.Context, path string, columns []string, fn func(*Batch) error) (err error) {
	file, err := pqfile.OpenParquetFile(path, false)
	if err != nil {
		if os.IsNotExist(err) {
			return failure.Wrap(failure.NotFound, path, "opening Parquet file", err)
		}
		return failure.Wrap(failure.Corrupt, path, "opening Parquet file", err)
	}
	defer func() { _ = file.Close() }()
	// A fault of fn's own must not pass for one of the file's, so only the library's part runs under the recovery.
	r, positions, err := openRecords(ctx, path, file, columns)
	if err != nil {
		return err
	}
	defer r.Release()
	for {
		b, err := nextRecord(path, r, positions)
		if err != nil || b == nil {
			return err
		}
		if err := fn(b); err != nil {
			return err
		}
	}
}

// openRecords starts to read the named columns and tells where in a record each of them is.
func openRecords(ctx context.Context, path string, file *pqfile.Reader, names []string) (r pqarrow.RecordReader, positions []int, err error) {
	defer recoverCorrupt(path, &err)
	reader, err := pqarrow.NewFileReader(file, pqarrow.ArrowReadProperties{BatchSize: rowsPerBatch}, memory.DefaultAllocator)
	if err != nil {
		return nil, nil, failure.Wrap(failure.Corrupt, path, "reading Parquet schema", err)
	}
	var leaves []int
	if names != nil {
		leaves = []int{}
	}
	for _, name := range names {
		at := file.MetaData().Schema.ColumnIndexByName(name)
		if at < 0 {
			return nil, nil, failure.New(failure.NotFound, path, "there is no column %q", name)
		}
		leaves = append(leaves, at)
	}
	if r, err = reader.GetRecordReader(ctx, leaves, nil); err != nil {
		return nil, nil, failure.Wrap(failure.Corrupt, path, "reading Parquet file", err)
	}
	if names == nil {
		for i := range r.Schema().NumFields() {
			positions = append(positions, i)
		}
		return r, positions, nil
	}
	for _, name := range names {
		positions = append(positions, r.Schema().FieldIndices(name)[0])
	}
	return r, positions, nil
}

// nextRecord decodes the next batch; nil is the end.
func nextRecord(path string, r pqarrow.RecordReader, positions []int) (b *Batch, err error) {
	defer recoverCorrupt(path, &err)
	record, err := r.Read()
	if errors.Is(err, io.EOF) || err == nil && record == nil {
		return nil, nil
	}
	if err != nil {
		return nil, failure.Wrap(failure.Corrupt, path, "reading Parquet file", err)
	}
	b = &Batch{rows: int(record.NumRows()), columns: make([]vector, len(positions))}
	for i, at := range positions {
		if b.columns[i], err = newVector(record.Column(at)); err != nil {
			return nil, failure.Wrap(failure.Corrupt, path, "reading column "+record.ColumnName(at), err)
		}
	}
	return b, nil
}

// ExportParquet writes what a sorted scan with the same options hands out as one zstd-compressed Parquet file, which appears at dst
// when it is whole.
func ExportParquet(ctx context.Context, t *Table, opts ScanOptions, dst string) error {
	it, err := t.Sorted(ctx, opts)
	if err != nil {
		return err
	}
	defer func() { _ = it.Close() }()
	return replaceFile(dst, func(w io.Writer) error { return exportRows(w, it) })
}

func exportRows(w io.Writer, it *Iterator) error {
	columns := it.plan.columns
	schema := arrowSchema(columns)
	pw, err := pqarrow.NewFileWriter(schema, w, parquet.NewWriterProperties(
		parquet.WithCompression(compress.Codecs.Zstd), parquet.WithMaxRowGroupLength(rowsPerRowGroup)), pqarrow.DefaultWriterProps())
	if err != nil {
		return err
	}
	s, partitions := newSegment(columns), []int32(nil)
	flush := func() error {
		record := s.record(schema, 0, 0, s.rows())
		defer record.Release()
		at := schema.FieldIndices(PartitionColumn)[0]
		merged, err := record.SetColumn(at, fixed(arrow.PrimitiveTypes.Int32, arrow.Int32Traits.CastToBytes(partitions), s.rows(), nil, 0))
		if err != nil {
			return err
		}
		s, partitions = newSegment(columns), nil
		return pw.WriteBuffered(merged)
	}
	for it.Next() {
		s.add(it.Row(), it.Time(), it.Offset())
		if partitions = append(partitions, it.Partition()); s.rows() == rowsPerBatch {
			if err := flush(); err != nil {
				return err
			}
		}
	}
	if err := it.Err(); err != nil {
		return err
	}
	if s.rows() > 0 {
		if err := flush(); err != nil {
			return err
		}
	}
	return pw.Close()
}

// replaceFile lets path appear, or change, all at once. write must not close what it is given.
func replaceFile(path string, write func(io.Writer) error) error {
	d := osDisk{}
	if err := d.MkdirAll(filepath.Dir(path)); err != nil {
		return unavailable("", "writing file", err)
	}
	f, err := d.Create(filepath.Dir(path), "."+filepath.Base(path)+"-*.tmp")
	if err != nil {
		return unavailable("", "writing file", err)
	}
	if err := write(writerOnly{f}); err != nil {
		_, _ = f.Close(), d.Remove(f.Name())
		if failure.Of(err) == failure.Internal && !errors.Is(err, context.Canceled) {
			return unavailable(path, "writing file", err)
		}
		return err
	}
	return keepFile(f, path)
}

// keepFile makes what was written to f durable under its name.
func keepFile(f file, path string) error {
	d := osDisk{}
	err := f.Sync()
	if closed := f.Close(); err == nil {
		err = closed
	}
	if err == nil {
		err = d.Rename(f.Name(), path)
	}
	if err != nil {
		_ = d.Remove(f.Name())
		return unavailable(path, "writing file", err)
	}
	if err := d.SyncDir(filepath.Dir(path)); err != nil {
		return unavailable(path, "writing file", err)
	}
	return nil
}

// writerOnly hides Close, which the Parquet writer calls where it finds it.
type writerOnly struct{ io.Writer }
