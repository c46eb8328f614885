package features

import (
	"errors"
	"slices"

	"github.com/millrace/millrace/schemas"
)

const (
	DefaultCategories = 50  // of a feature with `by` that does not say how many
	MaxCategories     = 256 //
	otherCategories   = "_other"
)

// byCategory makes an aggregate with a fixed state one of a JSON map: its value for the rows of each category, in the
// order of the categories' bytes. Rows without a category are left out. Null when there are no rows.
//
// At most `most` categories are kept, those that come first in the order of their bytes; all others together are
// "_other". A kept category is as exact as the aggregate by itself, whatever the cap and the order of events: one that
// is among the first of a window is among the first of each of its tiles.
func byCategory(a aggregate, most int) aggregate {
	of := a
	of.kind = kindComposite
	of.zeroWhenEmpty = false
	of.state = func(s stateOf) (string, fixedState, growingState) {
		name, fixed, _ := a.state(s)
		if fixed == nil {
			return "", nil, nil
		}
		n := fixed.words()
		return growing(name+" by category", categoryState{table{head: n, payload: n, most: most}, fixed})
	}
	of.fixedValue = nil
	of.growingValue = func(v valueOf) growingReader {
		v.kind = a.kind(v.argument)
		read := a.fixedValue(v)
		return func(f folder, at int64) schemas.Value {
			m := f.(*mergeFolder)
			return m.growing.(categoryState).value(m.state, read, at)
		}
	}
	return of
}

// categoryState is a table of the aggregate's states, with that of all other categories for its head.
type categoryState struct {
	table
	of fixedState
}

func (categoryState) keepsText() {}

func (c categoryState) add(state []uint64, v schemas.Value, s sample) []uint64 {
	entry := c.entry(v.Text())
	c.of.add(c.payloadOf(entry), s)
	return c.put(c.started(state), entry)
}

func (c categoryState) put(state, entry []uint64) []uint64 {
	if c.textOf(entry) == otherCategories {
		c.of.merge(state[:c.head], c.payloadOf(entry))
		return state
	}
	at, found := c.find(state, entry)
	if found {
		c.of.merge(c.payloadOf(state[at:]), c.payloadOf(entry))
		return state
	}
	state = slices.Insert(state, at, entry...)
	if c.count(state) <= c.most {
		return state
	}
	last := c.head
	for end := last + c.words(state[last]); end < len(state); end += c.words(state[end]) {
		last = end
	}
	c.of.merge(state[:c.head], c.payloadOf(state[last:]))
	return state[:last]
}

func (c categoryState) merge(dst, src []uint64) []uint64 {
	if len(dst) == 0 {
		return append(dst, src...)
	}
	if len(src) == 0 {
		return dst
	}
	c.of.merge(dst[:c.head], src[:c.head])
	for entries := src[c.head:]; len(entries) > 0; entries = c.next(entries) {
		dst = c.put(dst, entries[:c.words(entries[0])])
	}
	return dst
}

func (categoryState) pack(packed, state []uint64) []uint64 { return append(packed, state...) }

func (c categoryState) unpack(dst, packed []uint64) ([]uint64, error) {
	dst, err := c.table.unpack(dst, packed)
	if err != nil {
		return nil, errors.New("a map by category is not as it can be")
	}
	return dst, nil
}

func (c categoryState) newFolder() folder { return &mergeFolder{growing: c} }

func (c categoryState) value(state []uint64, read fixedReader, at int64) schemas.Value {
	if len(state) == 0 {
		return schemas.NullValue()
	}
	b := []byte{'{'}
	put := func(name string, payload []uint64) {
		if len(b) > 1 {
			b = append(b, ',')
		}
		b = append(appendJSONText(b, name), ':')
		b = appendJSON(b, read(payload, at))
	}
	for entries := state[c.head:]; len(entries) > 0; entries = c.next(entries) {
		put(c.textOf(entries), c.payloadOf(entries))
	}
	for _, w := range state[:c.head] {
		if w != 0 {
			put(otherCategories, state[:c.head])
			break
		}
	}
	return schemas.CompositeValue(string(append(b, '}')))
}
