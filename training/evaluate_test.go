package training

import (
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/millrace/millrace/project"
)

// pairs is the area under the curve by its meaning: how often a positive row is above a negative one.
func pairs(scores, labels []float64) float64 {
	won, all := 0.0, 0.0
	for i := range scores {
		for j := range scores {
			if labels[i] == 1 && labels[j] == 0 {
				all++
				switch {
				case scores[i] > scores[j]:
					won++
				case scores[i] == scores[j]:
					won += 0.5
				}
			}
		}
	}
	return won / all
}

func TestMetricsAgainstTheirDefinitions(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	n := 1000
	scores, labels := make([]float64, n), make([]float64, n)
	for i := range scores {
		scores[i] = float64(rng.IntN(500)+1) / 502
		if rng.Float64() < scores[i]*scores[i] {
			labels[i] = 1
		}
	}
	m := Evaluate(scores, labels, nil)
	near := func(name string, got, want float64) {
		if math.Abs(got-want) > 1e-12 {
			t.Errorf("%s is %v, want %v", name, got, want)
		}
	}
	near("auc", m.AUC, pairs(scores, labels))
	var loss, square, positive float64
	for i, p := range scores {
		if labels[i] == 1 {
			loss, square, positive = loss+math.Log(1/p), square+(1-p)*(1-p), positive+1
		} else {
			loss, square = loss+math.Log(1/(1-p)), square+p*p
		}
	}
	near("log loss", m.LogLoss, loss/float64(n))
	near("brier", m.Brier, square/float64(n))
	near("positive rate", m.PositiveRate, positive/float64(n))
	if m.Rows != int64(n) {
		t.Errorf("rows %d", m.Rows)
	}
	if m.CalibrationError < 0.1 || m.CalibrationError > 0.25 { // E|p-p²| = 1/6 for uniform p
		t.Errorf("calibration error of scores p where p² is true is %v, want about 1/6", m.CalibrationError)
	}
}

func TestCalibrationErrorByHand(t *testing.T) {
	// Ten bins of two rows each: every bin's mean score is its number/10+0.05, half its labels are 1.
	var scores, labels []float64
	want := 0.0
	for b := range 10 {
		p := float64(b)/10 + 0.05
		scores, labels = append(scores, p-0.01, p+0.01), append(labels, 0, 1)
		want += math.Abs(p-0.5) / 10
	}
	if got := Evaluate(scores, labels, nil).CalibrationError; math.Abs(got-want) > 1e-12 {
		t.Errorf("calibration error is %v, want %v", got, want)
	}
}

func TestMetricsOfOneClassAndOfCertainties(t *testing.T) {
	m := Evaluate([]float64{0.2, 0.4}, []float64{0, 0}, nil)
	if _, ok := m.Values()[project.MetricAUC]; ok || !math.IsNaN(m.AUC) {
		t.Errorf("one class has an area under the curve: %v", m.AUC)
	}
	if m := Evaluate([]float64{0, 1}, []float64{1, 0}, nil); math.IsInf(m.LogLoss, 0) || m.AUC != 0 || m.Brier != 1 {
		t.Errorf("certain and wrong: %+v", m)
	}
}

func TestTheBestIsChosenByTheDeclaredMetric(t *testing.T) {
	candidates := []candidate{
		{Candidate: project.Candidate{Name: "a"}, metrics: Metrics{AUC: 0.7, LogLoss: 0.6, Brier: 0.20}},
		{Candidate: project.Candidate{Name: "b"}, metrics: Metrics{AUC: 0.8, LogLoss: 0.7, Brier: 0.25}},
		{Candidate: project.Candidate{Name: "c"}, metrics: Metrics{AUC: 0.8, LogLoss: 0.5, Brier: 0.25}},
	}
	for metric, want := range map[string]string{project.MetricAUC: "b", project.MetricLogLoss: "c", project.MetricBrier: "a"} {
		if got := best(metric, candidates).Name; got != want {
			t.Errorf("by %s %s is best, want %s", metric, got, want)
		}
	}
	slices.Reverse(candidates)
	if got := best(project.MetricAUC, candidates).Name; got != "c" {
		t.Errorf("of equals %s is best, want the first declared", got)
	}
}

func TestGates(t *testing.T) {
	gate := func(metric, op string, bound float64) project.Gate {
		return project.Gate{Metric: metric, Op: op, Bound: bound}
	}
	values := map[string]float64{"auc": 0.5731, "rows": 900, "versus_champion": -0.01, "brier": math.NaN()}
	for _, c := range []struct {
		name         string
		gate         project.Gate
		values       map[string]float64
		champion     bool
		incomparable string
		want         string // the refusal
	}{
		{"passes", gate("auc", ">=", 0.57), values, true, "", ""},
		{"fails", gate("auc", ">=", 0.6), values, true, "", "gate auc >= 0.6: 0.5731"},
		{"at the bound", gate("rows", ">=", 900), values, true, "", ""},
		{"beyond the bound", gate("rows", "<", 900), values, true, "", "gate rows < 900: 900.0000"},
		{"worse than the champion", gate("versus_champion", ">=", -0.002), values, true, "", "gate versus_champion >= -0.002: -0.0100"},
		{"no champion", gate("versus_champion", ">=", -0.002), map[string]float64{}, false, "", ""},
		{"champion of other inputs", gate("versus_champion", ">=", -1), map[string]float64{}, true, "it reads x", "gate versus_champion >= -1: there is no number (it reads x)"},
		{"no number", gate("calibration_error", "<=", 1), values, true, "", "gate calibration_error <= 1: there is no number"},
		{"not a number", gate("brier", "<=", 1), values, true, "", "gate brier <= 1: there is no number"},
	} {
		if got := refusal(pass([]project.Gate{c.gate}, c.values, c.champion, c.incomparable)); got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
	both := refusal(pass([]project.Gate{gate("auc", ">=", 0.6), gate("rows", ">=", 1000), gate("rows", ">", 1)}, values, true, ""))
	if strings.Count(both, "gate") != 2 {
		t.Errorf("two failed gates are told as %q", both)
	}
}
