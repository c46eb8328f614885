package pit

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/millrace/millrace/features"
	"github.com/millrace/millrace/features/offline"
	"github.com/millrace/millrace/schemas"
)

const eventSchema = `{"type":"record","name":"event","fields":[
	{"name":"card","type":["null","string"],"default":null},
	{"name":"shop","type":"string"},
	{"name":"at","type":{"type":"long","logicalType":"timestamp-millis"}},
	{"name":"amount","type":"int"}]}`

// payment is an event as the tests know it, apart from all that is tested.
type payment struct {
	card, shop string // card "" is null
	at, known  int64
	amount     int64
}

// asked is a row of the spine.
type asked struct {
	at         int64
	card, shop string
}

// world is payments in the order in which they became known, and rows in no order.
type world struct {
	schema   *schemas.Schema
	card     *features.Group
	shop     *features.Group
	payments []payment
	rows     []asked
}

const second = int64(1000)

func newWorld(t testing.TB, payments, rows int, ordered bool) *world {
	t.Helper()
	s, err := schemas.Parse("event", []byte(eventSchema))
	if err != nil {
		t.Fatal(err)
	}
	group := func(name string) *features.Group {
		g, errs := features.Compile(features.Definition{Name: name, Source: "payments", Entity: []string{name}, Windows: []string{"60s", "1h"},
			Features: []features.FeatureDefinition{{Name: "n", Aggregate: "count()"}, {Name: "sum", Aggregate: "sum(amount)"},
				{Name: "max", Aggregate: "max(amount)"}, {Name: "shop", Aggregate: "last(shop)"}}}, s)
		if len(errs) > 0 {
			t.Fatal(errs)
		}
		return g
	}
	w := &world{schema: s, card: group("card"), shop: group("shop")}
	rng := rand.New(rand.NewPCG(3, 4))
	at := int64(978307200000)
	for range payments {
		at += rng.Int64N(3 * second)
		p := payment{card: fmt.Sprint("card ", rng.IntN(40)), shop: fmt.Sprint("shop ", rng.IntN(5)), at: at, known: at, amount: rng.Int64N(1000)}
		if rng.IntN(20) == 0 {
			p.card = ""
		}
		w.payments = append(w.payments, p)
	}
	first := w.payments[0].at - 10*second
	for range rows {
		r := asked{at: first + rng.Int64N(at+3*3600*second-first), card: fmt.Sprint("card ", rng.IntN(45)), shop: fmt.Sprint("shop ", rng.IntN(5))}
		switch rng.IntN(10) {
		case 0:
			r.card = "" // names none
		case 1, 2, 3:
			r.at = w.payments[rng.IntN(payments)].at + rng.Int64N(3) - 1 // on the edge
		case 4:
			if n := len(w.rows); n > 0 {
				r = w.rows[rng.IntN(n)] // a row that is there twice
			}
		}
		w.rows = append(w.rows, r)
	}
	if ordered {
		slices.SortStableFunc(w.rows, func(a, b asked) int { return int(a.at - b.at) })
	}
	return w
}

// listed hands out payments.
type listed struct {
	payments []payment
	i        int
	until    int64
}

func (l *listed) Next() bool {
	l.i++
	return l.i < len(l.payments) && l.payments[l.i].known < l.until
}
func (l *listed) Time() int64  { return l.payments[l.i].at }
func (l *listed) Known() int64 { return l.payments[l.i].known }
func (l *listed) Err() error   { return nil }
func (l *listed) Close() error { return nil }
func (l *listed) Row(row schemas.Row) {
	p := l.payments[l.i]
	if p.card != "" {
		row[0] = schemas.StringValue(p.card)
	}
	row[1], row[2], row[3] = schemas.StringValue(p.shop), schemas.TimeValue(p.at), schemas.IntValue(p.amount)
}

func (w *world) source() Source {
	return Source{Name: "payments", Open: func(_ context.Context, until int64) (Events, error) {
		return &listed{payments: w.payments, i: -1, until: until}, nil
	}}
}

func (w *world) lookups() []Lookup {
	all := make([]int, len(w.card.Outputs))
	for i := range all {
		all[i] = i
	}
	return []Lookup{{Group: w.card, Outputs: all}, {Group: w.shop, Outputs: all[:4]}}
}

// answer is a row that came out, as text.
type answer struct {
	status [2]features.Status
	values [2][]string
	newest [2]int64
}

func (w *world) join(t testing.TB, cfg Config) []answer {
	t.Helper()
	s, err := NewSpine(cfg, w.lookups())
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for _, r := range w.rows {
		if err := s.Add(r.at, []string{r.card, r.shop}); err != nil {
			t.Fatal(err)
		}
	}
	var out []answer
	err = s.JoinInOrder(t.Context(), []Source{w.source()}, func(b *Block) error {
		for r := range b.Rows {
			if b.Rows[r] != int64(len(out)) || b.Times[r] != w.rows[len(out)].at {
				t.Fatalf("row %d of time %d comes as row %d", b.Rows[r], b.Times[r], len(out))
			}
			var a answer
			for l, lookup := range w.lookups() {
				a.status[l], a.newest[l] = b.Status(l, r), b.Newest(l, r)
				for o, index := range lookup.Outputs {
					_, ok := b.Word(l, o, r)
					switch {
					case !ok:
						a.values[l] = append(a.values[l], "null")
					case lookup.Group.Outputs[index].Kind == schemas.String:
						a.values[l] = append(a.values[l], strings.Clone(b.Text(l, o, r)))
					default:
						a.values[l] = append(a.values[l], fmt.Sprint(b.Number(l, o, r)))
					}
				}
			}
			out = append(out, a)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// want is the answer worked out from the payments by brute force. Amounts are whole, so that sums are exact.
func (w *world) want(r asked) answer {
	var a answer
	for l, lookup := range w.lookups() {
		key := []string{r.card, r.shop}[l]
		var known []payment
		newest := int64(Never)
		for _, p := range w.payments {
			if key != "" && p.known < r.at && []string{p.card, p.shop}[l] == key {
				known = append(known, p)
				newest = max(newest, p.at)
			}
		}
		a.newest[l] = newest
		for _, index := range lookup.Outputs {
			o := lookup.Group.Outputs[index]
			from := int64(math.MinInt64)
			if o.Window > 0 {
				tile := map[time.Duration]int64{time.Minute: second, time.Hour: 60 * second}[o.Window]
				from = (r.at - o.Window.Milliseconds()) / tile * tile
			}
			n, sum, most, last := 0, int64(0), int64(-1), ""
			lastAt := int64(-1)
			for _, p := range known {
				if p.at >= from {
					n++
					sum += p.amount
					most = max(most, p.amount)
					if p.at >= lastAt {
						last, lastAt = p.shop, p.at
					}
				}
			}
			value := map[string]string{"n": fmt.Sprint(n), "sum": fmt.Sprint(sum), "max": fmt.Sprint(most), "shop": last}[o.Feature]
			switch {
			case len(known) == 0:
				a.status[l], value = features.NotFound, "null"
			case n == 0 && o.Feature != "n":
				value = "null"
			}
			a.values[l] = append(a.values[l], value)
		}
	}
	return a
}

func (w *world) check(t *testing.T, got []answer) {
	t.Helper()
	if len(got) != len(w.rows) {
		t.Fatalf("%d rows in, %d out", len(w.rows), len(got))
	}
	unknown := 0
	for i, r := range w.rows {
		if want := w.want(r); fmt.Sprint(got[i]) != fmt.Sprint(want) {
			t.Fatalf("row %d %+v:\ngot  %v\nwant %v", i, r, got[i], want)
		}
		if got[i].status[0] == features.NotFound {
			unknown++
		}
	}
	if len(w.rows) > 100 && (unknown == 0 || unknown > len(w.rows)/2) {
		t.Errorf("%d of %d rows find nothing: the test does not look at what it should", unknown, len(w.rows))
	}
}

// limits are small, so that everything spills and every slice is cut somewhere.
func limits(dir string) Config {
	return Config{SliceRows: 37, SliceEvents: 101, MaxRowBytes: 1, MaxStateBytes: 4000, TempDir: dir, Workers: 3}
}

func TestJoinAgainstBruteForce(t *testing.T) {
	for name, ordered := range map[string]bool{"in order": true, "in no order": false} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, 2000, 400, ordered)
			small := w.join(t, limits(t.TempDir()))
			w.check(t, small)
			w.check(t, w.join(t, Default()))
		})
	}
}

func TestManyRuns(t *testing.T) {
	s := rowSorter{dir: t.TempDir(), limit: 2 * runRows * 24, entities: 2}
	rng := rand.New(rand.NewPCG(1, 1))
	const n = 5*runRows + 17
	times := make([]int64, n)
	for i := range times {
		times[i] = rng.Int64N(1000) - 500
		if err := s.add(times[i], []uint32{uint32(i), uint32(times[i] + 500)}); err != nil {
			t.Fatal(err)
		}
	}
	m, err := s.sorted()
	if err != nil {
		t.Fatal(err)
	}
	if s.written == 0 || s.held == 0 {
		t.Errorf("%d bytes on disk, %d in memory: the test does not look at both", s.written, s.held)
	}
	last := spineRow{time: math.MinInt64}
	for range n {
		r, err := m.next()
		if err != nil {
			t.Fatal(err)
		}
		if r.time < last.time || r.time == last.time && r.row <= last.row {
			t.Fatalf("row %d of time %d comes after row %d of time %d", r.row, r.time, last.row, last.time)
		}
		if r.time != times[r.row] || r.entities[0] != uint32(r.row) || r.entities[1] != uint32(r.time+500) {
			t.Fatalf("row %d is %+v", r.row, r)
		}
		last = spineRow{time: r.time, row: r.row}
	}
	if _, err := m.next(); err == nil {
		t.Error("there are more rows than were added")
	}
	if err := s.close(); err != nil {
		t.Error(err)
	}
}

// TestNothingIsKnownTooEarly plants an event that became known at the row's time and one a millisecond earlier.
func TestNothingIsKnownTooEarly(t *testing.T) {
	w := newWorld(t, 10, 0, true)
	at := w.payments[9].at + 3600*second
	w.payments = []payment{
		{card: "c", shop: "s", at: at - 30*second, known: at - 1, amount: 3},
		{card: "c", shop: "s", at: at - 20*second, known: at, amount: 5}, // happened before, known a millisecond too late
		{card: "c", shop: "s", at: at - 10*second, known: at + 1, amount: 7},
	}
	w.rows = []asked{{at: at, card: "c", shop: "s"}, {at: at + 1, card: "c", shop: "s"}, {at: at + 2, card: "c", shop: "s"}, {at: at - 1, card: "c", shop: "s"}}
	got := w.join(t, Default())
	w.check(t, got)
	for i, want := range []string{"1", "2", "3", "null"} {
		if got[i].values[0][0] != want {
			t.Errorf("row %d counts %s, want %s", i, got[i].values[0][0], want)
		}
	}
}

// TestKnownLaterThanItHappened has events come in another order than they happened.
func TestKnownLaterThanItHappened(t *testing.T) {
	w := newWorld(t, 2000, 400, false)
	rng := rand.New(rand.NewPCG(8, 8))
	for i := range w.payments {
		w.payments[i].known += rng.Int64N(90 * second)
	}
	slices.SortStableFunc(w.payments, func(a, b payment) int { return int(a.known - b.known) })
	got := w.join(t, limits(t.TempDir()))
	late := 0
	for i, r := range w.rows {
		want := w.want(r)
		// Texts of equal event times, and tails after a late event, are another test's business: counts say what is known.
		for l := range want.values {
			if got[i].values[l][0] != want.values[l][0] || got[i].newest[l] != want.newest[l] {
				t.Fatalf("row %d %+v: %v, want %v", i, r, got[i], want)
			}
		}
		for _, p := range w.payments {
			if p.card == r.card && p.at < r.at && p.known >= r.at {
				late++
			}
		}
	}
	if late < 20 {
		t.Errorf("only %d events were known too late for a row", late)
	}
}

func TestNoRowsAndNoEvents(t *testing.T) {
	w := newWorld(t, 10, 0, true)
	if got := w.join(t, Default()); len(got) != 0 {
		t.Errorf("%d rows come of none", len(got))
	}
	w = newWorld(t, 10, 5, true)
	w.payments = nil
	w.check(t, w.join(t, Default()))
}

func TestJoinEndsWhenItIsTold(t *testing.T) {
	w := newWorld(t, 2000, 500, false)
	cfg := limits(t.TempDir())
	s, err := NewSpine(cfg, w.lookups())
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for _, r := range w.rows {
		if err := s.Add(r.at, []string{r.card, r.shop}); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	blocks := 0
	err = s.Join(ctx, []Source{w.source()}, func(*Block) error {
		if blocks++; blocks == 2 {
			cancel()
		}
		return nil
	})
	if err == nil || blocks > 6 {
		t.Errorf("after %d blocks: %v", blocks, err)
	}
	failed := fmt.Errorf("the disk is full")
	s2, _ := NewSpine(cfg, w.lookups())
	defer s2.Close()
	_ = s2.Add(1e12, []string{"card 1", "shop 1"})
	if err := s2.Join(t.Context(), []Source{w.source()}, func(*Block) error { return failed }); !errors.Is(err, failed) {
		t.Errorf("the error is %v", err)
	}
}

func TestTableEventsAreKnownAfterADelay(t *testing.T) {
	w := newWorld(t, 500, 200, false)
	table, err := offline.EventsTable(t.TempDir(), "payments", w.schema)
	if err != nil {
		t.Fatal(err)
	}
	writer, err := table.NewWriter(0, offline.WriterOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for i, p := range w.payments {
		row := make(schemas.Row, 4)
		(&listed{payments: w.payments, i: i}).Row(row)
		if err := writer.Append(row, p.at, int64(i)); err != nil {
			t.Fatal(err)
		}
	}
	if err := writer.Commit(int64(len(w.payments))); err != nil {
		t.Fatal(err)
	}
	for i := range w.payments {
		w.payments[i].known = w.payments[i].at + 45*second
	}
	s, err := NewSpine(Default(), w.lookups())
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range w.rows {
		if err := s.Add(r.at, []string{r.card, r.shop}); err != nil {
			t.Fatal(err)
		}
	}
	source := TableEvents("payments", table, w.schema, []string{"amount", "at", "card", "shop"}, 45*second)
	err = s.Join(t.Context(), []Source{source}, func(b *Block) error {
		for r, row := range b.Rows {
			want := w.want(w.rows[row])
			if fmt.Sprint(b.Number(1, 0, r)) != strings.Replace(want.values[1][0], "null", "NaN", 1) {
				t.Fatalf("row %d counts %v, want %s", row, b.Number(1, 0, r), want.values[1][0])
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
