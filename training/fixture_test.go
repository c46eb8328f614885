package training

import (
	"fmt"
	"io"
	"log/slog"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/millrace/millrace/features"
	"github.com/millrace/millrace/features/offline"
	"github.com/millrace/millrace/internal/clock"
	"github.com/millrace/millrace/project"
	"github.com/millrace/millrace/registry"
	"github.com/millrace/millrace/registry/model"
	"github.com/millrace/millrace/schemas"
)

const (
	departureSchema = `{"type":"record","name":"departure","fields":[
		{"name":"flight_id","type":"string"},
		{"name":"scheduled","type":{"type":"long","logicalType":"timestamp-millis"}},
		{"name":"origin","type":["null","string"],"default":null},
		{"name":"destination","type":"string"},
		{"name":"distance","type":["null","int"],"default":null}]}`
	arrivalSchema = `{"type":"record","name":"arrival","fields":[
		{"name":"flight_id","type":"string"},
		{"name":"arrived","type":{"type":"long","logicalType":"timestamp-millis"}},
		{"name":"origin","type":"string"},
		{"name":"destination","type":"string"},
		{"name":"delay","type":["null","int"],"default":null}]}`
)

const (
	minute = int64(60_000)
	hour   = 60 * minute
	day    = 24 * hour
)

// start is 1 May 2001, a Tuesday.
var start = time.Date(2001, 5, 1, 0, 0, 0, 0, time.UTC).UnixMilli()

// flight is what the tests know of a flight, apart from the log.
type flight struct {
	id                  string
	scheduled           int64
	origin, destination string // origin "" is null
	distance            int64  // 0 is null
	delay               int64  // minutes
	cancelled           bool   // the arrival's delay is null
	lost                bool   // no arrival
	offset              int64  // of the departure, in partition 0 or 1
}

func (f flight) arrived() int64 {
	return f.scheduled + 30*minute + f.distance/8*minute + f.delay*minute
}

func (f flight) late() bool { return f.delay > 15 }

// arrival is an arrival as the log has it.
type arrival struct {
	flight
	time      int64
	partition int32
	offset    int64
}

// fly makes flights of a few airports whose delays come in waves that last hours, so that recent delays tell of the next
// ones, and of everything that a join can stumble over: null entities, lost and cancelled flights, many at one minute.
func fly(days int, perDay int) []flight {
	rng := rand.New(rand.NewPCG(1, 2))
	airports := []string{"ATL", "BOS", "DEN", "JFK", "LAX", "ORD"}
	level := map[string]float64{}
	var flights []flight
	for q := range days * 96 { // quarters of an hour
		for _, a := range airports {
			level[a] = 0.97*level[a] + 4*rng.NormFloat64()
		}
		for range perDay / 96 {
			i, j := rng.IntN(len(airports)), rng.IntN(len(airports)-1)
			if j >= i {
				j++
			}
			f := flight{
				id: fmt.Sprintf("F%06d", len(flights)), scheduled: start + int64(q)*15*minute + 5*minute*int64(rng.IntN(3)),
				origin: airports[i], destination: airports[j], distance: int64(200 + rng.IntN(2000)),
			}
			f.delay = int64(level[f.origin] + 0.7*level[f.destination] + 12*rng.NormFloat64() + 5)
			f.delay = max(f.delay, -25)
			switch rng.IntN(60) {
			case 0:
				f.cancelled = true
			case 1:
				f.lost = true
			case 2:
				f.distance = 0
			}
			flights = append(flights, f)
		}
	}
	slices.SortStableFunc(flights, func(a, b flight) int { return int(a.scheduled - b.scheduled) })
	for i := range flights {
		if i%97 == 0 {
			flights[i].origin = ""
		}
	}
	return flights
}

// world is a project with its offline log.
type world struct {
	dir      string
	project  *project.Project
	model    *project.Model
	flights  []flight
	arrivals []arrival // in the order of (time, partition, offset)
}

// newWorld gives a world with a project of its own. The log is written once for all tests, which only read it.
func newWorld(t testing.TB, days, perDay int) *world {
	t.Helper()
	key := [2]int{days, perDay}
	w, ok := written[key]
	if !ok {
		w = world{dir: filepath.Join(logs, fmt.Sprint(days, "-", perDay)), flights: fly(days, perDay), project: flightsProject(t)}
		w.write(t)
		written[key] = w
	}
	w.project = flightsProject(t)
	w.model = w.project.Models[0]
	return &w
}

// The logs that tests have written, in a folder that goes when they are over. Tests do not run in parallel.
var (
	logs    string
	written = map[[2]int]world{}
)

func TestMain(m *testing.M) {
	code := 1
	defer func() { os.Exit(code) }()
	if how := os.Getenv(programVariable); how != "" {
		if err := trainAsProgram(how, os.Args[len(os.Args)-1]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return
		}
		code = 0
		return
	}
	var err error
	if logs, err = os.MkdirTemp("", "millrace-training-"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return
	}
	defer os.RemoveAll(logs)
	code = m.Run()
}

func flightsProject(t testing.TB) *project.Project {
	t.Helper()
	departures := source(t, "departures", departureSchema, "scheduled")
	arrivals := source(t, "arrivals", arrivalSchema, "arrived")
	group := func(name, entity string) *project.Group {
		g, faults := features.Compile(features.Definition{
			Name: name, Source: "arrivals", Entity: []string{entity}, Windows: []string{"1h", "24h"}, Lateness: 6 * time.Hour,
			Features: []features.FeatureDefinition{
				{Name: "flights", Aggregate: "count()"},
				{Name: "delay_mean", Aggregate: "mean(delay)"},
				{Name: "delay_max", Aggregate: "max(delay)"},
				{Name: "late_rate", Aggregate: "mean(delay > 15)", Windows: []string{"3h"}},
				{Name: "last_delay", Aggregate: "last(delay)", Windows: []string{"lifetime"}},
				{Name: "last_to", Aggregate: "last(destination)", Windows: []string{"3h"}},
			},
		}, arrivals.Schema)
		if len(faults) > 0 {
			t.Fatal(faults)
		}
		return &project.Group{Group: g, Source: arrivals}
	}
	p := &project.Project{
		Name: "flights", Partitions: 2, Clock: project.ClockEvent, Sources: []*project.Source{departures, arrivals},
		Groups: []*project.Group{group("origin_delays", "origin"), group("destination_delays", "destination")},
	}
	m := &project.Model{
		Name: "late", Task: model.TaskBinary, On: departures,
		Label: project.Label{Source: arrivals, Join: "flight_id", Value: expression(t, "delay > 15", arrivals.Schema, schemas.Bool), Within: 12 * time.Hour},
		Train: project.Train{
			Candidates: []project.Candidate{{Name: project.CandidateLogistic}, {Name: project.CandidateGBDT}}, Metric: project.MetricAUC,
			Holdout: 3 * 24 * time.Hour, FirstAfter: 8 * 24 * time.Hour, Seed: 7,
		},
		Gates:   []project.Gate{{Metric: project.MetricAUC, Op: ">=", Bound: 0.6}, {Metric: project.MetricVersusChampion, Op: ">=", Bound: -0.002}},
		Monitor: project.Monitor{Window: 24 * time.Hour},
	}
	for _, g := range p.Groups {
		entity := []int{departures.Schema.Index(g.Entity[0])}
		for i, o := range g.Outputs {
			in := project.Input{Name: g.Name + "." + o.Name, Group: g, Output: i, Entity: entity, Column: -1}
			if o.Kind == schemas.String {
				in.Categories = project.NewCategories([]string{"ORD", "ATL", "JFK", "LAX"}) // of six
			}
			m.Inputs = append(m.Inputs, in)
		}
	}
	m.Inputs = append(m.Inputs,
		project.Input{Name: "distance", Output: -1, Column: departures.Schema.Index("distance")},
		project.Input{Name: "hour", Output: -1, Column: -1, Expr: expression(t, "hour(scheduled)", departures.Schema, schemas.Null)})
	p.Models = []*project.Model{m}
	return p
}

func source(t testing.TB, name, avsc, at string) *project.Source {
	t.Helper()
	s, err := schemas.Parse(name, []byte(avsc))
	if err != nil {
		t.Fatal(err)
	}
	return &project.Source{Name: name, Topic: name, Schema: s, Format: schemas.Avro, Key: "flight_id", Time: at, Partitions: 2}
}

func expression(t testing.TB, text string, s *schemas.Schema, kind schemas.Kind) *features.Expression {
	t.Helper()
	x, err := features.CompileExpression(text, s, kind)
	if err != nil {
		t.Fatal(err)
	}
	return x
}

// write writes the log as ingest would: by partition in the order of arrival at it, which is not quite that of event
// time, and in several commits.
func (w *world) write(t testing.TB) {
	t.Helper()
	rng := rand.New(rand.NewPCG(3, 4))
	departures := [2][]flight{}
	for i, f := range w.flights {
		w.flights[i].offset = int64(len(departures[i%2]))
		departures[i%2] = append(departures[i%2], f)
		if !f.lost {
			w.arrivals = append(w.arrivals, arrival{flight: f, time: f.arrived(), partition: int32(i % 2)})
		}
	}
	// Arrivals reach their topic up to ten minutes late.
	slices.SortStableFunc(w.arrivals, func(a, b arrival) int { return int(a.time - b.time) })
	late := make([]int64, len(w.arrivals))
	for i := range late {
		late[i] = w.arrivals[i].time + rng.Int64N(10*minute)
	}
	order := make([]int, len(w.arrivals))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int { return int(late[a] - late[b]) })
	next := [2]int64{}
	for _, i := range order {
		a := &w.arrivals[i]
		a.offset = next[a.partition]
		next[a.partition]++
	}
	for p := range int32(2) {
		log := w.log(t, w.project.Sources[0], p)
		for i, f := range departures[p] {
			log.add(t, departureRow(f), f.scheduled, int64(i))
		}
		log.end(t)
		log = w.log(t, w.project.Sources[1], p)
		for _, i := range order {
			if a := w.arrivals[i]; a.partition == p {
				log.add(t, arrivalRow(a.flight), a.time, a.offset)
			}
		}
		log.end(t)
	}
	slices.SortFunc(w.arrivals, func(a, b arrival) int {
		return position{a.time, a.partition, a.offset}.compare(position{b.time, b.partition, b.offset})
	})
}

func departureRow(f flight) schemas.Row {
	row := schemas.Row{schemas.StringValue(f.id), schemas.TimeValue(f.scheduled), schemas.StringValue(f.origin),
		schemas.StringValue(f.destination), schemas.IntValue(f.distance)}
	if f.origin == "" {
		row[2] = schemas.NullValue()
	}
	if f.distance == 0 {
		row[4] = schemas.NullValue()
	}
	return row
}

func arrivalRow(f flight) schemas.Row {
	origin := f.origin
	if origin == "" {
		origin = "???"
	}
	row := schemas.Row{schemas.StringValue(f.id), schemas.TimeValue(f.arrived()), schemas.StringValue(origin),
		schemas.StringValue(f.destination), schemas.IntValue(f.delay)}
	if f.cancelled {
		row[4] = schemas.NullValue()
	}
	return row
}

// partitionLog writes one partition of a source, a commit for every thousand rows.
type partitionLog struct {
	writer *offline.Writer
	next   int64
}

func (w *world) log(t testing.TB, s *project.Source, partition int32) *partitionLog {
	t.Helper()
	table, err := offline.EventsTable(w.dir, s.Name, s.Schema)
	if err != nil {
		t.Fatal(err)
	}
	writer, err := table.NewWriter(partition, offline.WriterOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return &partitionLog{writer: writer}
}

func (l *partitionLog) add(t testing.TB, row schemas.Row, at, offset int64) {
	t.Helper()
	if err := l.writer.Append(row, at, offset); err != nil {
		t.Fatal(err)
	}
	l.next = offset + 1
	if l.next%1000 == 0 {
		l.commit(t)
	}
}

func (l *partitionLog) commit(t testing.TB) {
	t.Helper()
	if err := l.writer.Commit(l.next); err != nil {
		t.Fatal(err)
	}
}

func (l *partitionLog) end(t testing.TB) {
	t.Helper()
	l.commit(t)
	if err := l.writer.Close(); err != nil {
		t.Fatal(err)
	}
}

// until is the end of the world's log.
func (w *world) until() int64 { return w.flights[len(w.flights)-1].scheduled + 1 }

func (w *world) build(t testing.TB) *Dataset {
	t.Helper()
	d, err := Build(t.Context(), testConfig(), w.dir, w.model, w.until(), func(string, int64, int64) {})
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func testConfig() Config {
	c := Default()
	c.Forest.Trees, c.Forest.Leaves = 15, 7 // these tests are not about the forest
	c.MinRows, c.Code = 100, "test"
	c.Join.SliceRows, c.Join.SliceEvents = 100, 100
	c.Every, c.Patience, c.Backoff = 10*time.Millisecond, 200*time.Millisecond, 10*time.Millisecond
	return c
}

// stage is a stage on the world's log with a registry of its own.
func (w *world) stage(t testing.TB, change ...func(*Config, *Deps)) (*Stage, *registry.Registry) {
	t.Helper()
	cfg := testConfig()
	now := clock.Fixed(time.UnixMilli(start + 100*day))
	d := Deps{
		Project: w.project, OfflineDir: w.dir, Clock: now, Log: slog.New(slog.NewTextHandler(io.Discard, nil)),
		Registerer: prometheus.NewRegistry(),
	}
	for _, c := range change {
		c(&cfg, &d)
	}
	if d.Registry == nil {
		var err error
		if d.Registry, err = registry.Open(t.TempDir(), registry.WithClock(now)); err != nil {
			t.Fatal(err)
		}
	}
	s, err := New(cfg, d)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s, d.Registry
}

// same is equality for inputs: missing equals missing.
func same(a, b float64) bool {
	return a == b || math.IsNaN(a) && math.IsNaN(b) || math.Abs(a-b) <= 1e-9*max(1, math.Abs(a))
}
