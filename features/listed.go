package features

import (
	"cmp"
	"errors"
	"fmt"
	"slices"

	"github.com/millrace/millrace/schemas"
)

// MaxListed is the greatest k of first_k and last_k.
const MaxListed = 100

// last_k(x, k) is a JSON list of the values of the k latest events in event time (of equal times the highest sequence
// numbers), the latest first. first_k(x, k) is that of the k earliest, the earliest first. Exact; null when there are
// none.
var (
	lastKAggregate  = listedAggregate("last", false)
	firstKAggregate = listedAggregate("first", true)
)

func listedAggregate(name string, first bool) aggregate {
	return aggregate{
		argument:   anyArgument,
		parameters: []parameter{sizeParameter("k", MaxListed)},
		kind:       kindComposite,
		state: func(of stateOf) (string, fixedState, growingState) {
			k := int(of.parameters[0])
			s := listedState{most: k, first: first}
			if isText(of.kind) {
				return growing(fmt.Sprint(name, " texts ", k), listedTextState{s})
			}
			return growing(fmt.Sprint(name, " ", k), s)
		},
		growingValue: func(v valueOf) growingReader {
			return func(f folder, _ int64) schemas.Value {
				m := f.(*mergeFolder)
				s, text := m.growing.(listedState)
				if text = !text; text {
					s = m.growing.(listedTextState).listedState
				}
				return s.value(m.state, v.argument, text)
			}
		},
	}
}

// listedState is of each event {event time + maxTime, sequence number, bits of the value}, from the earliest to the
// latest.
type listedState struct {
	most  int
	first bool
}

// listedTextState has appendText's words in place of the bits.
type listedTextState struct{ listedState }

func (listedTextState) keepsText() {}

// listedWords is how many words the first entry of a state takes.
func listedWords(state []uint64, text bool) int {
	if text {
		return 2 + textWords(state[2])
	}
	return 3
}

// compareListed orders the first entries of two states.
func compareListed(a, b []uint64) int {
	return cmp.Or(cmp.Compare(a[0], b[0]), cmp.Compare(int64(a[1]), int64(b[1])))
}

func (l listedState) add(state []uint64, _ schemas.Value, s sample) []uint64 {
	return l.insert(state, []uint64{uint64(s.t + maxTime), uint64(s.seq), s.bits}, false)
}

func (l listedTextState) add(state []uint64, v schemas.Value, s sample) []uint64 {
	return l.insert(state, appendText([]uint64{uint64(s.t + maxTime), uint64(s.seq)}, v), true)
}

// insert puts an entry where it belongs, in place of the same event's if that is there.
func (l listedState) insert(state, entry []uint64, text bool) []uint64 {
	at, n := 0, 0
	for at < len(state) && compareListed(state[at:], entry) < 0 {
		at += listedWords(state[at:], text)
		n++
	}
	end := at
	if at < len(state) && compareListed(state[at:], entry) == 0 {
		end += listedWords(state[at:], text)
	}
	if end == at && l.first && n == l.most {
		return state
	}
	return l.cut(slices.Replace(state, at, end, entry...), text)
}

// cut gives up the entries beyond k.
func (l listedState) cut(state []uint64, text bool) []uint64 {
	n := 0
	for at := 0; at < len(state); at += listedWords(state[at:], text) {
		if n == l.most && l.first {
			return state[:at]
		}
		n++
	}
	drop := 0
	for ; n > l.most; n-- {
		drop += listedWords(state[drop:], text)
	}
	return slices.Delete(state, 0, drop)
}

func (l listedState) merge(dst, src []uint64) []uint64     { return l.mergeEntries(dst, src, false) }
func (l listedTextState) merge(dst, src []uint64) []uint64 { return l.mergeEntries(dst, src, true) }

func (l listedState) mergeEntries(dst, src []uint64, text bool) []uint64 {
	for len(src) > 0 {
		n := listedWords(src, text)
		dst = l.insert(dst, src[:n], text)
		src = src[n:]
	}
	return dst
}

// pack writes times as distances to the entry before.
func (l listedState) pack(packed, state []uint64) []uint64 { return packListed(packed, state, false) }
func (l listedTextState) pack(packed, state []uint64) []uint64 {
	return packListed(packed, state, true)
}

func packListed(packed, state []uint64, text bool) []uint64 {
	previous := uint64(0)
	for len(state) > 0 {
		n := listedWords(state, text)
		packed = append(append(packed, state[0]-previous), state[1:n]...)
		previous, state = state[0], state[n:]
	}
	return packed
}

func (l listedState) unpack(dst, packed []uint64) ([]uint64, error) {
	return l.unpackEntries(dst, packed, false)
}

func (l listedTextState) unpack(dst, packed []uint64) ([]uint64, error) {
	return l.unpackEntries(dst, packed, true)
}

var errListed = errors.New("a list of values is not as it can be")

func (l listedState) unpackEntries(dst, packed []uint64, text bool) ([]uint64, error) {
	first, previous := len(dst), -1
	for n := 0; len(packed) > 0; n++ {
		if n == l.most || len(packed) < 3 || text && !checkText(packed[2:]) {
			return nil, errListed
		}
		words := listedWords(packed, text)
		at := len(dst)
		dst = append(dst, packed[:words]...)
		if previous >= 0 {
			dst[at] += dst[previous]
		}
		if dst[at] == 0 || dst[at] >= uint64(2*maxTime) || previous >= first && compareListed(dst[previous:], dst[at:]) >= 0 || packed[0] >= uint64(2*maxTime) {
			return nil, errListed
		}
		previous, packed = at, packed[words:]
	}
	return dst, nil
}

func (l listedState) newFolder() folder     { return &mergeFolder{growing: l} }
func (l listedTextState) newFolder() folder { return &mergeFolder{growing: l} }

func (l listedState) value(state []uint64, kind schemas.Kind, text bool) schemas.Value {
	if len(state) == 0 {
		return schemas.NullValue()
	}
	var values []schemas.Value
	for len(state) > 0 {
		if text {
			values = append(values, textOf(state[2:]))
		} else {
			values = append(values, valueOfBits(kind, state[2]))
		}
		state = state[listedWords(state, text):]
	}
	if !l.first {
		slices.Reverse(values)
	}
	b := []byte{'['}
	for i, v := range values {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendJSON(b, v)
	}
	return schemas.CompositeValue(string(append(b, ']')))
}
