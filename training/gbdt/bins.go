package gbdt

import (
	"math"
	"math/rand/v2"
	"slices"
	"strconv"

	"github.com/millrace/millrace/registry/model"
)

// minRowsInBin is how many of the rows looked at a bin must hold (LightGBM's min_data_in_bin).
const minRowsInBin = 3

// bins reduces a column to at most 255 small integers. Bin i holds the values above bounds[i-1] and up to bounds[i];
// missing values have the bin after the last.
type bins struct {
	bounds   []float64 // ascending; the last is the largest float
	missing  bool      // the column has missing values
	low, top float64   // of the column's values; low is above top when there are none

	isCategory bool
	codes      []int // of a categorical column instead of bounds: the category of each bin
}

// count is how many bins there are beside that of missing values.
func (b *bins) count() int {
	if b.isCategory {
		return len(b.codes)
	}
	return len(b.bounds)
}

// useful reports whether there is anything to split.
func (b *bins) useful() bool {
	return b.count() > 1 || b.missing && (b.low <= b.top && !b.isCategory || len(b.codes) > 0)
}

// text is LightGBM's feature_infos for the column.
func (b *bins) text() string {
	if !b.useful() {
		return "none"
	}
	if b.isCategory {
		return b.categoriesText()
	}
	number := func(x float64) string { return strconv.FormatFloat(x, 'g', -1, 64) }
	return "[" + number(clamp(b.low)) + ":" + number(clamp(b.top)) + "]"
}

// index is the bin of x, found without a branch that the data could mislead: padded is bounds, filled up to 256 with
// the largest float.
func index(padded *[256]float64, x float64) uint8 {
	at := 0
	for half := 128; half > 0; half >>= 1 {
		var above int
		if x > padded[(at+half-1)&255] {
			above = half
		}
		at += above
	}
	return uint8(at)
}

// encode writes the bin of each value.
func (b *bins) encode(column []float64, write func(row int, bin uint8)) {
	if b.isCategory {
		b.encodeCategories(column, write)
		return
	}
	var padded [256]float64
	for i := range padded {
		padded[i] = b.bounds[min(i, len(b.bounds)-1)]
	}
	last := uint8(len(b.bounds) - 1)
	for row, x := range column {
		bin := last + 1
		if x == x {
			bin = min(index(&padded, asScored(x)), last)
		}
		write(row, bin)
	}
}

// findBins chooses the bins of a column by its values at the sampled rows.
func findBins(column []float64, sample []uint32, limit int) bins {
	b := bins{low: math.Inf(1), top: math.Inf(-1)}
	for _, x := range column {
		if x != x {
			b.missing = true
			continue
		}
		b.low, b.top = min(b.low, asScored(x)), max(b.top, asScored(x))
	}
	values := make([]float64, 0, len(sample))
	for _, row := range sample {
		if x := column[row]; x == x {
			values = append(values, clamp(asScored(x)))
		}
	}
	slices.Sort(values)
	if b.missing {
		limit--
	}
	b.bounds = chooseBounds(values, limit)
	return b
}

// asScored is the number that a split compares x as when the forest scores: zero where x is as good as that.
func asScored(x float64) float64 {
	if math.Abs(x) <= model.ZeroBand {
		return 0
	}
	return x
}

func clamp(x float64) float64 { return max(-math.MaxFloat64, min(math.MaxFloat64, x)) }

// chooseBounds is LightGBM's GreedyFindBin (src/io/bin.cpp) over sorted values: where the distinct values fit, each has
// its bin; else bins hold about the same number of rows, and a value that would fill one alone has one of its own.
func chooseBounds(values []float64, limit int) []float64 {
	distinct, counts := runs(values)
	var bounds []float64
	cut := func(i int) { bounds = append(bounds, between(distinct[i], distinct[i+1])) }
	if len(distinct) <= limit {
		held := 0
		for i := 0; i+1 < len(distinct); i++ {
			if held += counts[i]; held >= minRowsInBin {
				cut(i)
				held = 0
			}
		}
		return append(bounds, math.MaxFloat64)
	}
	limit = max(1, min(limit, len(values)/minRowsInBin))
	big := make([]bool, len(distinct))
	restBins, restRows := limit, len(values)
	fair := float64(restRows) / float64(restBins)
	for i, n := range counts {
		if big[i] = float64(n) >= fair; big[i] {
			restBins--
			restRows -= n
		}
	}
	fair = float64(restRows) / float64(max(1, restBins))
	held := 0
	for i := 0; i+1 < len(distinct) && len(bounds) < limit-1; i++ {
		if !big[i] {
			restRows -= counts[i]
		}
		held += counts[i]
		if !big[i] && float64(held) < fair && !(big[i+1] && float64(held) >= max(1, fair/2)) {
			continue
		}
		cut(i)
		held = 0
		if !big[i] {
			restBins--
			fair = float64(restRows) / float64(max(1, restBins))
		}
	}
	return append(bounds, math.MaxFloat64)
}

// runs counts the distinct values.
func runs(sorted []float64) (distinct []float64, counts []int) {
	for i, x := range sorted {
		if i == 0 || x != sorted[i-1] {
			distinct, counts = append(distinct, x), append(counts, 0)
		}
		counts[len(counts)-1]++
	}
	return distinct, counts
}

// between is a number that a is at most and b is above: the middle where floats have one.
func between(a, b float64) float64 {
	if m := a/2 + b/2; m >= a && m < b {
		return m
	}
	return a
}

// sampleRows draws rows in order: one at random out of each of equal stretches.
func sampleRows(rows, limit int, seed uint64) []uint32 {
	n := min(rows, limit)
	sample := make([]uint32, n)
	random := rand.New(rand.NewPCG(seed, 0))
	for i := range sample {
		sample[i] = uint32(i)
		if n < rows {
			from, until := i*rows/n, (i+1)*rows/n
			sample[i] = uint32(from + random.IntN(until-from))
		}
	}
	return sample
}
