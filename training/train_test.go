package training

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/millrace/millrace/features/offline"
	"github.com/millrace/millrace/features/profile"
	"github.com/millrace/millrace/internal/failure"
	"github.com/millrace/millrace/project"
	"github.com/millrace/millrace/registry"
	"github.com/millrace/millrace/registry/model"
	"github.com/millrace/millrace/schemas"
)

func (w *world) request(run string) Request {
	return Request{Run: run, Model: "late", Until: w.until(), Reason: "a test"}
}

func mustTrain(t *testing.T, s *Stage, q Request, kind string) schemas.ModelEvent {
	t.Helper()
	event, err := s.Train(t.Context(), q)
	if err != nil {
		t.Fatal(err)
	}
	if event.Kind != kind {
		t.Fatalf("event is %+v, want one of kind %s", event, kind)
	}
	return event
}

// artefact gives the one artefact of a kind that something was made of.
func artefact(t *testing.T, r *registry.Registry, of, role string) (string, registry.Manifest, []byte) {
	t.Helper()
	m, err := r.Manifest(of)
	if err != nil {
		t.Fatal(err)
	}
	digest, ok := m.Input(role)
	if !ok {
		t.Fatalf("%s has no %s", m.Kind, role)
	}
	got, b, err := r.Read(digest)
	if err != nil {
		t.Fatal(err)
	}
	return digest, got, b
}

func TestARunRegistersAndPromotes(t *testing.T) {
	w := newWorld(t, 12, 480)
	s, r := w.stage(t)
	event := mustTrain(t, s, w.request("r1"), schemas.ModelPromoted)
	if event.Version != 1 || event.Previous != "" || event.DataUntil != w.until() || event.ID != "late/r1" {
		t.Errorf("event %+v", event)
	}
	if d, n, err := r.Alias("late", registry.Champion); d != event.Digest || n != 1 || err != nil {
		t.Errorf("champion %s, version %d, %v", d, n, err)
	}
	auc, without := event.Metrics[project.MetricAUC], event.Metrics[metricAUC+withoutGroups]
	if auc < 0.6 || without > auc-0.03 {
		t.Errorf("area under the curve %.3f, and %.3f without the stream's features: they are made to tell of delays", auc, without)
	}

	_, b, err := r.Read(event.Digest)
	if err != nil {
		t.Fatal(err)
	}
	bundle, err := model.DecodeBundle(b)
	if err != nil {
		t.Fatal(err)
	}
	loaded, err := bundle.Check()
	if err != nil {
		t.Fatal(err)
	}
	if len(bundle.Golden) != Default().GoldenRows || bundle.Signature[0].Source != "origin_delays@"+w.project.Groups[0].Version+"/"+w.project.Groups[0].Outputs[0].Name {
		t.Errorf("%d golden rows, signature %+v", len(bundle.Golden), bundle.Signature[0])
	}

	dataset, manifest, content := artefact(t, r, event.Digest, roleDataset)
	data := readDataset(t, content)
	built := w.build(t)
	if !slices.Equal(data.Keys, built.Keys) || !slices.Equal(data.Labels, built.Labels) || manifest.Rows != int64(len(built.Keys)) {
		t.Errorf("the artefact has %d rows, the dataset %d", len(data.Keys), len(built.Keys))
	}
	// The metrics are those of the kept model on the kept rows.
	scores, labels := rescore(t, loaded, data, manifest)
	if got := pairs(scores, labels); math.Abs(got-auc) > 1e-9 {
		t.Errorf("the kept model reaches %v on the kept rows, the event says %v", got, auc)
	}
	_, _, text := artefact(t, r, event.Digest, roleMetrics)
	var kept map[string]float64
	if err := json.Unmarshal(text, &kept); err != nil || kept[project.MetricAUC] != auc || kept[project.MetricRows] != float64(len(labels)) {
		t.Errorf("metrics %s, %v", text, err)
	}
	_, _, text = artefact(t, r, event.Digest, roleBaseline)
	baseline, err := profile.Decode(text)
	if err != nil || baseline.Rows != int64(len(data.Keys)-len(labels)) || baseline.Score == nil || math.Abs(baseline.Performance.AUC-auc) > 1e-9 {
		t.Errorf("baseline %.200s, %v", text, err)
	}
	checkSimpler(t, r, event, data, manifest)
	checkLineage(t, r, event.Digest, dataset)
}

// checkSimpler holds the model that is kept beside the champion to the number that the event gives for it.
func checkSimpler(t *testing.T, r *registry.Registry, event schemas.ModelEvent, data *offline.Dataset, manifest registry.Manifest) {
	t.Helper()
	_, _, content := artefact(t, r, event.Digest, registry.RoleSimpler)
	bundle, err := model.DecodeBundle(content)
	if err != nil {
		t.Fatal(err)
	}
	loaded, err := bundle.Check()
	if err != nil {
		t.Fatal(err)
	}
	own := *data
	own.Columns = nil
	for _, name := range loaded.Inputs() {
		if strings.Contains(name, ".") {
			t.Errorf("the simpler model reads %s", name)
		}
		own.Columns = append(own.Columns, data.Columns[slices.Index(data.Names, name)])
	}
	if got := pairs(rescore(t, loaded, &own, manifest)); math.Abs(got-event.Metrics[metricAUC+withoutGroups]) > 1e-9 {
		t.Errorf("the simpler model reaches %v, the event says %v", got, event.Metrics[metricAUC+withoutGroups])
	}
}

func checkLineage(t *testing.T, r *registry.Registry, digest, dataset string) {
	t.Helper()
	ups, downs, err := r.Lineage(digest)
	if err != nil {
		t.Fatal(err)
	}
	kinds := map[string]bool{}
	var walk func(n *registry.Node)
	walk = func(n *registry.Node) {
		kinds[n.Manifest.Kind] = true
		for _, c := range n.Next {
			walk(c)
		}
	}
	walk(ups)
	if len(kinds) != 5 || len(downs.Next) != 1 || downs.Next[0].Manifest.Kind != registry.KindEvaluation {
		t.Errorf("the model is made of %v, and has led to %+v", kinds, downs.Next)
	}
	if _, downs, err = r.Lineage(dataset); err != nil || len(downs.Next) != 5 {
		t.Errorf("the dataset has led to %d artefacts, %v", len(downs.Next), err)
	}
}

func readDataset(t *testing.T, content []byte) *offline.Dataset {
	t.Helper()
	path := filepath.Join(t.TempDir(), "dataset.arrow")
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	data, err := offline.ReadDataset(path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// rescore scores the held-out rows of a dataset artefact.
func rescore(t *testing.T, m model.Model, data *offline.Dataset, manifest registry.Manifest) (scores, labels []float64) {
	t.Helper()
	from, err := time.Parse(time.RFC3339, manifest.Annotations["holdout_from"])
	if err != nil {
		t.Fatal(err)
	}
	for i := range data.Times {
		if data.Times[i] < from.UnixMilli() {
			continue
		}
		row := make([]float64, len(data.Columns))
		for c := range row {
			row[c] = data.Columns[c][i]
		}
		scores, labels = append(scores, m.Predict(row)), append(labels, data.Labels[i])
	}
	return scores, labels
}

func TestARepeatedRunGivesTheSameDigests(t *testing.T) {
	w := newWorld(t, 12, 480)
	first, here := w.stage(t)
	second, there := w.stage(t)
	a := mustTrain(t, first, w.request("r1"), schemas.ModelPromoted)
	b := mustTrain(t, second, w.request("another"), schemas.ModelPromoted)
	if digests(t, here) != digests(t, there) {
		t.Errorf("two runs made\n%s\nand\n%s", digests(t, here), digests(t, there))
	}
	if !reflect.DeepEqual(a.Metrics, b.Metrics) {
		t.Errorf("metrics %v and %v", a.Metrics, b.Metrics)
	}
	// Again, with itself as champion: the model is the same, and no new version.
	c := mustTrain(t, first, w.request("r2"), schemas.ModelPromoted)
	if c.Digest != a.Digest || c.Version != 1 || c.Metrics[project.MetricVersusChampion] != 0 {
		t.Errorf("the same data made %+v after %+v", c, a)
	}
	// Other data make another. It is not compared: the champion was trained on what is held out of it.
	q := w.request("r3")
	q.Until -= 5 * day
	if d := mustTrain(t, first, q, schemas.ModelRefused); d.Digest == a.Digest || d.Version != 2 || !strings.Contains(d.Reason, "the champion was trained on rows up to") {
		t.Errorf("other data made the same model: %+v", d)
	}
}

func digests(t *testing.T, r *registry.Registry) string {
	t.Helper()
	all, err := r.Artefacts("")
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for _, a := range all {
		lines = append(lines, a.Kind+" "+a.Digest)
	}
	return strings.Join(lines, "\n")
}

func TestARefusalNamesTheGateAndTheNumber(t *testing.T) {
	w := newWorld(t, 12, 480)
	w.model.Gates = append(w.model.Gates, project.Gate{Metric: project.MetricAUC, Op: ">=", Bound: 0.999})
	s, r := w.stage(t)
	event := mustTrain(t, s, w.request("r1"), schemas.ModelRefused)
	want := fmt.Sprintf("gate auc >= 0.999: %.4f", event.Metrics[project.MetricAUC])
	if event.Reason != want || event.Version != 1 || event.Digest == "" {
		t.Errorf("event %+v, want the reason %q and the refused model", event, want)
	}
	if _, _, err := r.Alias("late", registry.Champion); failure.Of(err) != failure.NotFound {
		t.Errorf("a refused model is champion: %v", err)
	}
	if all, err := r.Artefacts(registry.KindEvaluation); err != nil || len(all) != 1 {
		t.Errorf("%d evaluations, %v", len(all), err)
	} else if _, b, err := r.Read(all[0].Digest); err != nil || !bytes.Contains(b, []byte(`"gate": "auc >= 0.999"`)) {
		t.Errorf("evaluation %s, %v", b, err)
	}
}

// modelOf is the model of an artefact.
func modelOf(t *testing.T, r *registry.Registry, digest string) model.Model {
	t.Helper()
	_, b, err := r.Read(digest)
	if err != nil {
		t.Fatal(err)
	}
	bundle, err := model.DecodeBundle(b)
	if err != nil {
		t.Fatal(err)
	}
	m, err := bundle.Check()
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestTheChampionIsMeasuredOnTheSameRows(t *testing.T) {
	w := newWorld(t, 12, 480)
	s, r := w.stage(t)
	q := w.request("r1")
	q.Until -= 2 * day
	old := mustTrain(t, s, q, schemas.ModelPromoted)
	w.model.Gates = []project.Gate{{Metric: project.MetricVersusChampion, Op: ">=", Bound: 0.5}}
	event := mustTrain(t, s, w.request("r2"), schemas.ModelRefused)

	champion := modelOf(t, r, old.Digest)
	_, manifest, content := artefact(t, r, event.Digest, roleDataset)
	scores, labels := rescore(t, champion, readDataset(t, content), manifest)
	want := event.Metrics[project.MetricAUC] - pairs(scores, labels)
	if got := event.Metrics[project.MetricVersusChampion]; math.Abs(got-want) > 1e-9 || got == 0 {
		t.Errorf("versus_champion is %v, want %v", got, want)
	}
	if event.Previous != old.Digest || !strings.HasPrefix(event.Reason, "gate versus_champion >= 0.5: ") {
		t.Errorf("event %+v", event)
	}
}

func TestAChampionOfOtherInputsKeepsTheGateShut(t *testing.T) {
	w := newWorld(t, 12, 480)
	s, _ := w.stage(t)
	mustTrain(t, s, w.request("r1"), schemas.ModelPromoted)
	w.model.Inputs = w.model.Inputs[1:]
	event := mustTrain(t, s, w.request("r2"), schemas.ModelRefused)
	if !strings.Contains(event.Reason, "versus_champion") || !strings.Contains(event.Reason, "the champion reads origin_delays.flights_1h") {
		t.Errorf("reason %q", event.Reason)
	}
	w.model.Gates = w.model.Gates[:1] // who does not ask for the comparison does not need it
	mustTrain(t, s, w.request("r3"), schemas.ModelPromoted)
}

func TestARunIsRunOnce(t *testing.T) {
	w := newWorld(t, 12, 480)
	s, r := w.stage(t)
	a := mustTrain(t, s, w.request("r1"), schemas.ModelPromoted)
	before, err := r.History("late")
	if err != nil {
		t.Fatal(err)
	}
	b := mustTrain(t, s, w.request("r1"), schemas.ModelPromoted)
	after, err := r.History("late")
	if err != nil || len(after) != len(before) || !reflect.DeepEqual(a, b) {
		t.Errorf("history of %d entries, then %d; events %+v and %+v; %v", len(before), len(after), a, b, err)
	}
}

func TestAnOutdatedRequestIsRefused(t *testing.T) {
	w := newWorld(t, 12, 480)
	s, _ := w.stage(t)
	event := mustTrain(t, s, w.request("r1"), schemas.ModelPromoted)
	q := w.request("r2")
	q.Replaces = "sha256:something else"
	if refused := mustTrain(t, s, q, schemas.ModelRefused); refused.Previous != event.Digest || !strings.Contains(refused.Reason, "not the champion any more") {
		t.Errorf("event %+v", refused)
	}
}

func TestTooFewRowsAreRefused(t *testing.T) {
	w := newWorld(t, 12, 480)
	s, _ := w.stage(t)
	q := w.request("r1")
	q.Until = start + 4*day
	if event := mustTrain(t, s, q, schemas.ModelRefused); !strings.Contains(event.Reason, "training rows: there are 0, fewer than MinRows = 100") {
		t.Errorf("reason %q", event.Reason)
	}
	w.dir = t.TempDir()
	s, _ = w.stage(t)
	if event := mustTrain(t, s, w.request("r1"), schemas.ModelRefused); !strings.Contains(event.Reason, "there are no events yet") {
		t.Errorf("reason %q", event.Reason)
	}
}

// A champion that moves while its successor is judged, by whatever other replica or person, is not overwritten unseen.
func TestAChampionThatMovesMeanwhileIsJudgedAnew(t *testing.T) {
	w := newWorld(t, 12, 480)
	w.model.Gates = nil
	var r *registry.Registry
	var other string
	moved := false
	s, r := w.stage(t, func(_ *Config, d *Deps) {
		d.Progress = func(stage string, done, total int64) {
			if stage != "registering" || done != total || other == "" || moved {
				return
			}
			moved = true
			now, _, err := r.Alias("late", registry.Champion)
			if err == nil {
				err = r.SetAlias(t.Context(), "late", registry.Champion, other, now, "by hand")
			}
			if err != nil {
				t.Error(err)
			}
		}
	})
	q := w.request("r1")
	q.Until -= day
	other = mustTrain(t, s, q, schemas.ModelPromoted).Digest
	moved = true
	q = w.request("r2")
	q.Until -= day / 2
	middle := mustTrain(t, s, q, schemas.ModelPromoted).Digest
	moved = false
	event := mustTrain(t, s, w.request("r3"), schemas.ModelPromoted)
	if !moved || middle == other || event.Previous != other {
		t.Errorf("the champion was moved to %s, the event says it was %s", other, event.Previous)
	}
}

// The champion may also move between the look at it and the conclusion.
func TestAConclusionOnAnOldChampionIsTakenBack(t *testing.T) {
	w := newWorld(t, 12, 480)
	s, r := w.stage(t)
	a := mustTrain(t, s, w.request("r1"), schemas.ModelPromoted)
	event := a
	_, err := s.conclude(t.Context(), event, registry.Conclusion{Run: "r2", Digest: a.Digest, Alias: registry.Champion, Expected: ""})
	if !errors.Is(err, errMoved) {
		t.Errorf("error is %v, want %v", err, errMoved)
	}
	if _, ok, err := r.Concluded("late", "r2"); ok || err != nil {
		t.Errorf("the run is concluded: %v, %v", ok, err)
	}
}

func TestACandidateThatCannotBeFittedIsLeftOut(t *testing.T) {
	w := newWorld(t, 12, 480)
	s, r := w.stage(t)
	s.fitters[project.CandidateLogistic] = func(context.Context, Config, fitting) (model.Model, error) {
		return nil, failure.New(failure.Refused, "logistic", "it does not converge")
	}
	mustTrain(t, s, w.request("r1"), schemas.ModelPromoted)
	all, err := r.Artefacts(registry.KindEvaluation)
	if err != nil || len(all) != 1 {
		t.Fatalf("%d evaluations, %v", len(all), err)
	}
	if _, b, err := r.Read(all[0].Digest); err != nil || !bytes.Contains(b, []byte("it does not converge")) {
		t.Errorf("evaluation %s, %v", b, err)
	}
	w.model.Train.Candidates = w.model.Train.Candidates[:1]
	if event := mustTrain(t, s, w.request("r2"), schemas.ModelRefused); !strings.Contains(event.Reason, "no candidate could be fitted") {
		t.Errorf("reason %q", event.Reason)
	}
}

func TestUnknownModel(t *testing.T) {
	w := newWorld(t, 9, 96)
	s, _ := w.stage(t)
	_, err := s.Train(t.Context(), Request{Run: "r", Model: "none"})
	if failure.Of(err) != failure.NotFound {
		t.Errorf("error is %v", err)
	}
}

func TestConfigTellsEveryFault(t *testing.T) {
	if err := Default().Validate(); err != nil {
		t.Error(err)
	}
	err := Config{}.Validate()
	if err == nil {
		t.Fatal("an empty configuration is valid")
	}
	fields := reflect.TypeFor[Config]()
	for i := range fields.NumField() {
		name := fields.Field(i).Name
		if name != "Code" && name != "IgnoreFirst" && !strings.Contains(err.Error(), name+" is") && !strings.Contains(err.Error(), "settings of "+name) {
			t.Errorf("the fault of %s is not told", name)
		}
	}
}
