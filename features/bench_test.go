package features

import (
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/millrace/millrace/schemas"
)

// benchmarkGroup has four windows of six aggregates.
func benchmarkGroup(t testing.TB, lateness time.Duration) *Group {
	return compiled(t, Definition{Windows: []string{"1h", "3h", "24h", "7d"}, Lateness: lateness, Where: "!cancelled", Features: []FeatureDefinition{
		{Name: "n", Aggregate: "count()"}, {Name: "mean", Aggregate: "mean(delay)"}, {Name: "std", Aggregate: "stddev(delay)"},
		{Name: "max", Aggregate: "max(delay)"}, {Name: "late", Aggregate: "mean(delay > 15)"}, {Name: "last", Aggregate: "last(delay)"},
	}})
}

// sketchGroup has four windows of the two aggregates whose state grows.
func sketchGroup(t testing.TB) *Group {
	return compiled(t, Definition{Windows: []string{"1h", "3h", "24h", "7d"}, Features: []FeatureDefinition{
		{Name: "p95", Aggregate: "quantile(delay, 0.95)"}, {Name: "places", Aggregate: "distinct(destination)"},
	}})
}

// hot is an entity with events in every tile of a full ladder, one every interval.
func hot(b *testing.B, g *Group, interval time.Duration) (*Entity, []schemas.Row) {
	rng := rand.New(rand.NewPCG(1, 2))
	rows := make([]schemas.Row, 1024)
	for i := range rows {
		rows[i] = row(0, math.Round(rng.NormFloat64()*30), string(rune('A'+rng.IntN(60))))
	}
	e := g.NewEntity()
	at := int64(978307200000)
	for seq := range int64(8 * 24 * time.Hour / interval) {
		at += ms(interval)
		add(b, g, e, rows[seq%1024], at, seq)
	}
	b.ResetTimer()
	return e, rows
}

func benchmarkAdd(b *testing.B, g *Group, step int64) {
	e, rows := hot(b, g, 20*time.Second)
	at := e.Newest()
	for i := range b.N {
		at += step
		if _, err := g.Add(e, rows[i%1024], at, int64(i)); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkAdd(b *testing.B) {
	b.Run("same_tile", func(b *testing.B) { benchmarkAdd(b, benchmarkGroup(b, 0), 0) })
	b.Run("every_second", func(b *testing.B) { benchmarkAdd(b, benchmarkGroup(b, 0), 1000) })
	b.Run("every_tile", func(b *testing.B) { benchmarkAdd(b, benchmarkGroup(b, 0), minute) })
	b.Run("sketches_every_second", func(b *testing.B) { benchmarkAdd(b, sketchGroup(b), 1000) })
}

func benchmarkRead(b *testing.B, g *Group) {
	e, _ := hot(b, g, 20*time.Second)
	var s Scratch
	var out []Result
	b.ReportMetric(float64(len(e.AppendBinary(nil))), "state_bytes")
	b.ReportAllocs()
	for i := range b.N {
		out = g.ReadInto(&s, e, e.Newest()+1+int64(i%1000), out)
	}
}

func BenchmarkRead(b *testing.B) {
	b.Run("full_ladder", func(b *testing.B) { benchmarkRead(b, benchmarkGroup(b, 0)) })
	b.Run("full_ladder_6h_late", func(b *testing.B) { benchmarkRead(b, benchmarkGroup(b, 6*time.Hour)) })
	b.Run("sketches", func(b *testing.B) { benchmarkRead(b, sketchGroup(b)) })
}

func BenchmarkDecode(b *testing.B) {
	for name, g := range map[string]*Group{"full_ladder": benchmarkGroup(b, 0), "sketches": sketchGroup(b)} {
		b.Run(name, func(b *testing.B) {
			e, _ := hot(b, g, 20*time.Second)
			state := e.AppendBinary(nil)
			into := g.NewEntity()
			b.SetBytes(int64(len(state)))
			b.ReportAllocs()
			for range b.N {
				if err := g.DecodeInto(into, state); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkEncode(b *testing.B) {
	for name, g := range map[string]*Group{"full_ladder": benchmarkGroup(b, 0), "sketches": sketchGroup(b)} {
		b.Run(name, func(b *testing.B) {
			e, _ := hot(b, g, 20*time.Second)
			var state []byte
			b.ReportAllocs()
			for range b.N {
				state = e.AppendBinary(state[:0])
			}
			b.SetBytes(int64(len(state)))
		})
	}
}
