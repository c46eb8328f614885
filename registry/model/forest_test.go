package model

import (
	"math"
	"math/rand/v2"
	"sync"
	"testing"
)

// goesLeft is LightGBM's NumericalDecision and CategoricalDecision (include/LightGBM/tree.h), word by word: the oracle of
// the branch-free walk.
func goesLeft(s Split, x float64) bool {
	if s.Categories != nil {
		if math.IsNaN(x) || math.Trunc(x) < 0 || math.Trunc(x) >= float64(32*len(s.Categories)) {
			return false
		}
		code := uint32(x)
		return s.Categories[code/32]&(1<<(code%32)) != 0
	}
	if math.IsNaN(x) && s.Missing != MissingNaN {
		x = 0
	}
	if s.Missing == MissingZero && math.Abs(x) <= float64(float32(1e-35)) || s.Missing == MissingNaN && math.IsNaN(x) {
		return s.DefaultLeft
	}
	if math.Abs(x) <= float64(float32(1e-35)) {
		x = 0 // LightGBM's predict drops it from the row, as in a sparse one
	}
	return x <= s.Threshold
}

// plainMargin walks the trees as they are described.
func plainMargin(trees []Tree, row []float64) float64 {
	sum := 0.0
	for _, t := range trees {
		at := 0
		if len(t.Splits) == 0 {
			at = ^0
		}
		for at >= 0 {
			s := t.Splits[at]
			if at = s.Right; goesLeft(s, row[s.Input]) {
				at = s.Left
			}
		}
		sum += t.Leaves[^at].Value
	}
	return sum
}

// someValues are the numbers that walks get wrong.
var someValues = []float64{
	0, math.Copysign(0, -1), 1e-35, float64(float32(1e-35)), -float64(float32(1e-35)), 2e-35, math.NaN(), math.Inf(1), math.Inf(-1), 1, -1,
	math.MaxFloat64, -math.MaxFloat64, math.SmallestNonzeroFloat64, -0.5, 0.5, 31, 31.9, 32, 63, 64, 1 << 31,
}

// randomTree splits a random leaf until there are enough: from stump to chain, half of the splits on categories if any.
func randomTree(r *rand.Rand, inputs, leaves int, chain, categories bool) Tree {
	t := Tree{Leaves: []Leaf{{}}}
	holder := []*int{nil} // where each leaf hangs
	t.Splits = make([]Split, 0, leaves)
	for len(t.Leaves) < leaves {
		at := r.IntN(len(t.Leaves))
		if chain {
			at = len(t.Leaves) - 1
		}
		t.Splits = append(t.Splits, Split{
			Input: r.IntN(inputs), Threshold: r.NormFloat64(), DefaultLeft: r.IntN(2) == 0, Missing: Missing(r.IntN(3)),
			Left: ^at, Right: ^len(t.Leaves),
		})
		s := &t.Splits[len(t.Splits)-1]
		if v := someValues[r.IntN(len(someValues))]; r.IntN(3) == 0 && finite(v) {
			s.Threshold = v
		}
		if categories && r.IntN(2) == 0 {
			s.Categories, s.DefaultLeft = Categories{r.Uint32(), r.Uint32()}[:1+r.IntN(2)], false
		}
		if holder[at] != nil {
			*holder[at] = len(t.Splits) - 1
		}
		holder[at] = &s.Left
		holder = append(holder, &s.Right)
		t.Leaves = append(t.Leaves, Leaf{})
	}
	for i := range t.Leaves {
		t.Leaves[i] = Leaf{Value: r.NormFloat64(), Weight: r.Float64(), Rows: r.IntN(50)}
	}
	return t
}

func randomRow(r *rand.Rand, inputs int) []float64 {
	row := make([]float64, inputs)
	for i := range row {
		row[i] = r.NormFloat64()
		if r.IntN(2) == 0 {
			row[i] = someValues[r.IntN(len(someValues))]
		}
	}
	return row
}

var threeNames = []string{"a", "b", "c"}

// TestWalkMatchesDefinition compares the branch-free walk with the definition of a decision, to the bit, also after the
// forest was written and read, and the reasons with the margin.
func TestWalkMatchesDefinition(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		spec := ForestSpec{Inputs: threeNames, Objective: Binary}
		for range r.IntN(30) {
			spec.Trees = append(spec.Trees, randomTree(r, 3, 1+r.IntN(20), r.IntN(4) == 0, r.IntN(4) == 0))
		}
		f, err := NewForest(spec)
		if err != nil {
			t.Fatal(err)
		}
		again, err := LoadLightGBM(f.LightGBM())
		if err != nil {
			t.Fatal(err)
		}
		for range 30 {
			row := randomRow(r, 3)
			want := plainMargin(spec.Trees, row)
			if got := f.Margin(row); got != want {
				t.Fatalf("row %v: margin %v, want %v", row, got, want)
			}
			if got := again.Margin(row); got != want {
				t.Fatalf("row %v: margin %v when read back, want %v", row, got, want)
			}
			out := []float64{7, 7, 7}
			sum, _ := f.Explain(row, 0, "", out)
			for _, c := range out {
				sum += c
			}
			if math.Abs(sum-want) > 1e-12*float64(1+len(spec.Trees)) {
				t.Fatalf("row %v: reasons sum to %v, margin is %v", row, sum, want)
			}
		}
	}
}

func TestConcurrentUse(t *testing.T) {
	f := load(t, "testdata/good/binary.txt")
	rows := make([][]float64, 100)
	want := make([]float64, len(rows))
	r := rand.New(rand.NewPCG(3, 4))
	for i := range rows {
		rows[i] = randomRow(r, 3)
		want[i] = plainMargin(f.Trees(), rows[i])
	}
	var wait sync.WaitGroup
	for range 4 {
		wait.Go(func() {
			for i := range rows {
				if got := f.Margin(rows[i]); got != want[i] {
					t.Errorf("row %d: margin %v, want %v", i, got, want[i])
				}
				f.Explain(rows[i], 0, "", make([]float64, 3))
			}
		})
	}
	wait.Wait()
}

// BenchmarkMargin scores distinct rows with 200 trees of 31 leaves over 35 inputs, walked in lock step and tree by tree.
func BenchmarkMargin(b *testing.B) {
	r := rand.New(rand.NewPCG(5, 6))
	spec := ForestSpec{Objective: Binary}
	for i := range 35 {
		spec.Inputs = append(spec.Inputs, string(rune('A'+i)))
	}
	for range 200 {
		spec.Trees = append(spec.Trees, randomTree(r, 35, 31, false, false))
	}
	rows := make([][]float64, 4096)
	for i := range rows {
		rows[i] = randomRow(r, 35)
	}
	f, err := NewForest(spec)
	if err != nil {
		b.Fatal(err)
	}
	b.Run("lockstep", func(b *testing.B) {
		b.ReportAllocs()
		for i := 0; b.Loop(); i++ {
			f.Margin(rows[i%len(rows)])
		}
	})
	b.Run("plain", func(b *testing.B) {
		for i := 0; b.Loop(); i++ {
			plainMargin(spec.Trees, rows[i%len(rows)])
		}
	})
	b.Run("explain", func(b *testing.B) {
		b.ReportAllocs()
		out := make([]float64, 35)
		for i := 0; b.Loop(); i++ {
			f.Explain(rows[i%len(rows)], 0, "", out)
		}
	})
	b.Run("with explanation", func(b *testing.B) {
		b.ReportAllocs()
		out, score := make([]float64, 35), make([]float64, 1)
		for i := 0; b.Loop(); i++ {
			f.PredictExplained(rows[i%len(rows)], score, out)
		}
	})
}
