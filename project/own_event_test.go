package project

import (
	"testing"

	"github.com/millrace/millrace/schemas"
)

const ownEventProject = `project: flights
sources:
  departures: {schema: schemas/departure.avsc, key: flight_id, time: scheduled}
  arrivals: {schema: schemas/arrival.avsc, key: flight_id, time: arrived}
  both:
    merge:
      departures: {columns: {airport: origin, miles: distance}}
      arrivals: {columns: {airport: destination}}
features:
  from: {source: departures, entity: origin, windows: [1h], features: {n: count(), miles: sum(distance)}}
  landed: {source: arrivals, entity: origin, windows: [1h], features: {n: count()}}
  airports: {source: both, entity: airport, windows: [1h], features: {n: count(), miles: sum(miles)}}
models:
  late:
    on: departures
    inputs:
      - from.*: {include_request: true}
      - landed.n_1h: {origin: destination, include_request: true}
      - airports.miles_1h: {airport: origin, include_request: true}
      - airports.n_1h: {airport: origin}
    label: {source: arrivals, join: flight_id, value: "delay > 15", within: 24h}
`

func TestOwnEvents(t *testing.T) {
	p, faults := load([]byte(ownEventProject), readTestdata, "")
	for _, f := range faults {
		t.Fatal(f)
	}
	event := schemas.Row{schemas.StringValue("f1"), schemas.TimeValue(5), schemas.StringValue("ATL"), schemas.StringValue("LGA"), schemas.IntValue(700)}
	m := p.Model("late")
	for _, c := range []struct {
		input string
		same  bool
		want  map[string]schemas.Value // of the group's source
	}{
		{"from.miles_1h", true, map[string]schemas.Value{"origin": event[2], "distance": event[4]}},
		{"landed.n_1h", false, map[string]schemas.Value{"origin": event[3]}},
		{"airports.miles_1h", true, map[string]schemas.Value{"airport": event[2], "miles": event[4], MergedTime: schemas.TimeValue(5), MergedSource: schemas.StringValue("departures")}},
	} {
		for _, in := range m.Inputs {
			if in.Name != c.input {
				continue
			}
			row, takes := in.Own.Row(event, 5, nil)
			if !takes || in.Own.Same != c.same || len(row) != len(in.Group.Source.Schema.Columns) {
				t.Errorf("%s: %v, takes %v, same %v", in.Name, row, takes, in.Own.Same)
			}
			for name, want := range c.want {
				if got := row[in.Group.Source.Schema.Index(name)]; got != want {
					t.Errorf("%s: %s is %v, want %v", in.Name, name, got.Any(), want.Any())
				}
			}
		}
	}
	if last := m.Inputs[len(m.Inputs)-1]; last.Own != nil {
		t.Errorf("%s has an own event", last.Name)
	}
	if state := m.state().Inputs; state[0] != "from.n_1h by origin with the request's event" || state[len(state)-1] != "airports.n_1h by origin" {
		t.Errorf("the applied state says %q", state)
	}
}
