package model

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

// What is kept at a leaf is what the way to it gives, input by input: of one input, of some, and of more than are added without looking.
func TestLegsAreTheWay(t *testing.T) {
	for _, inputs := range []int{1, 6, 60} {
		t.Run(fmt.Sprint(inputs), func(t *testing.T) { legsAreTheWay(t, inputs) })
	}
}

func legsAreTheWay(t *testing.T, inputs int) {
	const trees = 40
	r := rand.New(rand.NewPCG(11, 12))
	spec := ForestSpec{Objective: Binary}
	for i := range inputs {
		spec.Inputs = append(spec.Inputs, fmt.Sprint(i))
	}
	for range trees {
		spec.Trees = append(spec.Trees, randomTree(r, inputs, 2+r.IntN(20*inputs), r.IntN(5) == 0, r.IntN(5) == 0))
	}
	f, err := NewForest(spec)
	if err != nil {
		t.Fatal(err)
	}
	if f.wide.kept.words == 0 {
		t.Fatal("nothing is kept")
	}
	rows := make([][]float64, 100)
	kept := make([][]float64, len(rows))
	score := make([]float64, 1)
	for i := range rows {
		rows[i], kept[i] = randomRow(r, inputs), make([]float64, inputs)
		f.Explain(rows[i], 0, Saabas, kept[i])
		again := make([]float64, inputs)
		if f.PredictExplained(rows[i], score, again); score[0] != f.Predict(rows[i]) || !slices.Equal(again, kept[i]) {
			t.Fatalf("row %v: score %v and %v in one go, else %v and %v", rows[i], score[0], again, f.Predict(rows[i]), kept[i])
		}
	}
	f.wide.kept = legs{}
	for i, row := range rows {
		followed := make([]float64, inputs)
		f.Explain(row, 0, Saabas, followed)
		for j, v := range followed {
			if math.Abs(v-kept[i][j]) > 1e-12*trees {
				t.Fatalf("row %v, input %d: %v by what is kept, %v by the way", row, j, kept[i][j], v)
			}
		}
	}
}
