package consistency

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace/millrace/features/offline"
	"github.com/millrace/millrace/features/online"
	"github.com/millrace/millrace/internal/clock"
	"github.com/millrace/millrace/internal/failure"
	"github.com/millrace/millrace/project"
	"github.com/millrace/millrace/registry"
	"github.com/millrace/millrace/registry/model"
	"github.com/millrace/millrace/schemas"
	"github.com/millrace/millrace/streams"
	"github.com/millrace/millrace/streams/broker"
)

const partitions = 3

// noon is the event time around which everything happens.
var noon = time.Date(2026, 5, 20, 12, 0, 0, 0, time.UTC).UnixMilli()

// arrival is an event of the source, as the oracle knows it.
type arrival struct {
	airport   string
	delay     int64
	carrier   string
	time      int64
	partition int
	offset    int64
}

// world is a project with a broker, offline events, and an oracle that knows what happened.
type world struct {
	t        *testing.T
	deps     Deps
	cfg      Config
	arrivals []arrival
	sent     int
	digest   string // of the model that answers
}

// carriers are those of the arrivals. The model was trained with some of them, in an order that is not the project's.
var carriers, trainedCarriers = []string{"AA", "DL", "UA", "WN"}, []string{"UA", "AA"}

// register keeps a model with these categories of the carrier.
func (w *world) register(names []string) string {
	w.t.Helper()
	const input = "delays.carrier"
	m, err := model.NewLogistic(0, []model.LogisticInput{{Name: input, Weight: 1, Scale: 1}})
	must(w.t, err)
	b, err := model.NewBundle([]model.SignatureInput{{Name: input, Categories: names}}, m, [][]float64{{0}})
	must(w.t, err)
	content, err := b.Encode()
	must(w.t, err)
	digest, err := w.deps.Registry.Put(w.t.Context(), registry.Manifest{Kind: registry.KindModel, Name: "late", MediaType: model.MediaBundle}, bytes.NewReader(content))
	must(w.t, err)
	return digest
}

func newWorld(t *testing.T, direct bool) *world {
	t.Helper()
	b, err := broker.Start(t.TempDir(), 0)
	must(t, err)
	t.Cleanup(b.Close)
	w := &world{t: t, cfg: Default(), deps: Deps{
		Project: testProject(t, direct), Kafka: streams.Config{Brokers: []string{b.Addr()}, Compression: "none"}, OfflineDir: t.TempDir(),
		Clock: clock.System, Log: slog.New(slog.DiscardHandler),
	}}
	w.deps.Registry, err = registry.Open(t.TempDir())
	must(t, err)
	w.digest = w.register(trainedCarriers)
	w.cfg.Sample = 1
	client, err := streams.NewClient(w.deps.Kafka)
	must(t, err)
	defer client.Close()
	must(t, streams.EnsureTopics(t.Context(), client, w.deps.Project.Topology()))
	return w
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func testProject(t *testing.T, direct bool) *project.Project {
	t.Helper()
	dir := t.TempDir()
	partitioner := "unknown"
	if direct {
		partitioner = "murmur2"
	}
	write := func(name, text string) { must(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644)) }
	write("arrival.avsc", `{"type":"record","name":"Arrival","fields":[
		{"name":"airport","type":"string"},{"name":"arrived","type":{"type":"long","logicalType":"timestamp-millis"}},{"name":"delay","type":"long"},{"name":"carrier","type":"string"}]}`)
	write("departure.avsc", `{"type":"record","name":"Departure","fields":[
		{"name":"flight","type":"string"},{"name":"scheduled","type":{"type":"long","logicalType":"timestamp-millis"}},
		{"name":"origin","type":["null","string"]},{"name":"delay","type":"boolean"}]}`)
	write("millrace.yaml", strings.ReplaceAll(`
project: airports
partitions: 3
sources:
  arrivals: {schema: arrival.avsc, key: airport, time: arrived, partitioner: PARTITIONER}
  departures: {schema: departure.avsc, key: flight, time: scheduled}
features:
  delays:
    source: arrivals
    entity: airport
    features:
      flights: {aggregate: count(), windows: [1h]}
      total: {aggregate: sum(delay), windows: [1h, lifetime]}
      last: {aggregate: last(delay), windows: [lifetime]}
      carrier: {aggregate: last(carrier), windows: [lifetime]}
models:
  late:
    on: departures
    inputs: [delays.flights_1h: {airport: origin}, delays.total_1h: {airport: origin}, delays.total: {airport: origin}, delays.last: {airport: origin}, delays.carrier: {airport: origin, categories: [AA, DL, UA]}]
    label: {source: departures, join: flight, value: delay, within: 1h}
    train: {candidates: [logistic], metric: auc, window: 1d, holdout: 1d, first_after: 2d}
    monitor: {window: 1d}
`, "PARTITIONER", partitioner))
	p, err := project.Load(dir)
	must(t, err)
	return p
}

func (w *world) group() *project.Group { return w.deps.Project.Groups[0] }

// happen makes arrivals out of order and keeps them offline. Delays are whole, so that their sums do not depend on the order.
func (w *world) happen(seed uint64, n int) {
	w.t.Helper()
	random := rand.New(rand.NewPCG(seed, 1))
	source := w.deps.Project.Source("arrivals")
	table, err := offline.EventsTable(w.deps.OfflineDir, source.Name, source.Schema)
	must(w.t, err)
	var offsets [partitions]int64
	for range n {
		a := arrival{airport: fmt.Sprintf("A%02d", random.IntN(12)), delay: random.Int64N(200) - 40, carrier: carriers[random.IntN(len(carriers))], partition: random.IntN(partitions)}
		if w.group().Direct {
			a.partition = int(online.Partition(online.Murmur2, a.airport, partitions))
		}
		a.offset = offsets[a.partition]
		offsets[a.partition] += 1 + random.Int64N(2)                   // some offsets are no records
		a.time = noon - random.Int64N(3*60)*time.Minute.Milliseconds() // several at a time, of different partitions
		w.arrivals = append(w.arrivals, a)
	}
	for p := range partitions {
		writer, err := table.NewWriter(int32(p), offline.WriterOptions{})
		must(w.t, err)
		for _, a := range w.arrivals {
			if a.partition == p {
				must(w.t, writer.Append(schemas.Row{schemas.StringValue(a.airport), schemas.TimeValue(a.time), schemas.IntValue(a.delay), schemas.StringValue(a.carrier)}, a.time, a.offset))
			}
		}
		must(w.t, writer.Commit(offsets[p]))
		must(w.t, writer.Close())
	}
}

// ends is the offsets after the last arrivals.
func (w *world) ends() (next [partitions]int64) {
	for _, a := range w.arrivals {
		next[a.partition] = max(next[a.partition], a.offset+1)
	}
	return next
}

// oracle is what delays of an airport are as of a time, of the arrivals below the offsets: nil where there is no value.
func (w *world) oracle(airport string, at int64, below [partitions]int64) map[string]*float64 {
	known := map[string]*float64{"flights_1h": nil, "total_1h": nil, "total": nil, "last": nil, "carrier": nil}
	tile := w.group().Outputs[w.group().Output("total_1h")].TailError.Milliseconds()
	from := (at - time.Hour.Milliseconds()) / tile * tile
	var flights, total, ever float64
	var last arrival
	seen := 0
	for _, a := range w.arrivals {
		if a.airport != airport || a.offset >= below[a.partition] || a.time >= at {
			continue
		}
		seen++
		ever += float64(a.delay)
		if seen == 1 || cmp.Or(cmp.Compare(a.time, last.time), cmp.Compare(a.partition, last.partition), cmp.Compare(a.offset, last.offset)) > 0 {
			last = a
		}
		if a.time >= from {
			flights++
			total += float64(a.delay)
		}
	}
	if seen == 0 {
		return known
	}
	delay := float64(last.delay)
	known["flights_1h"], known["total"], known["last"] = &flights, &ever, &delay
	if i := slices.Index(trainedCarriers, last.carrier); i >= 0 {
		code := float64(i)
		known["carrier"] = &code
	}
	if flights > 0 {
		known["total_1h"] = &total
	}
	return known
}

// predict is a prediction of a flight from an airport, read at a position.
func (w *world) predict(airport string, at int64, below [partitions]int64) schemas.Prediction {
	w.sent++
	g := w.group()
	p := schemas.Prediction{
		ID: fmt.Sprintf("late/%d", w.sent), Model: "late", At: at, ScoredAt: noon + int64(w.sent), Rung: schemas.RungPrimary, Source: "http", Digest: w.digest,
		Request: schemas.Texts{{Name: "flight", Text: fmt.Sprint(w.sent)}, {Name: "origin", Text: airport}},
	}
	position := schemas.ReadPosition{Group: g.Name, Version: g.Version, Partition: online.Partition(online.Murmur2, airport, partitions)}
	if g.Direct {
		position.Next = below[position.Partition]
	} else {
		position.Sources = []schemas.SourcePosition{{Source: "arrivals", Next: below[:]}}
	}
	p.Positions = []schemas.ReadPosition{position}
	known := w.oracle(airport, at, below)
	for _, name := range []string{"flights_1h", "total_1h", "total", "last", "carrier"} {
		in := schemas.PredictionInput{Name: "delays." + name, Value: known[name], Status: "present"}
		switch {
		case known["flights_1h"] == nil:
			in.Status = "not_found"
		case known[name] == nil:
			in.Status = "null"
		}
		p.Inputs = append(p.Inputs, in)
	}
	return p
}

// somewhere is a random position.
func (w *world) somewhere(random *rand.Rand) (below [partitions]int64) {
	for p, end := range w.ends() {
		below[p] = random.Int64N(end + 1)
	}
	return below
}

func (w *world) send(predictions ...schemas.Prediction) {
	w.t.Helper()
	client, err := streams.NewClient(w.deps.Kafka)
	must(w.t, err)
	defer client.Close()
	for i := range predictions {
		value, err := predictions[i].Marshal()
		must(w.t, err)
		record := &kgo.Record{Topic: w.deps.Project.Own().Predictions.Name, Key: []byte(predictions[i].ID), Value: value}
		must(w.t, client.ProduceSync(w.t.Context(), record).FirstErr())
	}
}

// sendMany makes predictions of all airports at random positions, in no order.
func (w *world) sendMany(n int) {
	random := rand.New(rand.NewPCG(uint64(n), 2))
	var all []schemas.Prediction
	for range n {
		airport := fmt.Sprintf("A%02d", random.IntN(14)) // two of which nobody has heard
		all = append(all, w.predict(airport, noon+random.Int64N(90*60_000), w.somewhere(random)))
	}
	w.send(all...)
}

func (w *world) check(from Range) *Report {
	w.t.Helper()
	report, _, err := Check(w.t.Context(), w.cfg, w.deps, from)
	must(w.t, err)
	return report
}

func TestServedAgrees(t *testing.T) {
	for _, direct := range []bool{false, true} {
		t.Run(fmt.Sprintf("direct=%v", direct), func(t *testing.T) {
			w := newWorld(t, direct)
			w.happen(1, 4000)
			w.sendMany(400)
			r := w.check(Range{})
			if r.Predictions != 400 || r.Reads != 400 || r.Skipped != (Skipped{}) || len(r.Features) != 5 || r.Events == 0 {
				t.Errorf("%+v", r)
			}
			for _, f := range r.Features {
				if f.Compared != 400 || f.Different() != 0 || f.SMAPE != 0 {
					t.Errorf("%+v", f)
				}
			}
			must(t, r.Verdict(0))
		})
	}
}

// A model that reads two entities of a group, of different partitions, has two positions of it.
func TestServedAtTheEntitysOwnPosition(t *testing.T) {
	for _, direct := range []bool{false, true} {
		t.Run(fmt.Sprintf("direct=%v", direct), func(t *testing.T) {
			w := newWorld(t, direct)
			w.happen(1, 1000)
			random := rand.New(rand.NewPCG(3, 4))
			var all []schemas.Prediction
			for range 100 {
				p := w.predict(fmt.Sprintf("A%02d", random.IntN(12)), noon, w.somewhere(random))
				other := p.Positions[0]
				other.Partition = (other.Partition + 1 + random.Int32N(partitions-1)) % partitions
				if other.Next = 0; !direct {
					other.Sources = []schemas.SourcePosition{{Source: "arrivals", Next: make([]int64, partitions)}}
				}
				p.Positions = append([]schemas.ReadPosition{other}, p.Positions...)
				all = append(all, p)
			}
			w.send(all...)
			r := w.check(Range{})
			if r.Reads != 100 || r.Skipped != (Skipped{}) {
				t.Errorf("%+v", r)
			}
			for _, f := range r.Features {
				if f.Compared != 100 || f.Different() != 0 {
					t.Errorf("%+v", f)
				}
			}
		})
	}
}

// TestDifferencesAreNamed plants one fault of each sort beside many reads that agree.
func TestDifferencesAreNamed(t *testing.T) {
	w := newWorld(t, false)
	w.happen(2, 2000)
	w.sendMany(99)
	wrong := w.predict("A03", noon+1000, w.ends())
	other := *wrong.Inputs[2].Value * 3 // delays.total
	wrong.Inputs[2].Value = &other
	wrong.Inputs[3].Value, wrong.Inputs[3].Status = nil, "null" // delays.last
	carrier := 0.0                                              // delays.carrier
	if in := &wrong.Inputs[4]; in.Value != nil && *in.Value == 0 {
		carrier = 1
	}
	wrong.Inputs[4].Value, wrong.Inputs[4].Status = &carrier, "present"
	w.send(wrong)
	r := w.check(Range{})
	for _, f := range r.Features {
		switch f.Name {
		case "delays.total":
			pairs := 0 // all but those of airports without arrivals yet
			for _, g := range r.Features {
				if g.Name == "delays.flights_1h" {
					pairs = g.pairs
				}
			}
			want := 1.0 / float64(pairs) // 2|3x-x| / (3|x|+|x|) of one pair
			if f.Mismatched != 1 || f.Missing != 0 || math.Abs(f.SMAPE-want) > 1e-12 {
				t.Errorf("%+v, want SMAPE %v", f, want)
			}
			if len(f.Examples) != 1 || f.Examples[0].Entity != "A03" || f.Examples[0].Prediction != wrong.ID || f.Examples[0].Served != fmt.Sprint(other) {
				t.Errorf("%+v", f.Examples)
			}
		case "delays.last":
			if f.Mismatched != 0 || f.Missing != 1 || f.Examples[0].Served != "null" {
				t.Errorf("%+v", f)
			}
		case "delays.carrier":
			if f.Mismatched+f.Missing != 1 || f.SMAPE != 0 || len(f.Examples) != 1 || f.Examples[0].Served != trainedCarriers[int(carrier)] {
				t.Errorf("%+v", f)
			}
		default:
			if f.Different() != 0 {
				t.Errorf("%+v", f)
			}
		}
	}
	if err := r.Verdict(0); failure.Of(err) != failure.Refused || !strings.Contains(err.Error(), "delays.") {
		t.Errorf("verdict: %v", err)
	}
	must(t, r.Verdict(0.01)) // one of a hundred
	if err := r.Verdict(0.0099); failure.Of(err) != failure.Refused {
		t.Errorf("verdict: %v", err)
	}
}

// TestNotComparable counts what cannot be compared, rather than calling it wrong.
func TestNotComparable(t *testing.T) {
	w := newWorld(t, false)
	w.happen(3, 500)
	ahead := w.ends()
	ahead[1] += 2 // one after what the files have, and what they say is its end
	before := w.predict("A01", noon, w.ends())
	before.Positions[0].Version = "0123456789ab"
	unread := w.predict("A02", noon, w.ends())
	for i := range unread.Inputs {
		unread.Inputs[i].Value, unread.Inputs[i].Status = nil, "unavailable"
	}
	unread.Positions = nil
	given := w.predict("A03", noon, w.ends())
	for i := range given.Inputs {
		given.Inputs[i].Status = "overridden" // with a value, or with null
		if i > 0 {
			given.Inputs[i].Value = nil
		}
	}
	unnamed := w.predict("A05", noon, w.ends())
	unnamed.Digest, unnamed.Inputs = "sha256:"+strings.Repeat("0", 64), unnamed.Inputs[4:] // of another registry
	unscored := unnamed
	unscored.Digest = ""
	nobody := w.predict("A04", noon, w.ends())
	nobody.Request = nobody.Request[:1] // without its origin
	w.send(w.predict("A01", noon, ahead), before, unread, given, unnamed, unscored, nobody)
	r := w.check(Range{})
	if want := (Skipped{Pending: 1, OtherVersion: 1, Unread: 1, Overridden: len(given.Inputs), Unnamed: 2}); r.Skipped != want || r.Reads != 0 || len(r.Features) != 0 {
		t.Errorf("%+v, want %+v", r, want)
	}
	if err := r.Verdict(1); failure.Of(err) != failure.NotFound {
		t.Errorf("a check of nothing passes: %v", err)
	}
}

func TestSampleAndRange(t *testing.T) {
	w := newWorld(t, false)
	w.happen(4, 500)
	w.sendMany(200)
	all := w.check(Range{})
	if r := w.check(Range{Since: noon + 101}); r.Predictions != 100 {
		t.Errorf("%d predictions since the 101st of 200", r.Predictions)
	}
	w.cfg.Sample = 2
	half, sum := w.check(Range{}), 0
	if half.Entities == 0 || half.Entities >= all.Entities || half.Predictions != 200 {
		t.Errorf("%d of %d entities in a sample of half", half.Entities, all.Entities)
	}
	for range 2 {
		sum += w.check(Range{}).Reads
	}
	if sum != 2*half.Reads {
		t.Error("the sample changes")
	}
	w.cfg.MaxReads = 5
	if _, _, err := Check(t.Context(), w.cfg, w.deps, Range{}); failure.Of(err) != failure.Overloaded {
		t.Errorf("more reads than the limit: %v", err)
	}
	w.cfg.MaxReads, w.cfg.MaxEvents = 1000, 5
	if _, _, err := Check(t.Context(), w.cfg, w.deps, Range{}); failure.Of(err) != failure.Overloaded {
		t.Errorf("more events than the limit: %v", err)
	}
}

func TestParseSample(t *testing.T) {
	for text, want := range map[string]Sample{"1/100": 100, "1": 1, "1/1": 1} {
		if got, err := ParseSample(text); got != want || err != nil {
			t.Errorf("%q is %d, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "0", "1/0", "2", "2/100", "1/x", "100%"} {
		if _, err := ParseSample(text); failure.Of(err) != failure.BadRequest {
			t.Errorf("%q: %v", text, err)
		}
	}
}

// TestStage checks what came since the last time, once each, and shows it.
func TestStage(t *testing.T) {
	w := newWorld(t, false)
	w.happen(5, 300)
	registry := prometheus.NewRegistry()
	now := noon
	w.deps.Registerer, w.deps.Clock = registry, func() time.Time { return time.UnixMilli(now) }
	w.cfg.Every, w.cfg.OfflineDelay = 10*time.Millisecond, 50*time.Millisecond
	s, err := NewStage(w.cfg, w.deps)
	must(t, err)
	w.sendMany(100) // scored at noon+1 … noon+100
	now = noon + 100
	next, err := s.check(t.Context(), Range{}) // those before noon+50
	must(t, err)
	if got := testutil.ToFloat64(s.metrics.reads.WithLabelValues(resultCompared)); got != 49 {
		t.Errorf("%v reads compared, want those that the offline files can have: 49", got)
	}
	now = noon + 1000
	wrong := w.predict("A01", noon, w.ends())
	bad := 1e6
	wrong.Inputs[0].Value = &bad
	w.send(wrong)
	if _, err = s.check(t.Context(), Range{Offsets: next}); err != nil {
		t.Fatal(err)
	}
	if got := testutil.ToFloat64(s.metrics.reads.WithLabelValues(resultCompared)); got != 52 {
		t.Errorf("%v reads compared, want the other 51 and one", got)
	}
	if got := testutil.ToFloat64(s.metrics.values.WithLabelValues("delays.flights_1h", resultMismatch)); got != 1 {
		t.Errorf("%v mismatches shown", got)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	late := time.After(time.Minute)
	for testutil.ToFloat64(s.metrics.reads.WithLabelValues(resultCompared)) != 0 { // a stage that starts now begins with what is served from now on
		select {
		case <-late:
			t.Fatal("Run makes no check")
		case <-time.After(time.Millisecond):
		}
	}
	cancel()
	must(t, <-done)
}

func TestTextfile(t *testing.T) {
	w := newWorld(t, false)
	w.happen(6, 300)
	w.sendMany(20)
	path := filepath.Join(t.TempDir(), "consistency.prom")
	must(t, WriteTextfile(path, w.check(Range{}), time.UnixMilli(noon), time.Second))
	text, err := os.ReadFile(path)
	must(t, err)
	for _, line := range []string{`millrace_consistency_values{feature="delays.total",result="match"} 20`, `millrace_consistency_smape_ratio{feature="delays.total"} 0`} {
		if !strings.Contains(string(text), line) {
			t.Errorf("no %s in\n%s", line, text)
		}
	}
}

// Of a prediction, explain shows the events below the positions it was read at, and the features that they give.
func TestExplain(t *testing.T) {
	w := newWorld(t, false)
	w.happen(1, 400)
	random := rand.New(rand.NewPCG(3, 2))
	below := w.somewhere(random)
	airport := ""
	for i := range 12 { // one whose last carrier the model knows
		if name := fmt.Sprintf("A%02d", i); w.predict(name, noon+30*60_000, below).Inputs[4].Value != nil {
			airport = name
		}
	}
	good, bad := w.predict(airport, noon+30*60_000, below), w.predict(airport, noon+30*60_000, below)
	carrier := trainedCarriers[int(*good.Inputs[4].Value)]
	wrong, other := *bad.Inputs[2].Value+1, 1-*bad.Inputs[4].Value
	bad.Inputs[2].Value, bad.Inputs[4].Value = &wrong, &other
	w.send(good, bad)
	for _, p := range []schemas.Prediction{good, bad} {
		e, err := Explain(t.Context(), w.cfg, w.deps, p.ID, 3)
		must(t, err)
		if len(e.Reads) != 1 || e.Prediction.ID != p.ID || len(e.Reads[0].Values) != 5 || len(e.Reads[0].Events) != 3 {
			t.Fatalf("%+v", e)
		}
		r, applied := e.Reads[0], 0
		for _, a := range w.arrivals {
			if a.airport == airport && a.offset < below[a.partition] {
				applied++
			}
		}
		if r.Entity != airport || r.Applied != applied || r.Pending {
			t.Errorf("%+v, want %d events", r, applied)
		}
		for _, ev := range r.Events {
			if ev.Columns["airport"] != airport || ev.Offset >= below[ev.Partition] {
				t.Errorf("%+v", ev)
			}
		}
		for _, v := range r.Values {
			if want := p.ID == good.ID || v.Feature != "delays.total" && v.Feature != "delays.carrier"; v.Same != want {
				t.Errorf("%s: %+v", p.ID, v)
			}
			if v.Feature == "delays.carrier" && (v.Recomputed != carrier || v.Same != (v.Served == carrier) || !slices.Contains(trainedCarriers, v.Served)) {
				t.Errorf("%s: %+v, want %s", p.ID, v, carrier)
			}
		}
	}
	if _, err := Explain(t.Context(), w.cfg, w.deps, "late/none", 3); failure.Of(err) != failure.NotFound {
		t.Error(err)
	}
}
