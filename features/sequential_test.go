package features

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
	"time"
)

// TestASequentialReaderReadsWhatAReadReads holds a SequentialReader to Group.Read over every aggregate, with events at all distances, some
// late, reads that sometimes repeat or go back, and entities begun anew.
func TestASequentialReaderReadsWhatAReadReads(t *testing.T) {
	cases := append([]oracleCase{}, oracleCases...)
	cases = append(cases, oracleCase{
		name: "delayed and exact", windows: []string{"1h", "24h", "24h ending 2h ago", "3h ending 2h ago", "10m exact", "lifetime"},
		step: time.Minute, jump: 30 * time.Hour, start: 978307200000,
	})
	for _, c := range cases {
		for seed := range uint64(4) {
			t.Run(fmt.Sprintf("%s/%d", c.name, seed), func(t *testing.T) { compareSequential(t, c, seed) })
		}
	}
}

// next is an event some time after now, which it moves on.
func (c oracleCase) next(rng *rand.Rand, now *int64, seq int64) event {
	if rng.IntN(200) == 0 {
		*now += int64(rng.Float64() * float64(ms(c.jump)))
	}
	*now += int64(rng.ExpFloat64() * float64(ms(c.step)))
	ev := c.event(rng, *now, seq, nil)
	if rng.IntN(20) > 0 {
		ev.t = *now // late ones are rare, so that queues grow long
	}
	return ev
}

// askAt is when to read after an event, if at all: just after it, or some time before or ahead.
func (c oracleCase) askAt(rng *rand.Rand, now *int64) (at int64, read bool) {
	at = *now + 1
	switch rng.IntN(12) {
	case 0:
		at -= int64(rng.Float64() * 20 * float64(ms(c.step)))
	case 1:
		at += int64(rng.Float64() * 20 * float64(ms(c.step)))
		*now = at
	case 2, 3, 4:
		return 0, false
	}
	return at, true
}

func compareSequential(t *testing.T, c oracleCase, seed uint64) {
	rng := rand.New(rand.NewPCG(seed, 11))
	g := c.group(t)
	plain, read := g.NewEntity(), g.NewEntity()
	var s SequentialReader
	s.Begin(g, read)
	now, compared := c.start, 0
	for seq := range int64(1500) {
		ev := c.next(rng, &now, seq)
		want, err := g.Add(plain, ev.row(), ev.t, seq)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := s.Add(ev.row(), ev.t, seq); err != nil || got != want {
			t.Fatalf("event %d is %v, %v; want %v", seq, got, err, want)
		}
		if rng.IntN(400) == 0 {
			s.Begin(g, read)
		}
		at, asked := c.askAt(rng, &now)
		if !asked {
			continue
		}
		a, b := g.Read(plain, at, nil), s.Read(at, nil)
		for i := range a {
			if !closeResults(a[i], b[i]) {
				t.Fatalf("after event %d %s at %d is %v, want %v", seq, g.Outputs[i].Name, at, b[i], a[i])
			}
			compared++
		}
	}
	if compared < 10000 {
		t.Errorf("only %d values were compared", compared)
	}
}

// closeResults is equality but for the last bits of floats.
func closeResults(a, b Result) bool {
	x, ok := a.Value.Float()
	y, _ := b.Value.Float()
	if a.Status != b.Status || a.Value.Kind() != b.Value.Kind() || a.Value.Str() != b.Value.Str() {
		return false
	}
	return !ok || x == y || math.Abs(x-y) <= 1e-9*max(1, math.Abs(x))
}

func BenchmarkSequentialReader(b *testing.B) {
	g := benchmarkGroup(b, 0)
	for name, step := range map[string]int64{"every_second": 1000, "every_tile": minute} {
		b.Run(name, func(b *testing.B) {
			e, rows := hot(b, g, 20*time.Second)
			var s SequentialReader
			s.Begin(g, e)
			var out []Result
			at := e.Newest()
			b.ReportAllocs()
			for i := range b.N {
				at += step
				if _, err := s.Add(rows[i%1024], at, int64(i)); err != nil {
					b.Fatal(err)
				}
				out = s.Read(at+1, out)
			}
		})
	}
}
