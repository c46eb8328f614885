package profile

import (
	"math"
	"testing"
)

func TestLossesByHand(t *testing.T) {
	for _, c := range []struct {
		loss          Loss
		answer, truth float64
		want          float64
	}{
		{SquaredError, 3, 5, 4},
		{PoissonDeviance, 2, 0, 4},
		{PoissonDeviance, 2, 2, 0},
		{PoissonDeviance, 1, 3, 2 * (3*math.Log(3) - 2)},
		{LogLoss, 0.25, 2, math.Log(4)},
		{LogLoss, 0, 1, 15 * math.Log(10)},
	} {
		if got := c.loss.Of(c.answer, c.truth); math.Abs(got-c.want) > 1e-12 {
			t.Errorf("%s of %v where it was %v is %v, want %v", c.loss, c.answer, c.truth, got, c.want)
		}
	}
}

// What is kept of held-out losses, against the definitions: two days that differ by more than their rows explain.
func TestHeldOutLoss(t *testing.T) {
	var losses []float64
	var chunk []int
	for day, base := range []float64{10, 14, 12} {
		for i := range 50 {
			losses, chunk = append(losses, base+float64(i%2)*2-1), append(chunk, 7*day)
		}
	}
	b := &Baseline{Format: FormatVersion}
	b.HoldOutLoss(SquaredError, losses, chunk)
	mean, spread := 12.0, 0.0
	for _, l := range losses {
		spread += (l - mean) * (l - mean)
	}
	variance := spread / float64(len(losses)-1)
	want := HeldOutLoss{Loss: SquaredError, Rows: 150, Mean: mean, Variance: variance, Chunks: 3, Drift: 4 - variance/50}
	got := *b.Loss
	if got.Loss != want.Loss || got.Rows != want.Rows || got.Chunks != want.Chunks || math.Abs(got.Mean-want.Mean) > 1e-9 || math.Abs(got.Variance-want.Variance) > 1e-9 || math.Abs(got.Drift-want.Drift) > 1e-9 {
		t.Errorf("%+v, want %+v", got, want)
	}
	text, err := b.Encode()
	if err != nil {
		t.Fatal(err)
	}
	if again, err := Decode(text); err != nil || *again.Loss != got {
		t.Errorf("reads back as %+v, %v", again, err)
	}
}
