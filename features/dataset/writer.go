package dataset

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"hash"
	"io"
	"iter"
	"math"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/apache/arrow/go/v17/arrow"
	"github.com/apache/arrow/go/v17/arrow/array"
	"github.com/apache/arrow/go/v17/arrow/bitutil"
	"github.com/apache/arrow/go/v17/arrow/ipc"
	"github.com/apache/arrow/go/v17/arrow/memory"
	"github.com/apache/arrow/go/v17/parquet/pqarrow"

	"github.com/millrace/millrace/features/pit"
	"github.com/millrace/millrace/internal/failure"
	"github.com/millrace/millrace/schemas"
)

// batchRows is how many rows a record batch of the output has.
const batchRows = 1 << 15

// recordWriter is a file format.
type recordWriter interface {
	write(arrow.Record) error
	io.Closer
}

type parquetWriter struct{ *pqarrow.FileWriter }

func (w parquetWriter) write(r arrow.Record) error { return w.WriteBuffered(r) }

type arrowWriter struct{ *ipc.FileWriter }

func (w arrowWriter) write(r arrow.Record) error { return w.Write(r) }

// output is the file that is being written, and what is on its way there.
type output struct {
	*FileWriter
	schema  *arrow.Schema
	spine   func() (arrow.Record, error, bool)
	stop    func()
	left    arrow.Record // of the spine, not yet written
	columns []column
	pending int // rows in columns
	rows    int64
}

// column is values of a feature on their way to the file.
type column struct {
	lookup, output int // output -1 is the status
	kind           schemas.Kind
	texted         bool   // values are texts
	values         []byte // of fixed width: 8 bytes, or a bit for a bool
	texts          []string
	valid          []byte // bits
	nulls          int    // of the pending rows
	allNulls       int64
}

// newOutput starts a file with the spine's columns and the features.
func newOutput(ctx context.Context, q *Request, spine Columnar, lookups []lookup) (*output, error) {
	o := &output{}
	fields, taken := spine.Schema().Fields(), map[string]bool{}
	for _, f := range fields {
		taken[f.Name] = true
	}
	add := func(name string, t arrow.DataType, c column) error {
		if taken[name] {
			return failure.New(failure.BadRequest, name, "the spine has a column of this name, which a feature is to have").
				WithHint("rename it, or give the group another name, like mine=%s.*", lookups[c.lookup].group.Name)
		}
		taken[name] = true
		c.texted = t.ID() == arrow.STRING || t.ID() == arrow.BINARY
		fields = append(fields, arrow.Field{Name: name, Type: t, Nullable: true})
		o.columns = append(o.columns, c)
		return nil
	}
	for i := range lookups {
		l := &lookups[i]
		for k, index := range l.outputs {
			f := l.group.Outputs[index]
			if err := add(l.name+"."+f.Name, outputType(f), column{lookup: i, output: k, kind: f.Kind}); err != nil {
				return nil, err
			}
		}
		if q.Status {
			if err := add(l.name+".status", arrow.BinaryTypes.String, column{lookup: i, output: -1, kind: schemas.String}); err != nil {
				return nil, err
			}
		}
	}
	o.schema = arrow.NewSchema(fields, nil)
	var err error
	if o.FileWriter, err = NewFileWriter(q.Out, o.schema, spine.Schema().NumFields()); err != nil {
		return nil, err
	}
	o.spine, o.stop = iter.Pull2(spine.Records(ctx, nil))
	return o, nil
}

// FileWriter writes records to a Parquet or Arrow file that appears whole, or not at all.
type FileWriter struct {
	path   string
	format string
	file   *os.File
	disk   *disk // the file, as it is written to
	sum    hash.Hash
	count  int64 // bytes
	w      recordWriter
}

// NewFileWriter starts a file, of the format that its extension tells. Of the schema's fields those from computed on are features.
func NewFileWriter(path string, schema *arrow.Schema, computed int) (*FileWriter, error) {
	o := &FileWriter{path: path, sum: sha256.New()}
	switch strings.ToLower(filepath.Ext(path)) {
	case ".parquet", ".pq":
		o.format = "parquet"
	case ".arrow", ".feather", ".ipc":
		o.format = "arrow"
	default:
		return nil, failure.New(failure.BadRequest, path, "the format to write is not known by the name").WithHint("name it .parquet or .arrow")
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, writeFailed(path, err)
	}
	var err error
	if o.file, err = partial(path); err != nil {
		return nil, writeFailed(path, err)
	}
	o.disk = &disk{to: o.file}
	to := io.MultiWriter(o.disk, o.sum, (*byteCount)(&o.count))
	if o.format == "arrow" {
		w, err := ipc.NewFileWriter(&positioned{to, &o.count}, ipc.WithSchema(schema), ipc.WithLZ4())
		if err != nil {
			o.Abandon()
			return nil, writeFailed(path, err)
		}
		o.w = arrowWriter{w}
		return o, nil
	}
	var w *pqarrow.FileWriter
	err = o.disk.guard(func() (err error) {
		w, err = pqarrow.NewFileWriter(schema, to, parquetProperties(schema, computed), pqarrow.DefaultWriterProps())
		return err
	})
	if err != nil {
		o.Abandon()
		if o.disk.err != nil { // not the columns, but where they go
			return nil, writeFailed(path, o.disk.err)
		}
		return nil, failure.Wrap(failure.BadRequest, path, "writing the columns as Parquet", err)
	}
	o.w = parquetWriter{w}
	return o, nil
}

// Write adds a record of the schema.
func (o *FileWriter) Write(record arrow.Record) error {
	if err := o.disk.guard(func() error { return o.w.write(record) }); err != nil {
		return writeFailed(o.path, err)
	}
	return nil
}

// Close completes the file, which appears under its name. After an error there is none.
func (o *FileWriter) Close() error {
	err := o.disk.guard(o.w.Close)
	if err == nil {
		err = errors.Join(o.file.Chmod(0o644), o.file.Sync(), o.file.Close())
	}
	if err == nil {
		err = os.Rename(o.file.Name(), o.path)
	}
	if err != nil {
		o.Abandon()
		return writeFailed(o.path, err)
	}
	return nil
}

// Abandon leaves nothing behind.
func (o *FileWriter) Abandon() {
	_ = o.file.Close() // it goes anyway
	_ = os.Remove(o.file.Name())
}

// Digest names the bytes that were written.
func (o *FileWriter) Digest() string { return "sha256:" + hex.EncodeToString(o.sum.Sum(nil)) }

// Bytes is how many were written.
func (o *FileWriter) Bytes() int64 { return o.count }

// disk is a file that remembers the first error of writing to it: Arrow's Parquet writer panics where it could say so.
type disk struct {
	to  io.Writer
	err error
}

func (d *disk) Write(p []byte) (int, error) {
	n, err := d.to.Write(p)
	if d.err == nil {
		d.err = err
	}
	return n, err
}

// guard calls what writes, and makes of a panic the error of the disk, if it is that.
func (d *disk) guard(write func() error) (err error) {
	defer func() {
		if fault := recover(); fault != nil {
			if d.err == nil {
				panic(fault)
			}
			err = d.err
		}
	}()
	return write()
}

// byteCount counts what is written.
type byteCount int64

func (n *byteCount) Write(p []byte) (int, error) {
	*n += byteCount(len(p))
	return len(p), nil
}

// positioned is a writer that the Arrow library asks where it is.
type positioned struct {
	io.Writer
	at *int64
}

func (p *positioned) Seek(offset int64, whence int) (int64, error) {
	if offset != 0 || whence != io.SeekCurrent {
		return 0, errors.ErrUnsupported
	}
	return *p.at, nil
}

func writeFailed(path string, err error) error {
	e := failure.Wrap(failure.Unavailable, path, "writing the dataset", err)
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return e.WithHint("make room on the disk, and run it again")
	}
	return e
}

// write adds a block, whose rows follow those before it.
func (o *output) write(b *pit.Block) error {
	for from := 0; from < len(b.Rows); {
		until := min(len(b.Rows), from+batchRows-o.pending)
		for i := range o.columns {
			o.columns[i].reserve(o.pending, until-from)
		}
		// A few rows at a time, so that they are in the processor's cache for every column.
		const few = 128
		for first := from; first < until; first += few {
			for i := range o.columns {
				o.columns[i].take(b, first, min(first+few, until), o.pending+first-from)
			}
		}
		o.pending += until - from
		from = until
		if o.pending == batchRows {
			if err := o.flush(); err != nil {
				return err
			}
		}
	}
	return nil
}

// reserve makes room for n more rows; their bits are 0.
func (c *column) reserve(pending, n int) {
	if pending == 0 {
		if c.valid == nil {
			c.make()
		}
		c.nulls = 0
		clear(c.valid)
		if c.kind == schemas.Bool {
			clear(c.values)
		}
	}
	if c.text() {
		c.texts = c.texts[:pending+n]
	}
}

// make makes the memory that every batch is gathered in: what is written is copied by then.
func (c *column) make() {
	c.valid = make([]byte, bitutil.BytesForBits(batchRows))
	switch {
	case c.text():
		c.texts = make([]string, 0, batchRows)
	case c.kind == schemas.Bool:
		c.values = make([]byte, bitutil.BytesForBits(batchRows))
	default:
		c.values = make([]byte, 8*batchRows)
	}
}

func (c *column) text() bool { return c.texted }

// take copies rows [from, until) of a block to the pending rows from to on.
func (c *column) take(b *pit.Block, from, until, to int) {
	if c.output < 0 {
		for r := from; r < until; r, to = r+1, to+1 {
			c.texts[to] = b.Status(c.lookup, r).String()
			bitutil.SetBit(c.valid, to)
		}
		return
	}
	words := arrow.Uint64Traits.CastFromBytes(c.values)
	for r := from; r < until; r, to = r+1, to+1 {
		word, ok := b.Word(c.lookup, c.output, r)
		if !ok {
			c.nulls++
			if c.text() {
				c.texts[to] = ""
			} else if c.kind != schemas.Bool {
				words[to] = 0
			}
			continue
		}
		c.valid[to/8] |= 1 << (to % 8)
		switch c.kind {
		case schemas.String, schemas.Bytes, schemas.Composite:
			c.texts[to] = b.Text(c.lookup, c.output, r)
		case schemas.Bool:
			if word != 0 {
				bitutil.SetBit(c.values, to)
			}
		default:
			words[to] = word
		}
	}
}

// array is the first n pending rows.
func (c *column) array(t arrow.DataType, n int) arrow.Array {
	if c.text() {
		return textArray(t, c.texts, c.valid, c.nulls)
	}
	size := 8 * n
	if c.kind == schemas.Bool {
		size = int(bitutil.BytesForBits(int64(n)))
	}
	data := array.NewData(t, n, []*memory.Buffer{memory.NewBufferBytes(c.valid), memory.NewBufferBytes(c.values[:size])}, nil, c.nulls, 0)
	defer data.Release()
	return array.MakeFromData(data)
}

func textArray(t arrow.DataType, texts []string, valid []byte, nulls int) arrow.Array {
	offsets := make([]int32, 1, len(texts)+1)
	var all []byte
	for _, text := range texts {
		all = append(all, text...)
		offsets = append(offsets, int32(min(len(all), math.MaxInt32)))
	}
	data := array.NewData(t, len(texts), []*memory.Buffer{memory.NewBufferBytes(valid),
		memory.NewBufferBytes(arrow.Int32Traits.CastToBytes(offsets)), memory.NewBufferBytes(all)}, nil, nulls, 0)
	defer data.Release()
	return array.MakeFromData(data)
}

// flush writes the pending rows beside the spine's own columns.
func (o *output) flush() error {
	n := o.pending
	if n == 0 {
		return nil
	}
	columns, err := o.spineColumns(n)
	if err != nil {
		return err
	}
	own := len(columns)
	for i := range o.columns {
		c := &o.columns[i]
		columns = append(columns, c.array(o.schema.Field(own+i).Type, n))
		c.allNulls += int64(c.nulls)
	}
	record := array.NewRecord(o.schema, columns, int64(n))
	for _, c := range columns {
		c.Release()
	}
	defer record.Release()
	if err := o.Write(record); err != nil {
		return err
	}
	o.rows += int64(n)
	o.pending = 0
	return nil
}

// spineColumns is the next n rows of the spine.
func (o *output) spineColumns(n int) ([]arrow.Array, error) {
	var parts []arrow.Record
	for n > 0 {
		if o.left == nil || o.left.NumRows() == 0 {
			record, err, more := o.spine()
			if err != nil {
				return nil, err
			}
			if !more {
				return nil, o.changed()
			}
			record.Retain() // its reader lets go of it with the next one
			o.left = record
			continue
		}
		take := min(int64(n), o.left.NumRows())
		parts = append(parts, o.left.NewSlice(0, take))
		rest := o.left.NewSlice(take, o.left.NumRows())
		o.left.Release()
		o.left = rest
		n -= int(take)
	}
	columns := make([]arrow.Array, parts[0].NumCols())
	for i := range columns {
		if len(parts) == 1 {
			columns[i] = parts[0].Column(i)
			columns[i].Retain()
			continue
		}
		pieces := make([]arrow.Array, len(parts))
		for k := range parts {
			pieces[k] = parts[k].Column(i)
		}
		var err error
		if columns[i], err = array.Concatenate(pieces, memory.DefaultAllocator); err != nil {
			return nil, failure.Wrap(failure.BadRequest, parts[0].ColumnName(i), "copying the spine's column", err)
		}
	}
	for _, p := range parts {
		p.Release()
	}
	return columns, nil
}

func (o *output) changed() error {
	return failure.New(failure.Conflict, "spine", "its rows have changed while it was read").WithHint("try again when nobody writes it")
}

// close completes the file, which appears under its name.
func (o *output) close(ctx context.Context) error {
	err := o.flush()
	if err == nil {
		if o.left != nil && o.left.NumRows() > 0 {
			err = o.changed()
		} else if _, _, more := o.spine(); more {
			err = o.changed()
		}
	}
	if err == nil {
		err = ctx.Err()
	}
	if err != nil {
		o.abandon()
		return err
	}
	o.stop()
	return o.Close()
}

// abandon leaves nothing behind.
func (o *output) abandon() {
	o.stop()
	o.Abandon()
}
