package training

import (
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/millrace/millrace/features/profile"
	"github.com/millrace/millrace/project"
	"github.com/millrace/millrace/registry"
	"github.com/millrace/millrace/registry/model"
	"github.com/millrace/millrace/schemas"
)

var delayClasses = []string{"on_time", "late", "very_late"}

// tasked is a world whose model foretells the delay: the minutes, the quarters of an hour, or the class.
func tasked(t *testing.T, task model.Task) *world {
	w := newWorld(t, 12, 480)
	m := w.model
	m.Task, m.Gates, m.Train.Candidates = task, nil, []project.Candidate{{Name: project.CandidateGBDT}}
	value, kind := "delay", schemas.Null
	switch m.Train.Metric = project.MetricRMSE; task {
	case model.TaskPoisson:
		m.Train.Metric, value = project.MetricPoissonDeviance, "delay < 0 ? 0 : floor(delay / 15)"
	case model.TaskMulticlass:
		m.Train.Metric, value, kind = project.MetricLogLoss, `delay > 40 ? "very_late" : delay > 15 ? "late" : "on_time"`, schemas.String
		m.Label.Classes = delayClasses
	}
	m.Label.Value = expression(t, value, m.Label.Source.Schema, kind)
	return w
}

// truth is the label of a flight, apart from the log.
func truth(task model.Task, f flight) float64 {
	switch {
	case task == model.TaskRegression:
		return float64(f.delay)
	case task == model.TaskPoisson:
		return math.Floor(max(0, float64(f.delay)) / 15)
	case f.delay > 40:
		return 2
	case f.delay > 15:
		return 1
	default:
		return 0
	}
}

// TestTasks trains a model of each task twice: labels, metrics and gates by hand, the registered model with its classes, the comparison with
// the champion, and a baseline without what only a yes or no has.
func TestTasks(t *testing.T) {
	for _, task := range []model.Task{model.TaskRegression, model.TaskPoisson, model.TaskMulticlass} {
		t.Run(string(task), func(t *testing.T) {
			w := tasked(t, task)
			s, r := w.stage(t)
			q := w.request("r1")
			q.Until -= 4 * day
			mustTrain(t, s, q, schemas.ModelPromoted)
			w.model.Gates = []project.Gate{{Metric: project.MetricVersusChampion, Op: ">=", Bound: -100}, {Metric: w.model.Train.Metric, Op: "<=", Bound: 1e6}}
			event := mustTrain(t, s, w.request("r2"), schemas.ModelPromoted)
			bundle := bundleOf(t, r, event.Digest)
			m, err := bundle.Check()
			if err != nil {
				t.Fatal(err)
			}
			if m.Task() != task || task == model.TaskMulticlass && !slices.Equal(m.Outputs(), delayClasses) {
				t.Errorf("a model for %s, of %v", m.Task(), m.Outputs())
			}
			d := w.build(t)
			flights := map[string]flight{}
			for _, f := range w.flights {
				flights[f.id] = f
			}
			for i, key := range d.Keys {
				if want := truth(task, flights[key]); d.Labels[i] != want {
					t.Fatalf("%s has the label %v, its delay is %d", key, d.Labels[i], flights[key].delay)
				}
			}
			_, held, err := Split(testConfig(), d)
			if err != nil {
				t.Fatal(err)
			}
			for name, want := range byHand(task, m, held) {
				if got, ok := event.Metrics[name]; !ok || math.Abs(got-want) > 1e-9 {
					t.Errorf("%s is %v (%v), by hand %v", name, got, ok, want)
				}
			}
			lead := map[model.Task]string{model.TaskRegression: "rmse", model.TaskPoisson: "poisson_deviance", model.TaskMulticlass: "macro_auc"}[task]
			without, versus := event.Metrics[lead+withoutGroups], event.Metrics[project.MetricVersusChampion]
			if without == 0 || versus == 0 || event.Metrics[lead+"_gbdt"] != event.Metrics[lead] || (without > event.Metrics[lead]) != (task != model.TaskMulticlass) {
				t.Errorf("metrics %v: the features should be worth something", event.Metrics)
			}
			kept, err := r.Manifest(event.Digest)
			if err != nil {
				t.Fatal(err)
			}
			digest, _ := kept.Input(roleBaseline)
			_, text, err := r.Read(digest)
			if err != nil {
				t.Fatal(err)
			}
			b, err := profile.Decode(text)
			if err != nil || b.Performance != nil || b.Score == nil || b.Loss == nil {
				t.Fatalf("the baseline has performance %+v, scores %+v, loss %+v, %v", b.Performance, b.Score, b.Loss, err)
			}
			metric := b.Loss.Loss.Metric()
			if want := byHand(task, m, held)[metric]; math.Abs(b.Loss.Loss.Shown(b.Loss.Mean)-want) > 1e-9 || b.Loss.Rows != int64(len(held.Labels)) {
				t.Errorf("the baseline's %s is %v of %d rows, by hand %v of %d", metric, b.Loss.Loss.Shown(b.Loss.Mean), b.Loss.Rows, want, len(held.Labels))
			}
			w.model.Gates = []project.Gate{{Metric: w.model.Train.Metric, Op: "<=", Bound: 1e-6}}
			if refused := mustTrain(t, s, w.request("r3"), schemas.ModelRefused); !strings.Contains(refused.Reason, "gate "+w.model.Train.Metric) {
				t.Errorf("refused: %s", refused.Reason)
			}
		})
	}
}

func bundleOf(t *testing.T, r *registry.Registry, digest string) model.Bundle {
	t.Helper()
	_, b, err := r.Read(digest)
	if err != nil {
		t.Fatal(err)
	}
	bundle, err := model.DecodeBundle(b)
	if err != nil {
		t.Fatal(err)
	}
	return bundle
}

// byHand measures a model on rows by the definitions.
func byHand(task model.Task, m model.Model, held Part) map[string]float64 {
	var squares, absolute, deviance, loss, right float64
	outputs := make([][]float64, len(held.Labels))
	for i, y := range held.Labels {
		outputs[i] = make([]float64, len(m.Outputs()))
		m.PredictInto(held.row(i, nil), outputs[i])
		p := outputs[i][0]
		squares, absolute = squares+(p-y)*(p-y), absolute+math.Abs(p-y)
		deviance += 2 * (p - y)
		if y > 0 {
			deviance += 2 * y * math.Log(y/p)
		}
		if task == model.TaskMulticlass {
			loss -= math.Log(outputs[i][int(y)])
			if outputs[i][int(y)] == slices.Max(outputs[i]) {
				right++
			}
		}
	}
	n := float64(len(held.Labels))
	switch task {
	case model.TaskRegression:
		return map[string]float64{"rmse": math.Sqrt(squares / n), "mae": absolute / n}
	case model.TaskPoisson:
		return map[string]float64{"poisson_deviance": deviance / n, "rmse": math.Sqrt(squares / n), "mae": absolute / n}
	}
	area := 0.0
	for k := range outputs[0] {
		var scores, is []float64
		for i, y := range held.Labels {
			scores = append(scores, outputs[i][k])
			if int(y) == k {
				is = append(is, 1)
			} else {
				is = append(is, 0)
			}
		}
		area += pairs(scores, is) / float64(len(outputs[0]))
	}
	return map[string]float64{"log_loss": loss / n, "accuracy": right / n, "macro_auc": area}
}

// A label of a class that the project does not name labels nothing, and is counted; a class without a row cannot be learned.
func TestClassesThatAreMissing(t *testing.T) {
	w := tasked(t, model.TaskMulticlass)
	w.model.Label.Classes = delayClasses[:2]
	d := w.build(t)
	want := 0
	for _, f := range w.flights {
		if !f.lost && !f.cancelled && f.delay > 40 && f.arrived() < w.until() {
			want++
		}
	}
	if d.Unknown != int64(want) || want == 0 || slices.Contains(d.Labels, 2) {
		t.Errorf("%d labels of no class, %d flights are very late", d.Unknown, want)
	}
	w.model.Label.Classes = append(slices.Clone(delayClasses), "diverted")
	s, _ := w.stage(t)
	if event := mustTrain(t, s, w.request("r1"), schemas.ModelRefused); !strings.Contains(event.Reason, `none has the class "diverted"`) {
		t.Errorf("refused: %s", event.Reason)
	}
}

// A champion of another task, or of other classes, is not compared; an input that ranks the label is found out whatever the task.
func TestChampionOfAnotherTask(t *testing.T) {
	w := tasked(t, model.TaskRegression)
	s, r := w.stage(t)
	q := w.request("r1")
	q.Until -= 4 * day
	mustTrain(t, s, q, schemas.ModelPromoted)
	w.model.Task, w.model.Train.Metric = model.TaskPoisson, project.MetricPoissonDeviance
	w.model.Label.Value = tasked(t, model.TaskPoisson).model.Label.Value
	w.model.Gates = []project.Gate{{Metric: project.MetricVersusChampion, Op: ">=", Bound: -100}}
	event := mustTrain(t, s, w.request("r2"), schemas.ModelRefused)
	if !strings.Contains(event.Reason, "the champion is for regression, and the labels are those of poisson") {
		t.Errorf("refused: %s, %v", event.Reason, r)
	}
}

func TestInputsThatTellTheLabel(t *testing.T) {
	for task, labels := range map[model.Task][]float64{
		model.TaskRegression: {3, 1, 4, 1.5, 9, 2.6}, model.TaskPoisson: {0, 1, 5, 0, 9, 2}, model.TaskMulticlass: {0, 1, 2, 0, 1, 2},
	} {
		d := &Dataset{Names: []string{"noise", "told"}, Task: task, Labels: slices.Repeat(labels, 50)}
		if task == model.TaskMulticlass {
			d.Classes = delayClasses
		}
		d.Times, d.Columns = make([]int64, len(d.Labels)), [][]float64{nil, nil}
		r := rand.New(rand.NewPCG(1, 1))
		for _, y := range d.Labels {
			d.Columns[0], d.Columns[1] = append(d.Columns[0], r.NormFloat64()), append(d.Columns[1], -y)
		}
		if err := verifyInputs(Default(), d); err == nil || !strings.Contains(err.Error(), "told: the input gives the label away") {
			t.Errorf("%s: %v", task, err)
		}
		d.Columns[1] = d.Columns[0]
		if err := verifyInputs(Default(), d); err != nil {
			t.Errorf("%s: %v", task, err)
		}
	}
}

// TestMeasureByWeight: a row of weight n is measured as n rows.
func TestMeasureByWeight(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 1))
	for task, classes := range map[model.Task]int{model.TaskRegression: 0, model.TaskPoisson: 0, model.TaskMulticlass: 3} {
		var outputs, labels, weights, manyOutputs, manyLabels []float64
		for i := range 300 {
			row := []float64{r.ExpFloat64()}
			if classes > 0 {
				row = []float64{0.2 + r.Float64()/3, r.Float64() / 3, 0}
				row[2] = 1 - row[0] - row[1]
			}
			label, n := float64(i%3), 1+i%4
			outputs, labels, weights = append(outputs, row...), append(labels, label), append(weights, float64(n))
			for range n {
				manyOutputs, manyLabels = append(manyOutputs, row...), append(manyLabels, label)
			}
		}
		a, b := Measure(task, classes, outputs, labels, weights), Measure(task, classes, manyOutputs, manyLabels, nil)
		b.Rows = a.Rows
		if len(b.Values()) < 3 {
			t.Errorf("%s: %v", task, b.Values())
		}
		for name, want := range b.Values() {
			if got := a.Values()[name]; math.Abs(got-want) > 1e-9 {
				t.Errorf("%s: %s by weight is %v, of repeated rows %v", task, name, got, want)
			}
		}
	}
}
