package features

import (
	"bytes"
	"testing"
	"time"
)

// An entity that lay flat is the same to the bit, and goes on the same, also when it is made in memory that another group's events of other
// sizes were in. Nothing of the run is referred to.
func TestFlat(t *testing.T) {
	exact := Definition{Windows: []string{"10s", "1h"}, Lateness: time.Minute, ExactEvents: 20, Features: []FeatureDefinition{
		{Name: "n", Aggregate: "count()"}, {Name: "exactly", Aggregate: "max(delay)", Windows: []string{"10s"}, Exact: true},
		{Name: "places", Aggregate: "distinct(destination)"},
	}}
	for name, g := range map[string]*Group{"every aggregate": everything(t), "exact windows": compiled(t, exact), "sketches": sketchGroup(t), "numbers": benchmarkGroup(t, 0)} {
		reused := g.NewEntity()
		for _, events := range []int64{0, 1, 2, 50, 3000, 7} {
			e := lived(t, g, events)
			words, ok := e.FlatWords()
			if !ok {
				t.Fatalf("%s: a state of %d events does not lie flat", name, events)
			}
			run := make([]uint64, words)
			for i := range run {
				run[i] = ^uint64(i) // what was there before does not matter
			}
			e.PutFlat(run)
			g.LoadFlat(reused, run)
			clear(run)
			state := e.AppendBinary(nil)
			if !bytes.Equal(state, reused.AppendBinary(nil)) || e.Newest() != reused.Newest() {
				t.Fatalf("%s: a state of %d events is another when it lay flat", name, events)
			}
			for i := range int64(300) {
				r := row(0, float64(i%40)/3, string(rune('a'+i%26)))
				for _, x := range []*Entity{e, reused} {
					if _, err := g.Add(x, r, int64(1e12)+i*9000, i); err != nil {
						t.Fatal(err)
					}
				}
			}
			if !bytes.Equal(e.AppendBinary(nil), reused.AppendBinary(nil)) {
				t.Fatalf("%s: a state of %d events goes on differently when it lay flat", name, events)
			}
		}
	}
}

// An entity that remembers names does not lie flat.
func TestNamesDoNotLieFlat(t *testing.T) {
	g := compiled(t, Definition{Windows: []string{"1h"}, Dedup: &DedupDefinition{By: "flight_id", Within: time.Hour}, Features: []FeatureDefinition{{Name: "n", Aggregate: "count()"}}})
	e := g.NewEntity()
	if _, ok := e.FlatWords(); !ok {
		t.Error("one without events does not")
	}
	add(t, g, e, row(0, 1, "JFK"), 1e12, 1)
	if _, ok := e.FlatWords(); ok {
		t.Error("one with a name does")
	}
}
