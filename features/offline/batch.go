package offline

import (
	"math"
	"sort"
	"strconv"

	"github.com/apache/arrow/go/v17/arrow"
	"github.com/apache/arrow/go/v17/arrow/array"

	"github.com/millrace/millrace/internal/failure"
	"github.com/millrace/millrace/schemas"
)

// Batch is some rows of one file, decoded. It stays valid after the call that handed it out; a text value taken from it keeps the
// whole batch in memory.
type Batch struct {
	rows           int
	columns        []vector
	times, offsets []int64 // nil for a file that is not a table's
	partition      int32
}

// Len is the number of rows.
func (b *Batch) Len() int { return b.rows }

// Row appends the columns of row i to row[:0], in the order asked for.
func (b *Batch) Row(i int, row schemas.Row) schemas.Row {
	row = row[:0]
	for c := range b.columns {
		row = append(row, b.columns[c].value(i))
	}
	return row
}

// Value is one column of row i; column counts in the order asked for.
func (b *Batch) Value(i, column int) schemas.Value { return b.columns[column].value(i) }

// Time is the event time of row i in Unix milliseconds; 0 in a file that is not a table's.
func (b *Batch) Time(i int) int64 {
	if b.times == nil {
		return 0
	}
	return b.times[i]
}

// Offset is the Kafka offset of row i; 0 in a file that is not a table's.
func (b *Batch) Offset(i int) int64 {
	if b.offsets == nil {
		return 0
	}
	return b.offsets[i]
}

// Partition is the Kafka partition of all its rows.
func (b *Batch) Partition() int32 { return b.partition }

// between narrows the batch to event times in [from, until); its rows are sorted by time.
func (b *Batch) between(from, until int64) {
	lo := sort.Search(b.rows, func(i int) bool { return b.times[i] >= from })
	hi := sort.Search(b.rows, func(i int) bool { return b.times[i] >= until })
	if lo == 0 && hi == b.rows {
		return
	}
	hi = max(lo, hi)
	b.rows = hi - lo
	b.times, b.offsets = b.times[lo:hi], b.offsets[lo:hi]
	for i := range b.columns {
		b.columns[i].first += lo
	}
}

// vector is one decoded column. Which slice is used depends on the kind: words for Int and Time, floats for Float, text for String
// and Bytes, bits for Bool.
type vector struct {
	kind   schemas.Kind // Null: no row holds a value
	first  int          // position of row 0
	valid  func(int) bool
	words  []int64
	floats []float64
	text   func(int) string
	bits   func(int) bool
	made   []schemas.Value // of a computed column, instead of all others
}

func (v *vector) value(i int) schemas.Value {
	i += v.first
	if v.made != nil {
		return v.made[i]
	}
	if v.valid != nil && !v.valid(i) {
		return schemas.NullValue()
	}
	switch v.kind {
	case schemas.Int:
		return schemas.IntValue(v.words[i])
	case schemas.Time:
		return schemas.TimeValue(v.words[i])
	case schemas.Float:
		return schemas.FloatValue(v.floats[i])
	case schemas.String:
		return schemas.StringValue(v.text(i))
	case schemas.Bytes:
		return schemas.BytesValue(v.text(i))
	case schemas.Bool:
		return schemas.BoolValue(v.bits(i))
	default:
		return schemas.NullValue()
	}
}

// newVector takes over an Arrow array of any type that reduces to one of ours; times come out in milliseconds.
func newVector(a arrow.Array) (vector, error) {
	var v vector
	if a.NullN() > 0 {
		v.valid = a.IsValid
	}
	switch a := a.(type) {
	case *array.Int64:
		v.kind, v.words = schemas.Int, a.Int64Values()
	case *array.Int32:
		v.kind, v.words = schemas.Int, widen(a.Int32Values())
	case *array.Int16:
		v.kind, v.words = schemas.Int, widen(a.Int16Values())
	case *array.Int8:
		v.kind, v.words = schemas.Int, widen(a.Int8Values())
	case *array.Uint64:
		v.kind, v.words = schemas.Int, make([]int64, a.Len())
		for i, n := range a.Uint64Values() {
			if n > math.MaxInt64 && a.IsValid(i) {
				return v, failure.New(failure.BadRecord, "", "row %d of %d has a uint64 above the largest int64", i, a.Len())
			}
			v.words[i] = int64(n)
		}
	case *array.Uint32:
		v.kind, v.words = schemas.Int, widen(a.Uint32Values())
	case *array.Uint16:
		v.kind, v.words = schemas.Int, widen(a.Uint16Values())
	case *array.Uint8:
		v.kind, v.words = schemas.Int, widen(a.Uint8Values())
	case *array.Float64:
		v.kind, v.floats = schemas.Float, a.Float64Values()
	case *array.Float32:
		v.kind = schemas.Float
		for _, f := range a.Float32Values() {
			v.floats = append(v.floats, float64(f))
		}
	case *array.Float16:
		v.kind = schemas.Float
		for _, f := range a.Values() {
			v.floats = append(v.floats, float64(f.Float32()))
		}
	case *array.Decimal128:
		v.kind = schemas.Float
		scale := a.DataType().(*arrow.Decimal128Type).Scale
		for _, d := range a.Values() {
			v.floats = append(v.floats, nearest(d.ToString(scale)))
		}
	case *array.Decimal256:
		v.kind = schemas.Float
		scale := a.DataType().(*arrow.Decimal256Type).Scale
		for _, d := range a.Values() {
			v.floats = append(v.floats, nearest(d.ToString(scale)))
		}
	case *array.Boolean:
		v.kind, v.bits = schemas.Bool, a.Value
	case *array.String:
		v.kind, v.text = schemas.String, a.Value
	case *array.LargeString:
		v.kind, v.text = schemas.String, a.Value
	case *array.StringView:
		v.kind, v.text = schemas.String, a.Value
	case *array.BinaryView:
		v.kind, v.text = schemas.Bytes, func(i int) string { return string(a.Value(i)) }
	case *array.Binary:
		v.kind, v.text = schemas.Bytes, a.ValueString
	case *array.LargeBinary:
		v.kind, v.text = schemas.Bytes, a.ValueString
	case *array.Timestamp:
		v.kind, v.words = schemas.Time, millis(a.TimestampValues(), a.DataType().(*arrow.TimestampType).Unit)
	case *array.Date32:
		v.kind = schemas.Time
		for _, d := range a.Date32Values() {
			v.words = append(v.words, int64(d)*86_400_000)
		}
	case *array.Date64:
		v.kind = schemas.Time
		for _, ms := range a.Date64Values() {
			v.words = append(v.words, int64(ms))
		}
	case *array.Dictionary:
		return decodeDictionary(a)
	default:
		return v, failure.New(failure.Corrupt, "", "a column of type %s is not read here", a.DataType())
	}
	return v, nil
}

// nearest is the float64 nearest to a decimal, which is what the same digits in JSON are; ToFloat64 of package decimal128 multiplies by a power of
// ten that is itself rounded.
func nearest(decimal string) float64 {
	f, _ := strconv.ParseFloat(decimal, 64) // at most 76 digits
	return f
}

// decodeDictionary is the column that a dictionary and its indices stand for.
func decodeDictionary(a *array.Dictionary) (vector, error) {
	words, err := newVector(a.Dictionary())
	if err != nil {
		return words, err
	}
	if words.text == nil {
		return words, failure.New(failure.Corrupt, "", "a dictionary of type %s is not read here", a.Dictionary().DataType())
	}
	v := vector{kind: words.kind, text: func(i int) string { return words.text(a.GetValueIndex(i)) }}
	if a.NullN() > 0 {
		v.valid = a.IsValid
	}
	return v, nil
}

func widen[T int32 | int16 | int8 | uint32 | uint16 | uint8](narrow []T) []int64 {
	wide := make([]int64, len(narrow))
	for i, n := range narrow {
		wide[i] = int64(n)
	}
	return wide
}

// millis is timestamps of any unit in milliseconds, rounded down.
func millis(times []arrow.Timestamp, unit arrow.TimeUnit) []int64 {
	out := make([]int64, len(times))
	for i, t := range times {
		switch unit {
		case arrow.Second:
			out[i] = int64(t) * 1000
		case arrow.Microsecond:
			out[i] = floorDiv(int64(t), 1000)
		case arrow.Nanosecond:
			out[i] = floorDiv(int64(t), 1_000_000)
		default:
			out[i] = int64(t)
		}
	}
	return out
}

func floorDiv(a, b int64) int64 {
	q := a / b
	if a%b < 0 {
		q--
	}
	return q
}
