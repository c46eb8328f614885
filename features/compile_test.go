package features

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/millrace/millrace/internal/failure"
	"github.com/millrace/millrace/schemas"
)

func TestOutputsAreNamedAndTyped(t *testing.T) {
	g := compiled(t, Definition{Windows: []string{"1h", "7d", Lifetime}, Features: []FeatureDefinition{
		{Name: "n", Aggregate: "count()"},
		{Name: "seats", Aggregate: "max(seats)", Windows: []string{"90s"}},
		{Name: "arrived", Aggregate: "last(arrived)", Windows: []string{Lifetime}},
		{Name: "to", Aggregate: "last(destination)", Windows: []string{Lifetime}},
		{Name: "any_late", Aggregate: "max(delay > 15)", Windows: []string{"7d"}},
		{Name: "places", Aggregate: "distinct(destination)", Windows: []string{"7d"}},
		{Name: "p95", Aggregate: "quantile(delay, 0.95)", Windows: []string{"7d"}},
	}})
	want := []Output{
		{Name: "n_1h", Feature: "n", Window: time.Hour, Kind: schemas.Int, TailError: 60 * time.Second},
		{Name: "n_7d", Feature: "n", Window: 7 * 24 * time.Hour, Kind: schemas.Int, TailError: 168 * time.Minute},
		{Name: "n", Feature: "n", Window: 0, Kind: schemas.Int, TailError: 0},
		{Name: "seats_90s", Feature: "seats", Window: 90 * time.Second, Kind: schemas.Int, TailError: time.Second},
		{Name: "arrived", Feature: "arrived", Window: 0, Kind: schemas.Time, TailError: 0},
		{Name: "to", Feature: "to", Window: 0, Kind: schemas.String, TailError: 0},
		{Name: "any_late_7d", Feature: "any_late", Window: 7 * 24 * time.Hour, Kind: schemas.Bool, TailError: 168 * time.Minute},
		{Name: "places_7d", Feature: "places", Window: 7 * 24 * time.Hour, Kind: schemas.Int, TailError: 168 * time.Minute},
		{Name: "p95_7d", Feature: "p95", Window: 7 * 24 * time.Hour, Kind: schemas.Float, TailError: 168 * time.Minute},
	}
	if !slices.Equal(g.Outputs, want) {
		t.Errorf("outputs are\n%v, want\n%v", g.Outputs, want)
	}
	if g.Output("seats_90s") != 3 || g.Output("seats") != -1 {
		t.Error("an output is not found by its name")
	}
}

func TestEveryFaultOfADefinitionIsNamed(t *testing.T) {
	one := []FeatureDefinition{{Name: "n", Aggregate: "count()"}}
	with := func(f ...FeatureDefinition) Definition {
		return Definition{Name: "g", Entity: []string{"origin"}, Windows: []string{"1h"}, Features: f}
	}
	for _, c := range []struct {
		d    Definition
		want []string
	}{
		{Definition{}, []string{"the group has no name", "names no entity column", "has no features"}},
		{Definition{Name: "g", Entity: []string{"origni"}, Windows: []string{"1h"}, Features: one}, []string{`entity: arrival has no column "origni" (did you mean "origin"?)`}},
		{Definition{Name: "g", Entity: []string{"origin", "origin"}, Windows: []string{"1h"}, Features: one}, []string{"named twice"}},
		{Definition{Name: "g", Entity: []string{"origin"}, Features: one}, []string{"feature n: no window"}},
		{Definition{Name: "g", Entity: []string{"origin"}, Windows: []string{"1h", "60m"}, Features: one}, []string{"60m is named twice"}},
		{Definition{Name: "g", Entity: []string{"origin"}, Windows: []string{"1x", "0s"}, Features: one}, []string{`window: "1x" is not a duration`, "0s is empty"}},
		{Definition{Name: "g", Entity: []string{"origin"}, Windows: []string{"1s"}, Lateness: 24 * time.Hour, Features: one}, []string{"at most 32768 are allowed"}},
		{Definition{Name: "g", Entity: []string{"origin"}, Windows: []string{"1h"}, Where: "delay", Features: one}, []string{`where: "delay" is float, bool is needed`}},
		{Definition{Name: "g", Entity: []string{"origin"}, Windows: []string{"1h"}, Lateness: -1, TTL: 1, Features: one}, []string{"lateness -1ns is negative", "ttl 1ns is not a whole number of milliseconds"}},
		{with(FeatureDefinition{Name: "a", Aggregate: "mena(delay)"}), []string{`feature a: there is no aggregate "mena" (did you mean "mean"?)`}},
		{with(FeatureDefinition{Name: "a", Aggregate: "delay"}), []string{"write one like mean(column)"}},
		{with(FeatureDefinition{Name: "a", Aggregate: "mean(origin)"}), []string{`mean needs a number, "origin" is string`}},
		{with(FeatureDefinition{Name: "a", Aggregate: "min(origin)"}), []string{"needs a number or a time"}},
		{with(FeatureDefinition{Name: "a", Aggregate: "mean()"}), []string{"mean takes (column or expression), not 0 arguments"}},
		{with(FeatureDefinition{Name: "a", Aggregate: "quantile(delay)"}), []string{"quantile takes (column or expression, q), not 1 arguments"}},
		{with(FeatureDefinition{Name: "a", Aggregate: "quantile(delay, 95)"}), []string{"a quantile lies between 0 and 1"}},
		{with(FeatureDefinition{Name: "a", Aggregate: "quantile(delay, x)"}), []string{`q is "x", a number is needed`}},
		{with(FeatureDefinition{Name: "a", Aggregate: "mean(dely)"}), []string{`no column "dely" (did you mean "delay"?)`}},
		{with(FeatureDefinition{Name: "a", Aggregate: "mean((delay)"}), []string{"is not closed"}},
		{with(FeatureDefinition{Name: "a", Aggregate: "quantile(delay"}), []string{`"quantile(delay" has no closing parenthesis: within {} or [] of YAML a comma ends the value`}},
		{with(FeatureDefinition{Name: "a", Aggregate: "count()", Default: ptr(0)}), []string{"count of an empty window is 0"}},
		{with(FeatureDefinition{Name: "a", Aggregate: "last(origin)", Default: ptr(0)}), []string{"the feature is string"}},
		{with(FeatureDefinition{Name: "a", Aggregate: "max(seats)", Default: ptr(0.5)}), []string{"0.5 is none"}},
		{with(FeatureDefinition{Name: "a", Aggregate: "last_k(delay, 0)"}), []string{`last_k: k is "0", a whole number from 1 to 100`}},
		{with(FeatureDefinition{Name: "a", Aggregate: "top_k(origin, 65)"}), []string{"from 1 to 64"}},
		{with(FeatureDefinition{Name: "a", Aggregate: "decayed_sum(delay, soon)"}), []string{`half-life: "soon" is not a duration`}},
		{with(FeatureDefinition{Name: "a", Aggregate: "decayed_sum(1h)"}), []string{"decayed_sum takes (column or expression, half-life), not 1 arguments"}},
		{with(FeatureDefinition{Name: "a", Aggregate: "ratio(count())"}), []string{"ratio takes (aggregate, aggregate), not 1 arguments"}},
		{with(FeatureDefinition{Name: "a", Aggregate: "ratio(count(), last(origin))"}), []string{"ratio: last(origin) is string, a number is needed"}},
		{with(FeatureDefinition{Name: "a", Aggregate: "ratio(count(), nope())"}), []string{"ratio: there is no aggregate"}},
		{with(FeatureDefinition{Name: "a", Aggregate: "rate()", Windows: []string{Lifetime}}), []string{"rate needs a window with an end"}},
		{with(FeatureDefinition{Name: "a", Aggregate: "distinct(delay)", By: "origin"}), []string{"by: distinct cannot be by category"}},
		{with(FeatureDefinition{Name: "a", Aggregate: "count()", By: "nope"}), []string{`by: `}},
		{with(FeatureDefinition{Name: "a", Aggregate: "count()", By: "origin", Most: 257}), []string{"from 1 to 256 can be kept"}},
		{with(FeatureDefinition{Name: "a", Aggregate: "count()", Most: 3}), []string{"most: is of a feature with by"}},
		{with(FeatureDefinition{Name: "a", Aggregate: "top_k(origin, 3)", Default: ptr(0)}), []string{"the feature is json"}},
		{with(FeatureDefinition{Name: "a", Aggregate: "count()", Windows: []string{"7d ending 1d", "7d exactly", "1h error 1/2", "lifetime exact", "7d ending 0s ago"}}),
			[]string{`write it like 7d, 7d ending 1d ago`, "exactly", `an error of "1/2"`, "lifetime has neither", "0s is empty", "no window"}},
		{Definition{Name: "g", Entity: []string{"origin"}, Windows: []string{"1h"}, Tiles: 2, ExactEvents: -1, Dedup: &DedupDefinition{By: "nope"}, Features: one},
			[]string{"error: 1/2 is not between", "exact_events: -1", "dedup: "}},
		{Definition{Name: "g", Entity: []string{"origin"}, Windows: []string{"1h"}, Dedup: &DedupDefinition{By: "flight_id", Most: MaxDedup + 1}, Features: one}, []string{"dedup: most: 16385"}},
		{with(FeatureDefinition{Name: "a", Aggregate: "count()"}, FeatureDefinition{Name: "a", Aggregate: "count()"}), []string{`output "a_1h", which a gives too`}},
		{with(FeatureDefinition{Name: "a", Aggregate: "nope()", Where: "nope"}, FeatureDefinition{Aggregate: "count()", Windows: []string{}}),
			[]string{"there is no aggregate", "where: ", "has no name", "no window"}},
	} {
		g, faults := Compile(c.d, arrivals(t))
		text := errors.Join(faults...)
		if g != nil || len(faults) != len(c.want) {
			t.Errorf("%+v: %d faults, want %d:\n%v", c.d, len(faults), len(c.want), text)
			continue
		}
		for _, want := range c.want {
			if !strings.Contains(text.Error(), want) {
				t.Errorf("%+v: %q is missing in\n%v", c.d, want, text)
			}
		}
		var fault *DefinitionError
		if !errors.As(faults[0], &fault) {
			t.Errorf("%v is no DefinitionError", faults[0])
		}
	}
}

func TestVersionChangesWithMeaningOnly(t *testing.T) {
	base := func() Definition {
		return Definition{Name: "g", Source: "arrivals", Entity: []string{"origin"}, Windows: []string{"1h", "24h"}, Where: "!cancelled", Features: []FeatureDefinition{
			{Name: "n", Aggregate: "count()"}, {Name: "m", Aggregate: "mean(delay)", Where: "delay > 15"}}}
	}
	first := compiled(t, base())
	if len(first.Version) != 12 {
		t.Errorf("the version is %q", first.Version)
	}
	same := base()
	same.Line, same.Where, same.Features[1].Aggregate, same.Features[1].Where, same.Features[0].Line = 9, " ! cancelled", " mean( delay )", "delay  >  15", 3
	if v := compiled(t, same).Version; v != first.Version {
		t.Error("the version depends on how the definition is written")
	}
	for what, change := range map[string]func(*Definition){
		"name":      func(d *Definition) { d.Name = "h" },
		"source":    func(d *Definition) { d.Source = "others" },
		"entity":    func(d *Definition) { d.Entity = []string{"destination"} },
		"where":     func(d *Definition) { d.Where = "" },
		"window":    func(d *Definition) { d.Windows = []string{"1h", "25h"} },
		"lateness":  func(d *Definition) { d.Lateness = time.Second },
		"ttl":       func(d *Definition) { d.TTL = time.Second },
		"feature":   func(d *Definition) { d.Features[0].Name = "k" },
		"aggregate": func(d *Definition) { d.Features[1].Aggregate = "mean(seats)" },
		"condition": func(d *Definition) { d.Features[1].Where = "delay > 16" },
		"default":   func(d *Definition) { d.Features[1].Default = ptr(0) },
		"order":     func(d *Definition) { slices.Reverse(d.Features) },
		"error":     func(d *Definition) { d.Tiles = 61 },
		"exactness": func(d *Definition) { d.Exact = true },
		"delay":     func(d *Definition) { d.Windows[1] = "24h ending 1h ago" },
		"edge":      func(d *Definition) { d.Edge = EdgeEvent },
		"dedup":     func(d *Definition) { d.Dedup = &DedupDefinition{By: "flight_id"} },
		"category":  func(d *Definition) { d.Features[0].By = "carrier" },
	} {
		d := base()
		change(&d)
		if g := compiled(t, d); g.Version == first.Version {
			t.Errorf("the version does not depend on the %s", what)
		}
	}
	nullable := strings.Replace(arrivalSchema, `{"name":"delay","type":["null","double"],"default":null}`, `{"name":"delay","type":"long"}`, 1)
	s, err := schemas.Parse("arrival", []byte(nullable))
	if err != nil {
		t.Fatal(err)
	}
	if g, faults := Compile(base(), s); faults != nil || g.Version == first.Version {
		t.Errorf("the version does not depend on the kind of a column: %v", faults)
	}
}

func TestKeys(t *testing.T) {
	one := []FeatureDefinition{{Name: "n", Aggregate: "count()"}}
	single := compiled(t, Definition{Windows: []string{"1h"}, Features: one})
	several := compiled(t, Definition{Entity: []string{"origin", "seats", "arrived"}, Windows: []string{"1h"}, Features: one})
	r := row(978307200000, 7, "LAX")
	if key, err := single.Key(r); key != "ATL" || err != nil {
		t.Errorf("the key is %q, %v", key, err)
	}
	want := "ATL\x1f7\x1f2001-01-01T00:00:00Z"
	if key, err := several.Key(r); key != want || err != nil {
		t.Errorf("the key is %q, %v", key, err)
	}
	if key, err := several.KeyOf(map[string]string{"origin": "ATL", "seats": "007", "arrived": "2001-01-01T01:00:00.000+01:00"}); key != want || err != nil {
		t.Errorf("the key of a request is %q, %v", key, err)
	}
	bad := map[string]func(schemas.Row){
		"null":      func(r schemas.Row) { r[seats] = schemas.NullValue() },
		"empty":     func(r schemas.Row) { r[origin] = schemas.StringValue("") },
		"separator": func(r schemas.Row) { r[origin] = schemas.StringValue("A\x1fB") },
		"long":      func(r schemas.Row) { r[origin] = schemas.StringValue(strings.Repeat("x", MaxKey)) },
	}
	for what, spoil := range bad {
		r := row(0, 7, "LAX")
		spoil(r)
		if key, err := several.Key(r); failure.Of(err) != failure.BadRecord {
			t.Errorf("%s: %q, %v", what, key, err)
		}
	}
	for what, values := range map[string]map[string]string{
		"missing":     {"origin": "ATL", "seats": "7"},
		"not an int":  {"origin": "ATL", "seats": "seven", "arrived": "2001-01-01T00:00:00Z"},
		"superfluous": {"origin": "ATL", "seats": "7", "arrived": "2001-01-01T00:00:00Z", "gate": "1"},
		"empty":       {"origin": "", "seats": "7", "arrived": "2001-01-01T00:00:00Z"},
	} {
		if key, err := several.KeyOf(values); failure.Of(err) != failure.BadRequest {
			t.Errorf("%s: %q, %v", what, key, err)
		}
	}
}

func TestLadder(t *testing.T) {
	for _, c := range []struct {
		windows []time.Duration
		widths  []time.Duration
	}{
		{[]time.Duration{time.Hour, 3 * time.Hour, 24 * time.Hour, 168 * time.Hour}, []time.Duration{time.Minute, 3 * time.Minute, 24 * time.Minute, 168 * time.Minute}},
		{[]time.Duration{10 * time.Minute}, []time.Duration{10 * time.Second}},
		{[]time.Duration{7 * time.Second}, []time.Duration{100 * time.Millisecond}},
		{[]time.Duration{time.Millisecond}, []time.Duration{time.Millisecond}},
		{[]time.Duration{100 * time.Second, 110 * time.Second, 199 * time.Second}, []time.Duration{time.Second, 0, 3 * time.Second}},
	} {
		rungs := make([]rung, len(c.windows))
		for i, w := range c.windows {
			rungs[i] = rung{reach: ms(w), width: max(ms(w)/TilesPerWindow, 1)}
		}
		levels, of := newLadder(rungs, 0)
		for i, w := range c.widths {
			if w > 0 && levels[of[i]].width != ms(w) {
				t.Errorf("%v: the tile of %s is %d ms, want %s", c.windows, c.windows[i], levels[of[i]].width, w)
			}
		}
		for i := range levels {
			if i > 0 && levels[i].width%levels[i-1].width != 0 || levels[i].align%levels[i].width != 0 {
				t.Errorf("%v: level %d does not divide: %+v", c.windows, i, levels)
			}
		}
		for i, r := range rungs {
			if width := levels[of[i]].width; width > r.width {
				t.Errorf("a window of %d ms has tiles of %d ms", r.reach, width)
			}
		}
	}
}
