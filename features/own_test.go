package features

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/millrace/millrace/schemas"
)

func TestARequestsOwnEventIsMergedIn(t *testing.T) {
	g := compiled(t, Definition{Windows: []string{"1h", "1h ending 1h ago"}, Where: "!cancelled", TTL: 2 * time.Hour, Features: []FeatureDefinition{
		{Name: "n", Aggregate: "count()"}, {Name: "sum", Aggregate: "sum(delay)"}, {Name: "last", Aggregate: "last(destination)"},
		{Name: "places", Aggregate: "distinct(destination)"}, {Name: "quiet", Aggregate: "time_since_last()", Windows: []string{"lifetime"}},
	}})
	e := g.NewEntity()
	start := int64(1e12) - 1e12%ms(time.Hour)
	for i, at := range []int64{start - ms(80*time.Minute), start - ms(60*time.Minute), start - ms(30*time.Minute), start - 1} {
		add(t, g, e, row(at, float64(1+i), "LAX"), at, int64(i))
	}
	before := e.AppendBinary(nil)
	var s Scratch

	// Read at start, [start-1h, start) holds 2, 3 and 4. With an event of that moment the window is [start+1ms-1h, start+1ms), whose tail is
	// aligned down to the same minute.
	own := OwnEvent{Row: row(start, 10, "JFK"), Time: start}
	out := g.ReadWith(&s, e, own, start, nil)
	wantNumber(t, g, out, "n_1h", 4, 0)
	wantNumber(t, g, out, "sum_1h", 2+3+4+10, 0)
	wantNumber(t, g, out, "places_1h", 2, 0)
	wantNumber(t, g, out, "quiet", 0.001, 0)
	if r := value(t, g, out, "last_1h"); r.Value.Str() != "JFK" {
		t.Errorf("the last destination is %v", r.Value.Any())
	}
	wantNumber(t, g, out, "n_1h_ending_1h_ago", 1, 0)
	if !bytes.Equal(before, e.AppendBinary(nil)) {
		t.Error("reading with an event has changed the entity")
	}

	// The next read is without it.
	wantNumber(t, g, g.ReadInto(&s, e, start, nil), "n_1h", 3, 0)

	// One that the group's where is not true of, or that could not be applied, changes nothing at all.
	filtered, long := row(start, 10, "JFK"), row(start, 10, string(make([]byte, MaxText+1)))
	filtered[cancelled] = schemas.BoolValue(true)
	for name, r := range map[string]schemas.Row{"filtered": filtered, "refused": long, "of no columns": nil} {
		if got, want := g.ReadWith(&s, e, OwnEvent{Row: r, Time: start}, start, nil), g.Read(e, start, nil); !slices.Equal(got, want) {
			t.Errorf("with an event that is %s: %v, want %v", name, got, want)
		}
		if got := g.ReadWith(&s, nil, OwnEvent{Row: r, Time: start}, start, nil); got[0].Status != NotFound {
			t.Errorf("of nobody, with an event that is %s: %v", name, got[0])
		}
	}

	// An entity that nothing else is known of, and one that had expired.
	wantNumber(t, g, g.ReadWith(&s, nil, own, start, nil), "n_1h", 1, 0)
	later := start + ms(3*time.Hour)
	if out := g.Read(e, later, nil); out[0].Status != Expired {
		t.Fatalf("after three hours the entity is %v", out[0].Status)
	}
	own.Time = later
	wantNumber(t, g, g.ReadWith(&s, e, own, later, nil), "n_1h", 1, 0)

	// An event older than the reading lies in the windows that hold its time, and does not move their end.
	own.Time = start - ms(10*time.Minute)
	wantNumber(t, g, g.ReadWith(&s, e, own, start, nil), "n_1h", 4, 0)
	own.Time = start - ms(90*time.Minute)
	out = g.ReadWith(&s, e, own, start, nil)
	wantNumber(t, g, out, "n_1h", 3, 0)
	wantNumber(t, g, out, "n_1h_ending_1h_ago", 2, 0)
}

// A record that was applied with an earlier time is not merged again; one applied with its own time or a later one is, because the read
// is of the events before it.
func TestARepetitionIsNotMerged(t *testing.T) {
	g := compiled(t, Definition{Windows: []string{"1h"}, Dedup: &DedupDefinition{By: "flight_id", Within: time.Hour}, Features: []FeatureDefinition{{Name: "n", Aggregate: "count()"}}})
	start := int64(1e12)
	named := func(name string, at int64) schemas.Row {
		r := row(at, 1, "LAX")
		r[flightID] = schemas.StringValue(name)
		return r
	}
	e := g.NewEntity()
	add(t, g, e, named("a", start), start, 1)
	add(t, g, e, named("b", start+ms(5*time.Minute)), start+ms(5*time.Minute), 2)
	var s Scratch
	var v View
	if err := g.Open(&v, e.AppendBinary(nil)); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		at   int64
		want float64
	}{
		{"c", start + ms(10*time.Minute), 3},
		{"a", start + ms(10*time.Minute), 2},
		{"b", start + ms(5*time.Minute), 2}, // itself: a before it, and it
		{"b", start + ms(4*time.Minute), 2}, // what was applied of it comes later
	} {
		own := OwnEvent{Row: named(c.name, c.at), Time: c.at}
		wantNumber(t, g, g.ReadWith(&s, e, own, c.at, nil), "n_1h", c.want, 0)
		wantNumber(t, g, g.ReadViewWith(&s, &v, own, c.at, nil), "n_1h", c.want, 0)
	}
}

// TestReadingWithAnOwnEventAgreesWithTheRawEvents takes a request's event before it is applied, after, and when others came after it, and
// holds each read to the raw events: of an entity, of its stored state, and of a replay.
func TestReadingWithAnOwnEventAgreesWithTheRawEvents(t *testing.T) {
	for _, c := range windowCases {
		for seed := range uint64(3) {
			t.Run(fmt.Sprintf("%s/%d", c.name, seed), func(t *testing.T) {
				d := c.group
				d.Lateness, d.ExactEvents = time.Minute, 2000
				for _, f := range windowOracles {
					d.Features = append(d.Features, f.definition)
				}
				runOwn(t, compiled(t, d), seed)
			})
		}
	}
}

func runOwn(t *testing.T, g *Group, seed uint64) {
	rng := rand.New(rand.NewPCG(seed, 3))
	e := g.NewEntity()
	var read ownReader
	read.sequence.Begin(g, g.NewEntity())
	var seen []event
	now := int64(1e12)
	for seq := range int64(120) {
		now += 1 + int64(rng.ExpFloat64()*3000)
		if rng.IntN(60) == 0 {
			now += rng.Int64N(ms(20 * time.Minute))
		}
		ev := event{t: now, seq: seq, delay: float64(rng.IntN(80)), to: []string{"ATL", "LAX", "ORD", "JFK", "x", ""}[rng.IntN(6)]}
		r := ev.row()
		r[flightID] = schemas.StringValue(fmt.Sprint("f", seq))
		at := now
		if g.Edge == EdgeNow && rng.IntN(3) == 0 {
			at += rng.Int64N(5000) // it is asked about a little later
		}
		own := OwnEvent{Row: r, Time: now}
		with := append(seen, ev)
		until := max(at, now+1)
		for _, results := range read.all(t, g, e, own, at) {
			checkResults(t, g, results, with, now, until)
		}
		if got := read.sequence.ReadWith(own, at, nil); true {
			checkResults(t, g, got, with, now, until)
		}
		for _, to := range []*Entity{e, read.sequence.entity} {
			add(t, g, to, r, now, seq)
		}
		own.Applied = true
		for _, results := range read.all(t, g, e, own, at) {
			checkResults(t, g, results, with, now, until)
		}
		seen = with
		if seq%20 > 0 {
			continue
		}
		// Others came after it: the tiles that hold them, or it, are left out.
		overtaken, err := g.Decode(e.AppendBinary(nil))
		if err != nil {
			t.Fatal(err)
		}
		other := event{t: until + rng.Int64N(3000), seq: seq + 1, delay: 99, to: "y"}
		add(t, g, overtaken, other.row(), other.t, other.seq)
		var counted []event
		for _, tile := range overtaken.Tiles() {
			for _, before := range seen[:len(seen)-1] {
				if tile.Newest < now && before.t >= tile.Start && before.t < tile.End {
					counted = append(counted, before)
				}
			}
		}
		for _, results := range read.all(t, g, overtaken, own, at) {
			checkResults(t, g, results, append(counted, ev), now, until)
		}
	}
}

// ownReader reads an entity in each way.
type ownReader struct {
	scratch  Scratch
	view     View
	sequence SequentialReader
}

func (r *ownReader) all(t *testing.T, g *Group, e *Entity, own OwnEvent, at int64) [][]Result {
	t.Helper()
	if err := g.Open(&r.view, e.AppendBinary(nil)); err != nil {
		t.Fatal(err)
	}
	results := [][]Result{g.ReadWith(&r.scratch, e, own, at, nil), g.ReadViewWith(&r.scratch, &r.view, own, at, nil)}
	if !slices.Equal(results[0], results[1]) {
		t.Fatalf("the stored state reads as %v, want %v", results[1], results[0])
	}
	return results
}
