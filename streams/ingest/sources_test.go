package ingest

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace/millrace/features"
	"github.com/millrace/millrace/features/offline"
	"github.com/millrace/millrace/features/online"
	"github.com/millrace/millrace/internal/failure"
	"github.com/millrace/millrace/project"
	"github.com/millrace/millrace/schemas"
	"github.com/millrace/millrace/streams"
)

// Tests of what a project can say of its sources. Each works out by plain Go, without the engine, what must be there.

// declare puts a project of these files on the rig; PREFIX in it is unique to the test.
func (r *rig) declare(files map[string]string) {
	r.t.Helper()
	r.declareAs(fmt.Sprintf("s%d-", rand.Uint32()), files)
	r.dir = r.t.TempDir()
}

// declareAs is declare for a prefix that may have been declared before: then it is the project changed.
func (r *rig) declareAs(prefix string, files map[string]string) {
	r.t.Helper()
	dir := r.t.TempDir()
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			r.t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(strings.ReplaceAll(text, "PREFIX", prefix)), 0o644); err != nil {
			r.t.Fatal(err)
		}
	}
	p, err := project.Load(dir)
	if err != nil {
		r.t.Fatalf("\n%v", err)
	}
	r.project = p
	p.Name = prefix + p.Name
	if err := streams.EnsureTopics(r.t.Context(), r.client, p.Topology()); err != nil {
		r.t.Fatal(err)
	}
}

// send produces one JSON event.
func (r *rig) send(source string, partition int32, event map[string]any) {
	r.t.Helper()
	s := r.project.Source(source)
	b, err := json.Marshal(event)
	if err != nil {
		r.t.Fatal(err)
	}
	rec := &kgo.Record{Topic: s.Topic, Partition: partition, Key: []byte(fmt.Sprint(event[s.Key])), Value: b}
	if err := r.client.ProduceSync(r.t.Context(), rec).FirstErr(); err != nil {
		r.t.Fatal(err)
	}
}

// settled waits until every source and, after them, every group has done all there is.
func (r *rig) settled() {
	r.t.Helper()
	r.await("sources and groups to be done", func() bool {
		for _, s := range r.project.Sources {
			if s.Topic == "" {
				continue
			}
			offsets, err := r.admin.FetchOffsets(r.t.Context(), SourceGroup(r.project, s))
			if err != nil {
				return false
			}
			for p, end := range r.ends(s.Topic) {
				if o, ok := offsets.Lookup(s.Topic, p); end > 0 && (!ok || o.At < end) {
					return false
				}
			}
		}
		return r.atEnd()
	})
}

// results is the outputs of a group for an entity; nil for one that has no state.
func (r *rig) results(group, key string, at int64) map[string]features.Result {
	r.t.Helper()
	g := r.project.Group(group)
	redisKey := fmt.Sprintf("mr:{%s.%s@%s/%d}:e:%s", r.project.Name, g.Name, g.Version, online.Partition(online.Partitioner(g.Partitioner()), key, int32(len(r.ends(g.KeyedTopic)))), key)
	state, err := r.redis.Get(r.t.Context(), redisKey).Bytes()
	if err != nil {
		return nil
	}
	e, err := g.Decode(state)
	if err != nil {
		r.t.Fatal(err)
	}
	results := map[string]features.Result{}
	for i, result := range g.Read(e, at, nil) {
		results[g.Outputs[i].Name] = result
	}
	return results
}

// expect compares numbers of an entity with what they must be; NaN is null.
func (r *rig) expect(group, key string, want map[string]float64) {
	r.t.Helper()
	got := r.results(group, key, math.MaxInt32*int64(1000))
	for name, w := range want {
		f, ok := got[name].Value.Float()
		if math.IsNaN(w) == ok || ok && math.Abs(f-w) > 1e-9*max(1, math.Abs(w)) {
			r.t.Errorf("%s %s: %s is %v (%v), want %v", group, key, name, f, got[name].Status, w)
		}
	}
}

// entities is how many entities of a group are in Redis.
func (r *rig) entities(group string) (n int) {
	r.t.Helper()
	g := r.project.Group(group)
	for key := range r.states() {
		if strings.Contains(key, "."+g.Name+"@"+g.Version+"/") {
			n++
		}
	}
	return n
}

// deadLetters is the number of dead letters by class.
func (r *rig) deadLetters() map[string]int {
	r.t.Helper()
	count := map[string]int{}
	topic := r.project.Own().DeadLetters.Name
	var left int64
	for _, end := range r.ends(topic) {
		left += end
	}
	consumer, err := streams.NewClient(r.kafkaConfig(), kgo.ConsumeTopics(topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	if err != nil {
		r.t.Fatal(err)
	}
	defer consumer.Close()
	for left > 0 {
		consumer.PollFetches(r.t.Context()).EachRecord(func(rec *kgo.Record) {
			left--
			if d, err := streams.ParseDeadLetter(rec); err == nil {
				count[d.Class]++
			}
		})
	}
	return count
}

const legSchema = `{"type": "record", "name": "Leg", "fields": [
  {"name": "id", "type": "string"},
  {"name": "origin", "type": ["null", "string"]},
  {"name": "destination", "type": "string"},
  {"name": "delay", "type": "int"},
  {"name": "cancelled", "type": "boolean"},
  {"name": "at", "type": {"type": "long", "logicalType": "timestamp-millis"}}
]}`

const derivedProject = `
project: derived
topic_prefix: PREFIX
sources:
  legs:
    topic: PREFIXlegs
    schema: leg.avsc
    format: json
    key: id
    time: at
    partitions: 3
    derive:
      late: delay > LIMIT
      route: origin + '-' + destination
      very_late: late and delay > 60
    where: not cancelled and origin != nil
features:
  routes:
    source: legs
    entity: route
    windows: [lifetime]
    features: {n: count(), late: sum(late), very_late: sum(very_late), last: last(delay)}
  origins:
    source: legs
    entity: origin
    where: late
    windows: [lifetime]
    features: {n: count(), routes: distinct(route)}
`

func legFiles(limit string) map[string]string {
	return map[string]string{"millrace.yaml": strings.ReplaceAll(derivedProject, "LIMIT", limit), "leg.avsc": legSchema}
}

func TestDerivedColumns(t *testing.T) {
	r := newRig(t)
	r.declare(legFiles("15"))
	random := rand.New(rand.NewPCG(1, 2))
	airports := []string{"ATL", "LAX", "JFK", "SFO"}
	type sums struct{ n, late, veryLate float64 }
	routes, origins := map[string]*sums{}, map[string]map[string]bool{}
	late := map[string]float64{}
	var delays []int
	for i := range 300 {
		from, to, delay := airports[random.IntN(4)], airports[random.IntN(4)], random.IntN(120)-20
		cancelled, nowhere := random.IntN(5) == 0, random.IntN(9) == 0
		event := map[string]any{"id": fmt.Sprint("leg", i), "origin": from, "destination": to, "delay": delay, "cancelled": cancelled, "at": start + int64(i)}
		if nowhere {
			event["origin"] = nil
		}
		r.send("legs", int32(i%3), event)
		delays = append(delays, delay)
		if cancelled || nowhere {
			continue
		}
		route := from + "-" + to
		if routes[route] == nil {
			routes[route] = &sums{}
		}
		routes[route].n++
		if delay > 15 {
			routes[route].late++
			late[from]++
			if origins[from] == nil {
				origins[from] = map[string]bool{}
			}
			origins[from][route] = true
		}
		if delay > 60 {
			routes[route].veryLate++
		}
	}
	g := r.run(r.stage())
	r.settled()
	g.stop(t)
	for route, want := range routes {
		r.expect("routes", route, map[string]float64{"n": want.n, "late": want.late, "very_late": want.veryLate})
	}
	for origin, want := range late {
		r.expect("origins", origin, map[string]float64{"n": want, "routes": float64(len(origins[origin]))})
	}
	if got := r.entities("routes"); got != len(routes) {
		t.Errorf("%d routes, want %d", got, len(routes))
	}
	if letters := r.deadLetters(); len(letters) != 0 {
		t.Errorf("what is no event of the source became dead letters: %v", letters)
	}
	// All that was accepted is kept, and what is derived from it is derived as it is read: by the definition of that time.
	for _, limit := range []int{15, 50} {
		changed := newLegs(t, fmt.Sprint(limit))
		table, err := offline.EventsTable(r.dir, "legs", changed.Schema)
		if err != nil {
			t.Fatal(err)
		}
		rows, lateRows, wantLate := 0, 0, 0
		err = table.Scan(t.Context(), offline.ScanOptions{Columns: []string{"very_late", "late", "id"}}, func(b *offline.Batch) error {
			for i := range b.Len() {
				rows++
				if b.Value(i, 1).Bool() {
					lateRows++
				}
				if !strings.HasPrefix(b.Value(i, 2).Str(), "leg") {
					t.Errorf("id is %v", b.Value(i, 2))
				}
			}
			return nil
		})
		for _, d := range delays {
			if d > limit {
				wantLate++
			}
		}
		if err != nil || rows != 300 || lateRows != wantLate {
			t.Errorf("limit %d: %d rows, %d late, want 300 and %d; %v", limit, rows, lateRows, wantLate, err)
		}
	}
}

// newLegs is the source alone, as it is declared with a limit.
func newLegs(t *testing.T, limit string) *project.Source {
	t.Helper()
	dir := t.TempDir()
	for name, text := range legFiles(limit) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	p, err := project.Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	return p.Sources[0]
}

// TestDerivedColumnsRebuilt loses Redis and the start of the topics: what is missing comes from the offline events.
func TestDerivedColumnsRebuilt(t *testing.T) {
	r := newRig(t)
	r.declare(legFiles("15"))
	for i := range 100 {
		r.send("legs", int32(i%3), map[string]any{"id": fmt.Sprint(i), "origin": "ATL", "destination": "LAX", "delay": i, "cancelled": i%10 == 0, "at": start + int64(i)})
	}
	g := r.run(r.stage())
	r.settled()
	g.stop(t)
	before := r.states()
	r.trim(r.project.Group("routes").KeyedTopic)
	r.trim(r.project.Group("origins").KeyedTopic)
	if err := r.redis.FlushAll(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
	g = r.run(r.stage())
	r.settled()
	g.stop(t)
	r.expect("routes", "ATL-LAX", map[string]float64{"n": 90, "late": 76, "very_late": 36, "last": 99})
	after := r.states()
	if !maps.EqualFunc(before, after, func(a, b []byte) bool { return string(a) == string(b) }) || len(after) != 2 {
		t.Errorf("%d states, were %d, or others", len(after), len(before))
	}
}

// TestDerivedColumnChanged changes what a column is derived by, and where it is in the row, under readers that hold the old version: that
// goes on being computed by its own definition, and the new one has all events by the new.
func TestDerivedColumnChanged(t *testing.T) {
	r := newRig(t)
	prefix := fmt.Sprintf("s%d-", rand.Uint32())
	r.declareAs(prefix, legFiles("15"))
	late := map[int]float64{}
	send := func(from, n int) {
		for i := from; i < from+n; i++ {
			r.send("legs", int32(i%3), map[string]any{"id": fmt.Sprint(i), "origin": "ATL", "destination": "LAX", "delay": i % 100, "cancelled": i%10 == 0, "at": start + int64(i)})
			for _, limit := range []int{15, 50} {
				if i%10 != 0 && i%100 > limit {
					late[limit]++
				}
			}
		}
	}
	send(0, 130)
	g := r.run(r.stage())
	r.settled()
	g.stop(t)
	before := r.project.Group("routes").Version
	versions := online.NewVersions(r.redis, r.project.Name)
	if err := versions.Hold(t.Context(), "routes", before, time.Hour); err != nil {
		t.Fatal(err)
	}
	changed := legFiles("50")
	changed["millrace.yaml"] = strings.Replace(changed["millrace.yaml"], "late: delay > 50", "doubled: delay * 2\n      late: doubled > 100", 1)
	r.declareAs(prefix, changed)
	if r.project.Group("routes").Version == before {
		t.Fatal("the definition has the same version")
	}
	g = r.run(r.stage())
	send(130, 90)
	known, err := versions.Load(t.Context(), "routes")
	if err != nil {
		t.Fatal(err)
	}
	for version, limit := range map[string]int{before: 15, r.project.Group("routes").Version: 50} {
		var got *float64
		defer func() {
			if t.Failed() && got != nil {
				t.Logf("limit %d: %v late, want %v", limit, *got, late[limit])
			}
		}()
		r.await(fmt.Sprintf("version %s with limit %d", version, limit), func() bool {
			if known, err = versions.Load(t.Context(), "routes"); err != nil {
				t.Fatal(err)
			}
			got = r.readVersion("routes", known[0].All[version], "ATL-LAX", "late")
			return got != nil && *got == late[limit]
		})
	}
	g.stop(t)
	if letters := r.deadLetters(); len(letters) != 0 {
		t.Errorf("dead letters %v", letters)
	}
}

// trim deletes all records of a topic.
func (r *rig) trim(topic string) {
	r.t.Helper()
	ends := kadm.Offsets{}
	for p, end := range r.ends(topic) {
		ends.AddOffset(topic, p, end, -1)
	}
	deleted, err := r.admin.DeleteRecords(r.t.Context(), ends)
	if err == nil {
		err = deleted.Error()
	}
	if err != nil {
		r.t.Fatal(err)
	}
}

const takeoffSchema = `{"type": "record", "name": "Takeoff", "fields": [
  {"name": "flight", "type": "string"},
  {"name": "origin", "type": "string"},
  {"name": "seats", "type": "int"},
  {"name": "left", "type": {"type": "long", "logicalType": "timestamp-millis"}}
]}`

const mergedProject = `
project: merged
topic_prefix: PREFIX
partitions: 4
sources:
  legs: {topic: PREFIXlegs, schema: leg.avsc, format: json, key: id, time: at, partitions: 3}
  takeoffs: {topic: PREFIXtakeoffs, schema: takeoff.avsc, format: json, key: flight, time: left, partitions: 2}
  movements:
    merge:
      takeoffs: {columns: {airport: origin, who: "flight", seats: seats}}
      legs: {where: not cancelled, columns: {airport: destination, who: id, delay: delay}}
features:
  airports:
    source: movements
    entity: airport
    windows: [lifetime]
    features: {n: count(), seats: sum(seats), delay: sum(delay), legs: sum(source == 'legs'), last: last(who)}
  takeoffs_by_origin: {source: takeoffs, entity: origin, windows: [lifetime], features: {n: count()}}
`

// movement is an event as the oracle of merged sources orders it.
type movement struct {
	airport, source, who string
	at                   int64
	partition            int32
	offset               int64
	seats, delay         float64
}

// move sends n events of both sources, with few distinct times so that ties are many, and gives those that count.
func (r *rig) move(random *rand.Rand, n int, offsets map[string]int64) (all []movement) {
	airports := []string{"ATL", "LAX", "JFK"}
	for range n {
		m := movement{airport: airports[random.IntN(3)], at: start + random.Int64N(20)}
		if random.IntN(2) == 0 {
			m.source, m.partition, m.seats = "takeoffs", int32(random.IntN(2)), float64(random.IntN(300))
		} else {
			m.source, m.partition, m.delay = "legs", int32(random.IntN(3)), float64(random.IntN(300))
		}
		place := fmt.Sprint(m.source, m.partition)
		m.offset = offsets[place]
		offsets[place]++
		m.who = fmt.Sprint(m.source, "/", m.partition, "/", m.offset)
		if m.source == "takeoffs" {
			r.send("takeoffs", m.partition, map[string]any{"flight": m.who, "origin": m.airport, "seats": m.seats, "left": m.at})
		} else {
			cancelled := random.IntN(5) == 0
			r.send("legs", m.partition, map[string]any{"id": m.who, "origin": nil, "destination": m.airport, "delay": m.delay, "cancelled": cancelled, "at": m.at})
			if cancelled {
				continue
			}
		}
		all = append(all, m)
	}
	return all
}

func (r *rig) expectMovements(all []movement) {
	r.t.Helper()
	slices.SortFunc(all, func(a, b movement) int {
		return cmp.Or(cmp.Compare(a.at, b.at), cmp.Compare(a.source, b.source), cmp.Compare(a.partition, b.partition), cmp.Compare(a.offset, b.offset))
	})
	sums, last := map[string]map[string]float64{}, map[string]string{}
	for _, m := range all {
		if sums[m.airport] == nil {
			sums[m.airport] = map[string]float64{}
		}
		s := sums[m.airport]
		s["n"]++
		s["seats"] += m.seats
		s["delay"] += m.delay
		if m.source == "legs" {
			s["legs"]++
		}
		last[m.airport] = m.who
	}
	for airport, want := range sums {
		r.expect("airports", airport, want)
		if got := r.results("airports", airport, math.MaxInt32*int64(1000))["last"].Value.Str(); got != last[airport] {
			r.t.Errorf("the last movement of %s is %s, want %s", airport, got, last[airport])
		}
	}
	if got := r.entities("airports"); got != len(sums) {
		r.t.Errorf("%d airports, want %d", got, len(sums))
	}
}

// TestMergedSources has two sources meet in one group, through re-keyers that write everything twice, a Redis that is emptied, and a
// rebuild from the logs of both.
func TestMergedSources(t *testing.T) {
	r := newRig(t)
	r.declare(map[string]string{"millrace.yaml": mergedProject, "leg.avsc": legSchema, "takeoff.avsc": takeoffSchema})
	random, offsets := rand.New(rand.NewPCG(5, 6)), map[string]int64{}
	all := r.move(random, 300, offsets)
	g := r.run(r.stage())
	r.settled()
	g.stop(t)
	r.expectMovements(all)

	for _, name := range []string{"legs", "takeoffs"} {
		r.forget(SourceGroup(r.project, r.project.Source(name)))
	}
	before := r.ends(r.project.Group("airports").KeyedTopic)
	all = append(all, r.move(random, 60, offsets)...)
	g = r.run(r.stage())
	r.settled()
	var written int64
	for p, end := range r.ends(r.project.Group("airports").KeyedTopic) {
		written += end - before[p]
	}
	if written != 360 {
		t.Errorf("%d records were written to the keyed topic, want all 360 again", written)
	}
	r.expectMovements(all)
	if err := r.redis.FlushAll(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
	r.await("Redis to be filled again", func() bool { return r.entities("airports") == 3 })
	r.settled()
	g.stop(t)
	r.expectMovements(all)

	r.trim(r.project.Group("airports").KeyedTopic)
	if err := r.redis.FlushAll(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
	g = r.run(r.stage())
	all = append(all, r.move(random, 60, offsets)...)
	r.settled()
	g.stop(t)
	r.expectMovements(all)
	if letters := r.deadLetters(); len(letters) != 0 {
		t.Errorf("dead letters %v", letters)
	}
}

const enrichedProject = `
project: enriched
topic_prefix: PREFIX
tables:
  airports: {file: airports.csv, schema: airport.avsc, key: code, valid_from: since}
sources:
  legs:
    topic: PREFIXlegs
    schema: leg.avsc
    format: json
    key: id
    time: at
    partitions: 3
    partitioner: murmur2
    derive: {code: upper(destination), high: elevation > 100}
    enrich:
      airports: {on: code, columns: [state, elevation]}
features:
  states: {source: legs, entity: state, windows: [lifetime], features: {n: count(), high: sum(high), elevation: sum(elevation)}}
  legs_by_id: {source: legs, entity: id, windows: [lifetime], features: {n: count(), high: sum(high)}}
`

const airportSchema = `{"type": "record", "name": "airport", "fields": [
  {"name": "code", "type": "string"}, {"name": "state", "type": "string"}, {"name": "elevation", "type": "long"},
  {"name": "since", "type": {"type": "long", "logicalType": "timestamp-millis"}}]}`

// TestEnrichment looks events up as of their own time, has the table change under it, and computes everything again from keyed topics and
// from offline events: what was found for an event is what was found when it came.
func TestEnrichment(t *testing.T) {
	r := newRig(t)
	r.declare(map[string]string{"millrace.yaml": enrichedProject, "leg.avsc": legSchema, "airport.avsc": airportSchema})
	airports := r.project.Tables[0]
	tables := project.Tables{"airports": features.NewTable("airports", 100)}
	put := func(code, state string, elevation, since int64) {
		row := schemas.Row{schemas.StringValue(code), schemas.StringValue(state), schemas.IntValue(elevation), schemas.TimeValue(since)}
		if err := airports.Put(tables["airports"], row, features.Always); err != nil {
			t.Fatal(err)
		}
	}
	put("ATL", "GA", 300, start)
	put("ATL", "SC", 50, start+100) // the border moves
	put("DEN", "CO", 1600, start)
	if r.project.Group("legs_by_id").Direct {
		t.Fatal("a group on an enriched source reads it directly: nothing would keep what was found")
	}
	states := map[string]map[string]float64{}
	unknown := 0
	send := func(from, n int, lookup func(code string, at int64) (state string, elevation float64)) {
		for i := from; i < from+n; i++ {
			code, at := []string{"atl", "Den", "???"}[i%3], start+int64(i*7%200)
			r.send("legs", online.Partition(online.Murmur2, fmt.Sprint(i), 3), map[string]any{"id": fmt.Sprint(i), "origin": nil, "destination": code, "delay": 1, "cancelled": false, "at": at})
			state, elevation := lookup(code, at)
			if state == "" {
				unknown++
				continue
			}
			if states[state] == nil {
				states[state] = map[string]float64{"n": 0, "high": 0, "elevation": 0}
			}
			states[state]["n"]++
			states[state]["elevation"] += elevation
			if elevation > 100 {
				states[state]["high"]++
			}
		}
	}
	check := func(when string) {
		t.Helper()
		for state, want := range states {
			r.expect("states", state, want)
		}
		if got := r.entities("states"); got != len(states) {
			t.Errorf("%s: %d states, want %d", when, got, len(states))
		}
		r.expect("legs_by_id", "1", map[string]float64{"n": 1, "high": 1})
		r.expect("legs_by_id", "2", map[string]float64{"n": 1, "high": math.NaN()})
	}
	with := func(_ *Config, d *Deps) { d.Tables = tables }
	known := func(denver string, elevation float64) func(string, int64) (string, float64) {
		return func(code string, at int64) (string, float64) {
			switch {
			case code == "Den":
				return denver, elevation
			case code == "atl" && at < start+100:
				return "GA", 300
			case code == "atl":
				return "SC", 50
			}
			return "", 0
		}
	}
	send(0, 150, known("CO", 1600))
	g := r.run(r.stage(with))
	r.settled()
	if missed := counterSum(t, g.Stage, "millrace_ingest_lookups_missed_total"); missed != float64(unknown) {
		t.Errorf("%v lookups are said to have found nothing, want %d", missed, unknown)
	}
	check("at first")

	put("DEN", "WY", 20, start) // what was known was wrong, and is put right
	send(150, 60, known("WY", 20))
	r.settled()
	check("after the table changed")
	if err := r.redis.FlushAll(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
	r.await("Redis to be filled again", func() bool { return r.entities("states") == len(states) })
	r.settled()
	g.stop(t)
	check("from the keyed topic")

	for _, name := range []string{"states", "legs_by_id"} {
		r.trim(r.project.Group(name).KeyedTopic)
	}
	if err := r.redis.FlushAll(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
	g = r.run(r.stage(with))
	r.settled()
	g.stop(t)
	check("from the offline events")
	if letters := r.deadLetters(); letters["entity"] != unknown {
		t.Errorf("dead letters %v, want %d without an entity", letters, unknown)
	}
}

// TestGroupAddedToEnrichedSource adds a group when the table has changed: it is filled with what was found for the events when they came, and
// is not filled at all where that was not kept.
func TestGroupAddedToEnrichedSource(t *testing.T) {
	for _, kept := range []bool{true, false} {
		r := newRig(t)
		prefix := fmt.Sprintf("s%d-", rand.Uint32())
		before := strings.Split(enrichedProject, "  states: ")[0] + "  legs_by_id" + strings.Split(enrichedProject, "  legs_by_id")[1]
		files := map[string]string{"millrace.yaml": before, "leg.avsc": legSchema, "airport.avsc": airportSchema}
		r.declareAs(prefix, files)
		tables := project.Tables{"airports": features.NewTable("airports", 100)}
		put := func(state string) {
			row := schemas.Row{schemas.StringValue("DEN"), schemas.StringValue(state), schemas.IntValue(1600), schemas.TimeValue(start)}
			if err := r.project.Tables[0].Put(tables["airports"], row, features.Always); err != nil {
				t.Fatal(err)
			}
		}
		with := func(_ *Config, d *Deps) {
			d.Tables = tables
			if !kept {
				d.OfflineDir = ""
			}
		}
		send := func(from, n int) {
			for i := from; i < from+n; i++ {
				r.send("legs", int32(i%3), map[string]any{"id": fmt.Sprint(i), "origin": nil, "destination": "den", "delay": 1, "cancelled": false, "at": start + int64(i)})
			}
		}
		put("CO")
		send(0, 60)
		g := r.run(r.stage(with))
		r.settled()
		g.stop(t)

		put("WY")
		files["millrace.yaml"] = enrichedProject
		r.declareAs(prefix, files)
		g = r.run(r.stage(with))
		if !kept {
			r.await("the stage to end", g.dead)
			if failure.Of(g.err) != failure.BadProject || !strings.Contains(g.err.Error(), "looks up in tables") {
				t.Errorf("it ended with %v", g.err)
			}
			continue
		}
		send(60, 30)
		r.settled()
		g.stop(t)
		r.expect("states", "CO", map[string]float64{"n": 60})
		r.expect("states", "WY", map[string]float64{"n": 30})
	}
}

func TestJoinedHeaderThatIsNone(t *testing.T) {
	s, err := schemas.Parse("leg", []byte(legSchema))
	if err != nil {
		t.Fatal(err)
	}
	if s, err = s.Join(schemas.Column{Name: "state", Kind: schemas.String}, schemas.Column{Name: "n", Kind: schemas.Int}); err != nil {
		t.Fatal(err)
	}
	row := make(schemas.Row, len(s.Columns))
	from, _ := s.Joined()
	row[from], row[from+1] = schemas.StringValue("GA"), schemas.IntValue(7)
	header := appendJoined(nil, s, row)
	for n := range header {
		r := &kgo.Record{Headers: []kgo.RecordHeader{{Key: headerJoined, Value: header[:n]}}}
		if err := readJoined(r, s, make(schemas.Row, len(s.Columns))); err == nil {
			t.Errorf("%d of %d bytes are read", n, len(header))
		}
	}
	got := make(schemas.Row, len(s.Columns))
	if err := readJoined(&kgo.Record{Headers: []kgo.RecordHeader{{Key: headerJoined, Value: header}}}, s, got); err != nil || got[from].Str() != "GA" || got[from+1].Int() != 7 {
		t.Errorf("%v, %v", got, err)
	}
}
