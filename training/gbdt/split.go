package gbdt

import "math"

// candidate is a way to split a leaf.
type candidate struct {
	gain        float64 // of the loss, above MinGain; 0 is no split
	column      int     // used column
	bin         int     // the last bin that goes left
	missingLeft bool
	left        cell // sum of the rows that go left
}

// scorer rates splits of one leaf.
type scorer struct {
	total      cell
	firstUnit  float64
	secondUnit float64
	l2         float64
	floor      float64 // the score of the leaf unsplit, plus MinGain
	least      uint32  // hessian units each side must have
}

// newScorer prepares for a leaf of so many rows. How many rows a side has is not counted but estimated from its share
// of the hessian, as LightGBM does.
func newScorer(p *Params, g *gradients, total cell, rows int) scorer {
	s := scorer{total: total, firstUnit: g.firstUnit, secondUnit: g.secondUnit, l2: p.L2}
	s.floor = s.score(total) + p.MinGain
	least := max(1, p.MinHessian/g.secondUnit, (float64(p.MinRows)-0.5)*float64(total.hessian())/float64(rows))
	s.least = uint32(min(math.Ceil(least), math.MaxUint32))
	return s
}

// score is twice the loss that a leaf of these rows saves.
func (s *scorer) score(c cell) float64 {
	g, h := float64(c.gradient())*s.firstUnit, float64(c.hessian())*s.secondUnit
	return g * g / (h + s.l2)
}

// best looks through the bins of one column from low to high, with its missing values on either side.
func (s *scorer) best(column int, h *[slots]cell, b *bins) candidate {
	var missing cell
	if b.missing {
		missing = h[len(b.bounds)]
	}
	best := candidate{column: column}
	var left cell
	for bin, c := range h[:len(b.bounds)] {
		if c == 0 {
			continue // the same split as the one before
		}
		left += c
		if missing == 0 {
			if (s.total - left).hessian() < s.least {
				break
			}
			s.rate(&best, left, bin, left.hessian() > (s.total-left).hessian())
			continue
		}
		s.rate(&best, left, bin, false)
		s.rate(&best, left+missing, bin, true)
	}
	return best
}

func (s *scorer) rate(best *candidate, left cell, bin int, missingLeft bool) {
	right := s.total - left
	if left.hessian() < s.least || right.hessian() < s.least {
		return
	}
	if gain := s.score(left) + s.score(right) - s.floor; gain > best.gain {
		best.gain, best.bin, best.missingLeft, best.left = gain, bin, missingLeft, left
	}
}
