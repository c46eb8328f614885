package features

import (
	"encoding/binary"
	"errors"
	"math"

	"github.com/millrace/millrace/schemas"
)

// last(x) is the value of the latest event time; of equal event times the one of the highest sequence number (Kafka
// offset). It is of the argument's own kind, null when there is none.
var lastAggregate = aggregate{
	argument: anyArgument,
	kind:     kindSame,
	state: func(k schemas.Kind) (string, fixedState, growingState) {
		if k == schemas.String || k == schemas.Bytes {
			return growing("last text", lastTextState{})
		}
		return fixed("last", lastState{})
	},
	fixedValue: func(kind schemas.Kind, _ []float64) func([]uint64) schemas.Value {
		return func(s []uint64) schemas.Value {
			if s[0] == 0 {
				return schemas.NullValue()
			}
			return valueOfBits(kind, s[2])
		}
	},
	growingValue: func([]float64) func(folder) schemas.Value {
		return func(f folder) schemas.Value { return f.(*lastTextFolder).value() }
	},
}

// lastState is {event time + maxTime, sequence number, bits of the value}; a time of 0 is none.
type lastState struct{}

func (lastState) words() int { return 3 }

func (lastState) add(s []uint64, v sample) {
	if later(uint64(v.t+maxTime), uint64(v.seq), s[0], s[1]) {
		s[0], s[1], s[2] = uint64(v.t+maxTime), uint64(v.seq), v.bits
	}
}

func (l lastState) merge(dst, src []uint64) { l.fold(dst, src[:3], 3) }

func (lastState) fold(dst, rows []uint64, stride int) {
	for i := 2; i < len(rows); i += stride {
		if later(rows[i-2], rows[i-1], dst[0], dst[1]) {
			dst[0], dst[1], dst[2] = rows[i-2], rows[i-1], rows[i]
		}
	}
}

// later reports whether the first event replaces the second. The same event again does: it is the same.
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

// lastTextState is {event time + maxTime, sequence number, kind<<32 | length in bytes, the bytes, eight a word, the first in the
// lowest bits}. Group.Add has refused texts beyond MaxText.
type lastTextState struct{}

func (lastTextState) add(state []uint64, v schemas.Value, s sample) []uint64 {
	text := v.Str()
	if len(state) > 0 && !later(uint64(s.t+maxTime), uint64(s.seq), state[0], state[1]) {
		return state
	}
	state = append(state[:0], uint64(s.t+maxTime), uint64(s.seq), uint64(v.Kind())<<32|uint64(len(text)))
	for i := 0; i < len(text); i += 8 {
		var word [8]byte
		copy(word[:], text[i:])
		state = append(state, binary.LittleEndian.Uint64(word[:]))
	}
	return state
}

func (lastTextState) merge(dst, src []uint64) []uint64 {
	if len(src) == 0 || len(dst) > 0 && !later(src[0], src[1], dst[0], dst[1]) {
		return dst
	}
	return append(dst[:0], src...)
}

func (lastTextState) pack(packed, state []uint64) []uint64 { return append(packed, state...) }

func (lastTextState) unpack(dst, packed []uint64) ([]uint64, error) {
	if len(packed) < 3 {
		return nil, errors.New("a last text is too short")
	}
	kind, length := schemas.Kind(packed[2]>>32), packed[2]&(1<<32-1)
	if kind != schemas.String && kind != schemas.Bytes || length > MaxText || uint64(len(packed)-3) != (length+7)/8 {
		return nil, errors.New("a last text has the wrong length")
	}
	return append(dst, packed...), nil
}

func (lastTextState) newFolder() folder { return &lastTextFolder{} }

// lastTextFolder points at the latest of the states it is given; they do not change while they are read.
type lastTextFolder struct{ state []uint64 }

func (f *lastTextFolder) reset() { f.state = nil }

func (f *lastTextFolder) fold(state []uint64) {
	if len(state) > 0 && (f.state == nil || later(state[0], state[1], f.state[0], f.state[1])) {
		f.state = state
	}
}

func (f *lastTextFolder) value() schemas.Value {
	if f.state == nil {
		return schemas.NullValue()
	}
	text := make([]byte, 0, MaxText)
	for _, w := range f.state[3:] {
		text = binary.LittleEndian.AppendUint64(text, w)
	}
	s := string(text[:f.state[2]&(1<<32-1)])
	if schemas.Kind(f.state[2]>>32) == schemas.Bytes {
		return schemas.BytesValue(s)
	}
	return schemas.StringValue(s)
}
