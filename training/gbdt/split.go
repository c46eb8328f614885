package gbdt

import "math"

// candidate is a way to split a leaf.
type candidate struct {
	gain        float64 // of the loss, above MinGain; 0 is no split
	column      int     // used column
	bin         int     // the last bin that goes left, of a column that is not categorical
	categories  binSet  // the bins that go left, of one that is
	missingLeft bool
	left        cell    // sum of the rows that go left
	l2          float64 // that the gain was found with
}

// limits are what a leaf's output must keep within, for the sake of monotone columns above it.
type limits struct{ low, high float64 }

var noLimits = limits{math.Inf(-1), math.Inf(1)}

func (l limits) clamp(x float64) float64 { return max(l.low, min(l.high, x)) }

// scorer rates splits of one leaf.
type scorer struct {
	total      cell
	firstUnit  float64
	secondUnit float64
	l2         float64
	floor      float64 // the score of the leaf unsplit, plus MinGain
	least      uint32  // hessian units each side must have
	limited    bool    // outputs are limited, or must be in order
	limits     limits
	way        int // of the column that is being looked through: how it is monotone

	oneHot, maxCategories int
	leastGroup            uint32 // hessian units that a split by category must move
	leastCategory         uint32 // hessian units of a category that is ordered
	smoothing, categoryL2 float64
}

// newScorer prepares for a leaf of so many rows. How many rows a side has is not counted but estimated from its share
// of the hessian, as LightGBM does.
func newScorer(p *Params, g *gradients, l *leaf, limited bool) scorer {
	s := scorer{
		total: l.sum, firstUnit: g.firstUnit, secondUnit: g.secondUnit, l2: p.L2, limited: limited, limits: l.limits,
		oneHot: p.OneHot, maxCategories: p.MaxCategories, smoothing: p.CategorySmoothing, categoryL2: p.CategoryL2,
	}
	s.floor = s.score(l.sum) + p.MinGain
	perRow := float64(l.sum.hessian()) / float64(l.rows())
	s.least = units(max(1, p.MinHessian/g.secondUnit, (float64(p.MinRows)-0.5)*perRow))
	s.leastGroup = units((float64(p.MinCategoryRows) - 0.5) * perRow)
	s.leastCategory = units((p.CategorySmoothing - 0.5) * perRow)
	return s
}

// units rounds up to whole hessian units.
func units(x float64) uint32 { return uint32(max(0, min(math.Ceil(x), math.MaxUint32))) }

// output is the Newton step of some rows, within the limits.
func (s *scorer) output(c cell) float64 {
	return s.limits.clamp(-float64(c.gradient()) * s.firstUnit / (float64(c.hessian())*s.secondUnit + s.l2))
}

// score is twice the loss that a leaf of these rows saves.
func (s *scorer) score(c cell) float64 {
	g, h := float64(c.gradient())*s.firstUnit, float64(c.hessian())*s.secondUnit
	if s.limited {
		step := s.output(c)
		return -(2*g + (h+s.l2)*step) * step
	}
	return g * g / (h + s.l2)
}

// best looks through the bins of one column from low to high, with its missing values on either side.
func (s *scorer) best(column int, h *[slots]cell, b *bins) candidate {
	var missing cell
	if b.missing {
		missing = h[len(b.bounds)]
	}
	best := candidate{column: column, l2: s.l2}
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

// rate takes the split for the best if it gains more, and says whether.
func (s *scorer) rate(best *candidate, left cell, bin int, missingLeft bool) bool {
	right := s.total - left
	if left.hessian() < s.least || right.hessian() < s.least {
		return false
	}
	gain := s.score(left) + s.score(right) - s.floor
	if !(gain > best.gain) || s.way != 0 && float64(s.way)*(s.output(right)-s.output(left)) < 0 {
		return false
	}
	best.gain, best.bin, best.missingLeft, best.left = gain, bin, missingLeft, left
	return true
}
