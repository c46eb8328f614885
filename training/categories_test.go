package training

import (
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/millrace/millrace/project"
	"github.com/millrace/millrace/registry/model"
	"github.com/millrace/millrace/schemas"
)

// TestCategoriesOfTexts trains on the airport by its name: rows have its place in the list, a program is told the names and must keep their order, and the
// version carries them. A champion of another list is not compared.
func TestCategoriesOfTexts(t *testing.T) {
	w := newWorld(t, 12, 480)
	origins := map[string]string{}
	var names []string
	for _, f := range w.flights {
		origins[f.id] = f.origin
		if !slices.Contains(names, f.origin) {
			names = append(names, f.origin)
		}
	}
	names = names[1:] // one is not in the list
	in := project.Input{Name: "from", Output: -1, Column: w.model.On.Schema.Index("origin"), Categories: project.NewCategories(names)}
	w.model.Inputs = append(w.model.Inputs, in)
	d := w.build(t)
	missing := 0
	for i, key := range d.Keys {
		want, got := slices.Index(names, origins[key]), d.Columns[len(d.Columns)-1][i]
		if want < 0 && math.IsNaN(got) {
			missing++
		} else if got != float64(want) {
			t.Fatalf("%s from %s has the code %v, want %d", key, origins[key], got, want)
		}
	}
	if missing == 0 {
		t.Fatal("no airport is missing from the list")
	}

	w.project.Dir = t.TempDir()
	if err := os.WriteFile(filepath.Join(w.project.Dir, "trainer.conf"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	w.model.Gates = nil
	w.model.Train.Candidates = []project.Candidate{program("mine", "names"), program("other", "names reversed")}
	s, r := w.stage(t)
	q := w.request("r1")
	q.Until -= 4 * day
	event := mustTrain(t, s, q, schemas.ModelPromoted)
	signature := bundleOf(t, r, event.Digest).Signature
	if got := signature[len(signature)-1]; !slices.Equal(got.Categories, names) || got.Kind != "string" {
		t.Errorf("the version has %+v, want %v", got, names)
	}
	if failed := evaluationOf(t, r, event.Digest).Failed["other"]; !strings.Contains(failed, "in another order") {
		t.Errorf("a program that keeps another order: %q", failed)
	}

	w.model.Train.Candidates = []project.Candidate{{Name: project.CandidateGBDT}}
	w.model.Inputs[len(w.model.Inputs)-1].Categories = project.NewCategories(append(slices.Clone(names), "ZZZ"))
	event = mustTrain(t, s, w.request("r2"), schemas.ModelPromoted)
	if note := evaluationOf(t, r, event.Digest).Note; !strings.Contains(note, "other categories of from") {
		t.Errorf("the champion: %q", note)
	}
	m, err := bundleOf(t, r, event.Digest).Check()
	if err != nil {
		t.Fatal(err)
	}
	if text := string(m.(*model.Forest).LightGBM()); !strings.Contains(text, "cat_boundaries") {
		t.Error("the trees have no split by category")
	}
}
