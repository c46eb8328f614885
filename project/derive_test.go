package project

import (
	"slices"
	"strings"
	"testing"

	"github.com/millrace/millrace/schemas"
)

const derivedProject = `
project: derived
sources:
  arrivals:
    schema: schemas/arrival.avsc
    key: flight_id
    time: arrived
    derive: {late: delay > 15, route: origin + '-' + destination, late_hours: "late ? delay / 60 : nil"}
    where: destination != 'XXX'
  departures: {schema: schemas/departure.avsc, key: flight_id, time: scheduled, derive: {far: distance > 1000, route: origin + '-' + destination}}
features:
  routes:
    source: arrivals
    entity: route
    where: delay > -100
    windows: [1h]
    features: {n: count(), late: mean(late), hours: mean(late_hours)}
models:
  late:
    on: departures
    inputs: [routes.*, far, again: far and hour(scheduled) > 12]
    label: {source: arrivals, join: flight_id, value: late, within: 1d}
`

func TestDerivedColumns(t *testing.T) {
	p := loadText(t, derivedProject)
	arrivals := p.Source("arrivals")
	if c, ok := arrivals.Schema.Column("route"); !ok || c.Kind != schemas.String || arrivals.Schema.Record().Index("route") != -1 {
		t.Errorf("route is %+v", c)
	}
	m := p.Model("late")
	if got := m.Label.Value.Source(); got != "(destination != 'XXX') ? (late) : nil" {
		t.Errorf("the label is %s", got)
	}
	if c := m.On.Schema.Columns[m.Inputs[3].Column]; c.Name != "far" || m.On.Schema.Columns[m.Inputs[0].Entity[0]].Name != "route" {
		t.Errorf("inputs %+v", m.Inputs)
	}
	if g := p.Group("routes"); g.Where != "(destination != 'XXX') and (delay > -100)" || g.Direct {
		t.Errorf("the group's condition is %s", g.Where)
	}
}

// What a derived column means is part of everything that reads it, through however many others.
func TestDerivedColumnsThatChange(t *testing.T) {
	before := loadText(t, derivedProject)
	for _, change := range []struct {
		from, to string
		version  bool
		told     []string
	}{
		{"late: delay > 15", "late: delay > 20", true, []string{`source arrivals: derives late: delay > 20, was delay > 15`}},
		{"where: destination", "where: origin", true, []string{`source arrivals: where origin != 'XXX', was destination != 'XXX'`}},
		{"far: distance > 1000", "far: distance > 2000", false, []string{`source departures: derives far: distance > 2000, was distance > 1000`, `model late: inputs with far: distance > 2000`}},
	} {
		after := loadText(t, strings.Replace(derivedProject, change.from, change.to, 1))
		if (before.Group("routes").Version != after.Group("routes").Version) != change.version {
			t.Errorf("%s: the group's version is %s, was %s", change.to, after.Group("routes").Version, before.Group("routes").Version)
		}
		var plan []string
		for _, c := range Plan(after, before.State()) {
			plan = append(plan, c.Object+" "+c.Name+": "+c.What)
		}
		for _, told := range change.told {
			if !slices.ContainsFunc(plan, func(line string) bool { return strings.HasPrefix(line, told) }) {
				t.Errorf("%s: the plan does not tell %q:\n%s", change.to, told, strings.Join(plan, "\n"))
			}
		}
	}
}

const sourcesTest = `
event arrivals {"flight_id":"f1","arrived":"2001-05-01T10:00:00Z","origin":"ATL","destination":"LAX","delay":20}
event arrivals {"flight_id":"f2","arrived":"2001-05-01T10:05:00Z","origin":"ATL","destination":"LAX","delay":10}
event arrivals {"flight_id":"f3","arrived":"2001-05-01T10:06:00Z","origin":"ATL","destination":"XXX","delay":10}
event arrivals {"flight_id":"f4","arrived":"2001-05-01T10:07:00Z","origin":"ATL","destination":"LAX","delay":100}
at 2001-05-01T10:10:00Z
expect routes ATL-LAX n_1h=3 late_1h=0.6666666666666666 hours_1h=1
expect routes ATL-XXX n_1h=not_found
`

func TestDerivedColumnsInFeatureTests(t *testing.T) {
	results, err := Test(t.Context(), projectOf(t, derivedProject, map[string]string{"routes.txtar": sourcesTest}).Dir, Engine(nil))
	if err != nil || len(results) != 1 || results[0].Err != nil {
		t.Errorf("%+v, %v", results, err)
	}
}
