package gbdt

import (
	"math"
	"math/rand/v2"
)

// sample draws the rows and columns that the next tree is grown on. What it draws depends on the seed and the tree's
// number alone.
func (w *grower) sample(tree int) {
	w.rows = w.rows[:0]
	w.left = w.left[:0]
	if w.params.RowFraction == 1 {
		for i := range w.table.rows {
			w.rows = append(w.rows, uint32(i))
		}
	} else {
		limit := uint64(w.params.RowFraction * math.MaxUint32)
		for i := range w.table.rows {
			if mix(w.params.Seed, uint64(tree)<<32|uint64(i))>>32 < limit {
				w.rows = append(w.rows, uint32(i))
			} else {
				w.left = append(w.left, uint32(i))
			}
		}
	}
	if w.params.FeatureFraction == 1 {
		return
	}
	random := rand.New(rand.NewPCG(w.params.Seed, uint64(tree)))
	clear(w.skipped)
	columns := len(w.skipped)
	for _, c := range random.Perm(columns)[:columns-max(1, int(math.Round(w.params.FeatureFraction*float64(columns))))] {
		w.skipped[c] = true
	}
}

// mix is the output function of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014) on seed and number together.
func mix(seed, number uint64) uint64 {
	z := seed*0xbf58476d1ce4e5b9 + number*0x9e3779b97f4a7c15
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}
