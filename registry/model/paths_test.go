package model

import (
	"math"
	"math/rand/v2"
	"testing"
)

// What a leaf keeps of its path is what following the path gives, input by input: for all trees, for those up to the limit, for none.
func TestKeptPathsAreThePaths(t *testing.T) {
	r := rand.New(rand.NewPCG(11, 12))
	const inputs, trees = 6, 40
	spec := ForestSpec{Objective: Binary}
	for i := range inputs {
		spec.Inputs = append(spec.Inputs, string(rune('a'+i)))
	}
	for range trees {
		spec.Trees = append(spec.Trees, randomTree(r, inputs, 2+r.IntN(40), r.IntN(5) == 0, r.IntN(5) == 0))
	}
	f, err := NewForest(spec)
	if err != nil {
		t.Fatal(err)
	}
	if len(f.wide.moves) == 0 {
		t.Fatal("no path is kept")
	}
	rows := make([][]float64, 100)
	kept := make([][]float64, len(rows))
	for i := range rows {
		rows[i], kept[i] = randomRow(r, inputs), make([]float64, inputs)
		f.Explain(rows[i], 0, Saabas, kept[i])
	}
	for _, from := range []int{len(f.wide.paths) / 2, 0} {
		clear(f.wide.paths[from:])
		for i, row := range rows {
			followed := make([]float64, inputs)
			f.Explain(row, 0, Saabas, followed)
			for j, v := range followed {
				if math.Abs(v-kept[i][j]) > 1e-12*trees {
					t.Fatalf("row %v, input %d: %v by what is kept, %v by the paths from node %d on", row, j, kept[i][j], v, from)
				}
			}
		}
	}
}
