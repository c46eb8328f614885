package model

import (
	"fmt"
	"math"
)

// Missing says what a split takes for a missing value (LightGBM's missing_type).
type Missing uint8

// The ways to meet a missing value.
const (
	MissingNone Missing = iota // nothing is missing: NaN counts as 0
	MissingZero                // NaN and zero (to 1e-35) take the default side
	MissingNaN                 // NaN takes the default side
)

// zeroBand is how near to zero counts as zero for MissingZero: LightGBM's kZeroThreshold, the float32 nearest 1e-35.
const zeroBand = float64(float32(1e-35))

// Split is an inner node: a row goes to Left when its input is at most Threshold, else to Right. A child c >= 0 is the
// split with that index, c < 0 is leaf ^c.
type Split struct {
	Input       int
	Threshold   float64
	DefaultLeft bool
	Missing     Missing
	Left, Right int
	Gain        float64 // of the loss, when it was chosen; for the reader only
}

// Leaf is where a row ends.
type Leaf struct {
	Value  float64 // added to the margin
	Weight float64 // sum of the hessian of the training rows that ended here
	Rows   int     // training rows that ended here; Explain weighs by it
}

// Tree is a binary tree of len(Leaves)-1 splits, the first of which is the root.
type Tree struct {
	Splits []Split
	Leaves []Leaf
}

// check reports the first way in which the tree is none over so many inputs: every split and leaf must be reached from
// the root exactly once.
func (t *Tree) check(inputs int) error {
	if len(t.Leaves) == 0 || len(t.Leaves) > MaxLeaves {
		return fmt.Errorf("has %d leaves, not 1 to %d", len(t.Leaves), MaxLeaves)
	}
	if len(t.Splits) != len(t.Leaves)-1 {
		return fmt.Errorf("has %d splits for %d leaves", len(t.Splits), len(t.Leaves))
	}
	for i, l := range t.Leaves {
		if !finite(l.Value) || !finite(l.Weight) || l.Rows < 0 {
			return fmt.Errorf("leaf %d is not of finite numbers", i)
		}
	}
	for i, s := range t.Splits {
		if s.Input < 0 || s.Input >= inputs {
			return fmt.Errorf("split %d is on input %d of %d", i, s.Input, inputs)
		}
		if !finite(s.Threshold) || !finite(s.Gain) || s.Missing > MissingNaN {
			return fmt.Errorf("split %d has threshold %v, gain %v and missing type %d", i, s.Threshold, s.Gain, s.Missing)
		}
	}
	return t.checkShape()
}

func (t *Tree) checkShape() error {
	splits, leaves := make([]bool, len(t.Splits)), make([]bool, len(t.Leaves))
	reach := func(child int) error {
		seen, at, what := splits, child, "split"
		if child < 0 {
			seen, at, what = leaves, ^child, "leaf"
		}
		if at >= len(seen) {
			return fmt.Errorf("%s %d does not exist", what, at)
		}
		if seen[at] {
			return fmt.Errorf("%s %d is reached twice", what, at)
		}
		seen[at] = true
		return nil
	}
	if len(t.Splits) > 0 {
		splits[0] = true
	}
	for _, s := range t.Splits {
		if err := reach(s.Left); err != nil {
			return err
		}
		if err := reach(s.Right); err != nil {
			return err
		}
	}
	// Every split but the root and every leaf has now one parent, or the counts would not fit; what is left to exclude
	// is a cycle apart from the root.
	reached, stack := 0, []int{0}
	for len(t.Splits) > 0 && len(stack) > 0 {
		s := t.Splits[stack[len(stack)-1]]
		stack = stack[:len(stack)-1]
		reached++
		for _, c := range [2]int{s.Left, s.Right} {
			if c >= 0 {
				stack = append(stack, c)
			}
		}
	}
	if reached != len(t.Splits) {
		return fmt.Errorf("%d of %d splits cannot be reached from the root", len(t.Splits)-reached, len(t.Splits))
	}
	return nil
}

// subtree is what is known of the rows below a split.
type subtree struct {
	rows   int
	weight float64
	value  float64 // mean leaf value, by rows
	depth  int     // longest way to a leaf, in splits
}

// subtrees sums up the rows below each split, children first.
func (t *Tree) subtrees() []subtree {
	below := make([]subtree, len(t.Splits))
	order := make([]int, 0, len(t.Splits)) // parents before children
	if len(t.Splits) > 0 {
		order = append(order, 0)
	}
	for i := 0; i < len(order); i++ {
		for _, c := range [2]int{t.Splits[order[i]].Left, t.Splits[order[i]].Right} {
			if c >= 0 {
				order = append(order, c)
			}
		}
	}
	for i := len(order) - 1; i >= 0; i-- {
		s := t.Splits[order[i]]
		below[order[i]] = join(t.below(below, s.Left), t.below(below, s.Right))
	}
	return below
}

func (t *Tree) below(known []subtree, child int) subtree {
	if child >= 0 {
		return known[child]
	}
	l := t.Leaves[^child]
	return subtree{rows: l.Rows, weight: l.Weight, value: l.Value}
}

func join(a, b subtree) subtree {
	share := 0.5 // where no training row is known, the sides count alike
	if n := float64(a.rows) + float64(b.rows); n > 0 {
		share = float64(a.rows) / n
	}
	return subtree{
		rows:   a.rows + b.rows,
		weight: a.weight + b.weight,
		value:  share*a.value + (1-share)*b.value,
		depth:  1 + max(a.depth, b.depth),
	}
}

func finite(x float64) bool { return !math.IsNaN(x) && !math.IsInf(x, 0) }
