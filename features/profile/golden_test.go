package profile

import (
	"encoding/json"
	"math"
	"os"
	"testing"

	"gonum.org/v1/gonum/stat/distuv"
)

// golden is what numpy, scipy and scikit-learn say (testdata/golden.py).
type golden struct {
	Distances []struct {
		Baseline, Live []float64
		PSI            *float64
		JensenShannon  float64 `json:"jensen_shannon"`
	}
	Performance []struct {
		Scores, Labels   []float64
		AUC              float64
		CalibrationError float64 `json:"calibration_error"`
	}
	Quantiles []struct{ D1, D2, Alpha, F, Chi2 float64 }
}

func readGolden(t *testing.T) golden {
	t.Helper()
	text, err := os.ReadFile("testdata/golden.json")
	if err != nil {
		t.Fatal(err)
	}
	var g golden
	if err := json.Unmarshal(text, &g); err != nil {
		t.Fatal(err)
	}
	return g
}

func near(t *testing.T, what string, got, want, tolerance float64) {
	t.Helper()
	if !(math.Abs(got-want) <= tolerance) {
		t.Errorf("%s = %.12g, want %.12g within %g", what, got, want, tolerance)
	}
}

func TestDistancesAgreeWithSciPy(t *testing.T) {
	for _, d := range readGolden(t).Distances {
		if d.PSI != nil {
			near(t, "PSI", PSI(d.Baseline, d.Live), *d.PSI, 1e-12)
		}
		near(t, "Jensen-Shannon", JensenShannon(d.Baseline, d.Live), d.JensenShannon, 1e-12)
	}
}

func TestPerformanceAgreesWithScikitLearn(t *testing.T) {
	for _, p := range readGolden(t).Performance {
		auc, ok := AUC(p.Scores, p.Labels)
		if !ok {
			t.Error("AUC: not ok")
		}
		near(t, "AUC", auc, p.AUC, 1e-12)
		near(t, "calibration error", CalibrationError(p.Scores, p.Labels, CalibrationBins), p.CalibrationError, 1e-12)
		var live Outcomes
		for i, s := range p.Scores {
			live.Add(s, p.Labels[i] > 0.5)
		}
		auc, _ = live.AUC()
		near(t, "binned AUC", auc, p.AUC, 0.002)
		if len(p.Scores) < 100 {
			continue // bins of a few rows are cut elsewhere
		}
		gap, _ := live.CalibrationError()
		near(t, "binned calibration error", gap, p.CalibrationError, 0.02)
	}
}

func TestQuantilesAgreeWithSciPy(t *testing.T) {
	for _, q := range readGolden(t).Quantiles {
		near(t, "F quantile", distuv.F{D1: q.D1, D2: q.D2}.Quantile(1-q.Alpha)/q.F, 1, 1e-6)
		near(t, "chi-square quantile", distuv.ChiSquared{K: q.D1}.Quantile(1-q.Alpha)/q.Chi2, 1, 1e-6)
	}
}
