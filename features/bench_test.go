package features

import (
	"fmt"
	"math"
	"math/rand/v2"
	"syscall"
	"testing"
	"time"

	"github.com/millrace/millrace/schemas"
)

// onCPU starts a benchmark's clock and reports, when what it returns is called, the CPU time of an operation beside the
// time that passed: on a machine that others use only the first can be compared.
func onCPU(b *testing.B) func() {
	spent := func() int64 {
		var u syscall.Rusage
		if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
			b.Fatal(err)
		}
		return u.Utime.Nano() + u.Stime.Nano()
	}
	b.ReportAllocs()
	b.ResetTimer()
	before := spent()
	return func() { b.ReportMetric(float64(spent()-before)/float64(b.N), "cpu-ns/op") }
}

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
	return e, rows
}

func benchmarkAdd(b *testing.B, g *Group, step int64) {
	e, rows := hot(b, g, 20*time.Second)
	at := e.Newest()
	defer onCPU(b)()
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
	state := len(e.AppendBinary(nil))
	defer onCPU(b)()
	defer b.ReportMetric(float64(state), "state_bytes")
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
			defer onCPU(b)()
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
			defer onCPU(b)()
			for range b.N {
				state = e.AppendBinary(state[:0])
			}
		})
	}
}

// paymentsGroup is like a payments workload's: four windows of four plain aggregates, and a sketch over one.
func paymentsGroup(t testing.TB, sketch bool) *Group {
	d := Definition{Windows: []string{"1m", "10m", "1h", "24h"}, Features: []FeatureDefinition{
		{Name: "n", Aggregate: "count()"}, {Name: "sum", Aggregate: "sum(delay)"}, {Name: "mean", Aggregate: "mean(delay)"}, {Name: "max", Aggregate: "max(delay)"},
	}}
	if sketch {
		d.Features = append(d.Features, FeatureDefinition{Name: "merchants", Aggregate: "distinct(destination)", Windows: []string{"1h"}})
	}
	return compiled(t, d)
}

// readBatch is how many reads BenchmarkReadEncoded times together.
const readBatch = 200

// BenchmarkReadEncoded is a read of a stored state, from its bytes to the answer.
func BenchmarkReadEncoded(b *testing.B) {
	for name, c := range map[string]struct {
		g      *Group
		events int
		every  time.Duration
	}{
		"full_ladder":      {paymentsGroup(b, false), 0, time.Second},
		"full_ladder_6":    {benchmarkGroup(b, 0), 0, 20 * time.Second},
		"10_events":        {paymentsGroup(b, false), 10, time.Hour},
		"10_events_sketch": {paymentsGroup(b, true), 10, time.Hour},
	} {
		b.Run(name, func(b *testing.B) {
			var e *Entity
			if c.events == 0 {
				e, _ = hot(b, c.g, c.every)
			} else {
				e = spent(b, c.g, c.events, c.every)
			}
			state := e.AppendBinary(nil)
			var s Scratch
			var out []Result
			var err error
			least := time.Hour // of a batch: what others on the machine disturb least
			started := time.Now()
			defer onCPU(b)()
			defer b.ReportMetric(float64(len(state)), "state_bytes")
			for i := range b.N {
				if out, _, err = c.g.ReadState(&s, state, e.Newest()+1+int64(i%1000), out); err != nil {
					b.Fatal(err)
				}
				if i%readBatch == readBatch-1 {
					now := time.Now()
					least, started = min(least, now.Sub(started)), now
				}
			}
			b.ReportMetric(float64(least.Nanoseconds())/readBatch, "least-ns/op")
		})
	}
}

// spent is an entity with amounts in cents, as cards are used.
func spent(t testing.TB, g *Group, events int, every time.Duration) *Entity {
	rng := rand.New(rand.NewPCG(1, 2))
	e := g.NewEntity()
	at := int64(978307200000)
	for seq := range int64(events) {
		at += int64(rng.ExpFloat64() * float64(ms(every)))
		add(t, g, e, row(0, math.Round(math.Exp(3+rng.NormFloat64())*100)/100, string(rune('A'+rng.IntN(60)))), at, seq)
	}
	return e
}

// BenchmarkAddPlain adds to the plainest group: count, sum, mean, stddev and max of one column over four windows.
func BenchmarkAddPlain(b *testing.B) {
	d := Definition{Windows: []string{"1m", "10m", "1h", "24h"}, Features: []FeatureDefinition{
		{Name: "n", Aggregate: "count()"}, {Name: "sum", Aggregate: "sum(delay)"}, {Name: "mean", Aggregate: "mean(delay)"},
		{Name: "std", Aggregate: "stddev(delay)"}, {Name: "max", Aggregate: "max(delay)"},
	}}
	b.Run("same_tile", func(b *testing.B) { benchmarkAdd(b, compiled(b, d), 0) })
	b.Run("every_100ms", func(b *testing.B) { benchmarkAdd(b, compiled(b, d), 100) })
	b.Run("every_second", func(b *testing.B) { benchmarkAdd(b, compiled(b, d), 1000) })
}

// BenchmarkStateBytes is the size of an entity of the payments group, stored and in memory.
func BenchmarkStateBytes(b *testing.B) {
	g := paymentsGroup(b, true)
	for _, events := range []int{1, 10, 100, 1000} {
		b.Run(fmt.Sprint(events), func(b *testing.B) {
			e := spent(b, g, events, 2*time.Hour)
			var state []byte
			for range b.N {
				state = e.AppendBinary(state[:0])
			}
			b.ReportMetric(float64(len(state)), "stored_bytes")
			b.ReportMetric(float64(e.Bytes()), "memory_bytes")
		})
	}
}
