package monitor

import (
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/millrace/millrace/features/profile"
	"github.com/millrace/millrace/schemas"
)

// charged makes the losses of answers that are off by a normal distribution of a deviation.
func charged(r *rand.Rand, n int, deviation float64) (losses []float64, l *profile.Losses) {
	l = &profile.Losses{}
	for range n {
		off := r.NormFloat64() * deviation
		losses = append(losses, off*off)
		l.Add(off * off)
	}
	return losses, l
}

// lossBaseline is one whose model was off by a deviation of 10 in ten days, which differed a little.
func lossBaseline(r *rand.Rand) *profile.Baseline {
	s := newStream(5, 3)
	b := s.baseline(20, 500)
	var losses []float64
	var chunk []int
	for day := range 10 {
		some, _ := charged(r, 500, 10+r.Float64())
		losses = append(losses, some...)
		for range some {
			chunk = append(chunk, day)
		}
	}
	b.HoldOutLoss(profile.SquaredError, losses, chunk)
	return b
}

func TestRiseOfLossAsksForANewModel(t *testing.T) {
	r := rand.New(rand.NewPCG(21, 22))
	b := lossBaseline(r)
	registry := prometheus.NewRegistry()
	m := newMetrics(registry)
	j := NewJudge("m", "d", b, DefaultPolicy(), 0)
	var events []schemas.Drift
	for i, step := range []struct {
		deviation float64
		kinds     []string
	}{
		{10.5, []string{schemas.DriftPerformance}},
		{15, []string{schemas.DriftSuspected, schemas.DriftPerformance}},
		{15, []string{schemas.DriftConfirmed, schemas.DriftPerformance}},
	} {
		if i == 2 { // another leader goes on
			j = NewJudge("m", "d", b, DefaultPolicy(), 0)
			j.Restore(events, nil)
		}
		_, l := charged(r, 500, step.deviation)
		v := j.Perform(LabelledWindow{Start: int64(i) * day, End: int64(i+1) * day, Rows: 1000, Loss: profile.SquaredError, Losses: l})
		if got := kinds(v.Events); !slices.Equal(got, step.kinds) {
			t.Errorf("window %d: %v, want %v (%s)", i, got, step.kinds, v.Full.Reason)
		}
		events = append(events, v.Events...)
		mean, _ := l.Mean()
		if v.Loss.Metric != "rmse" || v.Loss.Live != math.Sqrt(mean) || *v.Loss.HeldOut != math.Sqrt(b.Loss.Mean) || v.Full.AUC != nil || v.Full.LabelCoverage != 0.5 {
			t.Errorf("window %d: %+v of %+v", i, v.Loss, v.Full)
		}
		if c := v.Full.Columns[0]; c.Column != "rmse" || c.Statistic != "rmse_rise" || math.Abs(c.Value-(math.Sqrt(mean)-math.Sqrt(b.Loss.Mean))) > 1e-12 {
			t.Errorf("window %d: %+v", i, c)
		}
		if (v.Retrain != nil) != (i == 2) || v.Retrain != nil && !strings.Contains(v.Retrain.Reason, "rmse confirmed (rise ") {
			t.Errorf("window %d: retrain %+v", i, v.Retrain)
		}
		m.judged(v, true)
		if got := shownLoss(t, registry, "millrace_model_loss"); got != v.Loss.Live {
			t.Errorf("window %d: millrace_model_loss is %v, want %v", i, got, v.Loss.Live)
		}
	}
	v := j.Perform(LabelledWindow{Start: 9 * day, End: 10 * day, Rows: 1000, Loss: profile.SquaredError, Losses: &profile.Losses{}})
	if v.Full.State != StateInsufficient || v.Loss != nil {
		t.Errorf("without labels: %+v", v.Full)
	}
	few := &profile.Losses{}
	few.Add(1)
	if v := NewJudge("m", "d", b, DefaultPolicy(), 0).Perform(LabelledWindow{Rows: 1, Loss: profile.LogLoss, Losses: few}); v.Full.State != StateInsufficient || v.Loss.HeldOut != nil {
		t.Errorf("of another task than the baseline: %+v", v.Full)
	}
}

// Innocent windows, among them those with a row that is far off, pass no more often than the policy's probability says, and a window of few rows may be
// worse than one of many.
func TestInnocentLosses(t *testing.T) {
	r := rand.New(rand.NewPCG(23, 24))
	b := lossBaseline(r)
	policy := DefaultPolicy()
	policy.LossFloor = 0 // what the test alone allows
	for _, rows := range []int{100, 2000} {
		over := 0
		const windows = 1000
		for range windows {
			_, l := charged(r, rows, 10+r.Float64())
			mean, _ := l.Mean()
			if mean > b.Loss.Threshold(l, policy.Sensitivity) {
				over++
			}
		}
		if share := float64(over) / windows; share > 0.08 {
			t.Errorf("%v of innocent windows of %d rows are over the threshold", share, rows)
		}
	}
	_, outlier := charged(r, 500, 10)
	outlier.Add(400 * 400) // 40 deviations: doubles the mean
	if mean, _ := outlier.Mean(); mean > b.Loss.Threshold(outlier, policy.Sensitivity) {
		t.Errorf("one row makes a mean loss of %v, over %v", mean, b.Loss.Threshold(outlier, policy.Sensitivity))
	}
}

// shownLoss is the value of a metric that has one sample.
func shownLoss(t *testing.T, r *prometheus.Registry, name string) float64 {
	t.Helper()
	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == name && len(f.GetMetric()) == 1 {
			return f.GetMetric()[0].GetGauge().GetValue()
		}
	}
	t.Fatalf("there is no %s", name)
	return 0
}
