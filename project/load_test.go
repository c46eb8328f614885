package project

import (
	"encoding/json"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/millrace/millrace/internal/duration"
	"github.com/millrace/millrace/schemas"
)

const flightsFolder = "../examples/flights"

func loadFlights(t *testing.T) *Project {
	t.Helper()
	p, err := Load(flightsFolder)
	if err != nil {
		t.Fatalf("\n%v", err)
	}
	return p
}

// loadText loads a file whose schemas are those of testdata.
func loadText(t *testing.T, src string) *Project {
	t.Helper()
	p, faults := load([]byte(src), readTestdata, "")
	if len(faults) > 0 {
		t.Fatalf("\n%v", faults)
	}
	return p
}

func TestFlights(t *testing.T) {
	p := loadFlights(t)
	if p.Name != "flights" || p.Clock != ClockEvent || p.Partitions != 8 || p.Dir != flightsFolder {
		t.Errorf("project: %+v", p)
	}
	for _, name := range []string{"departures", "arrivals"} {
		s := p.Source(name)
		if s == nil || s.Topic != name || s.Partitions != 8 || s.Lateness != 2*time.Hour || s.Format != schemas.Avro || s.Key != "flight_id" {
			t.Errorf("source %s: %+v", name, s)
		}
	}
	distance, _ := p.Source("departures").Schema.Column("distance")
	delay, _ := p.Source("arrivals").Schema.Column("delay")
	if *distance.Min != 0 || *distance.Max != 10000 || *delay.Min != -2000 || *delay.Max != 3000 {
		t.Errorf("ranges: %+v, %+v", distance, delay)
	}
	for group, entity := range map[string]string{"origin_delays": "origin", "destination_delays": "destination"} {
		g := p.Group(group)
		if g.Direct || g.KeyedTopic != group+".keyed" || !slices.Equal(g.Entity, []string{entity}) || len(g.Outputs) != 26 || g.Offline.Every != time.Hour || g.Lateness != 2*time.Hour {
			t.Errorf("group %s: %+v", group, g)
		}
	}
	m := p.Model("late")
	if len(m.Inputs) != 55 || len(m.Groups()) != 2 || m.On != p.Source("departures") || m.Label.Source != p.Source("arrivals") || m.Label.Within != 24*time.Hour {
		t.Errorf("model: %+v", m)
	}
	wantTrain := Train{
		Candidates: []Candidate{{Name: CandidateLogistic}, {Name: CandidateGBDT}}, Metric: MetricAUC, Window: 14 * duration.Day, Holdout: 3 * duration.Day,
		FirstAfter: 17 * duration.Day, MaxRows: 120000, Monotone: map[string]int{}, GBDT: GBDT{Growth: GrowthLeaf}, Seed: 1,
	}
	if !reflect.DeepEqual(m.Train, wantTrain) {
		t.Errorf("train: %+v", m.Train)
	}
	var gates []string
	for _, g := range m.Gates {
		gates = append(gates, g.String())
	}
	if want := []string{"auc >= 0.6", "calibration_error <= 0.05", "versus_champion >= -0.002"}; !slices.Equal(gates, want) {
		t.Errorf("gates: %q", gates)
	}
	if want := (Serve{Timeout: 100 * time.Millisecond, Fallback: []Rung{{Kind: RungPrevious}}, MissingAllowed: 1}); !reflect.DeepEqual(m.Serve, want) {
		t.Errorf("serve: %+v", m.Serve)
	}
	if want := (Monitor{24 * time.Hour, DefaultMinRows, StatisticPSI, StatisticPSI, []string{"weekday"}, 1, 2, 3, 5 * duration.Day}); !reflect.DeepEqual(m.Monitor, want) {
		t.Errorf("monitor: %+v", m.Monitor)
	}
}

func TestInputsResolve(t *testing.T) {
	p := loadFlights(t)
	m := p.Model("late")
	seen := map[string]bool{}
	for _, in := range m.Inputs {
		seen[in.Name] = true
		switch {
		case in.Group != nil:
			column := m.On.Schema.Columns[in.Entity[0]].Name
			if in.Name != in.Group.Name+"."+in.Group.Outputs[in.Output].Name || column != in.Group.Entity[0] || in.Column != -1 || in.Expr != nil {
				t.Errorf("input %+v, by column %s", in, column)
			}
		case in.Expr != nil:
			if in.Column != -1 || in.Output != -1 || !strings.HasPrefix(in.Expr.Source(), in.Name+"(") {
				t.Errorf("input %+v", in)
			}
		default:
			if in.Name != "distance" || m.On.Schema.Columns[in.Column].Name != "distance" || in.Output != -1 {
				t.Errorf("input %+v", in)
			}
		}
	}
	for _, name := range []string{"origin_delays.delay_mean_1h", "destination_delays.origins_24h", "origin_delays.last_delay", "distance", "hour", "weekday"} {
		if !seen[name] {
			t.Errorf("there is no input %s", name)
		}
	}
}

const smallProject = `
project: small
topic_prefix: x.
sources:
  arrivals: {schema: schemas/arrival.avsc, key: flight_id, time: arrived, partitioner: murmur2, future: 5m, partitions: 3, lateness: 1h}
  departures: {schema: schemas/departure.avsc, key: flight_id, time: scheduled, format: json}
features:
  flights:
    source: arrivals
    entity: flight_id
    windows: [90s]
    where: delay > 0
    lateness: 30m
    ttl: 30d
    offline: every_event
    flush: 1s
    features: {late: {aggregate: mean(delay), default: 0}, place: {aggregate: last(destination), windows: [lifetime]}}
  airports:
    source: arrivals
    entity: [origin]
    offline: {every: 15m}
    features: {n: {aggregate: count(), windows: [lifetime, 7d]}}
models:
  late:
    on: departures
    inputs: [flights.*, {airports.n: {origin: destination}}]
    label: {source: arrivals, join: flight_id, value: delay > 15, within: 1d}
    serve: {otherwise: default, default: 0.2, required: [flights.*]}
`

func TestSettingsAndDefaults(t *testing.T) {
	p := loadText(t, smallProject)
	if p.Clock != ClockWall || p.Partitions != DefaultPartitions {
		t.Errorf("project: %+v", p)
	}
	arrivals, departures := p.Source("arrivals"), p.Source("departures")
	if arrivals.Future != 5*time.Minute || arrivals.Partitions != 3 || departures.Partitions != DefaultPartitions || departures.Format != schemas.JSON || departures.Partitioner != PartitionerUnknown {
		t.Errorf("sources: %+v, %+v", arrivals, departures)
	}
	if arrivals.Schema.Columns[arrivals.TimeIndex()].Name != "arrived" || arrivals.Schema.Columns[arrivals.KeyIndex()].Name != "flight_id" {
		t.Errorf("indexes %d, %d", arrivals.TimeIndex(), arrivals.KeyIndex())
	}
	flights, airports := p.Group("flights"), p.Group("airports")
	if !flights.Direct || flights.KeyedTopic != "arrivals" || !flights.Offline.EveryEvent || flights.Flush != time.Second || flights.TTL != 30*duration.Day || flights.Lateness != 30*time.Minute || flights.Future != 5*time.Minute {
		t.Errorf("flights: %+v", flights)
	}
	if airports.Direct || airports.KeyedTopic != "x.airports.keyed" || airports.Offline.Every != 15*time.Minute || airports.Lateness != time.Hour || airports.Flush != DefaultFlush {
		t.Errorf("airports: %+v", airports)
	}
	m := p.Model("late")
	var names []string
	for _, in := range m.Inputs {
		names = append(names, in.Name)
	}
	if !slices.Equal(names, []string{"flights.late_90s", "airports.n"}) { // place is text, which a wildcard leaves out
		t.Fatalf("inputs: %q", names)
	}
	if !m.Inputs[0].Required || m.Inputs[1].Required || m.On.Schema.Columns[m.Inputs[1].Entity[0]].Name != "destination" {
		t.Errorf("inputs: %+v", m.Inputs)
	}
	if !slices.Equal(m.Serve.Fallback, []Rung{{Kind: RungPrevious}, {Kind: RungDefault, Score: 0.2}}) || m.Serve.Timeout != DefaultTimeout {
		t.Errorf("serve: %+v", m.Serve)
	}
	if m.Train.FirstAfter != DefaultTrainWindow+DefaultHoldout || m.Train.MaxRows != DefaultMaxRows || len(m.Train.Candidates) != 2 {
		t.Errorf("train: %+v", m.Train)
	}
	if m.Monitor.After != 2 || m.Monitor.Of != 3 || m.Monitor.Cooldown != DefaultCooldown {
		t.Errorf("monitor: %+v", m.Monitor)
	}
}

// Without a word on how producers partition, even a group on the source's own key takes the way through its own topic.
func TestOnlyADeclaredPartitionerSparesTheKeyedTopic(t *testing.T) {
	p := loadText(t, strings.Replace(smallProject, ", partitioner: murmur2", "", 1))
	if g := p.Group("flights"); g.Direct || g.KeyedTopic != "x.flights.keyed" {
		t.Errorf("flights: direct %v, topic %s", g.Direct, g.KeyedTopic)
	}
}

func TestTopology(t *testing.T) {
	p := loadText(t, smallProject)
	var names []string
	topics := map[string]schemas.Topic{}
	for _, topic := range p.Topology() {
		names = append(names, topic.Name)
		topics[topic.Name] = topic
	}
	want := []string{"arrivals", "departures", "x.airports.keyed", "x.predictions", "x.shadows", "x.drift", "x.retrain", "x.models", "x.dead-letters"}
	if !slices.Equal(names, want) {
		t.Fatalf("topics: %q, want %q", names, want)
	}
	if got := topics["departures"]; !slices.Equal(got.Consumers, []string{schemas.RoleStream, schemas.RoleServe}) || !slices.Equal(got.Producers, []string{schemas.RoleClients}) {
		t.Errorf("departures: %+v", got)
	}
	if got := topics["arrivals"]; !slices.Equal(got.Consumers, []string{schemas.RoleStream, schemas.RoleMonitor}) || got.Partitions != 3 {
		t.Errorf("arrivals: %+v", got)
	}
	if got := topics["x.airports.keyed"]; got.Partitions != 3 || got.Retention != KeyedRetention {
		t.Errorf("keyed: %+v", got)
	}
	for _, topic := range loadFlights(t).Topology() {
		if topic.Retention != 0 {
			t.Errorf("clock: event, but %s would lose what is older than %v", topic.Name, topic.Retention)
		}
	}
}

func TestGate(t *testing.T) {
	for text, c := range map[string]struct{ below, at, above bool }{
		">= 0.5": {false, true, true}, ">0.5": {false, false, true}, "<= 0.5": {true, true, false}, " < 0.5 ": {true, false, false},
	} {
		g, ok := parseGate("auc", text)
		if !ok || g.Check(0.4) != c.below || g.Check(0.5) != c.at || g.Check(0.6) != c.above {
			t.Errorf("%q: %v, %v", text, g, ok)
		}
		if nan := 0.0; g.Check(nan / nan) {
			t.Errorf("%q lets NaN pass", text)
		}
	}
	for _, text := range []string{"", "0.5", "= 0.5", ">= ", ">= x", ">= NaN", ">= Inf", "=> 0.5"} {
		if g, ok := parseGate("auc", text); ok {
			t.Errorf("%q is the gate %v", text, g)
		}
	}
}

func TestTrainSettings(t *testing.T) {
	src, err := os.ReadFile("testdata/trainers.yaml")
	if err != nil {
		t.Fatal(err)
	}
	p, faults := load(src, readTestdata, "")
	if len(faults) > 0 {
		t.Fatal(faults)
	}
	got := p.Model("late").Train
	want := Train{
		Candidates: []Candidate{{Name: CandidateGBDT}, {Name: "mine", Program: &Program{
			Command: []string{"python3", "train.py"}, Timeout: 2 * time.Minute, Env: map[string]string{"OMP_NUM_THREADS": "2"},
			Params: json.RawMessage(`{"depth":3,"deep":[1.5,true,null,{"a":"b"}]}`), Parent: true,
		}}},
		Metric: MetricAUC, Window: DefaultTrainWindow, Holdout: DefaultHoldout, FirstAfter: DefaultTrainWindow + DefaultHoldout, MaxRows: DefaultMaxRows,
		Categorical: []string{"hour"}, Monotone: map[string]int{"distance": 1, "weekday": -1}, Seed: 1,
		GBDT: GBDT{300, 15, 4, GrowthDepth, 0.05, 50, 0.5, 2, 0.8, 0.7, 30},
	}
	var a, b any
	if json.Unmarshal(got.Candidates[1].Program.Params, &a) != nil || json.Unmarshal(want.Candidates[1].Program.Params, &b) != nil || !reflect.DeepEqual(a, b) {
		t.Errorf("params %s", got.Candidates[1].Program.Params)
	}
	got.Candidates[1].Program.Params = want.Candidates[1].Program.Params
	line := got.setting()
	if at := got.Schedule.Next(time.Date(2001, 5, 1, 3, 0, 0, 0, time.UTC)); at != time.Date(2001, 5, 2, 3, 0, 0, 0, time.UTC) {
		t.Errorf("the schedule's next time is %v", at)
	}
	if got.Weight == nil || got.Weight.Source() != "distance > 1000 ? 2 : 1" {
		t.Errorf("weight %v", got.Weight)
	}
	got.Schedule, got.Weight = nil, nil
	if !reflect.DeepEqual(got, want) {
		t.Errorf("train: %+v", got)
	}
	for _, part := range []string{"OMP_NUM_THREADS", "monotone distance +1, monotone weekday -1", "categorical hour", "Trees:300", "schedule 0 3 * * *", "weight distance > 1000"} {
		if !strings.Contains(line, part) {
			t.Errorf("the applied settings %q do not tell %q", line, part)
		}
	}
	if strings.Contains(line, "map[") {
		t.Errorf("the applied settings tell values of the environment: %q", line)
	}
}

func TestByteOrderMark(t *testing.T) {
	if _, faults := load([]byte("\ufeffproject: x\n"), readTestdata, ""); len(faults) != 1 || !strings.Contains(faults[0].String(), "needs sources") {
		t.Errorf("a file that begins with a byte order mark: %v", faults)
	}
}
