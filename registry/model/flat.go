package model

import (
	"cmp"
	"math"
	"slices"
)

// lanes is how many trees are walked in lock step: enough independent loads to hide their latency, few enough for their
// positions to stay in registers.
const lanes = 8

// flat is a forest laid out for walking without branches.
//
// A node's children are neighbours, right then left, so that the next node is next + (x <= threshold). A leaf has
// threshold NaN, which nothing is at most, and itself as next: a walk that goes on stays there. The rules for missing
// values are folded into the columns: each (input, rule) that a split uses is a column of its own, filled once per row
// with a number that takes the right side under plain comparison. So the comparison is LightGBM's own, in float64.
type flat struct {
	nodes   []node
	values  []float64 // per node: a leaf's value, else the mean leaf value of the training rows below
	columns []column
	roots   []int32 // per tree, in order
	groups  []group
}

type node struct {
	threshold float64
	next      int32 // the right child; the left one follows
	column    int32
}

// column is an input as the splits of one rule see it.
type column struct {
	input int32
	rule  rule
}

type rule uint8

const (
	nanRight  rule = iota // as it is: NaN is never at most a threshold
	nanLeft               // NaN is -Inf
	nanZero               // NaN is 0
	zeroRight             // 0 and NaN are NaN
	zeroLeft              // 0 and NaN are -Inf
)

func ruleOf(s Split) rule {
	switch {
	case s.Missing == MissingNone:
		return nanZero
	case s.Missing == MissingNaN && s.DefaultLeft:
		return nanLeft
	case s.Missing == MissingNaN:
		return nanRight
	case s.DefaultLeft:
		return zeroLeft
	default:
		return zeroRight
	}
}

// group is up to lanes trees of like depth, walked together; depth is that of the deepest.
type group struct {
	trees [lanes]int32 // a short group repeats its last tree
	depth int
}

// scratch is what one walk needs.
type scratch struct {
	x      []float64 // per column
	leaves []float64 // per tree
}

func (f *flat) newScratch() *scratch {
	return &scratch{x: make([]float64, max(1, len(f.columns))), leaves: make([]float64, len(f.roots))}
}

func flatten(trees []Tree) flat {
	var f flat
	columns := make(map[column]int32)
	depths := make([]int, len(trees))
	for i := range trees {
		depths[i] = f.add(&trees[i], columns)
	}
	f.group(depths)
	return f
}

// add lays out one tree, breadth first, and returns its depth.
func (f *flat) add(t *Tree, columns map[column]int32) int {
	type placed struct {
		child int // as in Split: ^leaf or split
		at    int32
	}
	below := t.subtrees()
	root := int32(len(f.nodes))
	f.roots = append(f.roots, root)
	f.grow(1)
	queue := []placed{{0, root}}
	depth := 0
	if len(t.Splits) == 0 {
		queue[0].child = ^0
	} else {
		depth = below[0].depth
	}
	for i := 0; i < len(queue); i++ {
		p := queue[i]
		if p.child < 0 {
			f.nodes[p.at] = node{threshold: math.NaN(), next: p.at}
			f.values[p.at] = t.Leaves[^p.child].Value
			continue
		}
		s := t.Splits[p.child]
		next := int32(len(f.nodes))
		f.grow(2)
		f.nodes[p.at] = node{threshold: s.Threshold, next: next, column: f.column(s, columns)}
		f.values[p.at] = below[p.child].value
		queue = append(queue, placed{s.Right, next}, placed{s.Left, next + 1})
	}
	return depth
}

func (f *flat) grow(n int) {
	f.nodes = append(f.nodes, make([]node, n)...)
	f.values = append(f.values, make([]float64, n)...)
}

func (f *flat) column(s Split, columns map[column]int32) int32 {
	c := column{int32(s.Input), ruleOf(s)}
	at, ok := columns[c]
	if !ok {
		at = int32(len(f.columns))
		columns[c] = at
		f.columns = append(f.columns, c)
	}
	return at
}

// group puts trees of like depth together, so that few steps are spent waiting in a leaf.
func (f *flat) group(depths []int) {
	order := make([]int32, len(depths))
	for i := range order {
		order[i] = int32(i)
	}
	slices.SortStableFunc(order, func(a, b int32) int { return cmp.Compare(depths[a], depths[b]) })
	for part := range slices.Chunk(order, lanes) {
		g := group{depth: depths[part[len(part)-1]]}
		for i := range g.trees {
			g.trees[i] = part[min(i, len(part)-1)]
		}
		f.groups = append(f.groups, g)
	}
}

// fill writes the row as the columns see it.
func (f *flat) fill(x, row []float64) {
	for i, c := range f.columns {
		v := row[c.input]
		switch c.rule {
		case nanLeft:
			if math.IsNaN(v) {
				v = math.Inf(-1)
			}
		case nanZero:
			if math.IsNaN(v) {
				v = 0
			}
		case zeroRight:
			if v >= -zeroBand && v <= zeroBand {
				v = math.NaN()
			}
		case zeroLeft:
			if math.IsNaN(v) || v >= -zeroBand && v <= zeroBand {
				v = math.Inf(-1)
			}
		}
		x[i] = v
	}
}

// step is 1 when x is at most threshold. The compiler makes it a flag, not a branch.
func step(x, threshold float64) int32 {
	var b int32
	if x <= threshold {
		b = 1
	}
	return b
}

// walk finds the leaf value of every tree. The steps are written out because the compiler keeps the eight positions in
// registers only so.
func (f *flat) walk(s *scratch) {
	nodes, x := f.nodes, s.x
	for i := range f.groups {
		g := &f.groups[i]
		t := &g.trees
		a, b, c, d := f.roots[t[0]], f.roots[t[1]], f.roots[t[2]], f.roots[t[3]]
		e, h, k, l := f.roots[t[4]], f.roots[t[5]], f.roots[t[6]], f.roots[t[7]]
		for range g.depth {
			na, nb, nc, nd := &nodes[a], &nodes[b], &nodes[c], &nodes[d]
			a = na.next + step(x[na.column], na.threshold)
			b = nb.next + step(x[nb.column], nb.threshold)
			c = nc.next + step(x[nc.column], nc.threshold)
			d = nd.next + step(x[nd.column], nd.threshold)
			ne, nh, nk, nl := &nodes[e], &nodes[h], &nodes[k], &nodes[l]
			e = ne.next + step(x[ne.column], ne.threshold)
			h = nh.next + step(x[nh.column], nh.threshold)
			k = nk.next + step(x[nk.column], nk.threshold)
			l = nl.next + step(x[nl.column], nl.threshold)
		}
		for lane, at := range [lanes]int32{a, b, c, d, e, h, k, l} {
			s.leaves[t[lane]] = f.values[at]
		}
	}
}

// explain adds to out, per input, the change of the mean value across its splits on the row's paths.
func (f *flat) explain(x, out []float64) {
	for _, at := range f.roots {
		for {
			n := &f.nodes[at]
			next := n.next + step(x[n.column], n.threshold)
			if next == at {
				break
			}
			out[f.columns[n.column].input] += f.values[next] - f.values[at]
			at = next
		}
	}
}
