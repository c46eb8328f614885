package offline

import (
	"cmp"
	"io"
	"math/bits"
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
	bytes          int    // an estimate of the memory held
	spare          values // memory to sort into
}

// values is one column of a segment. Which slice is used depends on the kind: words for Bool, Int and Time, floats for Float, text
// and starts for String and Bytes.
type values struct {
	kind   schemas.Kind
	words  []int64
	floats []float64
	text   []byte
	starts []int32 // where each row's text starts, and behind the last where it ends; empty without rows
	nulls  []bool  // shorter than the column where the rest holds no nulls
}

func newSegment(columns []Column) *segment {
	s := &segment{columns: make([]values, len(columns))}
	for i, c := range columns {
		s.columns[i].kind = c.Kind
	}
	return s
}

// segment is an empty one, with the memory of rows that are in a file, of whatever partition.
func (t *Table) segment() *segment {
	if s, ok := t.segments.Get(); ok {
		return s
	}
	return newSegment(t.columns)
}

// idleSegments is the most memory of segments that wait to be filled again, of a table.
const idleSegments = 8 << 20

// release gives a segment up whose rows are in a file.
func (t *Table) release(s *segment) {
	s.reset()
	t.segments.Put(s, s.held())
}

// reset empties the segment and keeps its memory.
func (s *segment) reset() {
	s.times, s.offsets, s.bytes = s.times[:0], s.offsets[:0], 0
	for i := range s.columns {
		c := &s.columns[i]
		c.words, c.floats, c.text, c.starts, c.nulls = c.words[:0], c.floats[:0], c.text[:0], c.starts[:0], c.nulls[:0]
	}
}

// held is the memory that the segment has, filled or not.
func (s *segment) held() int {
	n := 8*cap(s.times) + 8*cap(s.offsets) + s.spare.held()
	for i := range s.columns {
		n += s.columns[i].held()
	}
	return n
}

func (c *values) held() int {
	return 8*cap(c.words) + 8*cap(c.floats) + cap(c.text) + 4*cap(c.starts) + cap(c.nulls)
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
		if n == 0 {
			c.starts = append(c.starts, 0)
		}
		c.text = append(c.text, v.Str()...)
		c.starts = append(c.starts, int32(len(c.text)))
	default:
		c.words = append(c.words, v.Int())
	}
}

func (c *values) null(n int) bool { return n < len(c.nulls) && c.nulls[n] }

// sort brings the rows in the order of (time, offset); those that are equal stay in the order they came.
func (s *segment) sort() {
	order := s.order()
	if order == nil {
		return
	}
	s.spare.words = pick(s.spare.words, s.times, order)
	s.times, s.spare.words = s.spare.words, s.times
	s.spare.words = pick(s.spare.words, s.offsets, order)
	s.offsets, s.spare.words = s.spare.words, s.offsets
	for i := range s.columns {
		s.columns[i].sort(order, &s.spare)
	}
}

// sort brings the rows in an order. The column's memory and that of spare change places.
func (c *values) sort(order []uint64, spare *values) {
	switch c.kind {
	case schemas.Float:
		spare.floats = pick(spare.floats, c.floats, order)
		c.floats, spare.floats = spare.floats, c.floats
	case schemas.String, schemas.Bytes:
		spare.text, spare.starts = spare.text[:0], append(spare.starts[:0], 0)
		for _, row := range order {
			spare.text = append(spare.text, c.text[c.starts[row]:c.starts[row+1]]...)
			spare.starts = append(spare.starts, int32(len(spare.text)))
		}
		c.text, c.starts, spare.text, spare.starts = spare.text, spare.starts, c.text, c.starts
	default:
		spare.words = pick(spare.words, c.words, order)
		c.words, spare.words = spare.words, c.words
	}
	if len(c.nulls) > 0 {
		spare.nulls = spare.nulls[:0]
		for _, row := range order {
			spare.nulls = append(spare.nulls, c.null(int(row)))
		}
		c.nulls, spare.nulls = spare.nulls, c.nulls
	}
}

func pick[T any](into, all []T, order []uint64) []T {
	into = slices.Grow(into[:0], len(order))[:len(order)]
	for i, row := range order {
		into[i] = all[row]
	}
	return into
}

// order is the rows sorted by (time, offset), stable, or nil when they are so already. Rows come in the order of their offsets as a rule, so
// that a time and a row's number, in one word where they fit, are all there is to compare.
func (s *segment) order() []uint64 {
	sorted, ascending := true, true
	least, most := s.times[0], s.times[0]
	for i := 1; i < len(s.times); i++ {
		ascending = ascending && s.offsets[i] >= s.offsets[i-1]
		sorted = sorted && (s.times[i] > s.times[i-1] || s.times[i] == s.times[i-1] && s.offsets[i] >= s.offsets[i-1])
		least, most = min(least, s.times[i]), max(most, s.times[i])
	}
	if sorted {
		return nil
	}
	order := make([]uint64, len(s.times))
	shift := bits.Len(uint(len(order)))
	if span := uint64(most) - uint64(least); ascending && bits.Len64(span)+shift <= 64 {
		for i, t := range s.times {
			order[i] = (uint64(t)-uint64(least))<<shift | uint64(i)
		}
		slices.Sort(order)
		for i := range order {
			order[i] &= 1<<shift - 1
		}
		return order
	}
	for i := range order {
		order[i] = uint64(i)
	}
	slices.SortFunc(order, func(i, j uint64) int {
		return cmp.Or(cmp.Compare(s.times[i], s.times[j]), cmp.Compare(s.offsets[i], s.offsets[j]), cmp.Compare(i, j))
	})
	return order
}

// record is the rows from..to in the shape of a table's file. It refers to the segment's memory.
func (s *segment) record(schema *arrow.Schema, partition int32, from, to int) arrow.Record {
	arrays := make([]arrow.Array, 0, len(s.columns)+3)
	for i := range s.columns {
		arrays = append(arrays, s.columns[i].array(schema.Field(i).Type, from, to))
	}
	partitions := make([]int32, to-from)
	for i := range partitions {
		partitions[i] = partition
	}
	arrays = append(arrays,
		fixed(arrow.FixedWidthTypes.Timestamp_ms, arrow.Int64Traits.CastToBytes(s.times[from:to]), to-from, nil, 0),
		fixed(arrow.PrimitiveTypes.Int32, arrow.Int32Traits.CastToBytes(partitions), to-from, nil, 0),
		fixed(arrow.PrimitiveTypes.Int64, arrow.Int64Traits.CastToBytes(s.offsets[from:to]), to-from, nil, 0))
	return array.NewRecord(schema, arrays, int64(to-from))
}

// writeTo writes the rows as one Arrow file and returns its length in bytes and their CRC-32C.
func (s *segment) writeTo(out io.Writer, t *Table, partition int32) (int64, uint32, error) {
	w, err := newArrowWriter(out, t.schema, t.files)
	if err != nil {
		return 0, 0, err
	}
	for from := 0; from < s.rows(); from += rowsPerBatch {
		if err := w.Write(s.record(t.schema, partition, from, min(from+rowsPerBatch, s.rows()))); err != nil {
			return 0, 0, err
		}
	}
	err = w.Close()
	return w.n, w.sum, err
}

// array is the rows from..to of a column.
func (c *values) array(t arrow.DataType, from, to int) arrow.Array {
	n := to - from
	valid, nulls := c.validity(from, to)
	switch c.kind {
	case schemas.Float:
		return fixed(t, arrow.Float64Traits.CastToBytes(c.floats[from:to]), n, valid, nulls)
	case schemas.Bool:
		bits := make([]byte, bitutil.BytesForBits(int64(n)))
		for i, w := range c.words[from:to] {
			if w != 0 {
				bitutil.SetBit(bits, i)
			}
		}
		return fixed(t, bits, n, valid, nulls)
	case schemas.String, schemas.Bytes:
		starts, text := c.texts(from, to)
		data := array.NewData(t, n, []*memory.Buffer{valid, memory.NewBufferBytes(arrow.Int32Traits.CastToBytes(starts)),
			memory.NewBufferBytes(text)}, nil, nulls, 0)
		return array.MakeFromData(data)
	default:
		return fixed(t, arrow.Int64Traits.CastToBytes(c.words[from:to]), n, valid, nulls)
	}
}

// validity is the bitmap of the rows that hold a value (nil: all do), and how many do not.
func (c *values) validity(from, to int) (*memory.Buffer, int) {
	if len(c.nulls) == 0 {
		return nil, 0
	}
	n := to - from
	bits, nulls := make([]byte, bitutil.BytesForBits(int64(n))), 0
	for i := range n {
		if c.null(from + i) {
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

// texts is where the rows' texts start, with one more that is the end, and their bytes. It refers to the column's memory where it can.
func (c *values) texts(from, to int) ([]int32, []byte) {
	if from == to {
		return make([]int32, 1), nil
	}
	starts, base := c.starts[from:to+1], c.starts[from]
	if base > 0 {
		starts = slices.Clone(starts)
		for i := range starts {
			starts[i] -= base
		}
	}
	return starts, c.text[base:c.starts[to]]
}

// fixed is an array over bytes that are already in Arrow's layout.
func fixed(t arrow.DataType, bytes []byte, n int, valid *memory.Buffer, nulls int) arrow.Array {
	data := array.NewData(t, n, []*memory.Buffer{valid, memory.NewBufferBytes(bytes)}, nil, nulls, 0)
	return array.MakeFromData(data)
}
