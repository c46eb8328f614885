package features

import (
	"bytes"
	"math"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/millrace/millrace/internal/failure"
	"github.com/millrace/millrace/schemas"
)

// The case on which Feast's tiles give max 37, min 35 and a deviation of 10.67.
func TestTilesOfMaxMinAndDeviation(t *testing.T) {
	g := compiled(t, Definition{Windows: []string{"10m"}, Lateness: time.Hour, Features: []FeatureDefinition{
		{Name: "n", Aggregate: "count()"}, {Name: "sum", Aggregate: "sum(delay)"}, {Name: "mean", Aggregate: "mean(delay)"},
		{Name: "max", Aggregate: "max(delay)"}, {Name: "min", Aggregate: "min(delay)"}, {Name: "std", Aggregate: "stddev(delay)"},
	}})
	if tile := g.Outputs[0].TailError; tile != 10*time.Second {
		t.Fatalf("a window of 10 minutes has tiles of %s", tile)
	}
	e := g.NewEntity()
	for i, ev := range []struct {
		minute int64
		delay  float64
	}{{0, 10}, {6, 20}, {11, 5}, {12, 7}} {
		add(t, g, e, row(ev.minute*minute, ev.delay, ""), ev.minute*minute, int64(i))
	}
	// The window of 0:15 starts at 0:05, which is a tile's start: exactly 20, 5 and 7 are in it.
	r := g.Read(e, 15*minute, nil)
	wantNumber(t, g, r, "n_10m", 3, 0)
	wantNumber(t, g, r, "sum_10m", 32, 1e-12)
	wantNumber(t, g, r, "mean_10m", 32.0/3, 1e-12)
	wantNumber(t, g, r, "max_10m", 20, 0)
	wantNumber(t, g, r, "min_10m", 5, 0)
	wantNumber(t, g, r, "std_10m", 6.649979114420002, 1e-12) // of the population; 8.14 is the sample's
	// At 0:10:05 it starts at 0:00:05, aligned down to 0:00:00: the tail takes the event of 0:00 along.
	wantNumber(t, g, g.Read(e, 10*minute+5000, nil), "n_10m", 2, 0)
	wantNumber(t, g, g.Read(e, 10*minute+10000, nil), "n_10m", 1, 0)
}

func TestValuesDecayWhenAnEntityGoesQuiet(t *testing.T) {
	g := compiled(t, Definition{Windows: []string{"1h", "24h", "lifetime"}, Features: []FeatureDefinition{
		{Name: "n", Aggregate: "count()"}, {Name: "mean", Aggregate: "mean(delay)"}, {Name: "p95", Aggregate: "quantile(delay, 0.95)"},
	}})
	e := g.NewEntity()
	add(t, g, e, row(0, 30, ""), 0, 0)
	add(t, g, e, row(30*minute, 50, ""), 30*minute, 1)
	before := e.AppendBinary(nil)
	for _, c := range []struct {
		at        int64
		hour, day float64
	}{{45 * minute, 2, 2}, {61 * minute, 1, 2}, {90 * minute, 1, 2}, {91 * minute, 0, 2}, {24*hour + 24*minute, 0, 1}, {25 * hour, 0, 0}, {2000 * day, 0, 0}} {
		r := g.Read(e, c.at, nil)
		wantNumber(t, g, r, "n_1h", c.hour, 0)
		wantNumber(t, g, r, "n_24h", c.day, 0)
		wantNumber(t, g, r, "n", 2, 0)
		wantNumber(t, g, r, "mean", 40, 1e-12)
		if c.hour == 0 {
			wantStatus(t, g, r, "mean_1h", Null)
			wantStatus(t, g, r, "p95_1h", Null)
		}
	}
	if !bytes.Equal(before, e.AppendBinary(nil)) {
		t.Error("reading changed the entity")
	}
}

func TestEqualTimesLoseNothing(t *testing.T) {
	g := compiled(t, Definition{Windows: []string{"1h"}, Features: []FeatureDefinition{
		{Name: "n", Aggregate: "count()"}, {Name: "sum", Aggregate: "sum(delay)"}, {Name: "last", Aggregate: "last(delay)"}, {Name: "to", Aggregate: "last(destination)"},
	}})
	for _, seqs := range [][]int64{{0, 1, 2}, {2, 0, 1}, {1, 2, 0}} {
		e := g.NewEntity()
		for _, seq := range seqs {
			add(t, g, e, row(1000, float64(10*(seq+1)), []string{"A", "B", "C"}[seq]), 1000, seq)
		}
		r := g.Read(e, 1001, nil)
		wantNumber(t, g, r, "n_1h", 3, 0)
		wantNumber(t, g, r, "sum_1h", 60, 0)
		wantNumber(t, g, r, "last_1h", 30, 0)
		if to := value(t, g, r, "to_1h"); to.Value.Str() != "C" {
			t.Errorf("the last destination of %v is %q", seqs, to.Value.Str())
		}
	}
}

func TestTheTimeOfReadingIsNotInTheWindow(t *testing.T) {
	g := compiled(t, Definition{Windows: []string{"1h"}, Lateness: time.Hour, Features: []FeatureDefinition{{Name: "n", Aggregate: "count()"}}})
	e := g.NewEntity()
	add(t, g, e, row(0, 1, ""), 0, 0)
	add(t, g, e, row(5*minute, 1, ""), 5*minute, 1)
	wantStatus(t, g, g.Read(e, 0, nil), "n_1h", NotFound)
	wantNumber(t, g, g.Read(e, 1, nil), "n_1h", 1, 0)
	wantNumber(t, g, g.Read(e, 5*minute, nil), "n_1h", 1, 0)
	wantNumber(t, g, g.Read(e, 5*minute+1, nil), "n_1h", 2, 0)
}

func TestStatuses(t *testing.T) {
	g := compiled(t, Definition{Windows: []string{"1h"}, TTL: 2 * time.Hour, Lateness: 6 * time.Hour, Features: []FeatureDefinition{
		{Name: "n", Aggregate: "count()"}, {Name: "mean", Aggregate: "mean(delay)"}, {Name: "max", Aggregate: "max(delay)", Default: ptr(-1)},
	}})
	for _, e := range []*Entity{nil, g.NewEntity()} {
		for _, name := range []string{"n_1h", "mean_1h", "max_1h"} {
			wantStatus(t, g, g.Read(e, 0, nil), name, NotFound)
		}
	}
	e := g.NewEntity()
	add(t, g, e, row(0, math.NaN(), ""), 0, 0)
	r := g.Read(e, minute, nil)
	wantNumber(t, g, r, "n_1h", 1, 0)
	wantStatus(t, g, r, "mean_1h", Null)
	wantNumber(t, g, r, "max_1h", -1, 0)
	r = g.Read(e, 2*hour, nil) // the newest event is as old as the TTL, not older
	wantNumber(t, g, r, "n_1h", 0, 0)
	wantStatus(t, g, g.Read(e, 2*hour+1, nil), "n_1h", Expired)
	add(t, g, e, row(5*hour, 1, ""), 5*hour, 1)
	wantStatus(t, g, g.Read(e, 3*hour, nil), "max_1h", Expired) // as of then
	wantNumber(t, g, g.Read(e, hour, nil), "n_1h", 1, 0)
}

func TestLateEventsAreTakenAsLongAsAnythingThatOldIsKept(t *testing.T) {
	features := []FeatureDefinition{{Name: "n", Aggregate: "count()"}}
	g := compiled(t, Definition{Windows: []string{"1h"}, Lateness: time.Hour, Features: features})
	e := g.NewEntity()
	add(t, g, e, row(0, 1, ""), 10*hour, 0)
	add(t, g, e, row(0, 1, ""), 8*hour, 1)
	before := e.AppendBinary(nil)
	if outcome, err := g.Add(e, row(0, 1, ""), 8*hour-1, 2); outcome != TooLate || err != nil {
		t.Errorf("an event older than window and lateness is %v, %v", outcome, err)
	}
	if !bytes.Equal(before, e.AppendBinary(nil)) {
		t.Error("an event that was too late changed the entity")
	}
	forever := compiled(t, Definition{Windows: []string{"1h", Lifetime}, Features: features})
	e = forever.NewEntity()
	add(t, forever, e, row(0, 1, ""), 10*hour, 0)
	add(t, forever, e, row(0, 1, ""), -1000*day, 1)
	wantNumber(t, forever, forever.Read(e, 11*hour, nil), "n", 2, 0)
}

func TestBadRowsChangeNothing(t *testing.T) {
	g := compiled(t, Definition{Windows: []string{"1h"}, Features: []FeatureDefinition{{Name: "n", Aggregate: "count()"}, {Name: "to", Aggregate: "last(destination)"}}})
	e := g.NewEntity()
	for what, try := range map[string]func() (Outcome, error){
		"a short row":      func() (Outcome, error) { return g.Add(e, row(0, 1, "")[:3], 0, 0) },
		"a time too late":  func() (Outcome, error) { return g.Add(e, row(0, 1, ""), maxTime, 0) },
		"a time too early": func() (Outcome, error) { return g.Add(e, row(0, 1, ""), -maxTime, 0) },
		"a text too long":  func() (Outcome, error) { return g.Add(e, row(0, 1, strings.Repeat("x", MaxText+1)), 0, 0) },
	} {
		if _, err := try(); failure.Of(err) != failure.BadRecord {
			t.Errorf("%s: %v", what, err)
		}
	}
	if e.Newest() != math.MinInt64 || !bytes.Equal(e.AppendBinary(nil), g.NewEntity().AppendBinary(nil)) {
		t.Error("a bad row changed the entity")
	}
	add(t, g, e, row(0, 1, strings.Repeat("x", MaxText)), 0, 0)
	if to := value(t, g, g.Read(e, 1, nil), "to_1h"); len(to.Value.Str()) != MaxText {
		t.Errorf("a text of %d bytes came back as %d", MaxText, len(to.Value.Str()))
	}
}

func TestNumbersThatAreNotFiniteAreNull(t *testing.T) {
	g := compiled(t, Definition{Windows: []string{"1h"}, Features: []FeatureDefinition{
		{Name: "n", Aggregate: "count(delay)"}, {Name: "sum", Aggregate: "sum(delay)"}, {Name: "places", Aggregate: "distinct(delay)"}, {Name: "ratio", Aggregate: "mean(1 / delay)"},
	}})
	e := g.NewEntity()
	for i, d := range []float64{math.Inf(1), math.Inf(-1), 0, math.Copysign(0, -1), 4} {
		add(t, g, e, row(0, d, ""), int64(i), int64(i))
	}
	r := row(0, 0, "")
	r[delay] = schemas.FloatValue(math.NaN())
	add(t, g, e, r, 9, 9)
	out := g.Read(e, 10, nil)
	wantNumber(t, g, out, "n_1h", 3, 0)
	wantNumber(t, g, out, "sum_1h", 4, 0)
	wantNumber(t, g, out, "places_1h", 2, 0)
	wantNumber(t, g, out, "ratio_1h", 0.25, 0)
	for i := range 2 {
		add(t, g, e, row(0, math.MaxFloat64, ""), 20, int64(20+i))
	}
	wantStatus(t, g, g.Read(e, 30, nil), "sum_1h", Null) // beyond float64
}

// However far back a read goes, also beyond lateness, where tiles are coarse, it sees nothing of that time or later, and
// nothing is invented.
func TestNoReadKnowsTheFuture(t *testing.T) {
	g := compiled(t, Definition{Windows: []string{"1m", "1h", Lifetime}, Features: []FeatureDefinition{
		{Name: "n", Aggregate: "count()"}, {Name: "newest", Aggregate: "max(arrived)"}, {Name: "last", Aggregate: "last(arrived)"}, {Name: "different", Aggregate: "distinct(arrived)"},
	}})
	rng := rand.New(rand.NewPCG(9, 9))
	for range 20 {
		e := g.NewEntity()
		var times []int64
		for seq := range rng.Int64N(distinctExact) {
			at := rng.Int64N(5 * hour)
			times = append(times, at)
			add(t, g, e, row(at, 0, ""), at, seq)
		}
		for range 100 {
			at := rng.Int64N(6 * hour)
			before := int64(0)
			for _, other := range times {
				if other < at {
					before++
				}
			}
			for i, r := range g.Read(e, at, nil) {
				switch o := g.Outputs[i]; {
				case r.Status != Present:
				case r.Value.Kind() == schemas.Time && r.Value.Int() >= at:
					t.Fatalf("%s at %d is %d", o.Name, at, r.Value.Int())
				case r.Value.Kind() == schemas.Int && r.Value.Int() > before:
					t.Fatalf("%s at %d is %d, %d events were before", o.Name, at, r.Value.Int(), before)
				}
			}
			if r := g.Read(e, at, nil)[0]; (r.Status == NotFound) != (before == 0) {
				t.Fatalf("after %d events an entity is %v", before, r.Status)
			}
		}
	}
}

func TestFeaturesShareStates(t *testing.T) {
	g := compiled(t, Definition{Windows: []string{"1h"}, Features: []FeatureDefinition{
		{Name: "sum", Aggregate: "sum(delay)"}, {Name: "mean", Aggregate: "mean( delay )"}, {Name: "p50", Aggregate: "quantile(delay, 0.5)"},
		{Name: "p95", Aggregate: "quantile(delay, .95)"}, {Name: "other", Aggregate: "sum(delay)", Where: "seats > 100"},
	}})
	if n := len(g.accumulators); n != 3 {
		t.Errorf("%d states are kept, want 3", n)
	}
}

func TestReadingIsSafeForManyGoroutines(t *testing.T) {
	g := benchmarkGroup(t, 0)
	e := filled(t, g, 500)
	want := g.Read(e, e.Newest()+1, nil)
	var wait sync.WaitGroup
	for range 4 {
		wait.Go(func() {
			var out []Result
			for range 50 {
				out = g.Read(e, e.Newest()+1, out)
				for i := range out {
					if out[i] != want[i] {
						t.Errorf("%s is %v, want %v", g.Outputs[i].Name, out[i], want[i])
						return
					}
				}
			}
		})
	}
	wait.Wait()
}

func TestHotPathsDoNotAllocate(t *testing.T) {
	g := benchmarkGroup(t, 0)
	e := filled(t, g, 2000)
	r := row(0, 12, "LAX")
	at, seq := e.Newest(), int64(1e6)
	if n := testing.AllocsPerRun(100, func() {
		seq++
		if _, err := g.Add(e, r, at, seq); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("Add allocates %v times", n)
	}
	var s Scratch
	out := g.ReadInto(&s, e, at+1, nil)
	if n := testing.AllocsPerRun(100, func() { out = g.ReadInto(&s, e, at+1, out) }); n != 0 {
		t.Errorf("ReadInto allocates %v times", n)
	}
	state := e.AppendBinary(nil)
	into := g.NewEntity()
	if n := testing.AllocsPerRun(100, func() {
		if err := g.DecodeInto(into, state); err != nil {
			t.Fatal(err)
		}
	}); n > 2 {
		t.Errorf("DecodeInto allocates %v times", n)
	}
}

// filled is an entity that has had an event every six minutes on average for the given number of hours.
func filled(t testing.TB, g *Group, hours int64) *Entity {
	t.Helper()
	rng := rand.New(rand.NewPCG(1, 2))
	e := g.NewEntity()
	at := int64(978307200000)
	for seq := range hours * 10 {
		at += int64(rng.ExpFloat64() * float64(6*minute))
		add(t, g, e, row(at, math.Round(rng.NormFloat64()*30), []string{"LAX", "ORD", "DFW", "JFK"}[rng.IntN(4)]), at, seq)
	}
	return e
}
