package features

import (
	"bytes"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"sort"
	"testing"
	"time"

	"github.com/millrace/millrace/schemas"
)

// event is a raw event as the oracle keeps it: nothing of the engine's.
type event struct {
	t, seq  int64
	delay   float64 // NaN: null
	seats   int64   // math.MinInt64: null
	to      string  // "": null
	cancels bool
	dropped bool // it was too late: the entity may not be known by it
}

func (e event) row() schemas.Row {
	r := make(schemas.Row, columnCount)
	r[flightID], r[origin] = schemas.StringValue("f"), schemas.StringValue("ATL")
	r[arrived] = schemas.TimeValue(e.t)
	if e.to != "" {
		r[destination] = schemas.StringValue(e.to)
	}
	if !math.IsNaN(e.delay) {
		r[delay] = schemas.FloatValue(e.delay)
	}
	if e.seats != math.MinInt64 {
		r[seats] = schemas.IntValue(e.seats)
	}
	r[cancelled], r[carrier] = schemas.BoolValue(e.cancels), schemas.StringValue("AA")
	return r
}

// answer is what a feature must be over a set of events: nil for null.
type answer func(events []event) any

// everyFeature names each aggregate with the brute-force answer that it must agree with.
var everyFeature = []struct {
	definition FeatureDefinition
	want       answer
	relative   float64 // error allowed
}{
	{FeatureDefinition{Name: "n", Aggregate: "count()"}, func(ev []event) any { return int64(len(ev)) }, 0},
	{FeatureDefinition{Name: "n_delay", Aggregate: "count(delay)"}, func(ev []event) any { return int64(len(delays(ev))) }, 0},
	{FeatureDefinition{Name: "sum", Aggregate: "sum(delay)"}, func(ev []event) any { return total(delays(ev)) }, 1e-9},
	{FeatureDefinition{Name: "mean", Aggregate: "mean(delay)"}, func(ev []event) any { return average(delays(ev)) }, 1e-9},
	{FeatureDefinition{Name: "min", Aggregate: "min(delay)"}, func(ev []event) any { return order(delays(ev), 0) }, 0},
	{FeatureDefinition{Name: "max", Aggregate: "max(delay)"}, func(ev []event) any { return order(delays(ev), 1) }, 0},
	{FeatureDefinition{Name: "std", Aggregate: "stddev(delay)"}, func(ev []event) any { return deviation(delays(ev)) }, 1e-7},
	{FeatureDefinition{Name: "p95", Aggregate: "quantile(delay, 0.95)"}, func(ev []event) any { return order(delays(ev), 0.95) }, 0.01},
	{FeatureDefinition{Name: "p50", Aggregate: "quantile(delay, 0.5)"}, func(ev []event) any { return order(delays(ev), 0.5) }, 0.01},
	{FeatureDefinition{Name: "late", Aggregate: "mean(delay > 15)"}, func(ev []event) any {
		late := 0.0
		for _, d := range delays(ev) {
			if d > 15 {
				late++
			}
		}
		if len(delays(ev)) == 0 {
			return nil
		}
		return late / float64(len(delays(ev)))
	}, 1e-12},
	{FeatureDefinition{Name: "places", Aggregate: "distinct(destination)"}, func(ev []event) any {
		places := map[string]bool{}
		for _, e := range ev {
			if e.to != "" {
				places[e.to] = true
			}
		}
		return int64(len(places))
	}, 0},
	{FeatureDefinition{Name: "last", Aggregate: "last(delay)"}, func(ev []event) any {
		return latest(ev, func(e event) any {
			if math.IsNaN(e.delay) {
				return nil
			}
			return e.delay
		})
	}, 0},
	{FeatureDefinition{Name: "last_to", Aggregate: "last(destination)"}, func(ev []event) any {
		return latest(ev, func(e event) any {
			if e.to == "" {
				return nil
			}
			return e.to
		})
	}, 0},
	{FeatureDefinition{Name: "seats_min", Aggregate: "min(seats)"}, func(ev []event) any { return seatOrder(ev, false) }, 0},
	{FeatureDefinition{Name: "seats_max", Aggregate: "max(seats)"}, func(ev []event) any { return seatOrder(ev, true) }, 0},
	{FeatureDefinition{Name: "first_to_late", Aggregate: "max(arrived)", Where: "delay > 15"}, func(ev []event) any {
		var best any
		for _, e := range ev {
			if e.delay > 15 && (best == nil || e.t > best.(int64)) {
				best = e.t
			}
		}
		return best
	}, 0},
	{FeatureDefinition{Name: "or_else", Aggregate: "mean(delay)", Where: "destination == 'LAX'", Default: ptr(-1)}, func(ev []event) any {
		var to []event
		for _, e := range ev {
			if e.to == "LAX" {
				to = append(to, e)
			}
		}
		if m := average(delays(to)); m != nil {
			return m
		}
		return -1.0
	}, 1e-9},
}

func delays(events []event) []float64 {
	var out []float64
	for _, e := range events {
		if !math.IsNaN(e.delay) {
			out = append(out, e.delay)
		}
	}
	return out
}

func total(x []float64) any {
	if len(x) == 0 {
		return nil
	}
	sum := 0.0
	for _, v := range x {
		sum += v
	}
	return sum
}

func average(x []float64) any {
	if len(x) == 0 {
		return nil
	}
	return total(x).(float64) / float64(len(x))
}

// deviation is the two-pass population standard deviation.
func deviation(x []float64) any {
	if len(x) == 0 {
		return nil
	}
	mean, squares := average(x).(float64), 0.0
	for _, v := range x {
		squares += (v - mean) * (v - mean)
	}
	return math.Sqrt(squares / float64(len(x)))
}

func order(x []float64, q float64) any {
	if len(x) == 0 {
		return nil
	}
	sorted := slices.Clone(x)
	sort.Float64s(sorted)
	return sorted[int(q*float64(len(sorted)-1))]
}

func latest(events []event, of func(event) any) any {
	var best any
	t, seq := int64(math.MinInt64), int64(0)
	for _, e := range events {
		if v := of(e); v != nil && (e.t > t || e.t == t && e.seq > seq) {
			best, t, seq = v, e.t, e.seq
		}
	}
	return best
}

func seatOrder(events []event, greatest bool) any {
	var best any
	for _, e := range events {
		if e.seats != math.MinInt64 && (best == nil || (e.seats > best.(int64)) == greatest) {
			best = e.seats
		}
	}
	return best
}

// floor rounds t down to a multiple of width, for times of any sign.
func floor(t, width int64) int64 {
	m := t % width
	if m < 0 {
		m += width
	}
	return t - m
}

// oracleCase is a definition and the width of its finest tile, worked out by hand.
type oracleCase struct {
	name    string
	windows []string
	late    time.Duration
	finest  time.Duration
	widths  map[string]time.Duration // of each output's tail
	step    time.Duration            // mean time between events
	jump    time.Duration            // length of a rare silence
	start   int64
}

var oracleCases = []oracleCase{
	{
		name: "four windows", windows: []string{"1h", "3h", "24h", "7d"}, late: 6 * time.Hour, finest: time.Minute,
		widths: map[string]time.Duration{"1h": time.Minute, "3h": 3 * time.Minute, "24h": 24 * time.Minute, "7d": 168 * time.Minute},
		step:   2 * time.Minute, jump: 20 * time.Hour, start: 978307200000,
	},
	{
		name: "odd windows and lifetime", windows: []string{"7s", "100s", "110s", "61m", "lifetime"}, finest: 100 * time.Millisecond,
		widths: map[string]time.Duration{"7s": 100 * time.Millisecond, "100s": 1600 * time.Millisecond, "110s": 1600 * time.Millisecond, "61m": 60800 * time.Millisecond},
		step:   900 * time.Millisecond, jump: 40 * time.Minute, late: 5 * time.Second, start: 12345,
	},
	{
		name: "before 1970", windows: []string{"90s", "10m"}, finest: time.Second,
		widths: map[string]time.Duration{"90s": time.Second, "10m": 10 * time.Second},
		step:   5 * time.Second, jump: 9 * time.Minute, late: time.Minute, start: -1000000,
	},
	{
		name: "lifetime alone", windows: []string{"lifetime"}, late: 10 * time.Minute, finest: 10 * time.Second,
		step: 4 * time.Second, jump: time.Hour, start: 1e12,
	},
	{
		name: "milliseconds", windows: []string{"30ms", "59ms", "2s"}, finest: time.Millisecond,
		widths: map[string]time.Duration{"30ms": time.Millisecond, "59ms": time.Millisecond, "2s": 33 * time.Millisecond},
		step:   3 * time.Millisecond, jump: 3 * time.Second, late: 10 * time.Millisecond, start: 5e11,
	},
}

func TestEveryOutputAgreesWithTheRawEvents(t *testing.T) {
	for _, c := range oracleCases {
		for seed := range uint64(3) {
			t.Run(fmt.Sprintf("%s/%d", c.name, seed), func(t *testing.T) { runOracle(t, c, seed) })
		}
	}
}

func (c oracleCase) group(t *testing.T) *Group {
	d := Definition{Windows: c.windows, Lateness: c.late, Where: "!cancelled"}
	for _, f := range everyFeature {
		d.Features = append(d.Features, f.definition)
	}
	g := compiled(t, d)
	for _, o := range g.Outputs {
		for text, width := range c.widths {
			if o.Name == o.Feature+"_"+text && o.TailError != width {
				t.Fatalf("%s has a tile of %s, want %s", o.Name, o.TailError, width)
			}
		}
	}
	return g
}

func runOracle(t *testing.T, c oracleCase, seed uint64) {
	rng := rand.New(rand.NewPCG(seed, 7))
	g := c.group(t)
	plain, stored := g.NewEntity(), g.NewEntity() // stored is encoded and decoded in between
	var seen []event                              // all that pass the group's where
	newest, now := int64(math.MinInt64), c.start
	tooLate := 0
	for seq := range int64(300) {
		if rng.IntN(60) == 0 {
			now += int64(rng.Float64() * float64(ms(c.jump)))
		}
		now += int64(rng.ExpFloat64() * float64(ms(c.step)))
		ev := c.event(rng, now, seq, seen)
		outcome, err := g.Add(plain, ev.row(), ev.t, seq)
		if err != nil {
			t.Fatal(err)
		}
		if other, err := g.Add(stored, ev.row(), ev.t, seq); err != nil || other != outcome {
			t.Fatalf("event %d is %v, after decoding %v (%v)", seq, outcome, other, err)
		}
		if rng.IntN(3) == 0 {
			if stored, err = g.Decode(stored.AppendBinary(nil)); err != nil {
				t.Fatal(err)
			}
		}
		if (outcome == Filtered) != ev.cancels {
			t.Fatalf("event %d is %v", seq, outcome)
		}
		if ev.cancels {
			continue
		}
		ev.dropped = outcome == TooLate
		seen = append(seen, ev)
		newest = max(newest, ev.t)
		if outcome == TooLate {
			tooLate++
			c.checkTooLate(t, ev, newest)
		}
		if seq%10 == 0 {
			c.check(t, g, plain, seen, newest, rng)
		}
		if a, b := plain.AppendBinary(nil), stored.AppendBinary(nil); !bytes.Equal(a, b) {
			t.Fatalf("after event %d the states differ", seq)
		}
	}
	t.Logf("%d events, %d too late, state of %d bytes", len(seen), tooLate, len(plain.AppendBinary(nil)))
}

// event is mostly now, sometimes late by a little or by a lot, sometimes of the very time of another.
func (c oracleCase) event(rng *rand.Rand, now, seq int64, seen []event) event {
	e := event{t: now, seq: seq, delay: math.Round(rng.NormFloat64()*30) / 2, seats: rng.Int64N(1 << 62), cancels: rng.IntN(12) == 0}
	switch rng.IntN(10) {
	case 0:
		e.t -= int64(rng.Float64() * float64(ms(c.jump)))
	case 1:
		e.t -= int64(rng.Float64() * float64(ms(10*c.step)))
	case 2:
		e.t -= int64(rng.Float64() * 20 * float64(ms(c.jump)))
	case 3, 4:
		if len(seen) > 0 {
			e.t = seen[len(seen)-1-rng.IntN(min(len(seen), 5))].t
		}
	}
	if rng.IntN(10) == 0 {
		e.delay, e.seats = math.NaN(), math.MinInt64
	}
	if rng.IntN(4) == 0 {
		e.seats = -e.seats
	}
	if rng.IntN(8) > 0 {
		e.to = []string{"LAX", "ORD", "DFW", "Åre", "a place whose name is longer than eight bytes", "x"}[rng.IntN(6)]
	}
	return e
}

// checkTooLate: only what no window can ask for any more may be dropped.
func (c oracleCase) checkTooLate(t *testing.T, ev event, newest int64) {
	longest := time.Duration(0)
	for text := range c.widths {
		d, err := time.ParseDuration(text)
		if err != nil {
			d = 7 * 24 * time.Hour
		}
		longest = max(longest, d)
	}
	if slices.Contains(c.windows, "lifetime") || ev.t >= newest-ms(longest+c.late) {
		t.Fatalf("an event of %d was too late, with the newest at %d", ev.t, newest)
	}
}

// check compares all outputs at times after the newest event, and at earlier ones within lateness.
func (c oracleCase) check(t *testing.T, g *Group, e *Entity, seen []event, newest int64, rng *rand.Rand) {
	t.Helper()
	times := []int64{newest + 1, newest + int64(rng.Float64()*float64(ms(c.jump))), newest + int64(rng.Float64()*30*float64(ms(c.jump)))}
	if c.late > 0 {
		times = append(times, newest, newest-rng.Int64N(ms(c.late)+1), newest-ms(c.late), newest-rng.Int64N(min(ms(c.late), 3*ms(c.step))+1))
	}
	for _, at := range times {
		c.checkAt(t, g, e, seen, newest, at)
	}
}

func (c oracleCase) checkAt(t *testing.T, g *Group, e *Entity, seen []event, newest, at int64) {
	t.Helper()
	head := at // past reads leave out the finest tile that is not over at the time
	known := false
	for _, ev := range seen {
		if ev.t >= at && floor(ev.t, ms(c.finest)) == floor(at, ms(c.finest)) {
			head = floor(at, ms(c.finest))
		}
		known = known || ev.t < at && !ev.dropped
	}
	results := g.Read(e, at, nil)
	for i, o := range g.Outputs {
		tail := int64(math.MinInt64)
		if o.Window > 0 {
			tail = floor(at-ms(o.Window), ms(o.TailError))
		}
		var in []event
		for _, ev := range seen {
			if ev.t >= tail && ev.t < head {
				in = append(in, ev)
			}
		}
		for _, f := range everyFeature {
			if f.definition.Name != o.Feature {
				continue
			}
			if !known {
				if results[i].Status != NotFound || !results[i].Value.IsNull() {
					t.Fatalf("%s at %d is %v of an entity not yet known", o.Name, at, results[i])
				}
			} else if want := f.want(in); !agrees(results[i], want, f.relative, in) {
				t.Fatalf("%s at %d (newest %d) is %v (%v), want %v of %d events", o.Name, at, newest, results[i].Value.Any(), results[i].Status, want, len(in))
			}
		}
	}
}

// agrees compares to a relative error; sums also to one of what was summed, because terms may cancel.
func agrees(got Result, want any, relative float64, in []event) bool {
	if want == nil {
		return got.Status == Null && got.Value.IsNull()
	}
	if got.Status != Present {
		return false
	}
	switch want := want.(type) {
	case int64:
		return got.Value.Int() == want && (got.Value.Kind() == schemas.Int || got.Value.Kind() == schemas.Time)
	case string:
		return got.Value.Str() == want && got.Value.Kind() == schemas.String
	case float64:
		f, _ := got.Value.Float()
		scale := math.Abs(want)
		if relative < 1e-3 {
			for _, d := range delays(in) {
				scale += relative * math.Abs(d)
			}
		}
		return got.Value.Kind() == schemas.Float && math.Abs(f-want) <= relative*scale
	}
	return false
}
