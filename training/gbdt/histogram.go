package gbdt

// A cell is the sum of gradients (high 32 bits, signed) and of hessians (low 32 bits, unsigned) of some rows, both as
// integers, so that one addition adds both. quantize makes sure that neither half can overflow.
//
// Sums of integers do not depend on their order, and the difference of two histograms is exact: that is what makes
// training the same on any number of cores. LightGBM's quantized training (Shi et al., NeurIPS 2022) shows that 2 to 5
// bits per row are enough for choosing splits; these have about 31 - log2(rows) bits for the mean gradient. Leaf
// values are computed from the gradients themselves.
type cell int64

func (c cell) gradient() int64 { return int64(c >> 32) }
func (c cell) hessian() uint32 { return uint32(c) }

// histogram holds slots cells for each used column, rounded up to whole groups.
type histogram []cell

const groupCells = groupColumns * slots

func (t *table) newHistogram() histogram { return make(histogram, len(t.groups)*groupCells) }

func (h histogram) column(c int) *[slots]cell { return (*[slots]cell)(h[c*slots:]) }

// used is the parts of a histogram that its columns have bins for.
func (t *table) used(part func(from, until int)) {
	for c := range t.bins {
		part(c*slots, c*slots+t.bins[c].count()+1)
	}
}

// subtract makes h what remains without the rows of other.
func (t *table) subtract(h, other histogram) {
	t.used(func(from, until int) {
		a, b := h[from:until], other[from:until]
		for i, c := range b {
			a[i] -= c
		}
	})
}

func (t *table) add(h, other histogram) {
	t.used(func(from, until int) {
		a, b := h[from:until], other[from:until]
		for i, c := range b {
			a[i] += c
		}
	})
}

func (t *table) clear(h histogram) {
	t.used(func(from, until int) { clear(h[from:until]) })
}

// blockRows is how many rows are added to one group before the next: they, their cells and the group's histogram stay
// in the first-level cache.
const blockRows = 512

// accumulate adds the rows' cells. sums[i] belongs to rows[i].
func (t *table) accumulate(h histogram, rows []uint32, sums []cell) {
	for len(rows) > 0 {
		n := min(blockRows, len(rows))
		for g, words := range t.groups {
			target := (*[groupCells]cell)(h[g*groupCells:])
			if len(t.columns)-g*groupColumns <= groupColumns/2 {
				addFour(target, words, rows[:n], sums[:n])
			} else {
				addEight(target, words, rows[:n], sums[:n])
			}
		}
		rows, sums = rows[n:], sums[n:]
	}
}

// addEight is the loop that training spends most of its time in; it is written out so that no index needs a check.
func addEight(h *[groupCells]cell, words []uint64, rows []uint32, sums []cell) {
	sums = sums[:len(rows)]
	for i, row := range rows {
		w, s := words[row], sums[i]
		h[w&255] += s
		h[1*slots+(w>>8)&255] += s
		h[2*slots+(w>>16)&255] += s
		h[3*slots+(w>>24)&255] += s
		h[4*slots+(w>>32)&255] += s
		h[5*slots+(w>>40)&255] += s
		h[6*slots+(w>>48)&255] += s
		h[7*slots+(w>>56)&255] += s
	}
}

func addFour(h *[groupCells]cell, words []uint64, rows []uint32, sums []cell) {
	sums = sums[:len(rows)]
	for i, row := range rows {
		w, s := words[row], sums[i]
		h[w&255] += s
		h[1*slots+(w>>8)&255] += s
		h[2*slots+(w>>16)&255] += s
		h[3*slots+(w>>24)&255] += s
	}
}
