package offline

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"slices"
	"sync"

	"github.com/apache/arrow/go/v17/arrow"
	flatbuffers "github.com/google/flatbuffers/go"
	"github.com/pierrec/lz4/v4"

	"github.com/millrace/millrace/internal/idle"
)

// arrowFiles is what the writing of Arrow files needs, for any number of goroutines and files: compressors, and memory that is used again.
//
// Writing events is part of what a stream costs: LZ4 takes about a third of the time of zstd's fastest level, files are larger by a quarter
// (docs/bench/peers.md).
type arrowFiles struct {
	lz4    sync.Pool
	bodies idle.Memory[[]byte]
}

// idleBodies is the most memory of bodies that wait to be filled again.
const idleBodies = 4 << 20

func newArrowFiles() *arrowFiles {
	return &arrowFiles{
		bodies: idle.Memory[[]byte]{Most: idleBodies},
		lz4: sync.Pool{New: func() any {
			w := lz4.NewWriter(nil)
			if err := w.Apply(lz4.BlockSizeOption(lz4.Block256Kb), lz4.ChecksumOption(false), lz4.ConcurrencyOption(1)); err != nil {
				panic(err) // of constants
			}
			return w
		}},
	}
}

// frameBound is how much longer than its content a frame's header and end may make it, beyond what lz4.CompressBlockBound says.
const frameBound = 64

// compress adds the LZ4 frame of src to dst.
func (f *arrowFiles) compress(dst, src []byte) ([]byte, error) {
	w := f.lz4.Get().(*lz4.Writer)
	defer f.lz4.Put(w)
	out := bytes.NewBuffer(slices.Grow(dst, lz4.CompressBlockBound(len(src))+frameBound))
	w.Reset(out)
	if _, err := w.Write(src); err != nil {
		return dst, err
	}
	err := w.Close()
	return out.Bytes(), err
}

// arrowWriter writes one file in the Arrow IPC file format, LZ4-compressed: the format's columnar subset that tables and training sets are
// made of (https://arrow.apache.org/docs/format/Columnar.html#ipc-file-format).
//
// The Arrow library's own writer makes a compressor of 16 MiB for every file. Tables have many small ones, and spent two thirds of their
// time on that. What it writes and what this writes read the same.
type arrowWriter struct {
	w      *bufio.Writer
	sum    uint32 // CRC-32C of what was written
	n      int64
	table  *crc32.Table
	files  *arrowFiles
	schema *arrow.Schema
	fb     *flatbuffers.Builder
	body   []byte
	blocks []block // one per record batch
}

// block is where a message lies in the file.
type block struct {
	offset int64
	meta   int32 // length with prefix and padding
	body   int64
}

// span is a buffer in a body (offset, length) or a column's rows and nulls, both of which the format writes as two 64-bit words.
type span struct{ a, b int64 }

// Numbers of the format's enumerations (Message.fbs, Schema.fbs).
const (
	metadataV5        = 4
	headerSchema      = 1
	headerRecordBatch = 3
	codecLZ4          = 0
	typeInt           = 2
	typeFloat         = 3
	typeBinary        = 4
	typeText          = 5
	typeBool          = 6
	typeTimestamp     = 10
	precisionDouble   = 2
	unitMillisecond   = 1
)

// newArrowWriter begins a file. Close, or else drop, the writer.
func newArrowWriter(w io.Writer, schema *arrow.Schema, files *arrowFiles) (*arrowWriter, error) {
	a := &arrowWriter{w: bufio.NewWriterSize(w, 1<<13), table: crc32.MakeTable(crc32.Castagnoli), files: files, schema: schema,
		fb: flatbuffers.NewBuilder(1024)}
	a.body, _ = files.bodies.Get()
	if err := a.write([]byte("ARROW1\x00\x00")); err != nil {
		return nil, err
	}
	header, err := a.schemaTable()
	if err != nil {
		return nil, err
	}
	_, err = a.message(headerSchema, header, nil)
	return a, err
}

func (a *arrowWriter) write(p []byte) error {
	a.sum = crc32.Update(a.sum, a.table, p)
	a.n += int64(len(p))
	_, err := a.w.Write(p)
	return err
}

// Write adds a record batch. Its arrays must start at the first element of their buffers, as those do that this package makes.
func (a *arrowWriter) Write(record arrow.Record) error {
	var nodes, buffers []span
	body := a.body[:0]
	for i := range int(record.NumCols()) {
		data := record.Column(i).Data()
		if data.Offset() != 0 {
			return fmt.Errorf("writing Arrow file: column %d starts at %d", i, data.Offset())
		}
		nodes = append(nodes, span{int64(data.Len()), int64(data.NullN())})
		for j, buffer := range data.Buffers() {
			var content []byte
			if buffer != nil && (j > 0 || data.NullN() > 0) {
				content = buffer.Bytes()
			}
			var s span
			var err error
			if body, s, err = a.append(body, content, compressible(a.schema.Field(i), j)); err != nil {
				return fmt.Errorf("compressing column %d: %w", i, err)
			}
			buffers = append(buffers, s)
		}
	}
	a.body = body
	a.fb.Reset()
	nodesAt, buffersAt := a.spans(nodes), a.spans(buffers)
	a.fb.StartObject(2) // BodyCompression: codec, method (0: by buffer)
	a.fb.PrependInt8Slot(0, codecLZ4, 0)
	compression := a.fb.EndObject()
	a.fb.StartObject(5) // RecordBatch: length, nodes, buffers, compression, variadic counts
	a.fb.PrependInt64Slot(0, record.NumRows(), 0)
	a.fb.PrependUOffsetTSlot(1, nodesAt, 0)
	a.fb.PrependUOffsetTSlot(2, buffersAt, 0)
	a.fb.PrependUOffsetTSlot(3, compression, 0)
	b, err := a.message(headerRecordBatch, a.fb.EndObject(), body)
	a.blocks = append(a.blocks, b)
	return err
}

// compressible reports whether it pays to compress a column's buffer. In numbers that ascend LZ4 finds little and takes longest: it leaves
// half of event times and offsets, at a third of its speed elsewhere, and all of where texts end.
func compressible(f arrow.Field, buffer int) bool {
	if buffer != 1 {
		return true
	}
	switch f.Type.ID() {
	case arrow.STRING, arrow.BINARY, arrow.TIMESTAMP:
		return false
	default:
		return f.Name != OffsetColumn
	}
}

// append adds a buffer to the body: its length and an LZ4 frame, or -1 and the bytes as they are where that is shorter or quicker.
func (a *arrowWriter) append(body, content []byte, compressible bool) ([]byte, span, error) {
	at := len(body)
	if len(content) == 0 {
		return body, span{int64(at), 0}, nil
	}
	if compressible {
		body = binary.LittleEndian.AppendUint64(body, uint64(len(content)))
		var err error
		if body, err = a.files.compress(body, content); err != nil {
			return body, span{}, err
		}
	}
	if !compressible || len(body)-at-8 >= len(content) {
		body = binary.LittleEndian.AppendUint64(body[:at], ^uint64(0))
		body = append(body, content...)
	}
	s := span{int64(at), int64(len(body) - at)}
	return append(body, make([]byte, -len(body)&7)...), s, nil
}

func (a *arrowWriter) spans(spans []span) flatbuffers.UOffsetT {
	a.fb.StartVector(16, len(spans), 8)
	for i := len(spans) - 1; i >= 0; i-- {
		a.fb.Prep(8, 16)
		a.fb.PrependInt64(spans[i].b)
		a.fb.PrependInt64(spans[i].a)
	}
	return a.fb.EndVector(len(spans))
}

// message writes a message around a header that is in the builder.
func (a *arrowWriter) message(kind byte, header flatbuffers.UOffsetT, body []byte) (block, error) {
	a.fb.StartObject(5) // Message: version, header type, header, body length, custom metadata
	a.fb.PrependInt16Slot(0, metadataV5, 0)
	a.fb.PrependByteSlot(1, kind, 0)
	a.fb.PrependUOffsetTSlot(2, header, 0)
	a.fb.PrependInt64Slot(3, int64(len(body)), 0)
	a.fb.Finish(a.fb.EndObject())
	meta := a.fb.FinishedBytes()
	padding := -len(meta) & 7
	prefix := binary.LittleEndian.AppendUint32([]byte{0xff, 0xff, 0xff, 0xff}, uint32(len(meta)+padding))
	b := block{a.n, int32(8 + len(meta) + padding), int64(len(body))}
	for _, part := range [][]byte{prefix, meta, make([]byte, padding), body} {
		if err := a.write(part); err != nil {
			return b, err
		}
	}
	return b, nil
}

// Close writes the footer. It does not close what is underneath.
func (a *arrowWriter) Close() error {
	a.fb.Reset()
	schema, err := a.schemaTable()
	if err != nil {
		return err
	}
	a.fb.StartVector(24, len(a.blocks), 8)
	for i := len(a.blocks) - 1; i >= 0; i-- { // Block: offset, metadata length, four bytes of padding, body length
		a.fb.Prep(8, 24)
		a.fb.PrependInt64(a.blocks[i].body)
		a.fb.Pad(4)
		a.fb.PrependInt32(a.blocks[i].meta)
		a.fb.PrependInt64(a.blocks[i].offset)
	}
	batches := a.fb.EndVector(len(a.blocks))
	a.fb.StartVector(24, 0, 8)
	dictionaries := a.fb.EndVector(0)
	a.fb.StartObject(5) // Footer: version, schema, dictionaries, record batches, custom metadata
	a.fb.PrependInt16Slot(0, metadataV5, 0)
	a.fb.PrependUOffsetTSlot(1, schema, 0)
	a.fb.PrependUOffsetTSlot(2, dictionaries, 0)
	a.fb.PrependUOffsetTSlot(3, batches, 0)
	a.fb.Finish(a.fb.EndObject())
	footer := a.fb.FinishedBytes()
	end := append([]byte{0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0}, footer...) // the end of the stream of messages comes first
	end = binary.LittleEndian.AppendUint32(end, uint32(len(footer)))
	if err := a.write(append(end, "ARROW1"...)); err != nil {
		return err
	}
	a.files.bodies.Put(a.body, cap(a.body))
	a.body = nil
	return a.w.Flush()
}

// schemaTable adds the schema to the builder.
func (a *arrowWriter) schemaTable() (flatbuffers.UOffsetT, error) {
	fields := make([]flatbuffers.UOffsetT, a.schema.NumFields())
	for i, f := range a.schema.Fields() {
		kind, table, err := a.typeTable(f.Type)
		if err != nil {
			return 0, fmt.Errorf("writing column %s: %w", f.Name, err)
		}
		name := a.fb.CreateString(f.Name)
		a.fb.StartVector(4, 0, 4)
		children := a.fb.EndVector(0)
		a.fb.StartObject(7) // Field: name, nullable, type's type, type, dictionary, children, custom metadata
		a.fb.PrependUOffsetTSlot(0, name, 0)
		a.fb.PrependBoolSlot(1, f.Nullable, false)
		a.fb.PrependByteSlot(2, kind, 0)
		a.fb.PrependUOffsetTSlot(3, table, 0)
		a.fb.PrependUOffsetTSlot(5, children, 0)
		fields[i] = a.fb.EndObject()
	}
	vector := a.fb.CreateVectorOfTables(fields)
	a.fb.StartObject(4) // Schema: endianness (0: little), fields, custom metadata, features
	a.fb.PrependUOffsetTSlot(1, vector, 0)
	return a.fb.EndObject(), nil
}

// typeTable adds a column's type to the builder and tells which of the format's types it is.
func (a *arrowWriter) typeTable(t arrow.DataType) (byte, flatbuffers.UOffsetT, error) {
	switch t := t.(type) {
	case *arrow.Int32Type, *arrow.Int64Type:
		a.fb.StartObject(2) // Int: bit width, signed
		a.fb.PrependInt32Slot(0, int32(t.(arrow.FixedWidthDataType).BitWidth()), 0)
		a.fb.PrependBoolSlot(1, true, false)
		return typeInt, a.fb.EndObject(), nil
	case *arrow.Float64Type:
		a.fb.StartObject(1) // FloatingPoint: precision
		a.fb.PrependInt16Slot(0, precisionDouble, 0)
		return typeFloat, a.fb.EndObject(), nil
	case *arrow.TimestampType:
		if t.Unit != arrow.Millisecond {
			break
		}
		zone := a.fb.CreateString(t.TimeZone)
		a.fb.StartObject(2) // Timestamp: unit, time zone
		a.fb.PrependInt16Slot(0, unitMillisecond, 0)
		a.fb.PrependUOffsetTSlot(1, zone, 0)
		return typeTimestamp, a.fb.EndObject(), nil
	}
	kind, ok := map[arrow.Type]byte{arrow.STRING: typeText, arrow.BINARY: typeBinary, arrow.BOOL: typeBool}[t.ID()]
	if !ok {
		return 0, 0, fmt.Errorf("a %s is not written here", t)
	}
	a.fb.StartObject(0)
	return kind, a.fb.EndObject(), nil
}
