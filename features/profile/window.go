package profile

import (
	"fmt"
	"math"
)

// Window counts live rows into the bins of a Baseline. Its size does not depend on the number of rows. It is not safe for
// concurrent use.
type Window struct {
	baseline *Baseline
	rows     int64
	columns  []columnCounts
	score    *columnCounts
}

type columnCounts struct {
	bins         []int64
	nulls        int64
	below, above int64 // values out of the baseline's range, also counted in the first and last bin
}

// NewWindow starts an empty window.
func (b *Baseline) NewWindow() *Window {
	w := &Window{baseline: b, columns: make([]columnCounts, len(b.Columns))}
	for i := range b.Columns {
		w.columns[i].bins = make([]int64, len(b.Columns[i].Edges))
	}
	if b.Score != nil {
		w.score = &columnCounts{bins: make([]int64, len(b.Score.Edges))}
	}
	return w
}

// Index is the place of a column in the rows of Window.Add, -1 when the baseline has no such column.
func (b *Baseline) Index(column string) int {
	for i := range b.Columns {
		if b.Columns[i].Name == column {
			return i
		}
	}
	return -1
}

// Add counts a row, whose values are in the order of the baseline's columns; NaN is null.
func (w *Window) Add(row []float64) {
	if len(row) != len(w.columns) {
		panic(fmt.Sprintf("profile: a row of %d values for %d columns", len(row), len(w.columns)))
	}
	w.rows++
	for i, v := range row {
		w.columns[i].add(&w.baseline.Columns[i], v)
	}
}

// AddScore counts an answer of the model.
func (w *Window) AddScore(score float64) {
	if w.score != nil {
		w.score.add(w.baseline.Score, score)
	}
}

func (n *columnCounts) add(c *Column, v float64) {
	bin := c.bin(v)
	switch {
	case math.IsNaN(v):
		n.nulls++
		return
	case bin < 0: // the baseline had no value to cut bins at: all that can be said is that now there is one
		n.above++
		return
	case v < c.Min:
		n.below++
	case v > c.Edges[len(c.Edges)-1]:
		n.above++
	}
	n.bins[bin]++
}

// Rows is the number of rows added.
func (w *Window) Rows() int64 { return w.rows }

// Merge adds the counts of another window of the same baseline.
func (w *Window) Merge(other *Window) {
	if w.baseline != other.baseline {
		panic("profile: merging windows of different baselines")
	}
	w.rows += other.rows
	for i := range w.columns {
		w.columns[i].merge(&other.columns[i])
	}
	if w.score != nil {
		w.score.merge(other.score)
	}
}

func (n *columnCounts) merge(other *columnCounts) {
	for i, count := range other.bins {
		n.bins[i] += count
	}
	n.nulls += other.nulls
	n.below += other.below
	n.above += other.above
}
