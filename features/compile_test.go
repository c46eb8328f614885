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
		{"n_1h", "n", time.Hour, schemas.Int, 60 * time.Second},
		{"n_7d", "n", 7 * 24 * time.Hour, schemas.Int, 168 * time.Minute},
		{"n", "n", 0, schemas.Int, 0},
		{"seats_90s", "seats", 90 * time.Second, schemas.Int, time.Second},
		{"arrived", "arrived", 0, schemas.Time, 0},
		{"to", "to", 0, schemas.String, 0},
		{"any_late_7d", "any_late", 7 * 24 * time.Hour, schemas.Bool, 168 * time.Minute},
		{"places_7d", "places", 7 * 24 * time.Hour, schemas.Int, 168 * time.Minute},
		{"p95_7d", "p95", 7 * 24 * time.Hour, schemas.Float, 168 * time.Minute},
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
		{with(FeatureDefinition{Name: "a", Aggregate: "count()", Default: ptr(0)}), []string{"count of an empty window is 0"}},
		{with(FeatureDefinition{Name: "a", Aggregate: "last(origin)", Default: ptr(0)}), []string{"the feature is string"}},
		{with(FeatureDefinition{Name: "a", Aggregate: "max(seats)", Default: ptr(0.5)}), []string{"0.5 is none"}},
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
		lengths := make([]int64, len(c.windows))
		for i, w := range c.windows {
			lengths[i] = ms(w)
		}
		levels, of := newLadder(lengths, 0)
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
		for i, l := range lengths {
			if width := levels[of[i]].width; width > max(l/TilesPerWindow, 1) {
				t.Errorf("a window of %d ms has tiles of %d ms", l, width)
			}
		}
	}
}
