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
}

func (l *leaf) rows() int { return l.until - l.from }

// grower grows one tree after the other over the same table, in the same memory.
type grower struct {
	table   *table
	params  *Params
	pool    pool
	grads   *gradients
	rows    []uint32 // all rows, those of a leaf together and ascending
	spare   []uint32
	ordered []cell // cells of a leaf's rows, in their order
	free    []histogram
	partial []histogram // one per worker but the first
	found   [2][]candidate
	leaves  []leaf
	splits  []model.Split
}

// parallelRows is from how many rows on a leaf is worth the trouble of several workers.
const parallelRows = 1 << 12

func newGrower(t *table, p *Params, g *gradients, pool pool) *grower {
	w := &grower{
		table: t, params: p, pool: pool, grads: g,
		rows: make([]uint32, t.rows), spare: make([]uint32, t.rows), ordered: make([]cell, t.rows),
	}
	for range pool.workers - 1 {
		w.partial = append(w.partial, t.newHistogram())
	}
	for i := range w.found {
		w.found[i] = make([]candidate, len(t.columns))
	}
	return w
}

// grow builds the splits of a tree, best first, until it has its leaves or nothing gains.
func (w *grower) grow() {
	for i := range w.rows {
		w.rows[i] = uint32(i)
	}
	w.leaves, w.splits = w.leaves[:0], w.splits[:0]
	root := leaf{until: len(w.rows), parent: -1, hist: w.histogram()}
	w.fill(root.hist, w.rows)
	for _, c := range w.grads.cells {
		root.sum += c
	}
	w.search(&root)
	w.leaves = append(w.leaves, root)
	for len(w.leaves) < w.params.Leaves {
		at := 0
		for i := range w.leaves {
			if w.leaves[i].best.gain > w.leaves[at].best.gain {
				at = i
			}
		}
		if w.leaves[at].best.gain <= 0 {
			break
		}
		w.split(at)
	}
	for i := range w.leaves {
		w.release(&w.leaves[i])
	}
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
	left := leaf{from: l.from, until: middle, depth: l.depth + 1, sum: l.best.left, parent: split, isLeft: true}
	right := leaf{from: middle, until: l.until, depth: l.depth + 1, sum: l.sum - l.best.left, parent: split}
	small, large := &left, &right
	if left.rows() > right.rows() {
		small, large = large, small
	}
	if len(w.leaves)+1 < w.params.Leaves && w.mayGrow(large) {
		small.hist, large.hist = w.histogram(), l.hist
		w.fill(small.hist, w.rows[small.from:small.until])
		large.hist.subtract(small.hist)
		w.search(small, large)
	} else {
		w.release(&l)
	}
	w.leaves[at] = left
	w.leaves = append(w.leaves, right)
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
	return model.Split{
		Input: w.table.columns[c.column], Threshold: b.bounds[c.bin], DefaultLeft: c.missingLeft,
		Missing: model.MissingNaN, Left: left, Right: right, Gain: c.gain,
	}
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
			scorers[i] = newScorer(w.params, w.grads, l.sum, l.rows())
		} else {
			w.release(l)
		}
	}
	w.pool.each(len(leaves)*columns, func(task int) {
		i, c := task/columns, task%columns
		if l := leaves[i]; l.hist != nil {
			w.found[i][c] = scorers[i].best(c, l.hist.column(c), &w.table.bins[c])
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
			clear(target)
		}
		ordered := w.ordered[from:until]
		for k, r := range rows[from:until] {
			ordered[k] = w.grads.cells[r]
		}
		w.table.accumulate(target, rows[from:until], ordered)
	})
	for _, p := range w.partial[:workers-1] {
		h.add(p)
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
		clear(h)
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
	w.pool.each(len(w.leaves), func(i int) {
		l := &w.leaves[i]
		rows := w.rows[l.from:l.until]
		var first, second float64
		for _, r := range rows {
			first += w.grads.first[r]
			second += w.grads.second[r]
		}
		value := -first / (second + w.params.L2) * w.params.LearningRate
		if math.IsNaN(value) || math.IsInf(value, 0) {
			value = 0 // every row is fitted so well that its hessian vanished
		}
		for _, r := range rows {
			margins[r] += value
		}
		t.Leaves[i] = model.Leaf{Value: value, Weight: second, Rows: l.rows()}
	})
	return t
}
