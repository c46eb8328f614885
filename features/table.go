package features

import (
	"cmp"
	"encoding/binary"
	"errors"
	"slices"
)

// table is a growing state of entries with a text each, in the order of the texts' bytes: head words of its own, then of
// each entry {length of the text in bytes, the text, eight bytes a word, the first in the highest bits, the payload}.
// Group.Add has refused texts beyond MaxText.
type table struct {
	head, payload int
	most          int // entries
}

// words is how many words an entry takes, given the first of them.
func (t table) words(length uint64) int { return 1 + int(length+7)/8 + t.payload }

// payloadOf is the payload of the entry at the start of entries.
func (t table) payloadOf(entries []uint64) []uint64 {
	n := t.words(entries[0])
	return entries[n-t.payload : n : n]
}

// next is the entries behind the first.
func (t table) next(entries []uint64) []uint64 { return entries[t.words(entries[0]):] }

func (t table) count(state []uint64) int {
	n := 0
	if len(state) > 0 {
		for entries := state[t.head:]; len(entries) > 0; entries = t.next(entries) {
			n++
		}
	}
	return n
}

// compareTables orders the texts of the first entries.
func compareTables(a, b []uint64) int {
	n, m := int(a[0]+7)/8, int(b[0]+7)/8
	return cmp.Or(slices.Compare(a[1:1+n], b[1:1+m]), cmp.Compare(a[0], b[0]))
}

// find is the index in state of the entry with the text of an entry, or where it belongs.
func (t table) find(state, entry []uint64) (at int, found bool) {
	for at = t.head; at < len(state); at += t.words(state[at]) {
		if order := compareTables(state[at:], entry); order >= 0 {
			return at, order == 0
		}
	}
	return at, false
}

// entry makes one with an empty payload.
func (t table) entry(text string) []uint64 {
	entry := make([]uint64, t.words(uint64(len(text))))
	entry[0] = uint64(len(text))
	for i := 0; i < len(text); i += 8 {
		var word [8]byte
		copy(word[:], text[i:])
		entry[1+i/8] = binary.BigEndian.Uint64(word[:])
	}
	return entry
}

func (t table) textOf(entry []uint64) string {
	length := int(entry[0])
	text := make([]byte, 0, length+7)
	for _, w := range entry[1 : 1+(length+7)/8] {
		text = binary.BigEndian.AppendUint64(text, w)
	}
	return string(text[:length])
}

// started is the state with its head.
func (t table) started(state []uint64) []uint64 {
	if len(state) == 0 {
		state = append(state, make([]uint64, t.head)...)
	}
	return state
}

var errTable = errors.New("a table of texts is not as it can be")

// unpack checks what follows the head.
func (t table) unpack(dst, packed []uint64) ([]uint64, error) {
	if len(packed) < t.head {
		return nil, errTable
	}
	n := 0
	var previous []uint64
	for entries := packed[t.head:]; len(entries) > 0; entries = t.next(entries) {
		if n++; n > t.most || entries[0] > MaxText || t.words(entries[0]) > len(entries) || previous != nil && compareTables(previous, entries) >= 0 {
			return nil, errTable
		}
		if used := entries[0] % 8; used > 0 && entries[1+entries[0]/8]<<(8*used) != 0 {
			return nil, errTable
		}
		previous = entries
	}
	return append(dst, packed...), nil
}
