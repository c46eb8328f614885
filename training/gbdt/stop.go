package gbdt

import (
	"math"

	"github.com/millrace/millrace/registry/model"
)

// stopper follows the loss on the valid rows: logarithmic for classes, squared for a regression, the likelihood's for counts.
// Without valid rows it never stops.
type stopper struct {
	rows      *Rows
	all       []uint32
	margins   [][]float64 // by output
	objective model.Objective
	patience  int
	pool      pool
	best      int // rounds with the least loss
	least     float64
}

func newStopper(data *Data, p *Params, bias []float64, pool pool) *stopper {
	s := &stopper{rows: data.Valid, objective: p.Objective, patience: p.EarlyStopping, pool: pool, least: math.Inf(1)}
	if s.rows == nil {
		return s
	}
	s.margins, s.all = constant(bias, len(s.rows.Labels)), make([]uint32, len(s.rows.Labels))
	for i := range s.all {
		s.all[i] = uint32(i)
	}
	return s
}

// add takes note of one more round; rounds is how many there are with it.
func (s *stopper) add(round []model.Tree, rounds int) {
	if s.rows == nil {
		return
	}
	for i := range round {
		addTree(&round[i], s.rows.Columns, s.all, s.margins[round[i].Output], s.pool)
	}
	if loss := s.loss(); loss < s.least {
		s.best, s.least = rounds, loss
	}
}

// due reports whether so many rounds are enough.
func (s *stopper) due(rounds int) bool { return s.rows != nil && rounds-s.best >= s.patience }

// keep is how many of the rounds are to be kept.
func (s *stopper) keep(rounds int) int {
	if s.rows == nil {
		return rounds
	}
	return s.best
}

// loss is summed by chunks in their order, so that it does not depend on the cores.
func (s *stopper) loss() float64 {
	sums := make([]float64, (len(s.all)+chunkRows-1)/chunkRows)
	s.pool.each(len(sums), func(chunk int) {
		for i := chunk * chunkRows; i < min((chunk+1)*chunkRows, len(s.all)); i++ {
			m, y := s.margins[0][i], s.rows.Labels[i]
			var loss float64
			switch s.objective {
			case model.Binary:
				loss = max(m, 0) + math.Log1p(math.Exp(-math.Abs(m))) - y*m
			case model.Poisson:
				loss = math.Exp(m) - y*m
			case model.Multiclass:
				loss = s.surprise(i, int(y))
			default:
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

// surprise is the log loss of a row's class.
func (s *stopper) surprise(row, class int) float64 {
	highest, sum := math.Inf(-1), 0.0
	for _, m := range s.margins {
		highest = max(highest, m[row])
	}
	for _, m := range s.margins {
		sum += math.Exp(m[row] - highest)
	}
	return highest + math.Log(sum) - s.margins[class][row]
}

// addTree adds to the margins of these rows what the tree's leaves give them: for rows that the tree was not grown on.
func addTree(t *model.Tree, columns [][]float64, rows []uint32, margins []float64, pool pool) {
	pool.each((len(rows)+chunkRows-1)/chunkRows, func(chunk int) {
		for _, r := range rows[chunk*chunkRows : min((chunk+1)*chunkRows, len(rows))] {
			at := ^0
			if len(t.Splits) > 0 {
				at = 0
			}
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
