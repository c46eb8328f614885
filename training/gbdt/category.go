package gbdt

import (
	"cmp"
	"math/bits"
	"slices"
	"strconv"
	"strings"

	"github.com/millrace/millrace/registry/model"
)

// maxCode is the highest code of a category; higher ones count as missing. A split keeps a bit for each code up to the
// highest of its own.
const maxCode = 1<<16 - 1

// category is the code that a value stands for; false when it is missing.
func category(x float64) (code int, ok bool) {
	if !(x > -1 && x < maxCode+1) {
		return 0, false
	}
	return int(x), true
}

// findCategories gives the most frequent codes of a column a bin each, the most frequent the first; of equals, the lower
// code. Rarer ones, of which there are more than bins, share the bin of missing values.
func findCategories(column []float64, limit int) bins {
	counts := make([]int, maxCode+1)
	b := bins{isCategory: true}
	for _, x := range column {
		if code, ok := category(x); ok {
			counts[code]++
		} else {
			b.missing = true
		}
	}
	for code, n := range counts {
		if n > 0 {
			b.codes = append(b.codes, code)
		}
	}
	slices.SortStableFunc(b.codes, func(i, j int) int { return cmp.Compare(counts[j], counts[i]) })
	if most := limit - 1; len(b.codes) > most {
		b.codes, b.missing = b.codes[:most], true
	}
	return b
}

// encodeCategories writes the bin of each value.
func (b *bins) encodeCategories(column []float64, write func(row int, bin uint8)) {
	other := uint8(len(b.codes))
	table := slices.Repeat([]uint8{other}, maxCode+1)
	for bin, code := range b.codes {
		table[code] = uint8(bin)
	}
	for row, x := range column {
		bin := other
		if code, ok := category(x); ok {
			bin = table[code]
		}
		write(row, bin)
	}
}

// categoriesText is LightGBM's feature_infos of a categorical column.
func (b *bins) categoriesText() string {
	words := make([]string, len(b.codes))
	for i, code := range b.codes {
		words[i] = strconv.Itoa(code)
	}
	return strings.Join(words, ":")
}

// binSet is bins of a column.
type binSet [slots / 64]uint64

func (s *binSet) add(bin int) { s[bin/64] |= 1 << (bin % 64) }

// each calls with the bins in order.
func (s *binSet) each(call func(bin int)) {
	for i, word := range s {
		for ; word != 0; word &= word - 1 {
			call(64*i + bits.TrailingZeros64(word))
		}
	}
}

// codesOf is the categories of some bins.
func (b *bins) codesOf(s *binSet) model.Categories {
	var codes []int
	s.each(func(bin int) { codes = append(codes, b.codes[bin]) })
	return model.NewCategories(codes...)
}

// bestCategories looks for the set of categories to send left; missing and rarer ones go right. Few categories are tried
// one by one. More are ordered by the step that each would take by itself, and the first or the last of them go left: among
// these splits is the best of all (Fisher 1958) where nothing regularizes. It is LightGBM's FindBestThresholdCategorical
// (src/treelearner/feature_histogram.hpp), which however sends no more than half of the categories left, missing ones or not.
func (s *scorer) bestCategories(column int, h *[slots]cell, b *bins) candidate {
	best := candidate{column: column, l2: s.l2}
	if len(b.codes) <= s.oneHot {
		for bin, c := range h[:len(b.codes)] {
			if s.rate(&best, c, 0, false) {
				best.categories = binSet{}
				best.categories.add(bin)
			}
		}
		return best
	}
	wide := *s
	wide.l2 += s.categoryL2
	best.l2 = wide.l2
	order := s.orderCategories(h[:len(b.codes)])
	rest := s.total
	for _, bin := range order {
		rest -= h[bin]
	}
	most := min(s.maxCategories, len(order))
	if rest == 0 { // the other half of the sets are these with their sides exchanged
		most = min(s.maxCategories, (len(order)+1)/2)
	}
	for _, backward := range [2]bool{false, true} {
		var left, group cell
		var set binSet
		for i := range most {
			bin := order[i]
			if backward {
				bin = order[len(order)-1-i]
			}
			left += h[bin]
			group += h[bin]
			set.add(bin)
			if (s.total - left).hessian() < max(s.least, s.leastGroup) {
				break
			}
			if left.hessian() < s.least || group.hessian() < s.leastGroup {
				continue
			}
			group = 0
			if wide.rate(&best, left, 0, false) {
				best.categories = set
			}
		}
	}
	return best
}

// orderCategories sorts the bins that hold enough by their smoothed mean gradient.
func (s *scorer) orderCategories(h []cell) []int {
	order := make([]int, 0, len(h))
	mean := make([]float64, len(h))
	for bin, c := range h {
		if c.hessian() > 0 && c.hessian() >= s.leastCategory {
			order = append(order, bin)
			mean[bin] = float64(c.gradient()) * s.firstUnit / (float64(c.hessian())*s.secondUnit + s.smoothing)
		}
	}
	slices.SortStableFunc(order, func(i, j int) int { return cmp.Compare(mean[i], mean[j]) })
	return order
}
