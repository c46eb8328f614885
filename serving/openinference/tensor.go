package openinference

import (
	"math"
	"strconv"
	"unicode/utf8"

	"github.com/millrace/millrace/serving"
)

// kind is how the elements of a tensor are kept.
type kind uint8

const (
	bools  kind = iota // 1 or 0 in tensor.ints
	ints               // in tensor.ints
	uints              // in tensor.ints, by their bits
	floats             // in tensor.floats
	texts              // in tensor.texts
)

// datatype is one of the protocol's.
type datatype struct {
	kind kind
	size int // bytes of an element; 0 of BYTES, each of which begins with its length
}

const (
	typeBool  = "BOOL"
	typeInt64 = "INT64"
	typeFP64  = "FP64"
	typeBytes = "BYTES"
)

var datatypes = map[string]datatype{
	typeBool: {bools, 1},
	"INT8":   {ints, 1}, "INT16": {ints, 2}, "INT32": {ints, 4}, typeInt64: {ints, 8},
	"UINT8": {uints, 1}, "UINT16": {uints, 2}, "UINT32": {uints, 4}, "UINT64": {uints, 8},
	"FP32": {floats, 4}, typeFP64: {floats, 8},
	typeBytes: {texts, 0},
}

// maxElements of a tensor; a body within the stage's limit holds fewer.
const maxElements = 1 << 30

// tensor is an input or output: elements in row-major order.
type tensor struct {
	name     string
	datatype string
	kind     kind
	shape    []int64
	ints     []int64
	floats   []float64
	texts    []string
	missing  []bool // by element; nil where none is
}

// newTensor checks what a tensor says of itself. Its elements are yet to come.
func newTensor(name, typ string, shape []int64) (*tensor, *serving.Problem) {
	d, ok := datatypes[typ]
	if !ok {
		return nil, invalid(name, "the datatype is not one of BOOL, INT8 to INT64, UINT8 to UINT64, FP32, FP64 and BYTES")
	}
	t := &tensor{name: name, datatype: typ, kind: d.kind, shape: shape}
	if len(shape) == 0 || len(shape) > 2 {
		return nil, invalid(name, "a shape has one dimension or two")
	}
	for i, n := range shape {
		if n < 0 || n > maxElements || i > 0 && n == 0 {
			return nil, invalid(name, "a dimension is out of bounds")
		}
	}
	if t.elements() > maxElements {
		return nil, invalid(name, "more than %d elements", maxElements)
	}
	return t, nil
}

// elements is how many there must be.
func (t *tensor) elements() int {
	n := int64(1)
	for _, d := range t.shape {
		n *= d
	}
	return int(n)
}

func (t *tensor) rows() int { return int(t.shape[0]) }

// width is the elements of a row.
func (t *tensor) width() int {
	if len(t.shape) < 2 {
		return 1
	}
	return int(t.shape[1])
}

// held is how many there are.
func (t *tensor) held() int {
	switch t.kind {
	case floats:
		return len(t.floats)
	case texts:
		return len(t.texts)
	default:
		return len(t.ints)
	}
}

// full is nil when there are as many elements as the shape says.
func (t *tensor) full() *serving.Problem {
	if got, want := t.held(), t.elements(); got != want {
		return invalid(t.name, "%d elements, where the shape says %d", got, want)
	}
	return nil
}

func (t *tensor) isMissing(i int) bool {
	return t.missing != nil && t.missing[i] || t.kind == floats && math.IsNaN(t.floats[i])
}

// number is an element as a model's input, NaN when it is missing; not ok of text.
func (t *tensor) number(i int) (f float64, ok bool) {
	switch {
	case t.isMissing(i):
		return math.NaN(), true
	case t.kind == floats:
		return t.floats[i], true
	case t.kind == texts:
		return 0, false
	case t.kind == uints:
		return float64(uint64(t.ints[i])), true
	default:
		return float64(t.ints[i]), true
	}
}

// appendJSON writes an element as the JSON of a row has it. Infinite numbers, and text that is not UTF-8, have no JSON: not ok.
func (t *tensor) appendJSON(b []byte, i int) (_ []byte, ok bool) {
	if t.isMissing(i) {
		return append(b, "null"...), true
	}
	switch t.kind {
	case bools:
		return strconv.AppendBool(b, t.ints[i] != 0), true
	case ints:
		return strconv.AppendInt(b, t.ints[i], 10), true
	case uints:
		return strconv.AppendUint(b, uint64(t.ints[i]), 10), true
	case floats:
		return appendFloat(b, t.floats[i]), !math.IsInf(t.floats[i], 0)
	default:
		return appendText(b, t.texts[i]), utf8.ValidString(t.texts[i])
	}
}

// appendFloat writes a number so that it is read back to the bit, a whole one as an integer is written: clients that have only floats
// send counts and times as such.
func appendFloat(b []byte, f float64) []byte {
	if f == math.Trunc(f) && math.Abs(f) < 1<<53 {
		return strconv.AppendInt(b, int64(f), 10)
	}
	return strconv.AppendFloat(b, f, 'g', -1, 64)
}
