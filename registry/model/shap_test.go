package model

import (
	"math"
	"math/bits"
	"math/rand/v2"
	"testing"
)

// expectation is the mean of a tree over the training rows when only the inputs of a set are known (Lundberg, algorithm
// 1), from the tree as it is described.
func expectation(t *Tree, at int, row []float64, known uint) float64 {
	if at < 0 {
		return t.Leaves[^at].Value
	}
	s := t.Splits[at]
	if known>>s.Input&1 == 1 {
		if goesLeft(s, row[s.Input]) {
			return expectation(t, s.Left, row, known)
		}
		return expectation(t, s.Right, row, known)
	}
	left, right := rowsBelow(t, s.Left), rowsBelow(t, s.Right)
	share := 0.5
	if left+right > 0 {
		share = left / (left + right)
	}
	return share*expectation(t, s.Left, row, known) + (1-share)*expectation(t, s.Right, row, known)
}

func rowsBelow(t *Tree, at int) float64 {
	if at < 0 {
		return float64(t.Leaves[^at].Rows)
	}
	return rowsBelow(t, t.Splits[at].Left) + rowsBelow(t, t.Splits[at].Right)
}

// shapley is Shapley's own sum over all subsets of the other inputs.
func shapley(t *Tree, row []float64, input int) float64 {
	n, root := len(row), 0
	if len(t.Splits) == 0 {
		root = ^0
	}
	sum := 0.0
	for known := uint(0); known < 1<<n; known++ {
		if known>>input&1 == 1 {
			continue
		}
		k := bits.OnesCount(known)
		weight := math.Gamma(float64(k+1)) * math.Gamma(float64(n-k)) / math.Gamma(float64(n+1))
		sum += weight * (expectation(t, root, row, known|1<<input) - expectation(t, root, row, known))
	}
	return sum
}

// TestTreeSHAP compares with Shapley values by their definition: inputs that repeat on a path, categories, missing
// values, and leaves that no training row reached.
func TestTreeSHAP(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 8))
	names := []string{"a", "b", "c", "d", "e"}
	for round := range 60 {
		spec := ForestSpec{Inputs: names, Objective: Regression}
		for range 3 {
			tree := randomTree(r, len(names), 1+r.IntN(14), r.IntN(3) == 0, r.IntN(2) == 0)
			for i := range tree.Leaves {
				if r.IntN(6) == 0 {
					tree.Leaves[i].Rows = 0
				}
			}
			spec.Trees = append(spec.Trees, tree)
		}
		f, err := NewForest(spec)
		if err != nil {
			t.Fatal(err)
		}
		row, out := randomRow(r, len(names)), make([]float64, len(names))
		bias, method := f.Explain(row, 0, TreeSHAP, out)
		sum := bias
		for input, got := range out {
			want := 0.0
			for i := range spec.Trees {
				want += shapley(&spec.Trees[i], row, input)
			}
			if math.Abs(got-want) > 1e-10 {
				t.Fatalf("round %d, row %v: input %d has %v, want %v", round, row, input, got, want)
			}
			sum += got
		}
		if method != TreeSHAP || math.Abs(sum-f.Margin(row)) > 1e-10 {
			t.Fatalf("round %d: %s adds up to %v, margin is %v", round, method, sum, f.Margin(row))
		}
	}
}

// TestTreeSHAPHasALimit expects that a forest too deep for it says so.
func TestTreeSHAPHasALimit(t *testing.T) {
	r := rand.New(rand.NewPCG(9, 10))
	f, err := NewForest(ForestSpec{Inputs: threeNames, Objective: Binary, Trees: []Tree{randomTree(r, 3, maxShapDepth+2, true, false)}})
	if err != nil {
		t.Fatal(err)
	}
	out := make([]float64, 3)
	if _, method := f.Explain(randomRow(r, 3), 0, TreeSHAP, out); method != Saabas || len(f.Methods()) != 1 {
		t.Errorf("methods %v, explained by %s", f.Methods(), method)
	}
}
