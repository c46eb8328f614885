package script_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/rogpeppe/go-internal/txtar"

	"github.com/millrace/millrace/features"
	"github.com/millrace/millrace/features/script"
	"github.com/millrace/millrace/internal/failure"
	"github.com/millrace/millrace/schemas"
)

// oneGroup is a group on the pure engine, as the files group.yaml and schema.avsc of a script describe it.
type oneGroup struct {
	group    *features.Group
	decoder  schemas.Decoder
	time     int
	entities map[string]*features.Entity
	seq      int64
	now      int64
	letters  []script.DeadLetter
}

type groupFile struct {
	Name, Source, Where, Time string
	Entity, Windows           []string
	Lateness, TTL             string
	Features                  []struct {
		Name, Aggregate, Where string
		Windows                []string
		Default                *float64
	}
}

func open(t testing.TB, text []byte) *oneGroup {
	t.Helper()
	files := map[string][]byte{}
	for _, f := range txtar.Parse(text).Files {
		files[f.Name] = f.Data
	}
	var g groupFile
	if err := yaml.UnmarshalWithOptions(files["group.yaml"], &g, yaml.Strict()); err != nil {
		t.Fatal(err)
	}
	s, err := schemas.Parse(g.Source, files["schema.avsc"])
	if err != nil {
		t.Fatal(err)
	}
	d := features.Definition{Name: g.Name, Source: g.Source, Entity: g.Entity, Where: g.Where, Windows: g.Windows, Lateness: span(t, g.Lateness), TTL: span(t, g.TTL)}
	for _, f := range g.Features {
		d.Features = append(d.Features, features.FeatureDefinition{Name: f.Name, Aggregate: f.Aggregate, Where: f.Where, Windows: f.Windows, Default: f.Default})
	}
	o := &oneGroup{time: s.Index(g.Time), entities: map[string]*features.Entity{}}
	var faults []error
	if o.group, faults = features.Compile(d, s); faults != nil {
		t.Fatal(errors.Join(faults...))
	}
	if o.decoder, err = schemas.NewDecoder(s, schemas.JSON, nil); err != nil {
		t.Fatal(err)
	}
	return o
}

func span(t testing.TB, text string) time.Duration {
	t.Helper()
	if text == "" {
		return 0
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func (o *oneGroup) Apply(ctx context.Context, source string, record []byte) error {
	if source != o.group.Source {
		return fmt.Errorf("there is no source %q", source)
	}
	o.seq++
	row, err := o.decoder.Decode(ctx, record, nil)
	if err != nil {
		o.letters = append(o.letters, script.DeadLetter{Record: int(o.seq - 1), Class: schemas.ClassOf(err), Reason: err.Error()})
		return nil
	}
	key, err := o.group.Key(row)
	if err != nil {
		return err
	}
	if o.entities[key] == nil {
		o.entities[key] = o.group.NewEntity()
	}
	outcome, err := o.group.Add(o.entities[key], row, row[o.time].Int(), o.seq)
	if outcome == features.TooLate {
		o.letters = append(o.letters, script.DeadLetter{Record: int(o.seq - 1), Class: schemas.ClassLate, Reason: "too late"})
	}
	return err
}

func (o *oneGroup) SetClock(_ context.Context, at int64) error { o.now = at; return nil }

func (o *oneGroup) DeadLetters(context.Context) ([]script.DeadLetter, error) { return o.letters, nil }

func (o *oneGroup) Read(_ context.Context, _ string, entity map[string]string, at int64) (map[string]features.Result, error) {
	key, err := o.group.KeyOf(entity)
	if err != nil {
		return nil, err
	}
	results := map[string]features.Result{}
	for i, r := range o.group.Read(o.entities[key], at, nil) {
		results[o.group.Outputs[i].Name] = r
	}
	return results, nil
}

func (o *oneGroup) EntityColumns(group string) ([]string, error) {
	if group != o.group.Name {
		return nil, fmt.Errorf("there is no group %q", group)
	}
	return o.group.Definition.Entity, nil
}

const files = `
-- group.yaml --
name: visits
source: pages
entity: [user, page]
time: at
windows: [1h]
ttl: 2h
features:
  - {name: n, aggregate: count()}
  - {name: mean, aggregate: mean(seconds)}
  - {name: from, aggregate: last(referrer)}
  - {name: newest, aggregate: last(at)}
  - {name: long, aggregate: max(seconds > 10)}
-- schema.avsc --
{"type": "record", "name": "page", "fields": [
  {"name": "user", "type": "string"}, {"name": "page", "type": "string"},
  {"name": "at", "type": {"type": "long", "logicalType": "timestamp-millis"}},
  {"name": "seconds", "type": ["null", "double"]}, {"name": "referrer", "type": ["null", "string"]}]}
`

const events = `event pages {"user": "u 1", "page": "a,b", "at": "2001-01-01T00:00:00Z", "seconds": 12.5, "referrer": "a \"b\" = c"}
event pages {"user": "u 1", "page": "a,b", "at": "2001-01-01T00:10:00Z", "seconds": null, "referrer": null}
at 2001-01-01T00:20:00Z
`

const entity = `user="u 1",page="a,b"`

func TestExpectationsHold(t *testing.T) {
	text := []byte(events + "expect visits " + entity + ` n_1h=2 mean_1h=12.5 mean_1h=12.4~0.1 from_1h="a \"b\" = c" newest_1h=2001-01-01T00:10:00Z long_1h=true
expect visits user=u,page=p n_1h=not_found
at 2001-01-01T02:00:00Z
expect visits ` + entity + ` n_1h=0 mean_1h=null
at 2001-01-01T03:00:00Z
expect visits ` + entity + ` n_1h=expired
` + files)
	if err := script.Run(t.Context(), open(t, text), "s", text); err != nil {
		t.Error(err)
	}
}

func TestEveryExpectationThatDoesNotHoldIsNamed(t *testing.T) {
	wrong := []string{"n_1h=3", "n_1h=null", "mean_1h=12.6", "mean_1h=12.3~0.1", `from_1h="a"`, "from_1h=1", "newest_1h=2001-01-01T00:10:01Z", "newest_1h=1", "long_1h=false", "n_1h=true", "n_1h=expired"}
	text := []byte(events + "expect visits " + entity + " " + strings.Join(wrong, " ") + "\n" + "expect visits user=u,page=p n_1h=0\n" + files)
	err := script.Run(t.Context(), open(t, text), "s.txtar", text)
	if err == nil {
		t.Fatal("nothing failed")
	}
	lines := strings.Split(err.Error(), "\n")
	if len(lines) != len(wrong)+1 {
		t.Fatalf("%d expectations failed, want %d:\n%v", len(lines), len(wrong)+1, err)
	}
	for i, w := range wrong {
		if !strings.HasPrefix(lines[i], "s.txtar:4: visits "+entity+": got ") || !strings.HasSuffix(lines[i], ", want "+w) {
			t.Errorf("%s is reported as %s", w, lines[i])
		}
	}
	if want := "s.txtar:5: visits user=u,page=p: got not_found, want n_1h=0"; lines[len(wrong)] != want {
		t.Errorf("reported is %q, want %q", lines[len(wrong)], want)
	}
}

func TestLinesThatCannotBeRunEndTheScript(t *testing.T) {
	for line, want := range map[string]string{
		"evnt pages {}":                             `no command "evnt"`,
		"event pages":                               "an event is",
		"event page {}":                             `no source "page"`,
		"dead-letters late":                         "is not <class>=<count>",
		"dead-letters late=0":                       "is not <class>=<count>",
		"dead-letters late=1 late=1":                "each once",
		"at noon":                                   "no RFC 3339 time",
		"expect visits " + entity:                   "an expectation is",
		"expect visit " + entity + " n_1h=1":        `no group "visit"`,
		"expect visits u n_1h=1":                    "does not say which",
		"expect visits user=u n_1h=1":               "page: is missing",
		"expect visits " + entity + " n_1h":         "is not <output>=<value>",
		"expect visits " + entity + " n_2h=1":       `no output "n_2h" (did you mean "n_1h"?)`,
		"expect visits " + entity + " n_1h=many":    "is no number",
		"expect visits " + entity + ` from_1h="a`:   "not closed",
		"expect visits " + entity + ` from_1h="a"b`: "is no text",
	} {
		text := []byte(events + line + "\nexpect visits never run=1\n" + files)
		err := script.Run(t.Context(), open(t, text), "s", text)
		var failed *script.Failure
		if err == nil || !strings.Contains(err.Error(), want) || !errors.As(err, &failed) || failed.Line != 4 || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v, want %s", line, err, want)
		}
	}
	for _, text := range []string{"# nothing\n", "expect visits user=u,page=p n_1h=1\n"} {
		if err := script.Run(t.Context(), open(t, []byte(text+files)), "s", []byte(text+files)); err == nil {
			t.Errorf("%q passes", text)
		}
	}
	var bad *failure.Error
	if err := script.Run(t.Context(), open(t, []byte(files)), "s", []byte("at noon")); !errors.As(err, &bad) || bad.Kind != failure.BadProject {
		t.Errorf("%v is no fault of the project", err)
	}
}

func TestUpdateRewritesWhatDoesNotHold(t *testing.T) {
	before := []byte(events + "# kept\nexpect visits " + entity + " n_1h=7 mean_1h=12.4~0.2 from_1h=null long_1h=false\n" + files)
	want := events + "# kept\nexpect visits " + entity + ` n_1h=2 mean_1h=12.4~0.2 from_1h="a \"b\" = c" long_1h=true` + "\n"
	after, err := script.Update(t.Context(), open(t, before), "s", before)
	if err != nil || !strings.HasPrefix(string(after), want) {
		t.Fatalf("%v\n%s", err, after)
	}
	if err := script.Run(t.Context(), open(t, after), "s", after); err != nil {
		t.Error(err)
	}
	if got := txtar.Parse(after).Files; !slices.EqualFunc(got, txtar.Parse(before).Files, func(a, b txtar.File) bool { return a.Name == b.Name && string(a.Data) == string(b.Data) }) {
		t.Error("the files are not kept")
	}
}

const late = `event pages {"user": "u 1", "page": "a,b", "at": "2000-01-01T00:00:00Z", "seconds": null, "referrer": null}` + "\n"

func TestDeadLettersAreTold(t *testing.T) {
	for name, c := range map[string]struct{ lines, fault string }{
		"told":                   {"event pages {}\n" + late + late + "dead-letters late=2 missing=1\n", ""},
		"none":                   {"dead-letters\n", ""},
		"told step by step":      {"event pages {}\ndead-letters missing=1\n" + late + "dead-letters missing=1 late=1\n", ""},
		"too many":               {late + "dead-letters late=2\n", "s:5: dead letters: got late=1, want late=2"},
		"of another class":       {"event pages {}\ndead-letters late=1\n", "s:5: dead letters: got missing=1, want late=1"},
		"there are none":         {"dead-letters late=1\n", "s:4: dead letters: got none, want late=1"},
		"there are some":         {late + "dead-letters\n", "s:5: dead letters: got late=1, want none"},
		"never told":             {"event pages {}\nexpect visits " + entity + " n_1h=2\n", "s:4: the record is a dead letter (missing)"},
		"told before the second": {late + "dead-letters late=1\n" + late, "s:6: the record is a dead letter (late)"},
	} {
		text := []byte(events + c.lines + files)
		err := script.Run(t.Context(), open(t, text), "s", text)
		if (err == nil) != (c.fault == "") || err != nil && !strings.HasPrefix(err.Error(), c.fault) {
			t.Errorf("%s: %v, want %q", name, err, c.fault)
		}
	}
	before := []byte(events + late + "dead-letters range=3\n" + files)
	after, err := script.Update(t.Context(), open(t, before), "s", before)
	if err != nil || !strings.HasPrefix(string(after), events+late+"dead-letters late=1\n") {
		t.Errorf("%v\n%s", err, after)
	}
}
