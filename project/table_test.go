package project

import (
	"slices"
	"strings"
	"testing"

	"github.com/millrace/millrace/schemas"
)

const enrichedProject = `
project: enriched
tables:
  flown: {topic: flown, schema: schemas/departure.avsc, key: flight_id, valid_from: scheduled}
sources:
  arrivals:
    schema: schemas/arrival.avsc
    key: flight_id
    time: arrived
    partitioner: murmur2
    derive: {far: miles > 1000}
    enrich: {flight: {table: flown, on: flight_id, columns: {miles: distance, left: scheduled}}}
features:
  airports: {source: arrivals, entity: origin, windows: [lifetime], features: {n: count(), far: sum(far), miles: sum(miles)}}
`

const enrichedTest = `
event flown {"flight_id":"f1","scheduled":"2001-05-01T08:00:00Z","origin":"ATL","destination":"LAX","distance":1500}
event flown {"flight_id":"f1","scheduled":"2001-05-02T08:00:00Z","origin":"ATL","destination":"LAX","distance":500}
event arrivals {"flight_id":"f1","arrived":"2001-05-01T07:59:00Z","origin":"ATL","destination":"LAX","delay":20}
event arrivals {"flight_id":"f1","arrived":"2001-05-01T10:00:00Z","origin":"ATL","destination":"LAX","delay":20}
event arrivals {"flight_id":"f1","arrived":"2001-05-02T10:00:00Z","origin":"ATL","destination":"LAX","delay":20}
event arrivals {"flight_id":"f2","arrived":"2001-05-02T11:00:00Z","origin":"ATL","destination":"LAX","delay":20}
at 2001-05-03T00:00:00Z
expect airports ATL n=4 far=1 miles=2000
`

func TestEnrichedSource(t *testing.T) {
	p := projectOf(t, enrichedProject, map[string]string{"a.txtar": enrichedTest, "b.txtar": enrichedTest})
	results, err := Test(t.Context(), p.Dir, Engine(nil))
	if err != nil || len(results) != 2 || results[0].Err != nil || results[1].Err != nil {
		t.Errorf("%+v, %v", results, err)
	}
	topics := p.Topology()
	i := slices.IndexFunc(topics, func(t schemas.Topic) bool { return t.Name == "flown" })
	if i < 0 || !topics[i].Compact || topics[i].Purpose != "table flown" || p.State().Topics["flown"].Ours {
		t.Errorf("topics %+v", topics)
	}
	if g := p.Groups[0]; g.Direct || g.KeyedTopic != "airports.keyed" {
		t.Errorf("group %+v", g)
	}
	after := projectOf(t, strings.Replace(enrichedProject, "miles: distance", "miles: distance, was: origin", 1), nil)
	plan := Plan(after, p.State())
	if len(plan) != 1 || plan[0].What != "from now on looks up was: flown.origin by flight_id" {
		t.Errorf("plan %+v", plan)
	}
	if again := Plan(p, p.State()); len(again) != 0 {
		t.Errorf("applied, the plan is %+v", again)
	}
}
