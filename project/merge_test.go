package project

import (
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/millrace/millrace/features"
	"github.com/millrace/millrace/schemas"
)

const mergedProject = `
project: merged
partitions: 4
sources:
  movements:
    merge:
      departures: {where: distance > 100, columns: {airport: origin, miles: distance}}
      arrivals: {columns: {airport: destination, delay: delay, miles: 0.5, late: late}}
    derive: {landed: source == 'arrivals'}
    where: airport != 'XXX'
  arrivals: {schema: schemas/arrival.avsc, key: flight_id, time: arrived, partitioner: murmur2, lateness: 2h, derive: {late: delay > 15}, where: origin != 'YYY'}
  departures: {schema: schemas/departure.avsc, key: flight_id, time: scheduled}
features:
  airports:
    source: movements
    entity: airport
    windows: [1h]
    features: {n: count(), landed: sum(landed), late: sum(late), miles: sum(miles), last: last(source), at: {aggregate: last(time), windows: [lifetime]}}
`

func TestMergedSource(t *testing.T) {
	p := loadText(t, mergedProject)
	s, g := p.Source("movements"), p.Group("airports")
	var columns []string
	for _, c := range s.Schema.Columns {
		columns = append(columns, c.Name+" "+c.Kind.String())
	}
	if want := []string{"time time", "source string", "airport string", "miles float", "delay int", "late bool", "landed bool"}; !slices.Equal(columns, want) {
		t.Errorf("columns %q, want %q", columns, want)
	}
	if names := []string{p.Sources[0].Name, p.Sources[1].Name, p.Sources[2].Name}; !slices.Equal(names, []string{"movements", "arrivals", "departures"}) {
		t.Errorf("sources in the order of %q", names)
	}
	if g.Direct || g.KeyedTopic != "airports.keyed" || g.Lateness.Hours() != 2 || s.Partitions != 4 || s.Roots()[0] != p.Source("departures") {
		t.Errorf("group %+v", g)
	}
	topics := p.Topology()
	i := slices.IndexFunc(topics, func(t schemas.Topic) bool { return t.Name == "airports.keyed" })
	if i < 0 || topics[i].Purpose != "records of sources departures, arrivals by the entity of group airports" || topics[0].Name != "arrivals" {
		t.Errorf("topics %+v", topics)
	}
	plan := Plan(p, State{})
	for _, want := range []string{"merged of others", "merged from movements through airports.keyed"} {
		if !slices.ContainsFunc(plan, func(c Change) bool { return strings.Contains(c.What, want) }) {
			t.Errorf("the plan does not say %q: %+v", want, plan)
		}
	}
	if again := Plan(p, p.State()); len(again) != 0 {
		t.Errorf("applied, the plan is %+v", again)
	}
}

func TestMergedSourceThatChanges(t *testing.T) {
	before := loadText(t, mergedProject)
	for from, to := range map[string]string{
		"distance > 100": "distance > 200", "miles: distance": "miles: distance * 2", "late: delay > 15": "late: delay > 20", "origin != 'YYY'": "origin != 'ZZZ'",
		"airport != 'XXX'": "airport != 'ZZZ'", "landed: source == 'arrivals'": "landed: source != 'departures'",
	} {
		after := loadText(t, strings.Replace(mergedProject, from, to, 1))
		if before.Groups[0].Version == after.Groups[0].Version {
			t.Errorf("%s does not change the group's version", to)
		}
		if len(Plan(after, before.State())) < 2 {
			t.Errorf("%s: the plan is %+v", to, Plan(after, before.State()))
		}
	}
	reordered := strings.Replace(mergedProject, "  movements:\n", "  zzz: {schema: schemas/departure.avsc, key: flight_id, time: scheduled}\n  movements:\n", 1)
	if loadText(t, reordered).Groups[0].Version != before.Groups[0].Version {
		t.Error("another source changes the group's version")
	}
}

// The order of equal times is that of the parts' names, not of their places in the file.
func TestMergedSequence(t *testing.T) {
	p := loadText(t, mergedProject)
	s := p.Source("movements")
	var last int64 = -1
	for _, root := range []string{"arrivals", "departures"} {
		for _, partition := range []int32{0, 1, MaxPartitions} {
			for _, offset := range []int64{0, 1, features.MaxOffset} {
				n := s.Sequence(p.Source(root), partition, offset)
				if n <= last {
					t.Errorf("%s %d/%d is %d, not above %d", root, partition, offset, n, last)
				}
				last = n
			}
		}
	}
	if s.Sequence(&Source{Name: "?"}, 0, 1) != 1 || p.Source("arrivals").Sequence(p.Source("arrivals"), 7, 5) != features.Sequence(7, 5) {
		t.Error("a sequence of one source is not that of its partition and offset")
	}
	if features.Sequence(MaxPartitions-1, features.MaxOffset) >= 1<<rankShift || (MaxParts-1)<<rankShift > math.MaxInt64-(1<<rankShift-1) {
		t.Error("the parts of a sequence do not fit")
	}
}

const mergedTest = `
event departures {"flight_id":"f1","scheduled":"2001-05-01T10:00:00Z","origin":"LAX","destination":"ATL","distance":500}
event departures {"flight_id":"f2","scheduled":"2001-05-01T10:01:00Z","origin":"LAX","destination":"ATL","distance":50}
event departures {"flight_id":"f3","scheduled":"2001-05-01T10:02:00Z","origin":"XXX","destination":"ATL","distance":500}
event arrivals {"flight_id":"f4","arrived":"2001-05-01T10:00:00Z","origin":"ATL","destination":"LAX","delay":20}
event arrivals {"flight_id":"f5","arrived":"2001-05-01T09:59:00Z","origin":"ATL","destination":"LAX","delay":10}
event arrivals {"flight_id":"f6","arrived":"2001-05-01T09:59:00Z","origin":"YYY","destination":"LAX","delay":10}
at 2001-05-01T10:10:00Z
expect airports LAX n_1h=3 landed_1h=2 late_1h=1 miles_1h=501 last_1h="departures" at=2001-05-01T10:00:00Z
expect airports XXX n_1h=not_found
`

func TestMergedSourceInFeatureTests(t *testing.T) {
	p := projectOf(t, mergedProject, map[string]string{"a.txtar": mergedTest, "b.txtar": "event movements {}\n"})
	results, err := Test(t.Context(), p.Dir, Engine(nil))
	if err != nil || len(results) != 2 || results[0].Err != nil {
		t.Fatalf("%+v, %v", results, err)
	}
	if got := results[1].Err; got == nil || !strings.Contains(got.Error(), "merged of others") {
		t.Errorf("an event of a merged source: %v", got)
	}
}
