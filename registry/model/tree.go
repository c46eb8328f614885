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

// ZeroBand is how near to zero counts as zero, for a split and for MissingZero: LightGBM's kZeroThreshold, the float32 nearest 1e-35.
const ZeroBand = float64(float32(1e-35))

// aroundZero is the threshold that splits rows as they are the way that this one splits those that LightGBM makes of them:
// its predict takes a number within ZeroBand of zero, the ends included, for zero (src/c_api.cpp, RowPairFunctionFromDenseMatric).
// LightGBM writes both ends as thresholds wherever an input has zeros, so that numbers at the lower one do occur.
func aroundZero(threshold float64) float64 {
	switch {
	case threshold < -ZeroBand || threshold >= ZeroBand:
		return threshold
	case threshold < 0:
		return math.Nextafter(-ZeroBand, math.Inf(-1))
	default:
		return ZeroBand
	}
}

// asItIs is the threshold of XGBoost's splits, to which zero is a number like others.
func asItIs(threshold float64) float64 { return threshold }

// Split is an inner node. A child c >= 0 is the split with that index, c < 0 is leaf ^c.
//
// Where Categories is nil, a row goes to Left when its input is at most Threshold, else to Right. Otherwise the input is
// the code of a category, cut off to a whole number: a code in Categories goes to Left, all others to Right, a missing one
// (NaN) to the default side; Threshold and Missing say nothing then.
type Split struct {
	Input       int
	Threshold   float64 // may be infinite: a split on what is missing alone
	Categories  Categories
	DefaultLeft bool
	Missing     Missing
	Left, Right int
	Gain        float64 // of the loss, when it was chosen; for the reader only
}

// Categories is a set of category codes, as bits: code c is bit c%32 of word c/32 (LightGBM's cat_threshold).
type Categories []uint32

// NewCategories is the set of these codes, each 0 to MaxCategory.
func NewCategories(codes ...int) Categories {
	set := Categories{0}
	for _, c := range codes {
		if more := c/32 + 1 - len(set); more > 0 {
			set = append(set, make(Categories, more)...)
		}
		set[c/32] |= 1 << (c % 32)
	}
	return set
}

// Has says whether the code is in the set; any int may be asked for.
func (c Categories) Has(code int) bool {
	return code >= 0 && code/32 < len(c) && c[code/32]>>(code%32)&1 == 1
}

// Leaf is where a row ends.
type Leaf struct {
	Value  float64 // added to the margin
	Weight float64 // sum of the hessian of the training rows that ended here
	Rows   int     // training rows that ended here
}

// Tree is a binary tree of len(Leaves)-1 splits, the first of which is the root.
type Tree struct {
	Splits []Split
	Leaves []Leaf
	Output int // which of the forest's outputs the leaves add to
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
		if math.IsNaN(s.Threshold) || !finite(s.Gain) || s.Missing > MissingNaN {
			return fmt.Errorf("split %d has threshold %v, gain %v and missing type %d", i, s.Threshold, s.Gain, s.Missing)
		}
		if len(s.Categories) > MaxCategory/32+1 {
			return fmt.Errorf("split %d is on categories above %d", i, MaxCategory)
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
	value  float64 // mean leaf value
	cover  float64 // what leaves count for in the mean
	depth  int     // longest way to a leaf, in splits
	steps  float64 // mean way to a leaf, in splits
}

// cover says what the training rows of a leaf count for in explanations: how many they are, as LightGBM has it, or the
// sum of their hessian, as XGBoost has it.
type cover func(Leaf) float64

func coverRows(l Leaf) float64   { return float64(l.Rows) }
func coverWeight(l Leaf) float64 { return l.Weight }

// subtrees sums up the rows below each split, children first.
func (t *Tree) subtrees(c cover) []subtree {
	below := make([]subtree, len(t.Splits))
	order := make([]int, 0, len(t.Splits)) // parents before children
	if len(t.Splits) > 0 {
		order = append(order, 0)
	}
	for i := 0; i < len(order); i++ {
		for _, child := range [2]int{t.Splits[order[i]].Left, t.Splits[order[i]].Right} {
			if child >= 0 {
				order = append(order, child)
			}
		}
	}
	for i := len(order) - 1; i >= 0; i-- {
		s := t.Splits[order[i]]
		below[order[i]] = join(t.below(below, s.Left, c), t.below(below, s.Right, c))
	}
	return below
}

func (t *Tree) below(known []subtree, child int, c cover) subtree {
	if child >= 0 {
		return known[child]
	}
	l := t.Leaves[^child]
	return subtree{rows: l.Rows, weight: l.Weight, value: l.Value, cover: c(l)}
}

func join(a, b subtree) subtree {
	share := 0.5 // where no training row is known, the sides count alike
	if n := a.cover + b.cover; n > 0 {
		share = a.cover / n
	}
	return subtree{
		rows:   a.rows + b.rows,
		weight: a.weight + b.weight,
		value:  share*a.value + (1-share)*b.value,
		cover:  a.cover + b.cover,
		depth:  1 + max(a.depth, b.depth),
		steps:  1 + share*a.steps + (1-share)*b.steps,
	}
}

func finite(x float64) bool { return !math.IsNaN(x) && !math.IsInf(x, 0) }
