package project

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/millrace/millrace/features/script"
)

func TestFlightsFeatureTests(t *testing.T) {
	results, err := Test(t.Context(), flightsFolder, Engine(nil))
	if err != nil || len(results) != 2 {
		t.Fatalf("%d results, %v", len(results), err)
	}
	for _, r := range results {
		if r.Err != nil {
			t.Errorf("%s:\n%v", r.File, r.Err)
		}
	}
}

// projectWithTests is a folder with the small project and these tests.
func projectWithTests(t *testing.T, tests map[string]string) *Project {
	t.Helper()
	return projectOf(t, smallProject, tests)
}

// projectOf is a folder with a project file and these tests.
func projectOf(t *testing.T, src string, tests map[string]string) *Project {
	t.Helper()
	dir := t.TempDir()
	if err := os.CopyFS(filepath.Join(dir, "schemas"), os.DirFS("testdata/schemas")); err != nil {
		t.Fatal(err)
	}
	files := map[string]string{FileName: src}
	for name, text := range tests {
		files[filepath.Join(TestFolder, name)] = text
	}
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	p, err := Load(dir)
	if err != nil {
		t.Fatalf("\n%v", err)
	}
	return p
}

const landed = `event arrivals {"flight_id":"f1","arrived":"2001-05-01T10:00:00Z","origin":"ATL","destination":"LAX","delay":20}` + "\n"

func TestFeatureTestsThatFail(t *testing.T) {
	p := projectWithTests(t, map[string]string{
		"a_right.txtar":  landed + "at 2001-05-01T10:01:00Z\nexpect flights f1 late_90s=20 place=\"LAX\"\nexpect airports ATL n=1 n_7d=1\n",
		"b_wrong.txtar":  landed + "at 2001-05-01T10:01:00Z\nexpect airports ATL n=2\nexpect airports LAX n=1\n",
		"c_source.txtar": "event nowhere {}\n",
		"d_record.txtar": strings.Replace(landed, `"delay":20`, `"delay":"20"`, 1),
		"e_group.txtar":  landed + "at 2001-05-01T10:01:00Z\nexpect nothing ATL n=2\n",
		"f_alone.txtar":  "at 2001-05-01T10:01:00Z\nexpect airports ATL n=not_found\n", // nothing is left of the tests before
		"notes.md":       "not a test",
	})
	results, err := Test(t.Context(), p.Dir, Engine(nil))
	if err != nil {
		t.Fatal(err)
	}
	want := []struct{ file, fault string }{
		{"a_right", ""}, {"b_wrong", "b_wrong.txtar:3: "}, {"c_source", "there is no such source"}, {"d_record", "delay"}, {"e_group", "there is no such feature group"}, {"f_alone", ""},
	}
	if len(results) != len(want) {
		t.Fatalf("results %+v", results)
	}
	for i, w := range want {
		r := results[i]
		if r.File != filepath.Join(TestFolder, w.file+".txtar") || (r.Err == nil) != (w.fault == "") || r.Err != nil && !strings.Contains(r.Err.Error(), w.fault) {
			t.Errorf("%s: %v, want %q", r.File, r.Err, w.fault)
		}
	}
	var failure *script.Failure
	if !errors.As(results[1].Err, &failure) || !strings.Contains(results[1].Err.Error(), "b_wrong.txtar:4: ") {
		t.Errorf("not every expectation that failed is told: %v", results[1].Err)
	}
}

func TestWithoutFeatureTests(t *testing.T) {
	if results, err := Test(t.Context(), projectWithTests(t, nil).Dir, Engine(nil)); err != nil || len(results) != 0 {
		t.Errorf("%v, %v", results, err)
	}
}

func TestFeatureTestsStop(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Test(ctx, flightsFolder, Engine(nil)); !errors.Is(err, context.Canceled) {
		t.Errorf("error is %v", err)
	}
}

func TestFilesThatCarryNoUsableProject(t *testing.T) {
	outside := filepath.Join(t.TempDir(), "outside.txtar")
	if err := os.WriteFile(outside, []byte("at 2001-05-01T10:01:00Z\n-- millrace.yaml --\n-- ../x --\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for file, want := range map[string]string{
		outside:                          "../x: is not a path within the project's folder",
		filepath.Join(outside, "gone"):   "reading a feature test",
		"testdata/schemas/arrival.avsc":  "the feature test carries no project",
		flightsFolder + "/millrace.yaml": "the feature test carries no project",
	} {
		if err := TestFile(t.Context(), file, Engine(nil)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", file, err, want)
		}
	}
}

// TestIsolated has nothing of an isolated project meet the project itself.
func TestIsolated(t *testing.T) {
	p := loadFlights(t)
	own := map[string]bool{}
	for _, topic := range p.Topology() {
		own[topic.Name] = true
	}
	isolated, err := LoadIsolated(flightsFolder, "_test_1")
	if err != nil {
		t.Fatal(err)
	}
	if isolated.Name != "flights_test_1" {
		t.Errorf("it is called %s", isolated.Name)
	}
	for _, topic := range isolated.Topology() {
		if own[topic.Name] || !strings.HasPrefix(topic.Name, "flights_test_1.") {
			t.Errorf("its topic %s is not its own", topic.Name)
		}
	}
	for i, g := range isolated.Groups {
		if g.Version != p.Groups[i].Version {
			t.Errorf("group %s has version %s, in the project %s: it would not be the same that is tested", g.Name, g.Version, p.Groups[i].Version)
		}
	}
}
