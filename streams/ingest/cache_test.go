package ingest

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/millrace/millrace/features"
	"github.com/millrace/millrace/schemas"
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

// cacheGroup has a state that grows, so that entities become too large to lie flat.
func cacheGroup(t *testing.T) *features.Group {
	s, err := schemas.Parse("s", []byte(`{"type":"record","name":"s","fields":[{"name":"card","type":"string"},{"name":"amount","type":"long"}]}`))
	if err != nil {
		t.Fatal(err)
	}
	g, faults := features.Compile(features.Definition{Name: "g", Source: "s", Entity: []string{"card"}, Windows: []string{"1m", "1h"}, Features: []features.FeatureDefinition{
		{Name: "n", Aggregate: "count()"}, {Name: "amounts", Aggregate: "distinct(amount)"},
	}}, s)
	if len(faults) > 0 {
		t.Fatal(faults)
	}
	return g
}

// What a cache gives for an entity is what was added to it, or, when it let go of it, nothing: with entities of few events and of thousands, a
// limit that holds only some of them, and some that Redis does not have yet, which must stay. What it counts is what it holds.
func TestCache(t *testing.T) {
	g := cacheGroup(t)
	random := rand.New(rand.NewPCG(3, 4))
	c := newCache(&cacheShare{bytes: 400 << 10}, g)
	stored, oracle := map[string][]byte{}, map[string]*features.Entity{}
	row := schemas.Row{schemas.StringValue("x"), schemas.NullValue()}
	whole, dropped, moved := 0, 0, 0
	for step := range int64(100_000) {
		key := fmt.Sprint(int(float64(5000) * random.Float64() * random.Float64() * random.Float64()))
		e := c.get(key)
		if e == nil {
			if oracle[key] != nil {
				dropped++
			}
			e = c.add(key)
			if err := c.decode(e, stored[key]); err != nil {
				t.Fatal(err)
			}
		}
		if oracle[key] == nil {
			oracle[key] = g.NewEntity()
		}
		row[1] = schemas.IntValue(random.Int64N(1000))
		at := 1e12 + step
		entity := c.open(e)
		for _, x := range []*features.Entity{entity, oracle[key]} {
			if outcome, err := g.Add(x, row, at, step); err != nil || outcome != features.Applied {
				t.Fatalf("%v, %v", outcome, err)
			}
		}
		c.keep(e, entity)
		e.dirty = true
		if random.IntN(300) == 0 { // a flush of some
			for _, slab := range c.slabs {
				for i := range slab {
					if e := &slab[i]; e.dirty && random.IntN(4) > 0 {
						state := c.open(e).AppendBinary(nil)
						if !bytes.Equal(state, oracle[e.key].AppendBinary(nil)) {
							t.Fatalf("step %d: %s is another", step, e.key)
						}
						stored[e.key], e.dirty = state, false
						c.measure(e)
						if e.whole != nil {
							whole++
						}
					}
				}
			}
			idle := c.blocks.idle
			c.trim()
			if c.blocks.idle < idle {
				moved++
			}
		}
	}
	bytes, entities := int64(0), 0
	for _, slab := range c.slabs {
		for i := range slab {
			bytes += slab[i].bytes
			if slab[i].held {
				entities++
			}
		}
	}
	if bytes != c.bytes || entities != c.entities.entries {
		t.Errorf("it counts %d bytes of %d entities, and holds %d of %d", c.bytes, c.entities.entries, bytes, entities)
	}
	if whole == 0 || dropped == 0 || moved == 0 {
		t.Errorf("%d large ones, %d let go of, moved together %d times: not all was tried", whole, dropped, moved)
	}
}
