package features

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/millrace/millrace/schemas"
)

// wordCases are oracleCases, one with delayed, exact and lifetime windows, and ones whose windows end at the newest event or expire.
func wordCases() []oracleCase {
	return append(append([]oracleCase{}, oracleCases...), oracleCase{
		name: "delayed and exact", windows: []string{"1h", "24h", "24h ending 2h ago", "3h ending 2h ago", "10m exact", "lifetime"},
		step: time.Minute, jump: 30 * time.Hour, start: 978307200000,
	})
}

// wordGroup has every feature whose state is fixed, of which there are some for some windows alone.
func wordGroup(t *testing.T, c oracleCase, edge Edge, ttl time.Duration) *Group {
	d := Definition{Windows: c.windows, Lateness: c.late, Where: "!cancelled", Edge: edge, TTL: ttl}
	for i, call := range []string{"count()", "count(delay)", "sum(delay)", "mean(delay)", "min(delay)", "max(delay)", "stddev(delay)", "variance(seats)", "min(seats)",
		"max(seats)", "max(arrived)", "max(cancelled)", "mean(delay > 15)", "decayed_sum(delay, 1h)", "decayed_count(2h)", "time_since_last()"} {
		f := FeatureDefinition{Name: fmt.Sprintf("f%d", i), Aggregate: call}
		if i%3 == 1 {
			f.Windows = c.windows[i%len(c.windows):][:1]
		}
		if i%4 == 2 {
			f.Where = "destination == 'LAX'"
		}
		if call == "sum(delay)" {
			f.Default = ptr(-1)
		}
		d.Features = append(d.Features, f)
	}
	return compiled(t, d)
}

// TestReadWordsIsRead holds ReadWords to Read of another SequentialReader, to the bit, and to Group.Read, with events at all distances, some late,
// reads that go back or ahead, and entities begun anew.
func TestReadWordsIsRead(t *testing.T) {
	for _, c := range wordCases() {
		for seed := range uint64(4) {
			t.Run(fmt.Sprintf("%s/%d", c.name, seed), func(t *testing.T) {
				g := wordGroup(t, c, Edge(seed%2), time.Duration(seed/2)*c.jump/4)
				compareWords(t, c, g, seed)
			})
		}
	}
}

func compareWords(t *testing.T, c oracleCase, g *Group, seed uint64) {
	rng := rand.New(rand.NewPCG(seed, 13))
	plain, one, other := g.NewEntity(), g.NewEntity(), g.NewEntity()
	var generic, worded SequentialReader
	generic.Begin(g, one)
	worded.Begin(g, other)
	var words Words
	now, compared, mixed := c.start, 0, seed%2 == 1
	for seq := range int64(1500) {
		ev := c.next(rng, &now, seq)
		if seq > 0 { // nothing is known at first
			for _, add := range []func(schemas.Row, int64, int64) (Outcome, error){generic.Add, worded.Add} {
				if _, err := add(ev.row(), ev.t, seq); err != nil {
					t.Fatal(err)
				}
			}
			if _, err := g.Add(plain, ev.row(), ev.t, seq); err != nil {
				t.Fatal(err)
			}
		}
		if rng.IntN(400) == 0 {
			generic.Begin(g, one)
			worded.Begin(g, other)
		}
		at, asked := c.askAt(rng, &now)
		if !asked {
			continue
		}
		want, exact := g.Read(plain, at, nil), generic.Read(at, nil)
		if mixed && rng.IntN(8) == 0 || !worded.ReadWords(at, &words) {
			worded.Read(at, nil) // the queues are then of both
			continue
		}
		for i := range want {
			got := wordResult(&words, g.Outputs[i].Kind, i)
			if got != exact[i] || !closeResults(exact[i], want[i]) {
				t.Fatalf("after event %d %s at %d is %v, want %v, in sequence %v", seq, g.Outputs[i].Name, at, got, want[i], exact[i])
			}
			compared++
		}
	}
	if compared < 3000 {
		t.Errorf("only %d values were compared", compared)
	}
}

// wordResult is a value as Read gives it.
func wordResult(w *Words, kind schemas.Kind, i int) Result {
	switch word := w.Values[i]; {
	case w.Nulls[i/64]>>(i%64)&1 != 0 && w.Status == Present:
		return Result{Status: Null}
	case w.Nulls[i/64]>>(i%64)&1 != 0:
		return Result{Status: w.Status}
	case kind == schemas.Float:
		return Result{Value: schemas.FloatValue(math.Float64frombits(word))}
	case kind == schemas.Time:
		return Result{Value: schemas.TimeValue(int64(word))}
	case kind == schemas.Bool:
		return Result{Value: schemas.BoolValue(word != 0)}
	default:
		return Result{Value: schemas.IntValue(int64(word))}
	}
}

// TestReadWordsLeavesTheRestToRead has groups with values that are no words, and a state with events at the time.
func TestReadWordsLeavesTheRestToRead(t *testing.T) {
	c := oracleCases[0]
	var words Words
	for _, call := range []string{"last(destination)", "distinct(destination)", "ratio(sum(delay), count())"} {
		g := compiled(t, Definition{Windows: c.windows, Features: []FeatureDefinition{{Name: "n", Aggregate: "count()"}, {Name: "f", Aggregate: call}}})
		var s SequentialReader
		s.Begin(g, g.NewEntity())
		if s.ReadWords(1000, &words) {
			t.Errorf("%s was read as words", call)
		}
	}
	g := wordGroup(t, c, EdgeNow, 0)
	var s SequentialReader
	s.Begin(g, g.NewEntity())
	if _, err := s.Add(event{t: 1000}.row(), 1000, 1); err != nil {
		t.Fatal(err)
	}
	if s.ReadWords(1000, &words) {
		t.Error("a time was read as words with an event at it")
	}
}

func BenchmarkReadWords(b *testing.B) {
	g := compiled(b, Definition{Windows: []string{"1h", "3h", "24h", "7d"}, Features: []FeatureDefinition{
		{Name: "n", Aggregate: "count()"}, {Name: "mean", Aggregate: "mean(delay)"}, {Name: "std", Aggregate: "stddev(delay)"},
		{Name: "max", Aggregate: "max(delay)"}, {Name: "min", Aggregate: "min(delay)"}}})
	e, rows := hot(b, g, 20*time.Second)
	var s SequentialReader
	s.Begin(g, e)
	var words Words
	at := e.Newest()
	b.ReportAllocs()
	for i := range b.N {
		at += minute
		if _, err := s.Add(rows[i%1024], at, int64(i)); err != nil {
			b.Fatal(err)
		}
		if !s.ReadWords(at+1, &words) {
			b.Fatal("not words")
		}
	}
}
