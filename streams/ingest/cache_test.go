package ingest

import (
	"fmt"
	"math/rand/v2"
	"testing"
)

// A table finds what a map finds, whatever is put in and taken out: with few homes for many keys, so that searches run into one another, and
// around the end of the slots.
func TestTable(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	table, oracle := newTable(), map[string]*cached{}
	homes := uint64(1)
	at := func(key string) uint64 {
		home := uint64(0)
		for _, c := range key {
			home = home*31 + uint64(c)
		}
		return -(home % homes) // the last slots
	}
	for step := range 200_000 {
		if step%20_000 == 0 {
			homes = 1 + uint64(random.IntN(300))
			table, oracle = newTable(), map[string]*cached{}
		}
		key := fmt.Sprint(random.IntN(400))
		have := table.get(at(key), key)
		if have != oracle[key] {
			t.Fatalf("step %d: %q is %v, must be %v", step, key, have, oracle[key])
		}
		switch {
		case have == nil && random.IntN(3) > 0:
			e := &cached{key: key, hash: at(key)}
			table.add(e)
			oracle[key] = e
		case have != nil && random.IntN(3) > 0:
			table.remove(have)
			delete(oracle, key)
		}
		if table.entries != len(oracle) {
			t.Fatalf("step %d: %d entries, must be %d", step, table.entries, len(oracle))
		}
	}
}
