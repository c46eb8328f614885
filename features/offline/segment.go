package offline

import (
	"cmp"
	"io"
	"slices"

	"github.com/apache/arrow/go/v17/arrow"
	"github.com/apache/arrow/go/v17/arrow/array"
	"github.com/apache/arrow/go/v17/arrow/bitutil"
	"github.com/apache/arrow/go/v17/arrow/memory"

	"github.com/millrace/millrace/internal/failure"
	"github.com/millrace/millrace/schemas"
)

// rowsPerBatch is how many rows one record batch of a file holds at most: what a reader must decode to see any of them.
const rowsPerBatch = 1 << 16

// segment is rows on their way to one file, column by column, in the order they came.
type segment struct {
	times, offsets []int64
	columns        []values
	bytes          int // an estimate of the memory held
}

// values is one column of a segment. Which slice is used depends on the kind: words for Bool, Int and Time, floats for Float, text
// and ends for String and Bytes.
type values struct {
	kind   schemas.Kind
	words  []int64
	floats []float64
	text   []byte
	ends   []int32 // end of each row's text
	nulls  []bool  // shorter than the column where the rest holds no nulls
}

func newSegment(columns []Column) *segment {
	s := &segment{columns: make([]values, len(columns))}
	for i, c := range columns {
		s.columns[i].kind = c.Kind
	}
	return s
}

// reset empties the segment and keeps its memory.
func (s *segment) reset() {
	s.times, s.offsets, s.bytes = s.times[:0], s.offsets[:0], 0
	for i := range s.columns {
		c := &s.columns[i]
		c.words, c.floats, c.text, c.ends, c.nulls = c.words[:0], c.floats[:0], c.text[:0], c.ends[:0], c.nulls[:0]
	}
}

func (s *segment) rows() int { return len(s.times) }

// checkRow reports the first value of row that does not fit its column.
func checkRow(columns []Column, row schemas.Row) error {
	if len(row) != len(columns) {
		return failure.New(failure.Internal, "", "a row has %d values for %d columns", len(row), len(columns))
	}
	for i := range row {
		if have, want := row[i].Kind(), columns[i].Kind; have != want && !fits(have, want) {
			return failure.New(failure.Internal, columns[i].Name, "a %s does not fit a column of %s", have, want)
		}
	}
	return nil
}

// fits reports whether a value of one kind is kept in a column of another without loss of meaning.
func fits(have, want schemas.Kind) bool {
	return have == want || have == schemas.Null || want == schemas.Float && have.Numeric()
}

// add takes a row that passed check.
func (s *segment) add(row schemas.Row, time, offset int64) {
	n := len(s.times)
	s.times = append(s.times, time)
	s.offsets = append(s.offsets, offset)
	for i := range row {
		s.columns[i].add(n, row[i])
		s.bytes += 8 + len(row[i].Str())
	}
	s.bytes += 16
}

// add appends the value of row n.
func (c *values) add(n int, v schemas.Value) {
	if v.IsNull() {
		for len(c.nulls) < n {
			c.nulls = append(c.nulls, false)
		}
		c.nulls = append(c.nulls, true)
	}
	switch c.kind {
	case schemas.Float:
		f, _ := v.Float()
		c.floats = append(c.floats, f)
	case schemas.String, schemas.Bytes:
		c.text = append(c.text, v.Str()...)
		c.ends = append(c.ends, int32(len(c.text)))
	default:
		c.words = append(c.words, v.Int())
	}
}

func (c *values) null(n int) bool { return n < len(c.nulls) && c.nulls[n] }

// order is the rows sorted by (time, offset), stable, or nil when they are so already.
func (s *segment) order() []int32 {
	before := func(i, j int32) int {
		if c := cmp.Compare(s.times[i], s.times[j]); c != 0 {
			return c
		}
		if c := cmp.Compare(s.offsets[i], s.offsets[j]); c != 0 {
			return c
		}
		return cmp.Compare(i, j)
	}
	sorted := true
	for i := 1; i < len(s.times) && sorted; i++ {
		sorted = before(int32(i-1), int32(i)) < 0
	}
	if sorted {
		return nil
	}
	order := make([]int32, len(s.times))
	for i := range order {
		order[i] = int32(i)
	}
	slices.SortFunc(order, before)
	return order
}

// record is the rows order[from:to] (rows from to to when order is nil) in the shape of a table's file.
func (s *segment) record(schema *arrow.Schema, partition int32, order []int32, from, to int) arrow.Record {
	pick := rowPicker{order, from, to}
	arrays := make([]arrow.Array, 0, len(s.columns)+3)
	for i := range s.columns {
		arrays = append(arrays, s.columns[i].array(schema.Field(i).Type, pick))
	}
	partitions := make([]int32, to-from)
	for i := range partitions {
		partitions[i] = partition
	}
	arrays = append(arrays,
		fixed(arrow.FixedWidthTypes.Timestamp_ms, arrow.Int64Traits.CastToBytes(gather(s.times, pick)), to-from, nil, 0),
		fixed(arrow.PrimitiveTypes.Int32, arrow.Int32Traits.CastToBytes(partitions), to-from, nil, 0),
		fixed(arrow.PrimitiveTypes.Int64, arrow.Int64Traits.CastToBytes(gather(s.offsets, pick)), to-from, nil, 0))
	return array.NewRecord(schema, arrays, int64(to-from))
}

// writeTo writes the rows as one Arrow file and returns its length in bytes and their CRC-32C.
func (s *segment) writeTo(out io.Writer, t *Table, partition int32, order []int32) (int64, uint32, error) {
	w, err := newArrowWriter(out, t.schema, t.lz4)
	if err != nil {
		return 0, 0, err
	}
	for from := 0; from < s.rows(); from += rowsPerBatch {
		if err := w.Write(s.record(t.schema, partition, order, from, min(from+rowsPerBatch, s.rows()))); err != nil {
			return 0, 0, err
		}
	}
	err = w.Close()
	return w.n, w.sum, err
}

// rowPicker says which rows of a segment go into a record.
type rowPicker struct {
	order    []int32
	from, to int
}

func (p rowPicker) row(i int) int {
	if p.order == nil {
		return p.from + i
	}
	return int(p.order[p.from+i])
}

func gather[T any](all []T, p rowPicker) []T {
	if p.order == nil {
		return all[p.from:p.to]
	}
	picked := make([]T, p.to-p.from)
	for i, row := range p.order[p.from:p.to] {
		picked[i] = all[row]
	}
	return picked
}

// array is the picked rows of a column.
func (c *values) array(t arrow.DataType, p rowPicker) arrow.Array {
	n := p.to - p.from
	valid, nulls := c.validity(p)
	switch c.kind {
	case schemas.Float:
		return fixed(t, arrow.Float64Traits.CastToBytes(gather(c.floats, p)), n, valid, nulls)
	case schemas.Bool:
		bits := make([]byte, bitutil.BytesForBits(int64(n)))
		for i := range n {
			if c.words[p.row(i)] != 0 {
				bitutil.SetBit(bits, i)
			}
		}
		return fixed(t, bits, n, valid, nulls)
	case schemas.String, schemas.Bytes:
		ends, text := c.texts(p)
		data := array.NewData(t, n, []*memory.Buffer{valid, memory.NewBufferBytes(arrow.Int32Traits.CastToBytes(ends)),
			memory.NewBufferBytes(text)}, nil, nulls, 0)
		return array.MakeFromData(data)
	default:
		return fixed(t, arrow.Int64Traits.CastToBytes(gather(c.words, p)), n, valid, nulls)
	}
}

// validity is the bitmap of the picked rows that hold a value (nil: all do), and how many do not.
func (c *values) validity(p rowPicker) (*memory.Buffer, int) {
	if len(c.nulls) == 0 {
		return nil, 0
	}
	n := p.to - p.from
	bits, nulls := make([]byte, bitutil.BytesForBits(int64(n))), 0
	for i := range n {
		if c.null(p.row(i)) {
			nulls++
		} else {
			bitutil.SetBit(bits, i)
		}
	}
	if nulls == 0 {
		return nil, 0
	}
	return memory.NewBufferBytes(bits), nulls
}

// texts is the offsets (one more than rows) and the bytes of the picked rows of a text column.
func (c *values) texts(p rowPicker) ([]int32, []byte) {
	n := p.to - p.from
	offsets := make([]int32, n+1)
	start := func(row int) int32 {
		if row == 0 {
			return 0
		}
		return c.ends[row-1]
	}
	if p.order == nil {
		if n == 0 {
			return offsets, nil
		}
		base := start(p.from)
		for i := range n {
			offsets[i+1] = c.ends[p.from+i] - base
		}
		return offsets, c.text[base:c.ends[p.to-1]]
	}
	total := 0
	for _, row := range p.order[p.from:p.to] {
		total += int(c.ends[row] - start(int(row)))
	}
	text := make([]byte, 0, total)
	for i, row := range p.order[p.from:p.to] {
		text = append(text, c.text[start(int(row)):c.ends[row]]...)
		offsets[i+1] = int32(len(text))
	}
	return offsets, text
}

// fixed is an array over bytes that are already in Arrow's layout.
func fixed(t arrow.DataType, bytes []byte, n int, valid *memory.Buffer, nulls int) arrow.Array {
	data := array.NewData(t, n, []*memory.Buffer{valid, memory.NewBufferBytes(bytes)}, nil, nulls, 0)
	return array.MakeFromData(data)
}
