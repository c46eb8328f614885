package features_test

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/millrace/millrace/features"
	"github.com/millrace/millrace/schemas"
)

// TestSpans holds the spans that are told against what is read: the events within a span, counted by hand, are as many as the count over its
// window says.
func TestSpans(t *testing.T) {
	schema, err := schemas.Parse("e", []byte(`{"type":"record","name":"E","fields":[{"name":"k","type":"string"},{"name":"t","type":{"type":"long","logicalType":"timestamp-millis"}}]}`))
	if err != nil {
		t.Fatal(err)
	}
	g, faults := features.Compile(features.Definition{
		Name: "g", Source: "s", Entity: []string{"k"}, Windows: []string{"1m", "1h", "1d", "lifetime"}, Lateness: 10 * time.Minute,
		Features: []features.FeatureDefinition{{Name: "n", Aggregate: "count()"}},
	}, schema)
	if len(faults) > 0 {
		t.Fatal(faults)
	}
	random := rand.New(rand.NewPCG(7, 8))
	e := g.NewEntity()
	begin := time.Date(2026, 5, 20, 12, 0, 0, 0, time.UTC).UnixMilli()
	var times []int64
	for i := range 3000 {
		at := begin + int64(i)*40_000 - random.Int64N(900_000)
		if _, err := g.Add(e, schemas.Row{schemas.StringValue("a"), schemas.TimeValue(at)}, at, int64(i)); err != nil {
			t.Fatal(err)
		}
		times = append(times, at)
	}
	tiles := e.Tiles()
	for i := 1; i < len(tiles); i++ {
		if tiles[i].Start < tiles[i-1].End {
			t.Fatalf("tile %d begins at %d, before %d", i, tiles[i].Start, tiles[i-1].End)
		}
	}
	wide, cut, short := 0, 0, 0
	for range 400 {
		at := e.Newest() + 5_000_000 - random.Int64N(9_000_000)
		for i, r := range g.Read(e, at, nil) {
			s := e.SpanOf(g.Outputs[i], at)
			n := int64(0)
			for _, event := range times {
				if (s.Lifetime || event >= s.From) && event < s.To {
					n++
				}
			}
			if r.Value.Int() != n {
				t.Errorf("%s at %d counts %d, its span %+v has %d", g.Outputs[i].Name, at, r.Value.Int(), s, n)
			}
			if s.To < at {
				cut++
			}
			if s.Lifetime {
				continue
			}
			if at-s.From < g.Outputs[i].Window.Milliseconds() {
				short++
			}
			if at-s.From > (g.Outputs[i].Window + g.Outputs[i].TailError).Milliseconds() {
				wide++
			}
		}
	}
	if wide == 0 || cut == 0 || short == 0 {
		t.Errorf("%d windows wider, %d shorter and %d cut: not all is seen", wide, short, cut)
	}
}
