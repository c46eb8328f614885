package training

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/millrace/millrace/features/offline"
	"github.com/millrace/millrace/internal/failure"
	"github.com/millrace/millrace/project"
	"github.com/millrace/millrace/registry"
	"github.com/millrace/millrace/registry/model"
	"github.com/millrace/millrace/schemas"
	"github.com/millrace/millrace/training/gbdt"
	"github.com/millrace/millrace/training/trainer"
)

// The test binary is the program that trains, when this variable is set; TestMain asks.
const programVariable = "TRAINING_TEST_PROGRAM"

// trainAsProgram fits a forest on the job's rows, and prints what it was given.
func trainAsProgram(how, path string) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	var job trainer.Job
	if err := json.Unmarshal(text, &job); err != nil {
		return err
	}
	if how == "fails" {
		return errors.New("no GPU")
	}
	dir := filepath.Dir(path)
	train, err := offline.ReadDataset(filepath.Join(dir, job.Train.Path))
	if err != nil {
		return err
	}
	data := gbdt.Data{Names: train.Names, Columns: train.Columns, Labels: train.Labels}
	p := gbdt.Default()
	p.Trees, p.Leaves = 40, 15
	forest, err := gbdt.Fit(context.Background(), data, p)
	if err != nil {
		return err
	}
	parent := "none"
	if job.Parent != nil {
		parent = job.Parent.Digest
	}
	fmt.Printf("train until %d, valid from %d until %d, %d rows, parent %s\n", job.Train.Until, job.Valid.From, job.Valid.Until, job.Train.Rows+job.Valid.Rows, parent)
	text = forest.LightGBM()
	for i, in := range job.Inputs {
		if names := in.Categories; names != nil && strings.HasPrefix(how, "names") { // as LightGBM's Python writes them
			if how == "names reversed" {
				slices.Reverse(names)
			}
			list, err := json.Marshal([][]string{names})
			if err != nil {
				return err
			}
			text = fmt.Appendf(text, "\n[categorical_feature: %d]\npandas_categorical:%s\n", i, list)
		}
	}
	return os.WriteFile(filepath.Join(dir, job.Out, "model.txt"), text, 0o600)
}

func program(name, how string) project.Candidate {
	return project.Candidate{Name: name, Program: &project.Program{
		Command: []string{os.Args[0], "trainer.conf"}, Timeout: time.Minute, Env: map[string]string{programVariable: how}, Params: json.RawMessage("{}"), Parent: true,
	}}
}

func TestProgramsAreCandidates(t *testing.T) {
	w := newWorld(t, 12, 480)
	w.project.Dir = t.TempDir()
	if err := os.WriteFile(filepath.Join(w.project.Dir, "trainer.conf"), []byte("settings"), 0o600); err != nil {
		t.Fatal(err)
	}
	w.model.Train.Candidates = []project.Candidate{program("mine", "trains"), program("broken", "fails")}
	w.model.Gates = nil
	s, r := w.stage(t)
	q := w.request("r1")
	q.Until -= 4 * day
	first := mustTrain(t, s, q, schemas.ModelPromoted)
	second := mustTrain(t, s, w.request("r2"), schemas.ModelPromoted)
	if _, ok := second.Metrics[metricAUC+withoutGroups]; !ok || second.Metrics["auc_mine"] <= 0.5 {
		t.Errorf("metrics %v", second.Metrics)
	}

	m, err := r.Manifest(second.Digest)
	if err != nil {
		t.Fatal(err)
	}
	if m.Annotations["candidate"] != "mine" || !strings.Contains(m.Annotations["trainer"], "trainer.conf") || strings.Contains(m.Annotations["trainer"], "trains") {
		t.Errorf("annotations %v: want the program, without the values of its environment", m.Annotations)
	}
	if len(m.Files) != 1 || m.Files[0].Digest != registry.DigestOf([]byte("settings")) {
		t.Errorf("files %+v", m.Files)
	}
	if parent, _ := m.Input(roleParent); parent != first.Digest {
		t.Errorf("parent %s, want %s", parent, first.Digest)
	}

	printed := evaluationOf(t, r, second.Digest)
	built := w.build(t)
	train, _, err := Split(testConfig(), built)
	if err != nil {
		t.Fatal(err)
	}
	var trainUntil, validFrom, validUntil int64
	var rows int
	var parent string
	if _, err := fmt.Sscanf(printed.Printed["mine"], "train until %d, valid from %d until %d, %d rows, parent %s", &trainUntil, &validFrom, &validUntil, &rows, &parent); err != nil {
		t.Fatalf("%v: %+v", err, printed)
	}
	if trainUntil > validFrom || validUntil > built.TrainUntil || rows != len(train.Labels) || parent != first.Digest {
		t.Errorf("it was told %+v, held out is what comes from %d on, %d rows before", printed.Printed["mine"], built.TrainUntil, len(train.Labels))
	}
	if !strings.Contains(printed.Failed["broken"], "no GPU") || printed.Printed["broken"] != "no GPU" {
		t.Errorf("the candidate that failed: %+v", printed)
	}
}

// A champion that was trained on rows that are held out now would be asked what it was told: no program goes on from it.
func TestAParentHasNotSeenTheHeldOutRows(t *testing.T) {
	w := newWorld(t, 12, 480)
	w.project.Dir = t.TempDir()
	w.model.Train.Candidates = []project.Candidate{program("mine", "trains")}
	w.model.Gates = nil
	s, r := w.stage(t)
	mustTrain(t, s, w.request("r1"), schemas.ModelPromoted)
	q := w.request("r2")
	q.Until -= 4 * day
	event := mustTrain(t, s, q, schemas.ModelPromoted)
	if printed := evaluationOf(t, r, event.Digest).Printed["mine"]; !strings.Contains(printed, "parent none") {
		t.Errorf("it was told %q", printed)
	}
}

// evaluationOf is the comparison that led to a model.
func evaluationOf(t *testing.T, r *registry.Registry, digest string) comparison {
	t.Helper()
	all, err := r.Artefacts(registry.KindEvaluation)
	if err != nil {
		t.Fatal(err)
	}
	var c comparison
	for _, a := range all {
		if of, _ := a.Input(roleModel); of != digest {
			continue
		}
		_, b, err := r.Read(a.Digest)
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(b, &c); err != nil {
			t.Fatal(err)
		}
	}
	return c
}

// A program that cannot do without the feature groups leaves the model standing.
func TestAnAblationMayFail(t *testing.T) {
	w := newWorld(t, 12, 480)
	s, _ := w.stage(t)
	plain := len(w.model.Inputs) - 2*len(w.project.Groups[0].Outputs)
	fits := 0
	s.fitters["only with groups"] = func(ctx context.Context, cfg Config, f fitting) (model.Model, error) {
		if fits++; len(f.inputs) == plain {
			return nil, failure.New(failure.Refused, "inputs", "there are no groups")
		}
		return fitForest(ctx, cfg, f)
	}
	w.model.Train.Candidates = []project.Candidate{{Name: "only with groups"}}
	event := mustTrain(t, s, w.request("r1"), schemas.ModelPromoted)
	if _, ok := event.Metrics[metricAUC+withoutGroups]; ok || fits != 2 {
		t.Errorf("metrics %v after %d fits", event.Metrics, fits)
	}
}

// TestExampleTrainers runs examples/trainers with the Python of MILLRACE_TEST_PYTHON, which has lightgbm, xgboost and
// pyarrow.
func TestExampleTrainers(t *testing.T) {
	python := os.Getenv("MILLRACE_TEST_PYTHON")
	if python == "" {
		t.Skip("set MILLRACE_TEST_PYTHON to a Python with lightgbm, xgboost and pyarrow")
	}
	dir, err := filepath.Abs("../examples/trainers")
	if err != nil {
		t.Fatal(err)
	}
	example := func(name, params string) project.Candidate {
		return project.Candidate{Name: name, Program: &project.Program{
			Command: []string{python, "train_" + name + ".py"}, Timeout: 5 * time.Minute, Params: json.RawMessage(params),
		}}
	}
	w := newWorld(t, 12, 480)
	w.model.Train.Monotone = map[string]int{"origin_delays.delay_mean_1h": 1}
	others := map[string]*world{}
	for _, task := range []model.Task{model.TaskRegression, model.TaskPoisson, model.TaskMulticlass} {
		others[string(task)] = tasked(t, task)
	}
	others["multiclass"].model.Train.Weight = expression(t, "distance / 500", w.model.On.Schema, schemas.Null)
	for task, x := range others {
		lead := map[string]string{"regression": "rmse", "poisson": "poisson_deviance", "multiclass": "macro_auc"}[task]
		event := trainExamples(t, x, dir, example)
		ours := event.Metrics[lead+"_gbdt"]
		for _, name := range []string{"lightgbm", "xgboost"} {
			if got := event.Metrics[lead+"_"+name]; !(math.Abs(got/ours-1) < 0.1) {
				t.Errorf("%s: %s reaches %.4f, gbdt %.4f", task, name, got, ours)
			}
		}
	}
	event := trainExamples(t, w, dir, example)
	for _, name := range []string{"gbdt", "lightgbm", "xgboost"} {
		if auc := event.Metrics["auc_"+name]; auc < 0.6 {
			t.Errorf("%s reaches %.3f", name, auc)
		}
	}
}

// trainExamples trains with the forest and both examples, twice: the same rows make the same model.
func trainExamples(t *testing.T, w *world, dir string, example func(name, params string) project.Candidate) schemas.ModelEvent {
	t.Helper()
	w.project.Dir, w.model.Train.Categorical = dir, []string{"hour"}
	w.model.Train.Candidates = []project.Candidate{{Name: project.CandidateGBDT}, example("lightgbm", `{"num_leaves": 7, "num_iterations": 200, "num_threads": 1}`), example("xgboost", `{"max_depth": 3, "rounds": 200, "nthread": 1}`)}
	s, r := w.stage(t)
	event := mustTrain(t, s, w.request("r1"), schemas.ModelPromoted)
	c := evaluationOf(t, r, event.Digest)
	if len(c.Failed) != 0 || !strings.Contains(c.Printed["lightgbm"], "trees") || !strings.Contains(c.Printed["xgboost"], "trees") {
		t.Fatalf("failed %v, printed %v", c.Failed, c.Printed)
	}
	again := mustTrain(t, s, w.request("r2"), schemas.ModelPromoted)
	if again.Digest != event.Digest {
		t.Errorf("the same rows made %s after %s", again.Digest, event.Digest)
	}
	return event
}
