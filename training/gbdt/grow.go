package gbdt

import (
	"math"

	"github.com/millrace/millrace/registry/model"
)

// leaf is a leaf of the tree being grown: its rows are rows[from:until] of the grower.
type leaf struct {
	from, until int
	depth       int
	sum         cell
	hist        histogram // nil once it is known that the leaf stays
	best        candidate
	parent      int // split whose child it is, -1 for the root
	isLeft      bool
	limits      limits
	l2          float64 // of its output
}

func (l *leaf) rows() int { return l.until - l.from }

// grower grows one tree after the other over the same table, in the same memory.
type grower struct {
	table   *table
	params  *Params
	pool    pool
	grads   *gradients
	rows    []uint32 // that the tree is grown on, those of a leaf together and ascending
	left    []uint32 // all others, ascending
	skipped []bool   // columns that the tree does without
	spare   []uint32
	ordered []cell // cells of a leaf's rows, in their order
	free    []histogram
	partial []histogram // one per worker but the first
	found   [2][]candidate
	leaves  []leaf
	splits  []model.Split
}

// From how many rows of a leaf, and from how many bins to look through, several workers are worth their trouble.
const (
	parallelRows = 1 << 12
	parallelBins = 1 << 14
)

func newGrower(t *table, p *Params, g *gradients, pool pool) *grower {
	w := &grower{
		table: t, params: p, pool: pool, grads: g,
		rows: make([]uint32, 0, t.rows), spare: make([]uint32, t.rows), ordered: make([]cell, t.rows), skipped: make([]bool, len(t.columns)),
	}
	for range pool.workers - 1 {
		w.partial = append(w.partial, t.newHistogram())
	}
	for i := range w.found {
		w.found[i] = make([]candidate, len(t.columns))
	}
	return w
}

// grow builds the splits of a tree on the rows sampled, best first, until it has its leaves or nothing gains.
func (w *grower) grow() {
	w.leaves, w.splits = w.leaves[:0], w.splits[:0]
	root := leaf{until: len(w.rows), parent: -1, hist: w.histogram(), limits: noLimits, l2: w.params.L2}
	w.fill(root.hist, w.rows)
	for _, r := range w.rows {
		root.sum += w.grads.cells[r]
	}
	w.search(&root)
	w.leaves = append(w.leaves, root)
	for len(w.leaves) < w.params.Leaves {
		at := w.next()
		if w.leaves[at].best.gain <= 0 {
			break
		}
		w.split(at)
	}
	for i := range w.leaves {
		w.release(&w.leaves[i])
	}
}

// next is the leaf to split: of those that gain, the one that gains most, or that of the highest level.
func (w *grower) next() int {
	at := 0
	for i := range w.leaves {
		l, best := &w.leaves[i], &w.leaves[at]
		more := l.best.gain > best.best.gain
		if w.params.DepthWise && l.best.gain > 0 && best.best.gain > 0 && l.depth != best.depth {
			more = l.depth < best.depth
		}
		if more {
			at = i
		}
	}
	return at
}

// split splits a leaf as its best candidate says. As in LightGBM the left half keeps the leaf's number.
func (w *grower) split(at int) {
	l := w.leaves[at]
	middle := l.from + w.partition(w.rows[l.from:l.until], l.best)
	split := len(w.splits)
	w.splits = append(w.splits, w.describe(l.best, ^at, ^len(w.leaves)))
	if l.parent >= 0 {
		w.adopt(l, split)
	}
	left := leaf{from: l.from, until: middle, depth: l.depth + 1, sum: l.best.left, parent: split, isLeft: true, l2: l.best.l2}
	right := leaf{from: middle, until: l.until, depth: l.depth + 1, sum: l.sum - l.best.left, parent: split, l2: l.best.l2}
	left.limits, right.limits = w.limit(&l)
	small, large := &left, &right
	if left.rows() > right.rows() {
		small, large = large, small
	}
	if len(w.leaves)+1 < w.params.Leaves && w.mayGrow(large) {
		small.hist, large.hist = w.histogram(), l.hist
		w.fill(small.hist, w.rows[small.from:small.until])
		w.table.subtract(large.hist, small.hist)
		w.search(small, large)
	} else {
		w.release(&l)
	}
	w.leaves[at] = left
	w.leaves = append(w.leaves, right)
}

// limit gives the halves of a leaf the limits of their outputs: its own, and where its split is on a monotone column, one
// between the two that neither may cross (the "basic" method of LightGBM).
func (w *grower) limit(l *leaf) (left, right limits) {
	left, right = l.limits, l.limits
	way := w.table.ways[l.best.column]
	if way == 0 {
		return left, right
	}
	s := newScorer(w.params, w.grads, l, true)
	middle := s.output(l.best.left)/2 + s.output(l.sum-l.best.left)/2
	if way > 0 {
		left.high, right.low = middle, middle
	} else {
		left.low, right.high = middle, middle
	}
	return left, right
}

// adopt makes a split the child where its leaf was.
func (w *grower) adopt(l leaf, split int) {
	if l.isLeft {
		w.splits[l.parent].Left = split
	} else {
		w.splits[l.parent].Right = split
	}
}

func (w *grower) describe(c candidate, left, right int) model.Split {
	b := &w.table.bins[c.column]
	split := model.Split{
		Input: w.table.columns[c.column], DefaultLeft: c.missingLeft, Missing: model.MissingNaN, Left: left, Right: right, Gain: c.gain,
	}
	if b.isCategory {
		split.Categories = b.codesOf(&c.categories)
	} else {
		split.Threshold = b.bounds[c.bin]
	}
	return split
}

// mayGrow reports whether a leaf can be split at all.
func (w *grower) mayGrow(l *leaf) bool {
	return l.rows() >= max(2, 2*w.params.MinRows) && (w.params.MaxDepth == 0 || l.depth < w.params.MaxDepth)
}

// search finds the best split of each of up to two leaves.
func (w *grower) search(leaves ...*leaf) {
	columns := len(w.table.columns)
	var scorers [2]scorer
	for i, l := range leaves {
		if w.mayGrow(l) {
			scorers[i] = newScorer(w.params, w.grads, l, w.table.ordered)
		} else {
			w.release(l)
		}
	}
	pool := w.pool
	if len(leaves)*w.table.allBins < parallelBins {
		pool.workers = 1
	}
	pool.each(len(leaves)*columns, func(task int) {
		i, c := task/columns, task%columns
		l, b, s := leaves[i], &w.table.bins[c], scorers[i]
		switch s.way = w.table.ways[c]; {
		case l.hist == nil:
		case w.skipped[c]:
			w.found[i][c] = candidate{}
		case b.isCategory:
			w.found[i][c] = s.bestCategories(c, l.hist.column(c), b)
		default:
			w.found[i][c] = s.best(c, l.hist.column(c), b)
		}
	})
	for i, l := range leaves {
		if l.hist == nil {
			continue
		}
		for _, c := range w.found[i] {
			if c.gain > l.best.gain {
				l.best = c
			}
		}
		if l.best.gain <= 0 {
			w.release(l)
		}
	}
}

// fill adds the rows to an empty histogram. Each worker has a stretch of them; the sums are the same however they are
// cut.
func (w *grower) fill(h histogram, rows []uint32) {
	workers := w.pool.workers
	if len(rows) < parallelRows {
		workers = 1
	}
	w.pool.each(workers, func(i int) {
		from, until := i*len(rows)/workers, (i+1)*len(rows)/workers
		target := h
		if i > 0 {
			target = w.partial[i-1]
			w.table.clear(target)
		}
		ordered := w.ordered[from:until]
		for k, r := range rows[from:until] {
			ordered[k] = w.grads.cells[r]
		}
		w.table.accumulate(target, rows[from:until], ordered)
	})
	for _, p := range w.partial[:workers-1] {
		w.table.add(h, p)
	}
}

// partition moves the rows that go left to the front, keeping the order within both halves, and returns how many they
// are.
func (w *grower) partition(rows []uint32, c candidate) int {
	words, shift := w.table.word(c.column)
	sides := w.sides(c)
	parts := 1
	if len(rows) >= parallelRows {
		parts = w.pool.workers
	}
	lefts := make([]int, parts)
	cut := func(part int) int { return part * len(rows) / parts }
	w.pool.each(parts, func(part int) {
		lefts[part] = divide(rows[cut(part):cut(part+1)], w.spare[cut(part):cut(part+1)], words, shift, &sides)
	})
	n := 0
	for part, left := range lefts {
		n += copy(rows[n:], rows[cut(part):cut(part)+left])
	}
	at := n
	for part, left := range lefts {
		at += copy(rows[at:], w.spare[cut(part):cut(part+1)-left])
	}
	return n
}

// sides says for each bin of the candidate's column whether it goes left: 1 or 0.
func (w *grower) sides(c candidate) (sides [slots]uint8) {
	if w.table.bins[c.column].isCategory {
		c.categories.each(func(bin int) { sides[bin] = 1 })
		return sides
	}
	for bin := 0; bin <= c.bin; bin++ {
		sides[bin] = 1
	}
	if c.missingLeft {
		sides[len(w.table.bins[c.column].bounds)] = 1
	}
	return sides
}

// divide leaves the rows that go left at the front of rows and writes the others to spare. Each row is written to both
// places, so that no branch depends on the data.
func divide(rows, spare []uint32, words []uint64, shift uint, sides *[slots]uint8) int {
	left, right := 0, 0
	spare = spare[:len(rows)]
	for i, r := range rows {
		side := int(sides[uint8(words[r]>>(shift&63))])
		rows[left] = r
		spare[right] = r
		left += side
		right = i + 1 - left
	}
	return left
}

// histogram is an empty one.
func (w *grower) histogram() histogram {
	if n := len(w.free); n > 0 {
		h := w.free[n-1]
		w.free = w.free[:n-1]
		w.table.clear(h)
		return h
	}
	return w.table.newHistogram()
}

func (w *grower) release(l *leaf) {
	if l.hist != nil {
		w.free = append(w.free, l.hist)
		l.hist = nil
	}
}

// tree gives the leaves their values: the Newton step on their rows, shrunk. It adds them to the margins.
func (w *grower) tree(margins []float64) model.Tree {
	t := model.Tree{Splits: append([]model.Split(nil), w.splits...), Leaves: make([]model.Leaf, len(w.leaves))}
	pool := w.pool
	if len(w.rows) < parallelRows {
		pool.workers = 1
	}
	pool.each(len(w.leaves), func(i int) {
		l := &w.leaves[i]
		rows := w.rows[l.from:l.until]
		var first, second float64
		for _, r := range rows {
			first += w.grads.first[r]
			second += w.grads.second[r]
		}
		step := -first / (second + l.l2)
		if math.IsNaN(step) || math.IsInf(step, 0) {
			step = 0 // every row is fitted so well that its hessian vanished
		}
		value := l.limits.clamp(step) * w.params.LearningRate
		for _, r := range rows {
			margins[r] += value
		}
		t.Leaves[i] = model.Leaf{Value: value, Weight: second, Rows: l.rows()}
	})
	return t
}
