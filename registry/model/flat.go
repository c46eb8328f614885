package model

import (
	"cmp"
	"math"
	"slices"
	"sync"
	"unsafe"
)

// lanes is how many trees are walked in lock step: enough independent loads to hide their latency, few enough for their
// positions to stay in registers.
const lanes = 8

// blockRows is how many rows pass a group of trees before the next group has its turn: the nodes of a group stay in the
// first cache, and so do the rows.
const blockRows = 64

// maxWaste is how much deeper than its mean path a tree may be to be walked in lock step, which goes to the full depth.
const maxWaste = 3

// real is the arithmetic of a forest: float64 is LightGBM's, float32 is XGBoost's.
type real interface{ float32 | float64 }

// flat is a forest laid out for walking without branches.
//
// A node's children are neighbours, right then left, so that the next node is next + (x <= threshold). A leaf looks at
// the column that is always NaN, which is at most nothing, and has itself as next: a walk that goes on stays there. Its
// threshold is free to be its value. The rules for missing values are folded into the columns: each (input, rule) that a
// split uses is a column of its own, filled once per row with a number that takes the right side under plain comparison.
// So the comparison is LightGBM's own in float64, and XGBoost's in float32, where x < c is x <= the number before c.
//
// Trees with categorical splits, and those much deeper than their mean path, are walked one by one.
type flat[T real] struct {
	nodes   []node[T]
	means   []float64 // per node, the mean leaf value below, for explanations; apart from covers, so that more of it is in a cache
	covers  []float64 // per node, how many training rows, or how much weight, came by
	columns []column
	sets    []set // of the categorical nodes
	roots   []int32
	outputs []int32 // per tree
	groups  []group
	single  []int32 // trees that are walked by themselves
	kept    legs    // what the leaves say of the inputs
	base    []T     // per output, what the sum begins with
	deepest int
	pool    sync.Pool
}

type node[T real] struct {
	threshold T     // of a leaf, its value
	next      int32 // the right child; the left one follows
	column    int32 // below 0: the set ^column decides
}

// set is the question of a categorical node.
type set struct {
	categories  Categories
	column      int32
	above       float64 // codes must be above it: LightGBM cuts -0.5 off to category 0, to XGBoost it is none
	missingLeft int32
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
	case s.Categories != nil:
		return nanRight
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

// leafColumn is the column that is always NaN.
const leafColumn = 0

// group is up to lanes trees of like depth, walked together; depth is that of the deepest.
type group struct {
	trees [lanes]int32 // a short group repeats its last tree
	roots [lanes]uint32
	depth int
}

// scratch is what the walk of a block needs.
type scratch[T real] struct {
	x       []T       // per row and column
	leaves  []T       // per row and tree
	at      []uint32  // per tree: the leaf, of one row
	sums    []T       // per output
	moved   []float64 // per sum and input: how far the mean value has moved
	touched uint64    // keeps the reads of touch from being left out
}

func flatten[T real](spec *ForestSpec, base []float64) *flat[T] {
	f := &flat[T]{columns: []column{{}}}
	c, above, threshold := coverRows, -1.0, aroundZero
	if spec.Float32 {
		c, above, threshold = coverWeight, -math.SmallestNonzeroFloat64, asItIs
	}
	columns := make(map[column]int32)
	depths := make([]int, len(spec.Trees))
	for i := range spec.Trees {
		depths[i] = f.add(&spec.Trees[i], columns, c, above, threshold)
		f.outputs = append(f.outputs, int32(spec.Trees[i].Output))
	}
	f.group(depths)
	f.keepLegs()
	for _, b := range base {
		f.base = append(f.base, T(b))
	}
	f.pool.New = func() any { return new(scratch[T]) }
	return f
}

// add lays out one tree, breadth first. It returns its depth, -1 when it is to be walked by itself.
func (f *flat[T]) add(t *Tree, columns map[column]int32, c cover, above float64, threshold func(float64) float64) int {
	type placed struct {
		child int // as in Split: ^leaf or split
		at    int32
	}
	below := t.subtrees(c)
	root := int32(len(f.nodes))
	f.roots = append(f.roots, root)
	f.grow(1)
	queue := []placed{{0, root}}
	depth := 0
	if len(t.Splits) == 0 {
		queue[0].child = ^0
	} else {
		depth = below[0].depth
		f.deepest = max(f.deepest, depth)
		if float64(depth) > maxWaste*below[0].steps {
			depth = -1
		}
	}
	for i := 0; i < len(queue); i++ {
		p := queue[i]
		if p.child < 0 {
			l := t.Leaves[^p.child]
			f.nodes[p.at] = node[T]{threshold: T(l.Value), next: p.at, column: leafColumn}
			f.means[p.at], f.covers[p.at] = l.Value, c(l)
			continue
		}
		s := t.Splits[p.child]
		next := int32(len(f.nodes))
		f.grow(2)
		n := node[T]{threshold: T(threshold(s.Threshold)), next: next, column: f.column(s, columns)}
		if s.Categories != nil {
			depth = -1
			f.sets = append(f.sets, set{categories: s.Categories, column: n.column, above: above, missingLeft: bit(s.DefaultLeft)})
			n.column = ^int32(len(f.sets) - 1)
		}
		f.nodes[p.at] = n
		f.means[p.at], f.covers[p.at] = below[p.child].value, below[p.child].cover
		queue = append(queue, placed{s.Right, next}, placed{s.Left, next + 1})
	}
	return depth
}

func (f *flat[T]) grow(n int) {
	f.nodes = append(f.nodes, make([]node[T], n)...)
	f.means = append(f.means, make([]float64, n)...)
	f.covers = append(f.covers, make([]float64, n)...)
}

func (f *flat[T]) column(s Split, columns map[column]int32) int32 {
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
func (f *flat[T]) group(depths []int) {
	var order []int32
	for i, d := range depths {
		if d < 0 {
			f.single = append(f.single, int32(i))
		} else {
			order = append(order, int32(i))
		}
	}
	slices.SortStableFunc(order, func(a, b int32) int { return cmp.Compare(depths[a], depths[b]) })
	for part := range slices.Chunk(order, lanes) {
		g := group{depth: depths[part[len(part)-1]]}
		for i := range g.trees {
			g.trees[i] = part[min(i, len(part)-1)]
			g.roots[i] = uint32(f.roots[g.trees[i]])
		}
		f.groups = append(f.groups, g)
	}
}

// take is a scratch for so many rows; put it back into the pool.
func (f *flat[T]) take(rows int) *scratch[T] {
	s := f.pool.Get().(*scratch[T])
	if need := rows * len(f.columns); cap(s.x) < need {
		s.x = make([]T, need)
	}
	if need := rows * len(f.roots); cap(s.leaves) < need {
		s.leaves = make([]T, need)
	}
	if s.sums == nil {
		s.at, s.sums = make([]uint32, len(f.roots)), make([]T, len(f.base))
	}
	return s
}

// margins writes the sums of one row to out.
func (f *flat[T]) margins(row, out []float64) {
	s := f.landed(row)
	f.sumLanded(s, out)
	f.pool.Put(s)
}

// landed is a scratch that says where a row ends in each tree; put it back into the pool.
func (f *flat[T]) landed(row []float64) *scratch[T] {
	s := f.take(1)
	x := s.x[:len(f.columns)]
	f.fill(x, row)
	for i := range f.groups {
		g := &f.groups[i]
		for lane, at := range f.land(g, unsafe.Pointer(unsafe.SliceData(x))) {
			s.at[g.trees[lane]] = at
		}
	}
	for _, t := range f.single {
		s.at[t] = uint32(f.descend(x, f.roots[t]))
	}
	return s
}

// sumLanded writes the sums of the leaves where a row ended to out.
func (f *flat[T]) sumLanded(s *scratch[T], out []float64) {
	leaves := s.leaves[:len(s.at)]
	for t, at := range s.at {
		leaves[t] = f.nodes[at].threshold
	}
	f.sum(leaves, s.sums, out)
}

// marginsRows writes the sums of many rows to out, row after row.
func (f *flat[T]) marginsRows(rows [][]float64, out []float64) {
	s := f.take(min(len(rows), blockRows))
	wide, trees := len(f.columns), len(f.roots)
	for block := range slices.Chunk(rows, blockRows) {
		for i, row := range block {
			f.fill(s.x[i*wide:(i+1)*wide], row)
		}
		for g := range f.groups {
			f.walk(&f.groups[g], s.x, s.leaves, len(block))
		}
		for _, t := range f.single {
			for i := range block {
				s.leaves[i*trees+int(t)] = f.nodes[f.descend(s.x[i*wide:(i+1)*wide], f.roots[t])].threshold
			}
		}
		for i := range block {
			f.sum(s.leaves[i*trees:(i+1)*trees], s.sums, out[i*len(f.base):(i+1)*len(f.base)])
		}
		out = out[len(block)*len(f.base):]
	}
	f.pool.Put(s)
}

// sum adds up the leaves in the order of the trees, as the library that trained them does.
func (f *flat[T]) sum(leaves, sums []T, out []float64) {
	if len(sums) == 1 {
		sum := f.base[0]
		for _, v := range leaves {
			sum += v
		}
		out[0] = float64(sum)
		return
	}
	copy(sums, f.base)
	for i, v := range leaves {
		sums[f.outputs[i]] += v
	}
	for i, v := range sums {
		out[i] = float64(v)
	}
}

// fill writes the row as the columns see it.
func (f *flat[T]) fill(x []T, row []float64) {
	nan, least, band := T(math.NaN()), T(math.Inf(-1)), T(ZeroBand)
	x[leafColumn] = nan
	for i, c := range f.columns[1:] {
		v := T(row[c.input])
		switch c.rule {
		case nanLeft:
			if v != v {
				v = least
			}
		case nanZero:
			if v != v {
				v = 0
			}
		case zeroRight:
			if v >= -band && v <= band {
				v = nan
			}
		case zeroLeft:
			if v != v || v >= -band && v <= band {
				v = least
			}
		}
		x[i+1] = v
	}
}

// step is 1 when x is at most threshold. The compiler makes it a flag, not a branch.
func step[T real](x, threshold T) int32 {
	var b int32
	if x <= threshold {
		b = 1
	}
	return b
}

func bit(b bool) int32 {
	if b {
		return 1
	}
	return 0
}

// walk finds the leaf values of a group of trees for rows of columns x.
func (f *flat[T]) walk(g *group, x, leaves []T, rows int) {
	wide := len(f.columns)
	for row := range rows {
		out := leaves[row*len(f.roots):][:len(f.roots)]
		for lane, at := range f.land(g, unsafe.Pointer(&x[row*wide])) {
			out[g.trees[lane]] = f.nodes[at].threshold
		}
	}
}

// land finds the leaves of a group of trees for a row of columns. It goes past the checks of indices, which take a third of
// its time: add wrote every next and column within the nodes and the columns, and take made the row as wide. The steps are
// written out because the compiler keeps the eight positions in registers only so.
func (f *flat[T]) land(g *group, columns unsafe.Pointer) [lanes]uint32 {
	nodes := unsafe.Pointer(unsafe.SliceData(f.nodes))
	a, b, c, d := g.roots[0], g.roots[1], g.roots[2], g.roots[3]
	e, h, k, l := g.roots[4], g.roots[5], g.roots[6], g.roots[7]
	for range g.depth {
		a = hop[T](nodes, columns, a)
		b = hop[T](nodes, columns, b)
		c = hop[T](nodes, columns, c)
		d = hop[T](nodes, columns, d)
		e = hop[T](nodes, columns, e)
		h = hop[T](nodes, columns, h)
		k = hop[T](nodes, columns, k)
		l = hop[T](nodes, columns, l)
	}
	return [lanes]uint32{a, b, c, d, e, h, k, l}
}

// hop is the node after one without a set of categories.
func hop[T real](nodes, columns unsafe.Pointer, at uint32) uint32 {
	n := (*node[T])(unsafe.Add(nodes, uintptr(at)*unsafe.Sizeof(node[T]{})))
	x := *(*T)(unsafe.Add(columns, uintptr(uint32(n.column))*unsafe.Sizeof(n.threshold)))
	return uint32(n.next) + uint32(step(x, n.threshold))
}

// next is where a row goes from a node; a leaf's is itself.
func (f *flat[T]) next(x []T, at int32) int32 {
	n := &f.nodes[at]
	if n.column >= 0 {
		return n.next + step(x[n.column], n.threshold)
	}
	s := &f.sets[^n.column]
	return n.next + s.left(float64(x[s.column]))
}

// left is 1 when the code is in the set.
func (s *set) left(code float64) int32 {
	switch {
	case code != code:
		return s.missingLeft
	case code > s.above && code <= MaxCategory:
		return bit(s.categories.Has(int(code)))
	default:
		return 0
	}
}

// descend finds the leaf of a tree.
func (f *flat[T]) descend(x []T, at int32) int32 {
	for {
		next := f.next(x, at)
		if next == at {
			return at
		}
		at = next
	}
}

// input is the one that a node asks for.
func (f *flat[T]) input(at int32) int32 {
	c := f.nodes[at].column
	if c < 0 {
		c = f.sets[^c].column
	}
	return f.columns[c].input
}

// biases is, per output, the mean of the margin over the training rows.
func (f *flat[T]) biases() []float64 {
	out := make([]float64, len(f.base))
	for i, b := range f.base {
		out[i] = float64(b)
	}
	for t, root := range f.roots {
		out[f.outputs[t]] += f.means[root]
	}
	return out
}

// methods are the ways in which these trees can be explained.
func (f *flat[T]) methods() []string {
	if f.deepest > maxShapDepth {
		return forestMethods[:1]
	}
	return forestMethods
}
