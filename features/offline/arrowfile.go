package offline

import (
	"bytes"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"

	"github.com/apache/arrow/go/v17/arrow"
	"github.com/apache/arrow/go/v17/arrow/array"
	"github.com/apache/arrow/go/v17/arrow/ipc"
	"github.com/apache/arrow/go/v17/arrow/memory"

	"github.com/millrace/millrace/internal/failure"
)

// arrowFile is an Arrow IPC file of a table. It is held in memory as it is on disk, compressed: the Arrow library trusts lengths that it
// reads, so no byte may reach it before the checksum over all of them has been seen to be right.
type arrowFile struct {
	path    string
	r       *ipc.FileReader
	columns []int  // position in the file of each wanted column, -1 where the file has none
	system  [3]int // positions of _time, _partition, _offset
}

// openArrow reads the committed file from the first of paths that exists and looks for the wanted columns in it. A column that the file
// does not have reads as null: the table has grown since.
func openArrow(paths []string, f entryFile, wanted []Column) (*arrowFile, error) {
	path, text, err := readFirst(paths)
	if err != nil {
		return nil, err
	}
	if int64(len(text)) != f.Bytes || crc32.Checksum(text, crc32.MakeTable(crc32.Castagnoli)) != f.CRC32C {
		return nil, failure.New(failure.Corrupt, path, "the file's %d bytes are not the %d that were committed", len(text), f.Bytes).
			WithHint("restore it from a backup")
	}
	a := &arrowFile{path: path}
	return a, a.readFooter(text, wanted)
}

func readFirst(paths []string) (string, []byte, error) {
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err == nil {
			return path, text, nil
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return "", nil, failure.Wrap(failure.Unavailable, "", "reading offline file", err)
		}
	}
	return "", nil, failure.New(failure.Corrupt, paths[0], "a committed file is gone").WithHint("restore it from a backup")
}

func (a *arrowFile) readFooter(text []byte, wanted []Column) (err error) {
	defer recoverCorrupt(a.path, &err)
	if a.r, err = ipc.NewFileReader(bytes.NewReader(text), ipc.WithAllocator(&boundedAllocator{})); err != nil {
		return failure.Wrap(failure.Corrupt, a.path, "reading footer", err)
	}
	for _, c := range wanted {
		at, err := a.find(c.Name, arrowType(c.Kind))
		if err != nil {
			return err
		}
		a.columns = append(a.columns, at)
	}
	for i, c := range []struct {
		name string
		kind arrow.DataType
	}{
		{TimeColumn, arrow.FixedWidthTypes.Timestamp_ms}, {PartitionColumn, arrow.PrimitiveTypes.Int32},
		{OffsetColumn, arrow.PrimitiveTypes.Int64},
	} {
		if a.system[i], err = a.find(c.name, c.kind); err != nil {
			return err
		}
		if a.system[i] < 0 {
			return failure.New(failure.Corrupt, a.path, "the file has no column %s", c.name)
		}
	}
	return nil
}

// find is the position of a column in the file, -1 when it has none.
func (a *arrowFile) find(name string, want arrow.DataType) (int, error) {
	at := a.r.Schema().FieldIndices(name)
	if len(at) == 0 {
		return -1, nil
	}
	if have := a.r.Schema().Field(at[0]).Type; !arrow.TypeEqual(have, want) {
		return 0, failure.New(failure.Corrupt, a.path, "column %s is %s, not %s", name, have, want).
			WithHint("the column's type has changed since; give the source or group another name, or remove its folder")
	}
	return at[0], nil
}

func (a *arrowFile) batches() int { return a.r.NumRecords() }

// batch decodes the i-th record batch.
func (a *arrowFile) batch(i int) (b *Batch, err error) {
	defer recoverCorrupt(a.path, &err)
	record, err := a.r.RecordAt(i)
	if err != nil {
		return nil, failure.Wrap(failure.Corrupt, a.path, fmt.Sprintf("reading record batch %d", i), err)
	}
	// The record's memory belongs to the garbage collector: rows read from it stay valid.
	b = &Batch{rows: int(record.NumRows()), columns: make([]vector, len(a.columns))}
	for i, at := range a.columns {
		if at < 0 {
			continue // the zero vector reads as null
		}
		if b.columns[i], err = newVector(record.Column(at)); err != nil {
			return nil, failure.Wrap(failure.Corrupt, a.path, "reading column "+record.ColumnName(at), err)
		}
	}
	times, _ := newVector(record.Column(a.system[0])) // find has seen to the types
	offsets, _ := newVector(record.Column(a.system[2]))
	b.times, b.offsets = times.words, offsets.words
	if b.rows > 0 {
		b.partition = record.Column(a.system[1]).(*array.Int32).Value(0)
	}
	return b, nil
}

// maxBuffer is the most that a single buffer of a file may say it needs: text offsets have 32 bits.
const maxBuffer = 1 << 31

// boundedAllocator is the garbage collector's memory, but for lengths that no file of ours can have.
type boundedAllocator struct{ memory.GoAllocator }

func (a *boundedAllocator) Allocate(size int) []byte {
	if size > maxBuffer {
		panic(fmt.Sprintf("a buffer of %d bytes", size))
	}
	return a.GoAllocator.Allocate(size)
}

func (a *boundedAllocator) Reallocate(size int, b []byte) []byte {
	if size > maxBuffer {
		panic(fmt.Sprintf("a buffer of %d bytes", size))
	}
	return a.GoAllocator.Reallocate(size, b)
}

// recoverCorrupt turns the panics with which the Arrow library meets bad bytes into an error.
func recoverCorrupt(path string, err *error) {
	if r := recover(); r != nil {
		*err = failure.New(failure.Corrupt, path, "reading Arrow file: %v", r)
	}
}
