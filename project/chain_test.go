package project

import (
	"slices"
	"strings"
	"testing"

	"github.com/millrace/millrace/features"
	"github.com/millrace/millrace/schemas"
)

const chainedProject = `
project: chained
topic_prefix: x.
partitions: 4
sources:
  landed: {of: airports, columns: [delay], features: [n_1h, worst_1h], derive: {late: n_1h > 2}, where: delay != 0}
  arrivals: {schema: schemas/arrival.avsc, key: flight_id, time: arrived, lateness: 2h}
features:
  after: {source: landed, entity: origin, windows: [1h], features: {n: sum(n_1h)}}
  airports: {source: arrivals, entity: origin, windows: [1h], features: {n: count(), worst: max(delay), mean: mean(delay)}}
`

func TestChainedSource(t *testing.T) {
	p := loadText(t, chainedProject)
	s := p.Source("landed")
	var columns []string
	for _, c := range s.Schema.Columns {
		columns = append(columns, c.Name+" "+c.Kind.String())
	}
	if want := []string{"time time", "origin string", "delay int", "n_1h int", "worst_1h int", "late bool"}; !slices.Equal(columns, want) {
		t.Errorf("columns %q, want %q", columns, want)
	}
	if s.Topic != "x.landed" || s.Partitions != 4 || s.Lateness.Hours() != 2 || p.Group("after").Direct || s.Of != p.Group("airports") || !slices.Equal(p.GivenBy(s.Of), []*Source{s}) {
		t.Errorf("source %+v", s)
	}
	topics := p.Topology()
	i := slices.IndexFunc(topics, func(t schemas.Topic) bool { return t.Name == "x.landed" })
	if i < 0 || !slices.Equal(topics[i].Producers, []string{schemas.RoleStream}) || topics[i].Retention != KeyedRetention || topics[i].Partitions != 4 {
		t.Errorf("topics %+v", topics)
	}

	arrival := make(schemas.Row, len(s.Of.Source.Schema.Columns))
	arrival[s.Of.Source.Schema.Index("origin")] = schemas.StringValue("ATL")
	arrival[s.Of.Source.Schema.Index("delay")] = schemas.IntValue(-4)
	results := []features.Result{{Value: schemas.IntValue(3), Status: features.Present}, {Status: features.Null}, {Value: schemas.FloatValue(9), Status: features.Present}}
	got := s.Given(arrival, 5000, results, nil)
	want := schemas.Row{schemas.TimeValue(5000), schemas.StringValue("ATL"), schemas.IntValue(-4), schemas.IntValue(3), schemas.NullValue(), schemas.BoolValue(true)}
	if !slices.Equal(got, want) {
		t.Errorf("row %v, want %v", got, want)
	}

	if again := Plan(p, p.State()); len(again) != 0 {
		t.Errorf("a plan of what is applied: %+v", again)
	}
	first := changes(Plan(p, State{}))
	if !strings.Contains(first, "create source landed: what group airports gives out from now on, on topic x.landed\n") || !strings.Contains(first, "create topic x.landed: 4 partitions, source landed: what group airports gives out\n") {
		t.Errorf("the first plan:\n%s", first)
	}
	// What is given out means something else: so do the features made of it, and readers of the topic would not know.
	changed := loadText(t, strings.Replace(chainedProject, "n: count()", "n: sum(delay)", 1))
	if changed.Group("after").Version == p.Group("after").Version {
		t.Error("the second group's version does not depend on what the first one gives out")
	}
	if plan := changes(Plan(changed, p.State())); !strings.Contains(plan, "update source landed: its events would mean something else than those before BREAKING\n") {
		t.Errorf("the plan of a change:\n%s", plan)
	}
	other := loadText(t, strings.Replace(chainedProject, "of: airports, columns: [delay]", "of: others, columns: [delay]", 1)+"  others: {source: arrivals, entity: origin, windows: [1h], features: {n: count(), worst: max(delay)}}\n")
	if plan := changes(Plan(other, p.State())); !strings.Contains(plan, "update source landed: is given out by another group now, or by none BREAKING\n") {
		t.Errorf("the plan of another group:\n%s", plan)
	}
}
