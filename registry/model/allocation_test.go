//go:build !race

package model

import (
	"math"
	"testing"
)

// Under the race detector pools let go of what they have at random.
func TestScoringDoesNotAllocate(t *testing.T) {
	f := load(t, "testdata/good/binary.txt")
	row, out := []float64{1, math.NaN(), 0}, make([]float64, 3)
	rows := [][]float64{row, row, row}
	// Now and then the pool is empty, after a collection: AllocsPerRun cuts the mean off.
	for name, score := range map[string]func(){
		"Predict":     func() { f.Predict(row) },
		"PredictInto": func() { f.PredictInto(row, out) },
		"PredictRows": func() { f.PredictRows(rows, out) },
		"Explain":     func() { f.Explain(row, 0, "", out) },
	} {
		if n := testing.AllocsPerRun(1000, score); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}
