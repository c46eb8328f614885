package ingest

import "hash/maphash"

// table finds entities by their keys: open addressing with linear probing, the hashes beside the pointers, so that finding one touches the
// memory of its slot and of itself and no more.
type table struct {
	seed    maphash.Seed
	slots   []slot // a power of two of them, at most three quarters taken
	entries int
}

// slot is free when it has no entity.
type slot struct {
	hash uint64
	of   *cached
}

const minSlots = 64

func newTable() table { return table{seed: maphash.MakeSeed(), slots: make([]slot, minSlots)} }

func (t *table) hash(key string) uint64 { return maphash.String(t.seed, key) }

// get is the entity with that key, nil when there is none. hash is the key's.
func (t *table) get(hash uint64, key string) *cached {
	mask := uint64(len(t.slots) - 1)
	for i := hash & mask; ; i = (i + 1) & mask {
		s := &t.slots[i]
		if s.of == nil {
			return nil
		}
		if s.hash == hash && s.of.key == key {
			return s.of
		}
	}
}

// add puts an entity in whose key is not there.
func (t *table) add(e *cached) {
	if t.entries >= len(t.slots)/4*3 {
		old := t.slots
		t.slots = make([]slot, 2*len(old))
		for _, s := range old {
			if s.of != nil {
				t.place(s)
			}
		}
	}
	t.place(slot{e.hash, e})
	t.entries++
}

func (t *table) place(s slot) {
	mask := uint64(len(t.slots) - 1)
	i := s.hash & mask
	for t.slots[i].of != nil {
		i = (i + 1) & mask
	}
	t.slots[i] = s
}

// remove takes an entity out that is there. Those behind it move up, so that no search ends at the hole (D. E. Knuth, "The Art of Computer
// Programming" 3, 6.4, algorithm R).
func (t *table) remove(e *cached) {
	mask := uint64(len(t.slots) - 1)
	hole := e.hash & mask
	for t.slots[hole].of != e {
		hole = (hole + 1) & mask
	}
	for i := (hole + 1) & mask; t.slots[i].of != nil; i = (i + 1) & mask {
		if home := t.slots[i].hash & mask; (i-home)&mask >= (i-hole)&mask {
			t.slots[hole] = t.slots[i]
			hole = i
		}
	}
	t.slots[hole] = slot{}
	t.entries--
}
