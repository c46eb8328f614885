package features

import (
	"encoding/binary"
	"errors"
	"math"

	"github.com/millrace/millrace/schemas"
)

// last(x) is the value of the latest event time; of equal event times the one of the highest sequence number (Kafka
// offset). first(x) is that of the earliest and the lowest. Both are of the argument's own kind and exact, null when
// there is none.
var (
	lastAggregate  = endAggregate("last", false)
	firstAggregate = endAggregate("first", true)
)

func endAggregate(name string, first bool) aggregate {
	return aggregate{
		argument: anyArgument,
		kind:     kindSame,
		state: func(of stateOf) (string, fixedState, growingState) {
			if isText(of.kind) {
				return growing(name+" text", endTextState{first})
			}
			return fixed(name, endState{first})
		},
		fixedValue: func(v valueOf) fixedReader {
			return func(s []uint64, _ int64) schemas.Value {
				if s[0] == 0 {
					return schemas.NullValue()
				}
				return valueOfBits(v.kind, s[2])
			}
		},
		growingValue: func(valueOf) growingReader {
			return func(f folder, _ int64) schemas.Value { return f.(*endTextFolder).value() }
		},
	}
}

func isText(k schemas.Kind) bool { return k == schemas.String || k == schemas.Bytes }

// endState is {event time + maxTime, sequence number, bits of the value}; a time of 0 is none.
type endState struct{ first bool }

func (endState) words() int { return 3 }

func (e endState) add(s []uint64, v sample) {
	if e.replaces(uint64(v.t+maxTime), uint64(v.seq), s[0], s[1]) {
		s[0], s[1], s[2] = uint64(v.t+maxTime), uint64(v.seq), v.bits
	}
}

func (e endState) merge(dst, src []uint64) { e.fold(dst, src[:3], 3) }

func (e endState) fold(dst, rows []uint64, stride int) {
	for i := 2; i < len(rows); i += stride {
		if rows[i-2] != 0 && e.replaces(rows[i-2], rows[i-1], dst[0], dst[1]) {
			dst[0], dst[1], dst[2] = rows[i-2], rows[i-1], rows[i]
		}
	}
}

// replaces reports whether an event takes the place of the one that is held, if any.
func (e endState) replaces(t, seq, heldT, heldSeq uint64) bool {
	if e.first {
		return heldT == 0 || !later(t, seq, heldT, heldSeq)
	}
	return later(t, seq, heldT, heldSeq)
}

// later reports whether the first event comes after the second, or is the same.
func later(t, seq, thanT, thanSeq uint64) bool {
	return t > thanT || t == thanT && int64(seq) >= int64(thanSeq)
}

// bitsOf is the inverse of valueOfBits, for kinds without text.
func bitsOf(v schemas.Value) uint64 {
	if v.Kind() == schemas.Float {
		f, _ := v.Float()
		return math.Float64bits(f)
	}
	return uint64(v.Int())
}

func valueOfBits(kind schemas.Kind, bits uint64) schemas.Value {
	switch kind {
	case schemas.Bool:
		return schemas.BoolValue(bits != 0)
	case schemas.Time:
		return schemas.TimeValue(int64(bits))
	case schemas.Int:
		return schemas.IntValue(int64(bits))
	default:
		return schemas.FloatValue(math.Float64frombits(bits))
	}
}

// endTextState is {event time + maxTime, sequence number, kind<<32 | length in bytes, the bytes, eight a word, the first
// in the lowest bits}. Group.Add has refused texts beyond MaxText.
type endTextState struct{ first bool }

func (endTextState) keepsText() {}

func (e endTextState) add(state []uint64, v schemas.Value, s sample) []uint64 {
	if len(state) > 0 && !endState(e).replaces(uint64(s.t+maxTime), uint64(s.seq), state[0], state[1]) {
		return state
	}
	state = append(state[:0], uint64(s.t+maxTime), uint64(s.seq))
	return appendText(state, v)
}

// appendText appends {kind<<32 | length in bytes, the bytes}.
func appendText(state []uint64, v schemas.Value) []uint64 {
	text := v.Str()
	state = append(state, uint64(v.Kind())<<32|uint64(len(text)))
	for i := 0; i < len(text); i += 8 {
		var word [8]byte
		copy(word[:], text[i:])
		state = append(state, binary.LittleEndian.Uint64(word[:]))
	}
	return state
}

// textWords is how many words appendText takes for a text, given the first of them.
func textWords(head uint64) int { return 1 + int(head&(1<<32-1)+7)/8 }

// checkText reports whether words start with a text that appendText can have written.
func checkText(words []uint64) bool {
	if len(words) == 0 {
		return false
	}
	length := words[0] & (1<<32 - 1)
	return isText(schemas.Kind(words[0]>>32)) && length <= MaxText && len(words) >= textWords(words[0])
}

func textOf(words []uint64) schemas.Value {
	length := int(words[0] & (1<<32 - 1))
	text := make([]byte, 0, length+7)
	for _, w := range words[1:textWords(words[0])] {
		text = binary.LittleEndian.AppendUint64(text, w)
	}
	s := string(text[:length])
	if schemas.Kind(words[0]>>32) == schemas.Bytes {
		return schemas.BytesValue(s)
	}
	return schemas.StringValue(s)
}

func (e endTextState) merge(dst, src []uint64) []uint64 {
	if len(src) == 0 || len(dst) > 0 && !endState(e).replaces(src[0], src[1], dst[0], dst[1]) {
		return dst
	}
	return append(dst[:0], src...)
}

func (endTextState) pack(packed, state []uint64) []uint64 { return append(packed, state...) }

func (endTextState) unpack(dst, packed []uint64) ([]uint64, error) {
	if len(packed) < 3 || !checkText(packed[2:]) || len(packed) != 2+textWords(packed[2]) {
		return nil, errors.New("a text has the wrong length")
	}
	return append(dst, packed...), nil
}

func (e endTextState) newFolder() folder { return &endTextFolder{first: e.first} }

// endTextFolder points at the latest of the states it is given; they do not change while they are read.
type endTextFolder struct {
	first bool
	state []uint64
}

func (f *endTextFolder) reset() { f.state = nil }

func (f *endTextFolder) fold(state []uint64) {
	if len(state) > 0 && (f.state == nil || (endState{f.first}).replaces(state[0], state[1], f.state[0], f.state[1])) {
		f.state = state
	}
}

func (f *endTextFolder) value() schemas.Value {
	if f.state == nil {
		return schemas.NullValue()
	}
	return textOf(f.state[2:])
}
