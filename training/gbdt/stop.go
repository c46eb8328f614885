package gbdt

import (
	"math"

	"github.com/millrace/millrace/registry/model"
)

// stopper follows the loss on the valid rows: logarithmic for a binary objective, squared for a regression. Without valid
// rows it never stops.
type stopper struct {
	rows      *Rows
	all       []uint32
	margins   []float64
	objective model.Objective
	patience  int
	pool      pool
	best      int // trees with the least loss
	least     float64
}

func newStopper(data *Data, p *Params, bias float64, pool pool) *stopper {
	s := &stopper{rows: data.Valid, objective: p.Objective, patience: p.EarlyStopping, pool: pool, least: math.Inf(1)}
	if s.rows == nil {
		return s
	}
	s.margins, s.all = make([]float64, len(s.rows.Labels)), make([]uint32, len(s.rows.Labels))
	for i := range s.margins {
		s.margins[i], s.all[i] = bias, uint32(i)
	}
	return s
}

// add takes note of one more tree; trees is how many there are with it.
func (s *stopper) add(t *model.Tree, trees int) {
	if s.rows == nil {
		return
	}
	addTree(t, s.rows.Columns, s.all, s.margins, s.pool)
	if loss := s.loss(); loss < s.least {
		s.best, s.least = trees, loss
	}
}

// due reports whether so many trees are enough.
func (s *stopper) due(trees int) bool { return s.rows != nil && trees-s.best >= s.patience }

// keep is how many of the trees are to be kept.
func (s *stopper) keep(trees int) int {
	if s.rows == nil {
		return trees
	}
	return s.best
}

// loss is summed by chunks in their order, so that it does not depend on the cores.
func (s *stopper) loss() float64 {
	sums := make([]float64, (len(s.margins)+chunkRows-1)/chunkRows)
	s.pool.each(len(sums), func(chunk int) {
		for i := chunk * chunkRows; i < min((chunk+1)*chunkRows, len(s.margins)); i++ {
			m, y := s.margins[i], s.rows.Labels[i]
			var loss float64
			if s.objective == model.Binary {
				loss = max(m, 0) + math.Log1p(math.Exp(-math.Abs(m))) - y*m
			} else {
				loss = (m - y) * (m - y)
			}
			if s.rows.Weights != nil {
				loss *= s.rows.Weights[i]
			}
			sums[chunk] += loss
		}
	})
	total := 0.0
	for _, x := range sums {
		total += x
	}
	return total
}

// addTree adds to the margins of these rows what the tree's leaves give them: for rows that the tree was not grown on.
func addTree(t *model.Tree, columns [][]float64, rows []uint32, margins []float64, pool pool) {
	pool.each((len(rows)+chunkRows-1)/chunkRows, func(chunk int) {
		for _, r := range rows[chunk*chunkRows : min((chunk+1)*chunkRows, len(rows))] {
			at := 0
			for at >= 0 {
				s := &t.Splits[at]
				if goesLeft(s, columns[s.Input][r]) {
					at = s.Left
				} else {
					at = s.Right
				}
			}
			margins[r] += t.Leaves[^at].Value
		}
	})
}

func goesLeft(s *model.Split, x float64) bool {
	switch {
	case x != x:
		return s.DefaultLeft
	case s.Categories != nil:
		code, ok := category(x)
		return ok && s.Categories.Has(code)
	default:
		return x <= s.Threshold
	}
}
