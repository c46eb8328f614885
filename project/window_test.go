package project

import (
	"slices"
	"testing"
	"time"

	"github.com/millrace/millrace/features"
	"github.com/millrace/millrace/schemas"
)

func TestWindowsAndAggregatesAreRead(t *testing.T) {
	p := loadText(t, `
project: flights
sources:
  arrivals: {schema: schemas/arrival.avsc, key: flight_id, time: arrived}
features:
  routes:
    source: arrivals
    entity: origin
    windows: [1h, 7d ending 1d ago, lifetime]
    error: 1/120
    exact_events: 50
    edge: event
    dedup: {by: flight_id, within: 10m}
    features:
      n: count()
      mean: {aggregate: mean(delay), windows: [2h], exact: true}
      late: {aggregate: max(delay), windows: [1h error 1/30], by: origin, most: 3}
`)
	g := p.Group("routes")
	type output struct {
		name      string
		delay     time.Duration
		tailError time.Duration
		kind      schemas.Kind
	}
	var got []output
	for _, o := range g.Outputs {
		got = append(got, output{o.Name, o.Delay, o.TailError, o.Kind})
	}
	want := []output{
		{"n_1h", 0, 30 * time.Second, schemas.Int}, {"n_7d_ending_1d_ago", 24 * time.Hour, 84 * time.Minute, schemas.Int}, {"n", 0, 0, schemas.Int},
		{"mean_2h", 0, 0, schemas.Float}, {"late_1h", 0, 30 * time.Second, schemas.Composite},
	}
	if !slices.Equal(got, want) {
		t.Errorf("outputs are\n%v, want\n%v", got, want)
	}
	if d := (features.DedupDefinition{By: "flight_id", Within: 10 * time.Minute, Most: features.DefaultDedupMost}); *g.Dedup != d || g.Edge != features.EdgeEvent || g.ExactEvents != 50 {
		t.Errorf("the group is read as %+v", g.Definition)
	}
}
