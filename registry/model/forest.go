package model

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"

	"github.com/millrace/millrace/internal/failure"
)

// Objective is what a forest was trained for, and so its link from margin to score.
type Objective string

// The objectives known, under LightGBM's names.
const (
	Binary     Objective = "binary"     // score = 1/(1+exp(-sigmoid*margin))
	Regression Objective = "regression" // score = margin
)

// ForestSpec is what a Forest is made of.
type ForestSpec struct {
	Inputs    []string // no blanks in a name: LightGBM text separates names by them
	Ranges    []string // LightGBM's feature_infos, "[min:max]" or "none"; nil is "none" for all
	Objective Objective
	Sigmoid   float64 // steepness of the binary link; 0 is 1
	Shrinkage float64 // the learning rate, for the reader only
	Trees     []Tree
}

// Forest is a sum of trees. Its margin is the float64 sum of the leaf values in the order of the trees: what LightGBM
// computes, to the bit.
type Forest struct {
	spec    ForestSpec
	flat    flat
	bias    float64 // mean margin of the training rows
	scratch sync.Pool
}

// NewForest checks spec and lays it out for scoring. It keeps spec's slices: don't change them afterwards. Its errors are of kind Corrupt.
func NewForest(spec ForestSpec) (*Forest, error) {
	if spec.Sigmoid == 0 {
		spec.Sigmoid = 1
	}
	if spec.Ranges == nil {
		spec.Ranges = slices.Repeat([]string{"none"}, len(spec.Inputs))
	}
	if err := spec.check(); err != nil {
		return nil, failure.Wrap(failure.Corrupt, "", "checking forest", err)
	}
	f := &Forest{spec: spec, flat: flatten(spec.Trees)}
	for _, root := range f.flat.roots {
		f.bias += f.flat.values[root]
	}
	f.scratch.New = func() any { return f.flat.newScratch() }
	return f, nil
}

func (s *ForestSpec) check() error {
	if err := checkNames(s.Inputs); err != nil {
		return err
	}
	for _, text := range slices.Concat(s.Inputs, s.Ranges) {
		if text == "" || strings.ContainsAny(text, " \t\r\n") {
			return fmt.Errorf("%q cannot be written as LightGBM text: it is empty or has a blank", text)
		}
	}
	switch {
	case len(s.Ranges) != len(s.Inputs):
		return fmt.Errorf("%d ranges for %d inputs", len(s.Ranges), len(s.Inputs))
	case s.Objective != Binary && s.Objective != Regression:
		return fmt.Errorf("objective %q is not known", s.Objective)
	case !(s.Sigmoid > 0) || !finite(s.Sigmoid):
		return fmt.Errorf("sigmoid is %v, not a number above 0", s.Sigmoid)
	case !finite(s.Shrinkage):
		return fmt.Errorf("shrinkage is %v", s.Shrinkage)
	case len(s.Trees) > MaxTrees:
		return fmt.Errorf("%d trees, above the limit of %d", len(s.Trees), MaxTrees)
	}
	nodes := 0
	for i := range s.Trees {
		if err := s.Trees[i].check(len(s.Inputs)); err != nil {
			return fmt.Errorf("tree %d %w", i, err)
		}
		nodes += 2 * len(s.Trees[i].Leaves)
	}
	if nodes > math.MaxInt32 {
		return fmt.Errorf("%d nodes, above the limit of %d", nodes, math.MaxInt32)
	}
	return nil
}

// checkNames reports inputs that are too many, unnamed or named twice.
func checkNames(names []string) error {
	if len(names) == 0 || len(names) > MaxInputs {
		return fmt.Errorf("%d inputs, not 1 to %d", len(names), MaxInputs)
	}
	seen := make(map[string]bool, len(names))
	for _, n := range names {
		if n == "" {
			return fmt.Errorf("an input has no name")
		}
		if seen[n] {
			return fmt.Errorf("input %q is there twice", n)
		}
		seen[n] = true
	}
	return nil
}

// Inputs names the columns of a row.
func (f *Forest) Inputs() []string { return f.spec.Inputs }

// Kind is "forest".
func (f *Forest) Kind() string { return "forest" }

// Objective is what the forest was trained for.
func (f *Forest) Objective() Objective { return f.spec.Objective }

// Trees are the forest's trees, in order. The caller must not change them.
func (f *Forest) Trees() []Tree { return f.spec.Trees }

// Predict is the probability of a binary forest, the value of a regression.
func (f *Forest) Predict(row []float64) float64 { return f.link(f.Margin(row)) }

func (f *Forest) link(margin float64) float64 {
	if f.spec.Objective == Binary {
		return 1 / (1 + math.Exp(-f.spec.Sigmoid*margin))
	}
	return margin
}

// Margin is the sum of the leaves that the row ends in, in the order of the trees. It does not allocate.
func (f *Forest) Margin(row []float64) float64 {
	s := f.scratch.Get().(*scratch)
	f.flat.fill(s.x, row)
	f.flat.walk(s)
	sum := 0.0
	for _, v := range s.leaves {
		sum += v
	}
	f.scratch.Put(s)
	return sum
}

// Explain follows each tree's path and gives each split's input the change of the mean training margin across it
// (Saabas). The bias is the mean margin of the training rows, the same as the last column of LightGBM's pred_contrib.
// It does not allocate.
func (f *Forest) Explain(row []float64, out []float64) (bias float64, method string) {
	out = out[:len(f.spec.Inputs)]
	clear(out)
	s := f.scratch.Get().(*scratch)
	f.flat.fill(s.x, row)
	f.flat.explain(s.x, out)
	f.scratch.Put(s)
	return f.bias, Saabas
}
