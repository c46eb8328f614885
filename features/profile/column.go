package profile

import (
	"math"
	"slices"

	"github.com/millrace/millrace/internal/failure"
)

const (
	// MaxBins is the number of bins of a column.
	MaxBins = 64
	// MaxGroups is the number of groups that bins are put together to before distributions are compared. Ten groups of a tenth
	// each are what the population stability index is used with; more would drown small windows in their own noise.
	MaxGroups = 10
)

// Column is the baseline of one column.
type Column struct {
	Name string `json:"name"`
	// Discrete says that there is one bin per value, because there were no more than MaxBins values.
	Discrete bool `json:"discrete,omitempty"`
	// Min is the smallest value, Edges the upper borders of the bins, inclusive and ascending; the last is the largest value.
	// With no value at all Edges is empty.
	Min   float64   `json:"min"`
	Edges []float64 `json:"edges"`
	// Counts is the number of rows per bin.
	Counts []int64 `json:"counts"`
	Nulls  int64   `json:"nulls"`
	// Groups is the first bin of each group.
	Groups []int `json:"groups"`
	// Chunks holds the counts of each chunk in order of time.
	Chunks []ChunkCounts `json:"chunks"`

	calibration calibration
}

// ChunkCounts are the rows of one chunk, per group of bins, and its nulls.
type ChunkCounts struct {
	Groups []int64 `json:"groups"`
	Nulls  int64   `json:"nulls"`
}

// Bin is a range of values, above Low up to and including High, and the share of the rows with a value that lie in it. The
// first bin also holds what is below, the last what is above.
type Bin struct {
	Low, High float64
	Share     float64
}

// cutColumn cuts the bins of a column at the quantiles of its values and counts the rows into them.
func cutColumn(name string, values []float64, chunk []int32, chunks int) Column {
	c := Column{Name: name}
	sorted := finite(values)
	slices.Sort(sorted)
	if len(sorted) > 0 {
		c.Min = sorted[0]
		c.Edges, c.Discrete = cutEdges(sorted)
	}
	c.Counts = make([]int64, len(c.Edges))
	c.count(values, chunk, chunks)
	return c
}

func (c *Column) count(values []float64, chunk []int32, chunks int) {
	bins := make([]int32, len(values))
	for i, v := range values {
		at := c.bin(v)
		bins[i] = int32(at)
		if at < 0 {
			c.Nulls++
			continue
		}
		c.Counts[at]++
	}
	c.Groups = groupBins(c.Counts, MaxGroups)
	groupOf := c.groupOf()
	c.Chunks = make([]ChunkCounts, chunks)
	for i := range c.Chunks {
		c.Chunks[i].Groups = make([]int64, c.groupCount())
	}
	for i, at := range bins {
		into := &c.Chunks[chunk[i]]
		if at < 0 {
			into.Nulls++
			continue
		}
		into.Groups[groupOf[at]]++
	}
	c.calibration = calibrate(c)
}

func finite(values []float64) []float64 {
	out := make([]float64, 0, len(values))
	for _, v := range values {
		if !math.IsNaN(v) && !math.IsInf(v, 0) {
			out = append(out, v)
		}
	}
	return out
}

// cutEdges gives each value its bin when there are few of them, and else cuts at quantiles. A value so frequent that several
// quantiles fall on it gets a bin of its own, by an edge at the value before it; there is room, for it took several.
func cutEdges(sorted []float64) (edges []float64, discrete bool) {
	if edges = distinct(sorted, MaxBins); len(edges) <= MaxBins {
		return edges, true
	}
	edges = edges[:0]
	n := len(sorted)
	for i := 1; i <= MaxBins; i++ {
		v := sorted[(i*n+MaxBins-1)/MaxBins-1]
		if len(edges) == 0 || v > edges[len(edges)-1] {
			edges = append(edges, v)
			continue
		}
		first, _ := slices.BinarySearch(sorted, v)
		if before := len(edges) - 1; first > 0 && (before == 0 || sorted[first-1] > edges[before-1]) {
			edges = append(edges[:before], sorted[first-1], v)
		}
	}
	return edges, false
}

// distinct lists the values of a sorted slice, and stops after one more than limit.
func distinct(sorted []float64, limit int) []float64 {
	var out []float64
	for i, v := range sorted {
		if i > 0 && v == sorted[i-1] {
			continue
		}
		if out = append(out, v); len(out) > limit {
			break
		}
	}
	return out
}

// bin is the bin of a value, -1 for null. What lies outside the baseline's range counts to the first or the last bin.
func (c *Column) bin(v float64) int {
	if math.IsNaN(v) || len(c.Edges) == 0 {
		return -1
	}
	low, high := 0, len(c.Edges)-1
	for low < high {
		middle := int(uint(low+high) >> 1)
		if c.Edges[middle] < v {
			low = middle + 1
		} else {
			high = middle
		}
	}
	return low
}

// groupBins puts adjacent bins together to at most limit groups of about equal weight; a bin heavier than that stays alone.
func groupBins(counts []int64, limit int) []int {
	total := sum(counts)
	if total == 0 {
		return nil
	}
	target := float64(total) / float64(limit)
	groups, weight := []int{0}, 0.0
	for i, n := range counts {
		full := weight >= target*0.999
		beforeAtom := float64(n) >= target && weight >= target/2
		if i > 0 && (full || beforeAtom) && len(groups) < limit {
			groups, weight = append(groups, i), 0
		}
		weight += float64(n)
	}
	if last := len(groups) - 1; weight < target/2 && last > 1 {
		groups = groups[:last]
	}
	if len(groups) == 1 && len(counts) > 1 {
		groups = append(groups, heaviestBorder(counts))
	}
	return groups
}

// heaviestBorder splits bins that would all be one group beside the heaviest, so that a rare value can become a frequent one.
func heaviestBorder(counts []int64) int {
	heaviest := 0
	for i, n := range counts {
		if n > counts[heaviest] {
			heaviest = i
		}
	}
	return max(1, heaviest)
}

// groupCount is the number of groups that are compared. A column that was constant has a second group for everything else.
func (c *Column) groupCount() int {
	if len(c.Groups) == 1 {
		return 2
	}
	return len(c.Groups)
}

// groupOf gives the group of each bin.
func (c *Column) groupOf() []int {
	out := make([]int, len(c.Edges))
	group := 0
	for bin := range out {
		for group+1 < len(c.Groups) && c.Groups[group+1] <= bin {
			group++
		}
		out[bin] = group
	}
	return out
}

// groupCounts sums bins to groups; outside is the number of values out of the baseline's range.
func (c *Column) groupCounts(counts []int64, outside int64) []int64 {
	out := make([]int64, c.groupCount())
	for bin, group := range c.groupOf() {
		out[group] += counts[bin]
	}
	if len(c.Groups) == 1 {
		out[0] -= outside
		out[1] = outside
	}
	return out
}

// bins are the groups with their borders and the shares that counts make.
func (c *Column) bins(groupCounts []int64) []Bin {
	out := make([]Bin, 0, len(c.Groups))
	total := float64(max(sum(groupCounts), 1))
	for g, first := range c.Groups {
		last := len(c.Edges) - 1
		if g+1 < len(c.Groups) {
			last = c.Groups[g+1] - 1
		}
		low := c.Min
		if first > 0 {
			low = c.Edges[first-1]
			if c.Discrete {
				low = c.Edges[first]
			}
		}
		out = append(out, Bin{Low: low, High: c.Edges[last], Share: float64(groupCounts[g]) / total})
	}
	return out
}

// NullRate is the share of the baseline's rows without a value.
func (c *Column) NullRate() float64 {
	values := sum(c.Counts)
	if values+c.Nulls == 0 {
		return 0
	}
	return float64(c.Nulls) / float64(values+c.Nulls)
}

// Bins is the baseline's distribution over its groups.
func (c *Column) Bins() []Bin { return c.bins(c.groupCounts(c.Counts, 0)) }

// check refuses a decoded column that does not fit together, and calibrates one that does.
func (c *Column) check() error {
	corrupt := func(format string, args ...any) error {
		return failure.New(failure.Corrupt, "baseline column "+c.Name, format, args...)
	}
	if len(c.Edges) > MaxBins || len(c.Counts) != len(c.Edges) {
		return corrupt("%d edges, %d counts", len(c.Edges), len(c.Counts))
	}
	if !slices.IsSorted(c.Edges) {
		return corrupt("edges do not ascend")
	}
	if !plausible(c.Counts) || !plausible([]int64{c.Nulls}) {
		return corrupt("counts are negative or too large")
	}
	if (len(c.Groups) == 0) != (len(c.Edges) == 0) || len(c.Groups) > MaxGroups || len(c.Chunks) > MaxChunks {
		return corrupt("%d groups, %d chunks", len(c.Groups), len(c.Chunks))
	}
	for i, first := range c.Groups {
		if first >= len(c.Edges) || i == 0 && first != 0 || i > 0 && first <= c.Groups[i-1] {
			return corrupt("group %d starts at bin %d of %d", i, first, len(c.Edges))
		}
	}
	for i, chunk := range c.Chunks {
		if len(chunk.Groups) != c.groupCount() {
			return corrupt("chunk %d has %d groups of %d", i, len(chunk.Groups), c.groupCount())
		}
		if !plausible(chunk.Groups) || !plausible([]int64{chunk.Nulls}) {
			return corrupt("counts of chunk %d are negative or too large", i)
		}
	}
	c.calibration = calibrate(c)
	return nil
}

// plausible keeps sums of decoded counts from overflowing.
func plausible(counts []int64) bool {
	for _, n := range counts {
		if n < 0 || n > 1<<40 {
			return false
		}
	}
	return true
}

func sum(counts []int64) int64 {
	var total int64
	for _, n := range counts {
		total += n
	}
	return total
}
