package schemas

import (
	"encoding/base64"
	"encoding/json"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Kind is the type of a column.
type Kind uint8

// The column types that records are reduced to.
const (
	Null      Kind = iota
	Bool           // Avro boolean
	Int            // Avro int, long
	Float          // Avro float, double
	String         // Avro string, enum
	Time           // Avro long with logicalType timestamp-millis or timestamp-micros: Unix milliseconds, UTC
	Bytes          // Avro bytes, fixed
	Composite      // a list or a map, as JSON: some features' values, never a column's
)

var kindNames = [...]string{"null", "bool", "int", "float", "string", "time", "bytes", "json"}

func (k Kind) String() string { return kindNames[k] }

// Numeric reports whether values of the kind can be aggregated as numbers (a bool counts as 0 or 1).
func (k Kind) Numeric() bool { return k == Bool || k == Int || k == Float }

// Value is one column of one record, without a heap allocation of its own. The zero Value is null.
type Value struct {
	kind Kind
	bits uint64
	text string
}

// NullValue is the absent value.
func NullValue() Value { return Value{} }

// BoolValue holds a boolean.
func BoolValue(b bool) Value {
	if b {
		return Value{kind: Bool, bits: 1}
	}
	return Value{kind: Bool}
}

// IntValue holds an integer.
func IntValue(i int64) Value { return Value{kind: Int, bits: uint64(i)} }

// FloatValue holds a float.
func FloatValue(f float64) Value { return Value{kind: Float, bits: math.Float64bits(f)} }

// StringValue holds text.
func StringValue(s string) Value { return Value{kind: String, text: s} }

// TimeValue holds a time in Unix milliseconds.
func TimeValue(ms int64) Value { return Value{kind: Time, bits: uint64(ms)} }

// BytesValue holds raw bytes.
func BytesValue(b string) Value { return Value{kind: Bytes, text: b} }

// CompositeValue holds a list or a map, written as JSON.
func CompositeValue(document string) Value { return Value{kind: Composite, text: document} }

// Kind is the value's type; Null when it is absent.
func (v Value) Kind() Kind { return v.kind }

// IsNull reports whether the value is absent.
func (v Value) IsNull() bool { return v.kind == Null }

// Bool is the truth of a Bool value.
func (v Value) Bool() bool { return v.bits != 0 }

// Int is the integer of an Int or the Unix milliseconds of a Time value.
func (v Value) Int() int64 { return int64(v.bits) }

// Str is the text of a String or Composite or the content of a Bytes value.
func (v Value) Str() string { return v.text }

// Float is the value as a number: a bool counts as 0 or 1, a time as Unix milliseconds. ok is false for null, text and bytes.
func (v Value) Float() (f float64, ok bool) {
	switch v.kind {
	case Float:
		return math.Float64frombits(v.bits), true
	case Int, Time:
		return float64(int64(v.bits)), true
	case Bool:
		return float64(v.bits), true
	default:
		return 0, false
	}
}

// Any is the value as expressions and JSON see it: nil, bool, int64, float64, string, time.Time (UTC), []byte or
// json.RawMessage.
func (v Value) Any() any {
	switch v.kind {
	case Bool:
		return v.bits != 0
	case Int:
		return int64(v.bits)
	case Float:
		return math.Float64frombits(v.bits)
	case String:
		return v.text
	case Time:
		return time.UnixMilli(int64(v.bits)).UTC()
	case Bytes:
		return []byte(v.text)
	case Composite:
		return json.RawMessage(v.text)
	default:
		return nil
	}
}

// ValueOf is the Value of what Any gives, and of the other sizes of numbers that databases have; false for anything else.
func ValueOf(v any) (Value, bool) {
	switch v := v.(type) {
	case nil:
		return NullValue(), true
	case bool:
		return BoolValue(v), true
	case int16:
		return IntValue(int64(v)), true
	case int32:
		return IntValue(int64(v)), true
	case int64:
		return IntValue(v), true
	case float32:
		return FloatValue(float64(v)), true
	case float64:
		return FloatValue(v), true
	case string:
		return StringValue(v), true
	case time.Time:
		return TimeValue(v.UnixMilli()), true
	case []byte:
		return BytesValue(string(v)), true
	default:
		return NullValue(), false
	}
}

// Text is the canonical text of a value, the one that entity keys are made of: RFC 3339 for times, standard base64 for bytes, shortest
// form that reads back for floats, empty for null.
func (v Value) Text() string {
	if v.kind == String || v.kind == Composite {
		return v.text
	}
	return string(v.AppendText(nil))
}

// AppendText appends what Text gives.
func (v Value) AppendText(b []byte) []byte {
	switch v.kind {
	case Bool:
		return strconv.AppendBool(b, v.bits != 0)
	case Int:
		return strconv.AppendInt(b, int64(v.bits), 10)
	case Float:
		return AppendFloat(b, math.Float64frombits(v.bits))
	case String, Composite:
		return append(b, v.text...)
	case Time:
		return time.UnixMilli(int64(v.bits)).UTC().AppendFormat(b, time.RFC3339Nano)
	case Bytes:
		return base64.StdEncoding.AppendEncode(b, []byte(v.text))
	default:
		return b
	}
}

// Row is a record's columns, in the order of its Schema.
type Row []Value

// Clone is a copy whose text is its own: text taken from a batch would keep the whole of it in memory.
func (r Row) Clone() Row {
	own := slices.Clone(r)
	for i := range own {
		own[i].text = strings.Clone(own[i].text)
	}
	return own
}

// Pick is some columns of the row, in the order given, with text of their own; nil of none.
func (r Row) Pick(columns []int) Row {
	if len(columns) == 0 {
		return nil
	}
	picked := make(Row, len(columns))
	for i, c := range columns {
		picked[i] = r[c]
		picked[i].text = strings.Clone(r[c].text)
	}
	return picked
}
