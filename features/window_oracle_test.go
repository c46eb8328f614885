package features

import (
	"bytes"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"sort"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/millrace/millrace/schemas"
)

// viewed is what the oracle knows of a read: the events in the window, and when the window is read.
type viewed struct {
	events []event
	window time.Duration
	edge   int64
	now    int64
}

// oracle is a feature with the brute-force answer that it must agree with: nil for null, JSON as a string.
type oracle struct {
	definition FeatureDefinition
	want       func(viewed) any
}

func (v viewed) withDelay() []event {
	return slices.DeleteFunc(slices.Clone(v.events), func(e event) bool { return math.IsNaN(e.delay) })
}

// inOrder is the events with a delay by event time and then offset.
func (v viewed) inOrder() []event {
	ev := v.withDelay()
	sort.SliceStable(ev, func(i, j int) bool { return ev[i].t < ev[j].t || ev[i].t == ev[j].t && ev[i].seq < ev[j].seq })
	return ev
}

func listOf(ev []event) any {
	if len(ev) == 0 {
		return nil
	}
	var parts []string
	for _, e := range ev {
		parts = append(parts, strconv.FormatFloat(e.delay, 'g', -1, 64))
	}
	return "[" + strings.Join(parts, ",") + "]"
}

func (v viewed) weights(of func(event) float64) float64 {
	sum := 0.0
	for _, e := range v.events {
		if x := of(e); !math.IsNaN(x) {
			sum += x * math.Exp2(-float64(v.edge-e.t)/300000)
		}
	}
	return sum
}

func (v viewed) destinations() map[string]int {
	n := map[string]int{}
	for _, e := range v.events {
		if e.to != "" {
			n[e.to]++
		}
	}
	return n
}

var windowOracles = []oracle{
	{FeatureDefinition{Name: "n", Aggregate: "count()"}, func(v viewed) any { return int64(len(v.events)) }},
	{FeatureDefinition{Name: "sum", Aggregate: "sum(delay)"}, func(v viewed) any { return total(delays(v.events)) }},
	{FeatureDefinition{Name: "max", Aggregate: "max(delay)"}, func(v viewed) any { return order(delays(v.events), 1) }},
	{FeatureDefinition{Name: "variance", Aggregate: "variance(delay)"}, func(v viewed) any {
		if d, ok := deviation(delays(v.events)).(float64); ok {
			return d * d
		}
		return nil
	}},
	{FeatureDefinition{Name: "per_second", Aggregate: "rate()"}, func(v viewed) any { return float64(len(v.events)) / v.window.Seconds() }},
	{FeatureDefinition{Name: "share", Aggregate: "ratio(sum(delay), count())"}, func(v viewed) any {
		if sum, ok := total(delays(v.events)).(float64); ok {
			return sum / float64(len(v.events))
		}
		return nil
	}},
	{FeatureDefinition{Name: "earliest", Aggregate: "first(delay)", Default: ptr(-7)}, func(v viewed) any {
		if ev := v.inOrder(); len(ev) > 0 {
			return ev[0].delay
		}
		return -7.0
	}},
	{FeatureDefinition{Name: "first3", Aggregate: "first_k(delay, 3)"}, func(v viewed) any { ev := v.inOrder(); return listOf(ev[:min(3, len(ev))]) }},
	{FeatureDefinition{Name: "last3", Aggregate: "last_k(delay, 3)"}, func(v viewed) any {
		ev := v.inOrder()
		slices.Reverse(ev)
		return listOf(ev[:min(3, len(ev))])
	}},
	{FeatureDefinition{Name: "top2", Aggregate: "top_k(destination, 2)"}, func(v viewed) any {
		n := v.destinations()
		names := make([]string, 0, len(n))
		for name := range n {
			names = append(names, name)
		}
		if len(names) == 0 {
			return nil
		}
		sort.Slice(names, func(i, j int) bool {
			return n[names[i]] > n[names[j]] || n[names[i]] == n[names[j]] && names[i] < names[j]
		})
		var parts []string
		for _, name := range names[:min(2, len(names))] {
			parts = append(parts, fmt.Sprintf(`{"value":%q,"count":%d}`, name, n[name]))
		}
		return "[" + strings.Join(parts, ",") + "]"
	}},
	{FeatureDefinition{Name: "by_place", Aggregate: "count()", By: "destination", Most: 3}, func(v viewed) any {
		n := v.destinations()
		names := make([]string, 0, len(n))
		for name := range n {
			names = append(names, name)
		}
		if len(names) == 0 {
			return nil
		}
		sort.Strings(names)
		var parts []string
		other := 0
		for i, name := range names {
			if i < 3 {
				parts = append(parts, fmt.Sprintf(`%q:%d`, name, n[name]))
			} else {
				other += n[name]
			}
		}
		if other > 0 {
			parts = append(parts, fmt.Sprintf(`"_other":%d`, other))
		}
		return "{" + strings.Join(parts, ",") + "}"
	}},
	{FeatureDefinition{Name: "decayed", Aggregate: "decayed_sum(delay, 5m)"}, func(v viewed) any {
		if len(delays(v.events)) == 0 {
			return nil
		}
		return v.weights(func(e event) float64 { return e.delay })
	}},
	{FeatureDefinition{Name: "recent", Aggregate: "decayed_count(5m)"}, func(v viewed) any { return v.weights(func(event) float64 { return 1 }) }},
	{FeatureDefinition{Name: "quiet", Aggregate: "time_since_last(delay)"}, func(v viewed) any {
		if ev := v.inOrder(); len(ev) > 0 {
			return float64(v.now-ev[len(ev)-1].t) / 1000
		}
		return nil
	}},
	{FeatureDefinition{Name: "known", Aggregate: "time_since_first()"}, func(v viewed) any {
		var first any
		for _, e := range v.events {
			if age := float64(v.now-e.t) / 1000; first == nil || age > first.(float64) {
				first = age
			}
		}
		return first
	}},
}

var windowCases = []struct {
	name  string
	group Definition
	tiles map[string]int64 // of a window's name, what its length is divided by at least; 60 where it is missing
}{
	{"plain and delayed", Definition{Windows: []string{"1m", "10m", "10m ending 5m ago", "1h ending 3h ago"}}, nil},
	{"finer and coarser", Definition{Windows: []string{"5m error 1/10", "40m error 1/600", "3h"}, Tiles: 30}, map[string]int64{"5m": 10, "40m": 600, "3h": 30}},
	{"exact", Definition{Windows: []string{"90s exact", "10m", "4m exact", "20m ending 1m ago exact"}}, nil},
	{"all exact, of one window", Definition{Windows: []string{"7m"}, Exact: true}, nil},
	{"until the latest event", Definition{Windows: []string{"1m", "10m exact", "10m ending 5m ago"}, Edge: EdgeEvent}, nil},
	{"without repetitions", Definition{Windows: []string{"1m", "30m"}, Dedup: &DedupDefinition{By: "flight_id", Within: 8 * time.Minute}}, nil},
}

func TestEveryWindowAgreesWithTheRawEvents(t *testing.T) {
	for _, c := range windowCases {
		for seed := range uint64(4) {
			t.Run(fmt.Sprintf("%s/%d", c.name, seed), func(t *testing.T) {
				d := c.group
				d.Lateness, d.ExactEvents = 2*time.Minute, 2000
				for _, f := range windowOracles {
					d.Features = append(d.Features, f.definition)
				}
				g := compiled(t, d)
				for _, o := range g.Outputs {
					tiles := c.tiles[strings.TrimPrefix(o.Name, o.Feature+"_")]
					if tiles == 0 {
						tiles = TilesPerWindow
					}
					if ms(o.TailError)*tiles > ms(o.Window) {
						t.Fatalf("%s has tiles of %s", o.Name, o.TailError)
					}
				}
				runWindows(t, g, seed)
			})
		}
	}
}

// runWindows adds events that come late, of equal times and again, and checks all outputs in between.
func runWindows(t *testing.T, g *Group, seed uint64) {
	rng := rand.New(rand.NewPCG(seed, 11))
	e := g.NewEntity()
	var s Scratch
	var seen []event
	now, newest := int64(1e12), int64(math.MinInt64)
	applied := map[string]int64{} // of each name, the event time it was last applied with
	for seq := range int64(500) {
		now += int64(rng.ExpFloat64() * 3000)
		if rng.IntN(80) == 0 {
			now += rng.Int64N(ms(20 * time.Minute))
		}
		ev := event{t: now, seq: seq, delay: math.Round(rng.NormFloat64() * 40), to: []string{"ATL", "LAX", "ORD", "JFK", "x", ""}[rng.IntN(6)]}
		switch rng.IntN(6) {
		case 0:
			ev.t -= rng.Int64N(ms(2 * time.Minute))
		case 1:
			if len(seen) > 0 {
				ev.t = seen[len(seen)-1].t
			}
		}
		if rng.IntN(10) == 0 {
			ev.delay = math.NaN()
		}
		name := fmt.Sprint("f", rng.IntN(int(seq/2)+1))
		r := ev.row()
		r[flightID] = schemas.StringValue(name)
		want := Applied
		if last, ok := applied[name]; g.Dedup != nil && ok && last >= newest-ms(g.Dedup.Within) {
			want = Duplicate
		}
		outcome, err := g.Add(e, r, ev.t, seq)
		if err != nil || outcome != want {
			t.Fatalf("event %d is %v (%v), want %v", seq, outcome, err, want)
		}
		if outcome == Applied {
			newest = max(newest, ev.t)
			applied[name] = ev.t
			seen = append(seen, ev)
		}
		if rng.IntN(4) == 0 {
			state := e.AppendBinary(nil)
			if e, err = g.Decode(state); err != nil {
				t.Fatal(err)
			}
			if again := e.AppendBinary(nil); !bytes.Equal(state, again) {
				t.Fatal("a state is stored again as another")
			}
		}
		if seq%7 == 0 {
			for _, at := range []int64{newest + 1, newest + rng.Int64N(1000) + 1, newest + rng.Int64N(ms(15*time.Minute)) + 1, newest + rng.Int64N(ms(5*time.Hour))} {
				checkWindows(t, g, e, &s, seen, newest, at)
			}
		}
	}
}

func checkWindows(t *testing.T, g *Group, e *Entity, s *Scratch, seen []event, newest, at int64) {
	t.Helper()
	results := g.Read(e, at, nil)
	stored, known, err := g.ReadState(s, e.AppendBinary(nil), at, nil)
	if err != nil || known != e.Newest() || !slices.Equal(stored, results) {
		t.Fatalf("at %d the stored state reads as %v, want %v (%v)", at, stored, results, err)
	}
	checkResults(t, g, results, seen, newest, at)
}

// checkResults holds what was read at a time to the raw events.
func checkResults(t *testing.T, g *Group, results []Result, seen []event, newest, at int64) {
	t.Helper()
	for i, o := range g.Outputs {
		edge := at
		if g.Edge == EdgeEvent {
			edge = newest + 1
		}
		width := max(ms(o.TailError), 1)
		head, tail := edge, floor(edge-ms(o.Delay+o.Window), width)
		if o.Delay > 0 {
			head = floor(edge-ms(o.Delay), width)
		}
		v := viewed{window: o.Window, edge: edge, now: at}
		for _, ev := range seen {
			if ev.t >= tail && ev.t < head {
				v.events = append(v.events, ev)
			}
		}
		for _, f := range windowOracles {
			if f.definition.Name == o.Feature && !agreesWith(results[i], f.want(v)) {
				t.Fatalf("%s at %d (newest %d) is %v (%v), want %v of %d events", o.Name, at, newest, results[i].Value.Any(), results[i].Status, f.want(v), len(v.events))
			}
		}
	}
}

func agreesWith(got Result, want any) bool {
	if text, ok := want.(string); ok {
		return got.Status == Present && got.Value.Kind() == schemas.Composite && got.Value.Str() == text
	}
	if f, ok := want.(float64); ok {
		x, _ := got.Value.Float()
		return got.Status == Present && got.Value.Kind() == schemas.Float && math.Abs(x-f) <= 1e-9*max(1, math.Abs(f))*1000
	}
	return agrees(got, want, 0, nil)
}

// Of more event times than are kept an exact window says that it does not know, never a wrong number.
func TestExactWindowsThatOverflowSaySo(t *testing.T) {
	g := compiled(t, Definition{Windows: []string{"10m"}, ExactEvents: 20, Lateness: time.Minute, Features: []FeatureDefinition{
		{Name: "n", Aggregate: "count()"}, {Name: "exact", Aggregate: "count()", Exact: true}, {Name: "soon", Aggregate: "ratio(sum(delay), count())", Windows: []string{"5s exact"}},
	}})
	rng := rand.New(rand.NewPCG(5, 6))
	e := g.NewEntity()
	var s Scratch
	var seen []event
	statuses := map[Status]int{}
	now := int64(1e12)
	for seq := range int64(3000) {
		gap := 20000.0
		if seq/300%2 == 0 {
			gap = 800 // 20 events come in far less than the window
		}
		now += int64(rng.ExpFloat64() * gap)
		ev := event{t: now - rng.Int64N(2)*rng.Int64N(30000), seq: seq, delay: 1}
		add(t, g, e, ev.row(), ev.t, seq)
		seen = append(seen, ev)
		if int(e.counts[0]) > g.ExactEvents {
			t.Fatalf("%d exact tiles are kept", e.counts[0])
		}
		var err error
		if e, err = g.Decode(e.AppendBinary(nil)); err != nil {
			t.Fatal(err)
		}
		at := e.Newest() + 1 + rng.Int64N(60000)
		results := g.Read(e, at, nil)
		if stored, _, err := g.ReadState(&s, e.AppendBinary(nil), at, nil); err != nil || !slices.Equal(stored, results) {
			t.Fatalf("the stored state reads as %v, want %v (%v)", stored, results, err)
		}
		for _, name := range []string{"n_10m", "exact_10m", "soon_5s"} {
			o := g.Outputs[g.Output(name)]
			tail := floor(at-ms(o.Window), max(ms(o.TailError), 1))
			n := 0
			for _, ev := range seen {
				if ev.t >= tail && ev.t < at {
					n++
				}
			}
			r := results[g.Output(name)]
			statuses[r.Status]++
			switch {
			case r.Status == Overflow && name == "n_10m", r.Status == Null && (name != "soon_5s" || n > 0):
				t.Fatalf("%s is %v", name, r.Status)
			case r.Status == Overflow && !r.Value.IsNull():
				t.Fatalf("%s has a value though it overflowed", name)
			case r.Status != Present:
			case name == "soon_5s" && n > 0:
				n = 1
				fallthrough
			default:
				if f, _ := r.Value.Float(); f != float64(n) {
					t.Fatalf("event %d: %s is %v, want %d", seq, name, f, n)
				}
			}
		}
	}
	if statuses[Overflow] < 100 || statuses[Present] < 100 {
		t.Errorf("statuses are %v: the test shows nothing", statuses)
	}
}

// Beyond the values it counts, top_k is wrong by no more than it says, however the events fall into tiles.
func TestTopKIsWithinItsError(t *testing.T) {
	state := topState{table{payload: 1, most: topCounters}}
	rng := rand.New(rand.NewPCG(1, 5))
	zipf := rand.NewZipf(rng, 1.2, 3, 5000)
	const rows = 20000
	counts := map[string]uint64{}
	var whole []uint64
	for range 20 {
		var tile []uint64
		for range rows / 20 {
			name := fmt.Sprint("v", zipf.Uint64())
			counts[name]++
			tile = state.add(tile, schemas.StringValue(name), sample{})
		}
		whole = state.merge(whole, tile)
	}
	if n := state.count(whole); n > topCounters {
		t.Fatalf("%d values are counted", n)
	}
	got := map[string]uint64{}
	for entries := whole; len(entries) > 0; entries = state.next(entries) {
		got[state.textOf(entries)] = state.payloadOf(entries)[0]
	}
	for name, n := range counts {
		if got[name] > n || n-got[name] > rows/(topCounters+1) {
			t.Errorf("%s is counted %d times, it is there %d times", name, got[name], n)
		}
	}
	if len(counts) < 4*topCounters {
		t.Errorf("%d different values show nothing", len(counts))
	}
}

// Of more names than are kept the oldest are forgotten, and what is too old to be remembered counts again.
func TestRepetitionsAreToldWithinTheirBounds(t *testing.T) {
	g := compiled(t, Definition{Windows: []string{Lifetime}, Dedup: &DedupDefinition{By: "flight_id", Within: time.Minute, Most: 3}, Features: []FeatureDefinition{{Name: "n", Aggregate: "count()"}}})
	e := g.NewEntity()
	for i, c := range []struct {
		name string
		at   int64
		want Outcome
	}{
		{"a", 1000, Applied}, {"a", 1000, Duplicate}, {"a", 2000, Duplicate}, {"b", 1500, Applied}, {"c", 3000, Applied},
		{"d", 4000, Applied}, {"a", 4000, Applied}, // a was the oldest of four
		{"e", 70000, Applied}, {"d", 70000, Applied}, // d is more than a minute old
		{"f", 1, Applied}, {"f", 1, Applied}, // too old to be remembered
		{"", 70000, Applied}, {"", 70000, Duplicate},
	} {
		r := row(c.at, 1, "")
		r[flightID] = schemas.StringValue(c.name)
		if outcome, err := g.Add(e, r, c.at, int64(i)); err != nil || outcome != c.want {
			t.Errorf("%d: %q at %d is %v (%v), want %v", i, c.name, c.at, outcome, err, c.want)
		}
		var err error
		if e, err = g.Decode(e.AppendBinary(nil)); err != nil {
			t.Fatal(err)
		}
	}
}
