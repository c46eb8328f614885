package features

import (
	"cmp"
	"slices"
	"strconv"

	"github.com/millrace/millrace/schemas"
)

const (
	MaxTop      = 64  // the greatest k of top_k
	topCounters = 256 // values that a state of top_k counts
)

// top_k(x, k) is a JSON list of the k most frequent values, the most frequent first and of equal ones in the order of
// their text: [{"value":"LAX","count":12}, …]. Null when there are none.
//
// Counts are exact while a tile and a window have at most 256 different values. Beyond, a count is too low by at most
// n/257 of the n rows in the window, and every value that more than n/257 rows have is counted (0.39 %): the summary
// of Misra and Gries (1982), which keeps its bound however it is split and merged (Agarwal, Cormode, Huang, Phillips,
// Wei, Yi: "Mergeable Summaries", 2013).
var topKAggregate = aggregate{
	argument:   anyArgument,
	parameters: []parameter{sizeParameter("k", MaxTop)},
	kind:       kindComposite,
	state: func(stateOf) (string, fixedState, growingState) {
		return growing("top", topState{table{payload: 1, most: topCounters}})
	},
	growingValue: func(v valueOf) growingReader {
		k := int(v.parameters[0])
		return func(f folder, _ int64) schemas.Value {
			m := f.(*mergeFolder)
			return m.growing.(topState).value(m.state, k, v.argument)
		}
	},
}

// topState is a table with a count each.
type topState struct{ table }

func (topState) keepsText() {}

func (t topState) add(state []uint64, v schemas.Value, _ sample) []uint64 {
	entry := t.entry(v.Text())
	entry[len(entry)-1] = 1
	return t.put(state, entry)
}

// put adds an entry's count.
func (t topState) put(state, entry []uint64) []uint64 {
	at, found := t.find(state, entry)
	if found {
		t.payloadOf(state[at:])[0] += t.payloadOf(entry)[0]
		return state
	}
	state = slices.Insert(state, at, entry...)
	if t.count(state) > t.most {
		state = t.reduce(state)
	}
	return state
}

// reduce takes the count of the greatest entry that is too many from every one, and gives up those it leaves with
// nothing.
func (t topState) reduce(state []uint64) []uint64 {
	var counts []uint64
	for entries := state; len(entries) > 0; entries = t.next(entries) {
		counts = append(counts, t.payloadOf(entries)[0])
	}
	slices.Sort(counts)
	least := counts[len(counts)-t.most-1]
	kept := state[:0]
	for entries := state; len(entries) > 0; {
		n := t.words(entries[0])
		if count := entries[n-1]; count > least {
			entries[n-1] = count - least
			kept = append(kept, entries[:n]...)
		}
		entries = entries[n:]
	}
	return kept
}

func (t topState) merge(dst, src []uint64) []uint64 {
	if len(dst) == 0 {
		return append(dst, src...)
	}
	merged := make([]uint64, 0, len(dst)+len(src))
	for a, b := dst, src; len(a) > 0 || len(b) > 0; {
		order := -1
		if len(a) == 0 {
			order = 1
		} else if len(b) > 0 {
			order = compareTables(a, b)
		}
		if order > 0 {
			merged = append(merged, b[:t.words(b[0])]...)
			b = t.next(b)
			continue
		}
		merged = append(merged, a[:t.words(a[0])]...)
		a = t.next(a)
		if order == 0 {
			merged[len(merged)-1] += t.payloadOf(b)[0]
			b = t.next(b)
		}
	}
	if t.count(merged) > t.most {
		merged = t.reduce(merged)
	}
	return append(dst[:0], merged...)
}

func (topState) pack(packed, state []uint64) []uint64 { return append(packed, state...) }

func (t topState) newFolder() folder { return &mergeFolder{growing: t} }

func (t topState) value(state []uint64, k int, kind schemas.Kind) schemas.Value {
	if len(state) == 0 {
		return schemas.NullValue()
	}
	type counted struct {
		text  string
		count uint64
	}
	var all []counted
	for entries := state; len(entries) > 0; entries = t.next(entries) {
		all = append(all, counted{t.textOf(entries), t.payloadOf(entries)[0]})
	}
	slices.SortStableFunc(all, func(a, b counted) int { return cmp.Compare(b.count, a.count) })
	b := []byte{'['}
	for i, c := range all[:min(k, len(all))] {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, `{"value":`...)
		if kind.Numeric() {
			b = append(b, c.text...)
		} else {
			b = appendJSONText(b, c.text)
		}
		b = append(b, `,"count":`...)
		b = append(strconv.AppendUint(b, c.count, 10), '}')
	}
	return schemas.CompositeValue(string(append(b, ']')))
}
