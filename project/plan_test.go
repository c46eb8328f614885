package project

import (
	"encoding/json"
	"fmt"
	"os"
	"reflect"
	"strings"
	"testing"
)

const planned = `project: plan
sources:
  arrivals:
    schema: schemas/arrival.avsc
    key: flight_id
    time: arrived
  departures: {schema: schemas/departure.avsc, key: flight_id, time: scheduled}
features:
  delays:
    source: arrivals
    entity: origin
    windows: [1h, 7d]
    features:
      n: count()
      delay: mean(delay)
models:
  late:
    on: departures
    inputs: [delays.*, distance]
    label: {source: arrivals, join: flight_id, value: delay > 15, within: 24h}
    gates: {auc: ">= 0.6"}
`

func changes(c Changes) string {
	var b strings.Builder
	for _, change := range c {
		mark := ""
		if change.Breaking {
			mark = " BREAKING"
		}
		fmt.Fprintf(&b, "%s %s %s: %s%s\n", change.Kind, change.Object, change.Name, change.What, mark)
		if change.Breaking != (change.Hint != "") {
			fmt.Fprintf(&b, "hint %q\n", change.Hint)
		}
	}
	return b.String()
}

func TestPlanOfNothingApplied(t *testing.T) {
	c := Plan(loadText(t, planned), State{})
	if c.Breaking() {
		t.Error("a first plan breaks somebody")
	}
	counts := map[string]int{}
	for _, change := range c {
		counts[change.Kind+" "+change.Object]++
	}
	want := map[string]int{"create topic": 9, "create source": 2, "create group": 1, "create model": 1}
	if !reflect.DeepEqual(counts, want) {
		t.Errorf("counts %v, want %v\n%s", counts, want, changes(c))
	}
	if text := changes(c); !strings.Contains(text, "re-keyed from flight_id through delays.keyed") {
		t.Errorf("nothing is said of re-keying:\n%s", text)
	}
}

func TestPlanOfWhatIsApplied(t *testing.T) {
	text, err := json.Marshal(loadText(t, planned).State())
	if err != nil {
		t.Fatal(err)
	}
	var previous State
	if err := json.Unmarshal(text, &previous); err != nil {
		t.Fatal(err)
	}
	if c := Plan(loadText(t, planned), previous); len(c) > 0 {
		t.Errorf("nothing changed, but:\n%s", changes(c))
	}
}

func TestPlanOfChanges(t *testing.T) {
	before := loadText(t, planned).State()
	all := func(old, new string) func(string) string {
		return func(s string) string {
			if !strings.Contains(s, old) {
				t.Fatalf("%q is not in the project", old)
			}
			return strings.ReplaceAll(s, old, new)
		}
	}
	for _, c := range []struct {
		name   string
		change func(string) string
		want   string
	}{
		{"comment", all("project: plan\n", "# hello\nproject: plan\n"), ""},
		{"name", all("project: plan", "project: other"), "update project other: the name was plan BREAKING\n"},
		{"feature added", all("      n: count()\n", "      n: count()\n      most: {aggregate: max(delay), windows: [1h]}\n"),
			"rebuild group delays: version NEW, was OLD: its state is computed again from the log\ncreate group delays: output most_1h, int\n" +
				"update model late: inputs with delays.most_1h by origin: a new model is trained; until it is promoted, the old one can answer only from inputs that are still there\n"},
		{"feature removed", func(s string) string { return all("delays.*", "delays.n_1h")(all("      delay: mean(delay)\n", "")(s)) },
			"rebuild group delays: version NEW, was OLD: its state is computed again from the log\nremove group delays: output delay_1h BREAKING\nremove group delays: output delay_7d BREAKING\n" +
				"update model late: inputs without delays.n_7d by origin, delays.delay_1h by origin, delays.delay_7d by origin: a new model is trained; until it is promoted, the old one can answer only from inputs that are still there\n"},
		{"feature of another kind", all("delay: mean(delay)", "delay: max(delay)"),
			"rebuild group delays: version NEW, was OLD: its state is computed again from the log\nupdate group delays: output delay_1h is int, was float BREAKING\nupdate group delays: output delay_7d is int, was float BREAKING\n"},
		{"entity", all("entity: origin", "entity: destination"),
			"rebuild group delays: version NEW, was OLD: its state is computed again from the log\nupdate group delays: entity destination, was origin BREAKING\n" +
				"update model late: inputs with delays.n_1h by destination, delays.n_7d by destination, delays.delay_1h by destination, delays.delay_7d by destination without delays.n_1h by origin, delays.n_7d by origin, delays.delay_1h by origin, delays.delay_7d by origin: a new model is trained; until it is promoted, the old one can answer only from inputs that are still there\n"},
		{"offline and flush", all("    entity: origin\n", "    entity: origin\n    offline: every_event\n    flush: 1s\n"),
			"update group delays: offline rows every event, were every 1h\nupdate group delays: flushed after 1s, was 10ms\n"},
		{"materialized", all("    entity: origin\n", "    entity: origin\n    materialize: true\n"),
			"rebuild group delays: version NEW, was OLD: its state is computed again from the log\nupdate group delays: its values are written as Redis hashes, too\n"},
		{"partitions of a source", all("    key: flight_id\n", "    key: flight_id\n    partitions: 16\n"),
			"update topic arrivals: 16 partitions, were 8; one that exists is taken as it is\nupdate topic delays.keyed: 16 partitions, were 8 BREAKING\n"},
		{"format", all("    key: flight_id\n", "    key: flight_id\n    format: json\n"), "update source arrivals: format json, was avro BREAKING\n"},
		{"lateness", all("    key: flight_id\n", "    key: flight_id\n    lateness: 1h\n"),
			"update source arrivals: lateness 1h, was 0s\nrebuild group delays: version NEW, was OLD: its state is computed again from the log\n"},
		{"topic of a source", all("    key: flight_id\n", "    key: flight_id\n    topic: landed\n"),
			"remove topic arrivals: is no longer read; it is not deleted\ncreate topic landed: 8 partitions, source arrivals; one that exists is taken as it is\nupdate source arrivals: from topic landed, was arrivals\n"},
		{"clock", all("project: plan", "project: plan\nclock: event"),
			"update topic dead-letters: kept for ever, was 30d; one that exists keeps its own setting\nupdate topic delays.keyed: kept for ever, was 7d; one that exists keeps its own setting\n" +
				"update topic drift: kept for ever, was 90d; one that exists keeps its own setting\nupdate topic predictions: kept for ever, was 30d; one that exists keeps its own setting\nupdate topic retrain: kept for ever, was 90d; one that exists keeps its own setting\nupdate topic shadows: kept for ever, was 30d; one that exists keeps its own setting\n"},
		{"label", all("delay > 15", "delay > 30"), "update model late: label delay > 30 of arrivals by flight_id within 24h, was delay > 15 of arrivals by flight_id within 24h BREAKING\n"},
		{"gates", all(`{auc: ">= 0.6"}`, `{brier: "< 0.2"}`), "update model late: gate brier < 0.2\nremove model late: gate auc >= 0.6\n"},
		{"model removed", func(s string) string { return s[:strings.Index(s, "models:")] }, "remove model late: is no longer served BREAKING\n"},
		{"group removed", func(s string) string {
			return all("inputs: [delays.*, distance]", "inputs: [distance]")(s[:strings.Index(s, "features:")] + s[strings.Index(s, "models:"):])
		},
			"remove topic delays.keyed: is no longer written; it is not deleted BREAKING\nremove group delays: 4 features are no longer computed BREAKING\n" +
				"update model late: inputs without delays.n_1h by origin, delays.n_7d by origin, delays.delay_1h by origin, delays.delay_7d by origin: a new model is trained; until it is promoted, the old one can answer only from inputs that are still there\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := loadText(t, c.change(planned))
			plan := Plan(p, before)
			got := changes(plan)
			if g := p.Group("delays"); g != nil {
				got = strings.ReplaceAll(strings.ReplaceAll(got, g.Version, "NEW"), before.Groups["delays"].Version, "OLD")
			}
			if got != c.want {
				t.Errorf("got\n%s\nwant\n%s", got, c.want)
			}
			if plan.Breaking() != strings.Contains(c.want, "BREAKING") {
				t.Errorf("Breaking() = %v", plan.Breaking())
			}
		})
	}
}

func TestPlanOfSchemaChanges(t *testing.T) {
	departure, err := os.ReadFile("testdata/schemas/departure.avsc")
	if err != nil {
		t.Fatal(err)
	}
	more := strings.Replace(string(departure), `{"name": "origin"`, `{"name": "airline", "type": "string", "default": "?"}, {"name": "origin"`, 1)
	for format, want := range map[string]string{
		"avro":      "update source departures: the schema does not read what was written before: schema: bare Avro records do not say what they were written with, and the schema is another BREAKING\n",
		"confluent": "update source departures: the schema changes, and reads what was written before\n",
	} {
		src := strings.ReplaceAll(planned, "departures: {", "departures: {format: "+format+", ")
		before := loadText(t, src).State()
		p, faults := load([]byte(src), func(name string) ([]byte, error) {
			if strings.HasSuffix(name, "departure.avsc") {
				return []byte(more), nil
			}
			return readTestdata(name)
		}, "")
		if len(faults) > 0 {
			t.Fatal(faults)
		}
		if got := changes(Plan(p, before)); got != want {
			t.Errorf("%s: got\n%s\nwant\n%s", format, got, want)
		}
	}
}
