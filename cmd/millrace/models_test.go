package main

import (
	"bytes"
	"context"
	"encoding/csv"
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace/millrace/internal/failure"
	"github.com/millrace/millrace/project"
	"github.com/millrace/millrace/registry"
	"github.com/millrace/millrace/registry/model"
	"github.com/millrace/millrace/registry/model/onnx"
	"github.com/millrace/millrace/schemas"
	"github.com/millrace/millrace/streams"
	"github.com/millrace/millrace/streams/broker"
	"github.com/millrace/millrace/training"
)

// shelf is a data folder with three versions of the model late, made of the example's inputs.
type shelf struct {
	t       *testing.T
	dir     string
	digests []string // of versions 1, 2, 3
}

func newShelf(t *testing.T) *shelf {
	s := &shelf{t: t, dir: t.TempDir()}
	for i, weight := range []float64{0.01, 0.02, 0.03} {
		s.digests = append(s.digests, s.add(weight, []string{"distance", "hour", "origin_delays.delay_mean_1h"}[:2+i%2]))
	}
	return s
}

func (s *shelf) registry() *registry.Registry {
	s.t.Helper()
	r, err := openRegistry(s.dir)
	if err != nil {
		s.t.Fatal(err)
	}
	return r
}

// add registers a version whose logistic model gives each input the same weight.
func (s *shelf) add(weight float64, inputs []string) string {
	s.t.Helper()
	p, err := project.Load(flightsProject)
	if err != nil {
		s.t.Fatal(err)
	}
	var terms []model.LogisticInput
	var signature []model.SignatureInput
	for _, name := range inputs {
		terms = append(terms, model.LogisticInput{Name: name, Weight: weight, Scale: 1})
		for _, in := range training.Signature(p.Models[0]) {
			if in.Name == name {
				signature = append(signature, in)
			}
		}
	}
	m, err := model.NewLogistic(-1, terms)
	if err != nil {
		s.t.Fatal(err)
	}
	golden := [][]float64{make([]float64, len(inputs)), make([]float64, len(inputs))}
	for i := range inputs {
		golden[0][i], golden[1][i] = 1/float64(3*i+3), math.NaN()
	}
	bundle, err := model.NewBundle(signature, m, golden)
	if err != nil {
		s.t.Fatal(err)
	}
	content, err := bundle.Encode()
	if err != nil {
		s.t.Fatal(err)
	}
	put := func(m registry.Manifest, content []byte) string {
		digest, err := s.registry().Put(s.t.Context(), m, bytes.NewReader(content))
		if err != nil {
			s.t.Fatal(err)
		}
		return digest
	}
	metrics, err := json.Marshal(map[string]float64{"auc": 0.6 + weight})
	if err != nil {
		s.t.Fatal(err)
	}
	rows := int64(weight * 100_000)
	dataset := put(registry.Manifest{Kind: registry.KindDataset, Name: "late", Rows: rows, Annotations: map[string]string{"train_until": "2001-05-2" + string('0'+byte(weight*100))}}, []byte("rows"))
	measured := put(registry.Manifest{Kind: registry.KindMetrics, Name: "late", Inputs: []registry.Ref{{Role: "dataset", Digest: dataset}}}, metrics)
	digest := put(registry.Manifest{
		Kind: registry.KindModel, Name: "late", MediaType: model.MediaBundle, Rows: rows,
		Inputs:      []registry.Ref{{Role: "dataset", Digest: dataset}, {Role: "metrics", Digest: measured}},
		Annotations: map[string]string{"candidate": "logistic", "data_until": "2001-06-01T00:00:00Z"},
	}, content)
	gates := `{"gates":[{"gate":"auc >= 0.615","passed":` + map[bool]string{true: "true", false: "false"}[0.6+weight >= 0.615] + `}]}`
	evaluated := []registry.Ref{{Role: "model", Digest: digest}}
	if n := len(s.digests); n > 0 { // beside the version before
		evaluated = append(evaluated, registry.Ref{Role: registry.RoleChampion, Digest: s.digests[n-1]})
	}
	put(registry.Manifest{Kind: registry.KindEvaluation, Name: "late", Inputs: evaluated}, []byte(gates))
	if _, err := s.registry().AddVersion("late", digest); err != nil {
		s.t.Fatal(err)
	}
	return digest
}

// inputs are the names of the example's model's.
func (s *shelf) inputs() []string {
	s.t.Helper()
	p, err := project.Load(flightsProject)
	if err != nil {
		s.t.Fatal(err)
	}
	var names []string
	for _, in := range p.Models[0].Inputs {
		names = append(names, in.Name)
	}
	return names
}

// models runs a verb on the shelf.
func (s *shelf) models(args ...string) (stdout, stderr string, status int) {
	s.t.Helper()
	return millrace(s.t, append(append([]string{"models"}, args...), "--project", flightsProject, "--data-dir", s.dir)...)
}

func (s *shelf) must(args ...string) string {
	s.t.Helper()
	out, errs, status := s.models(args...)
	if status != 0 {
		s.t.Fatalf("%v: status %d: %s", args, status, errs)
	}
	return out
}

func (s *shelf) refused(kind failure.Kind, says string, args ...string) {
	s.t.Helper()
	if _, errs, status := s.models(args...); status != kind.ExitCode() || !strings.Contains(errs, says) {
		s.t.Errorf("%v: status %d, want %d with %q: %s", args, status, kind.ExitCode(), says, errs)
	}
}

func (s *shelf) champion() int {
	s.t.Helper()
	_, n, err := s.registry().Alias("late", registry.Champion)
	if err != nil {
		s.t.Fatal(err)
	}
	return n
}

func TestPromoteAndRollBack(t *testing.T) {
	s := newShelf(t)
	s.refused(failure.NotFound, "it has late", "show", "lat@1")
	s.refused(failure.NotFound, "it has 1 to 3", "promote", "late@4")
	s.refused(failure.NotFound, "no champion", "promote", "late")
	for _, v := range []string{"late@1", "late@2", "late@3"} {
		s.must("promote", v, "--reason", "it is "+v)
	}
	s.must("promote", "late@1", "--alias", "challenger")
	s.refused(failure.Conflict, "look again", "promote", "late@2", "--expect", "1")
	s.refused(failure.Conflict, "look again", "promote", "late@2", "--alias", "shadow", "--expect", "1")
	if n := s.champion(); n != 3 {
		t.Errorf("a refused move made the champion %d", n)
	}
	for _, want := range []int{2, 1} {
		s.must("rollback", "late", "--reason", "worse")
		if n := s.champion(); n != want {
			t.Errorf("rolled back to %d, want %d", n, want)
		}
	}
	s.refused(failure.NotFound, "no predecessor", "rollback", "late")
	out := s.must("list")
	for _, want := range []string{"late   1        challenger, champion", s.digests[2]} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
	out = s.must("late") // as before there were verbs
	for _, want := range []string{"rolled_back", "it is late@3", "worse", actor()} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
}

// A version that does not give its golden rows their scores cannot become champion.
func TestPromoteChecksGoldenRows(t *testing.T) {
	s := newShelf(t)
	r := s.registry()
	manifest, content, err := r.Read(s.digests[0])
	if err != nil {
		t.Fatal(err)
	}
	spoiled := bytes.Replace(content, []byte("0.01"), []byte("0.05"), 1)
	if bytes.Equal(spoiled, content) {
		t.Fatal("nothing was spoiled")
	}
	manifest.Content, manifest.Size = "", 0
	digest, err := r.Put(t.Context(), manifest, bytes.NewReader(spoiled))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.AddVersion("late", digest); err != nil {
		t.Fatal(err)
	}
	s.refused(failure.Corrupt, "golden rows", "promote", "late@4")
}

// The models topic hears of a move by hand: at once with Kafka given, else from whoever publishes what was not.
func TestAMoveByHandIsPublished(t *testing.T) {
	s := newShelf(t)
	b, err := broker.Start(t.TempDir(), 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Close)
	cfg := streams.Config{Brokers: []string{b.Addr()}, Compression: "none"}
	client, err := streams.NewClient(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	p, err := project.Load(flightsProject)
	if err != nil {
		t.Fatal(err)
	}
	if err := streams.EnsureTopics(t.Context(), client, p.Topology()); err != nil {
		t.Fatal(err)
	}
	s.must("promote", "late@1", "--reason", "unheard")
	if left, err := s.registry().Unpublished("late"); err != nil || len(left) != 1 {
		t.Errorf("unpublished are %+v, %v", left, err)
	}
	s.must("promote", "late@2", "--kafka", b.Addr(), "--reason", "better")
	s.must("rollback", "late", "--kafka", b.Addr(), "--reason", "worse")
	if left, err := s.registry().Unpublished("late"); err != nil || len(left) != 1 {
		t.Errorf("unpublished are %+v, %v", left, err)
	}
	var events []schemas.ModelEvent
	_, err = streams.Read(context.Background(), cfg, streams.ReadOptions{Topic: p.Own().Models.Name}, func(r *kgo.Record) error {
		e, err := schemas.UnmarshalModelEvent(r.Value)
		events = append(events, e)
		return err
	})
	if err != nil || len(events) != 2 {
		t.Fatalf("events %+v, %v", events, err)
	}
	if e := events[0]; e.Kind != schemas.ModelPromoted || e.Version != 2 || e.Previous != s.digests[0] || e.Reason != "better" || math.Abs(e.Metrics["auc"]-0.62) > 1e-12 || e.DataUntil == 0 {
		t.Errorf("promoted: %+v", e)
	}
	if e := events[1]; e.Kind != schemas.ModelRolledBack || e.Version != 1 || e.Digest != s.digests[0] || e.Previous != s.digests[1] {
		t.Errorf("rolled back: %+v", e)
	}
}

func TestDiff(t *testing.T) {
	s := newShelf(t)
	var found []difference
	dec := json.NewDecoder(strings.NewReader(s.must("diff", "late@1", "late@2", "--json")))
	for dec.More() {
		var d difference
		if err := dec.Decode(&d); err != nil {
			t.Fatal(err)
		}
		if d.What == "input" { // what it means is the project's business
			d.B = "a meaning"
		}
		found = append(found, d)
	}
	want := []difference{
		{"digest", "", s.digests[0], s.digests[1]}, {"training rows", "", "1000", "2000"},
		{"input", "origin_delays.delay_mean_1h", "", "a meaning"}, {"metric", "auc", "0.61", "0.62"},
		{"gate", "auc >= 0.615", "not passed", "passed"}, {"parameter", "dataset.train_until", "2001-05-21", "2001-05-22"},
	}
	if len(found) != len(want) {
		t.Fatalf("found %+v", found)
	}
	for i := range want {
		if found[i] != want[i] {
			t.Errorf("difference %d is %+v, want %+v", i, found[i], want[i])
		}
	}
	if out := s.must("diff", "late@1", "late@1"); !strings.Contains(out, "do not differ") {
		t.Error(out)
	}
	if out := s.must("diff", "late@1", "late@2"); !strings.Contains(out, "+0.01") {
		t.Error(out)
	}
	out := s.must("show", "late@2")
	for _, want := range []string{"training rows  2000", "passed: auc >= 0.615", "auc 0.62", "dataset.train_until = 2001-05-22"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
}

func TestExport(t *testing.T) {
	s := newShelf(t)
	file, golden := filepath.Join(t.TempDir(), "late.json"), filepath.Join(t.TempDir(), "golden.csv")
	s.must("export", "late@3", "--out", file, "--golden", golden)
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	m, err := model.LoadLogistic(b)
	if err != nil {
		t.Fatal(err)
	}
	rows, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(string(rows)), "\n")
	if len(lines) != 3 || lines[0] != "distance,hour,score" || !strings.HasPrefix(lines[1], "0.3333333333333333,0.16666666666666666,") || !strings.HasPrefix(lines[2], ",,") {
		t.Errorf("golden rows are\n%s", rows)
	}
	if got := m.Predict([]float64{1. / 3, 1. / 6}); math.Abs(got-1/(1+math.Exp(1-0.03*0.5))) > 1e-12 {
		t.Errorf("the exported model scores %v", got)
	}
}

// A version that is pushed to a folder and pulled into an empty registry is the same, down to its lineage, and is nobody's champion.
func TestPushAndPull(t *testing.T) {
	s := newShelf(t)
	stick := "oci:" + filepath.Join(t.TempDir(), "stick")
	s.must("push", "late@2", stick)
	edge := &shelf{t: t, dir: t.TempDir()}
	edge.refused(failure.BadRequest, "no tag", "pull", stick)
	if out := edge.must("pull", stick+":late-2"); out != "late@1 "+s.digests[1]+"\n" {
		t.Error(out)
	}
	edge.refused(failure.NotFound, "no champion", "show", "late")
	lineage := func(of *shelf, digest string) string {
		out, errs, status := millrace(t, "lineage", digest, "--data-dir", of.dir)
		if status != 0 {
			t.Fatal(errs)
		}
		made, _, _ := strings.Cut(out, "used in")
		return made
	}
	if here, there := lineage(s, "late@2"), lineage(edge, "late@1"); here != there || !strings.Contains(here, "dataset") {
		t.Errorf("lineage was\n%s\nand is\n%s", here, there)
	}
	edge.must("promote", "late@1", "--reason", "it came on a stick")
	if out := edge.must("show", "late"); !strings.Contains(out, "auc 0.62") || !strings.Contains(out, "passed: auc >= 0.615") {
		t.Error(out)
	}
	// The champion that it was compared with did not come along: what is known of it is its digest.
	evaluations, err := edge.registry().Artefacts(registry.KindEvaluation)
	if err != nil || len(evaluations) != 1 {
		t.Fatalf("%v, %v", evaluations, err)
	}
	if out, errs, status := millrace(t, "lineage", evaluations[0].Digest, "--data-dir", edge.dir); status != 0 || !strings.Contains(out, s.digests[0]) {
		t.Errorf("%s%s", out, errs)
	}
}

// Golden rows of a model with classes are exported with the highest score of each.
func TestGoldenOfClasses(t *testing.T) {
	encoded, err := os.ReadFile(filepath.Join("..", "..", "registry", "model", "testdata", "zoo", "lightgbm-4.6-classes.txt"))
	if err != nil {
		t.Fatal(err)
	}
	m, err := model.LoadLightGBM(encoded)
	if err != nil {
		t.Fatal(err)
	}
	var signature []model.SignatureInput
	for _, name := range m.Inputs() {
		signature = append(signature, model.SignatureInput{Name: name})
	}
	rows := [][]float64{{0, 1, 2, 3, 4, 5, 1}, {1, 0, 0, 1, 0.5, 7, 2}, {-1, math.NaN(), 3, 0, 9, 1, 0}}
	bundle, err := model.PackBundle(signature, model.MediaLightGBM, encoded, nil, rows)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := writeGolden(&out, bundle); err != nil {
		t.Fatal(err)
	}
	records, err := csv.NewReader(&out).ReadAll()
	if err != nil || len(records) != len(rows)+1 {
		t.Fatalf("%d records, %v", len(records), err)
	}
	for i, row := range rows {
		if got, want := records[i+1][len(row)], strconv.FormatFloat(m.Predict(row), 'g', -1, 64); got != want {
			t.Errorf("row %d has the score %s, want %s", i, got, want)
		}
	}
}

// What another project trained for another task under the name of a model of ours is refused when it is pulled, and no version; without a project, and
// where the project is for that task, it is one.
func TestPullOfAnotherTask(t *testing.T) {
	counts, err := model.NewForest(model.ForestSpec{Objective: model.Poisson, Inputs: []string{"distance"}, Trees: []model.Tree{{Leaves: []model.Leaf{{Value: 0.5, Rows: 10}}}}})
	if err != nil {
		t.Fatal(err)
	}
	bundle, err := model.NewBundle([]model.SignatureInput{{Name: "distance"}}, counts, [][]float64{{1}})
	if err != nil {
		t.Fatal(err)
	}
	content, err := bundle.Encode()
	if err != nil {
		t.Fatal(err)
	}
	from := &shelf{t: t, dir: t.TempDir()}
	digest, err := from.registry().Put(t.Context(), registry.Manifest{Kind: registry.KindModel, Name: "late", MediaType: model.MediaBundle}, bytes.NewReader(content))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := from.registry().AddVersion("late", digest); err != nil {
		t.Fatal(err)
	}
	stick := "oci:" + filepath.Join(t.TempDir(), "stick")
	from.must("push", "late@1", stick)
	to := &shelf{t: t, dir: t.TempDir()}
	to.refused(failure.Refused, "is a model for poisson, and the project declares binary for late", "pull", stick+":late-1")
	if versions, err := to.registry().Versions("late"); err != nil || len(versions) > 0 {
		t.Errorf("versions %+v, %v", versions, err)
	}
	broken := t.TempDir()
	if err := os.WriteFile(filepath.Join(broken, project.FileName), []byte("project: x\nmodls: {}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for folder, want := range map[string]int{broken: failure.BadProject.ExitCode(), t.TempDir(): 0} {
		if out, errs, status := millrace(t, "models", "pull", stick+":late-1", "--project", folder, "--data-dir", to.dir); status != want {
			t.Errorf("%s: status %d, want %d: %s%s", folder, status, want, out, errs)
		}
	}
}

// A file that only numbers its columns is imported under the names that the command line has: a forest, and ONNX by a build that scores it.
func TestImportNumbered(t *testing.T) {
	s := newShelf(t)
	dir := t.TempDir()
	file, golden := filepath.Join(dir, "model.txt"), filepath.Join(dir, "golden.csv")
	forest, err := model.NewForest(model.ForestSpec{Objective: model.Binary, Sigmoid: 1, Inputs: []string{"Column_0", "Column_1", "Column_2"}, Trees: []model.Tree{{Leaves: []model.Leaf{{Value: 0.5, Rows: 10}}}}})
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string]string{file: string(forest.LightGBM()), golden: "distance,hour,origin_delays.delay_mean_1h\n100,8,0.5\n200,20,1\n"} {
		if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	const names = "distance,hour,origin_delays.delay_mean_1h"
	s.refused(failure.Refused, "--inputs", "import", "late", file, "--golden", golden)
	s.refused(failure.BadRequest, "2 names for 3 columns", "import", "late", file, "--golden", golden, "--inputs", "distance,hour")
	if out := s.must("import", "late", file, "--golden", golden, "--inputs", names); !strings.HasPrefix(out, "late@4 ") {
		t.Error(out)
	}
	if out := s.must("diff", "late@2", "late@4"); strings.Contains(out, "input") {
		t.Error(out)
	}
	file = filepath.Join("..", "..", "registry", "model", "testdata", "onnx", "made-three.onnx")
	if !onnx.Built {
		s.refused(failure.Refused, onnx.LibraryVariable, "import", "late", file, "--golden", golden, "--inputs", names)
		return
	}
	if out := s.must("import", "late", file, "--golden", golden, "--inputs", names); !strings.HasPrefix(out, "late@5 ") {
		t.Error(out)
	}
	s.must("promote", "late@5")
	if out := s.must("show", "late"); !strings.Contains(out, "onnx") {
		t.Error(out)
	}
}

// A model that was exported is imported with its golden rows as it was; one that scores otherwise than is expected, or has an input that the project
// does not, is not.
func TestImport(t *testing.T) {
	s := newShelf(t)
	dir := t.TempDir()
	file, golden := filepath.Join(dir, "late.model"), filepath.Join(dir, "golden.csv")
	s.must("export", "late@2", "--out", file, "--golden", golden)
	if out := s.must("import", "late", file, "--golden", golden, "--reason", "from the lab"); !strings.HasPrefix(out, "late@4 ") || !strings.Contains(out, "3 inputs, 2 golden rows") {
		t.Error(out)
	}
	s.refused(failure.NotFound, "no champion", "show", "late")
	if out := s.must("diff", "late@2", "late@4"); strings.Contains(out, "input") || !strings.Contains(out, "from the lab") {
		t.Error(out)
	}
	s.must("promote", "late@4")
	change := func(name, from, to string) {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		changed := strings.Replace(string(b), from, to, 1)
		if changed == string(b) {
			t.Fatalf("no %q in %s", from, b)
		}
		if err := os.WriteFile(name, []byte(changed), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	change(golden, "0.16666666666666666", "9.5")
	s.refused(failure.Refused, "row 0 scores", "import", "late", file, "--golden", golden)
	s.refused(failure.BadRequest, "columns of this name", "import", "late", file, "--golden", golden, "--expected", "target")
	counts := filepath.Join(dir, "counts.txt")
	poisson, err := model.NewForest(model.ForestSpec{Objective: model.Poisson, Inputs: []string{"distance"}, Trees: []model.Tree{{Leaves: []model.Leaf{{Value: 0.5, Rows: 10}}}}})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(counts, poisson.LightGBM(), 0o600); err != nil {
		t.Fatal(err)
	}
	s.refused(failure.Refused, "is a model for poisson, and the project declares binary for late", "import", "late", counts, "--golden", golden)
	classes := filepath.Join("..", "..", "registry", "model", "testdata", "zoo", "lightgbm-4.6-classes.txt")
	s.refused(failure.Refused, "is a model for multiclass, and the project declares binary for late", "import", "late", classes, "--golden", golden)
	change(golden, "distance", "distances")
	s.refused(failure.BadRequest, "distance", "import", "late", file, "--golden", golden)
	change(file, "distance", "distances")
	s.refused(failure.Refused, `did you mean "distance"`, "import", "late", file, "--golden", golden)
	if err := os.WriteFile(file, []byte("\x80pickle"), 0o600); err != nil {
		t.Fatal(err)
	}
	s.refused(failure.Refused, "pickle", "import", "late", file, "--golden", golden)
	if versions, err := s.registry().Versions("late"); err != nil || len(versions) != 4 {
		t.Errorf("versions %+v, %v", versions, err)
	}
}
