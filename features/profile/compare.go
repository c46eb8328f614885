package profile

import (
	"math"

	"gonum.org/v1/gonum/stat/distuv"
)

// Sensitivity says when a difference counts.
type Sensitivity struct {
	// FalseAlarms is the probability that any column of an innocent window passes its threshold. It is divided among columns.
	FalseAlarms float64
	// Floor is the PSI below which no difference counts however significant: 0.05 is a mean that moved by about 0.22 standard deviations.
	Floor float64
	// NullFloor is the rise of a null rate below which no rise counts.
	NullFloor float64
	// PerformanceFloor is the loss of AUC below which no loss counts.
	PerformanceFloor float64
	// LossFloor is the rise of a mean loss, as a share of the held-out one, below which no rise counts.
	LossFloor float64
	// MinValues is the number of values that a column needs in the window to be judged, and of labels for performance.
	MinValues int64
}

// DefaultSensitivity lets one innocent window of twenty have a column over its threshold; see package monitor for what it takes
// from there to an alarm.
func DefaultSensitivity() Sensitivity {
	return Sensitivity{FalseAlarms: 0.05, Floor: 0.05, NullFloor: 0.05, PerformanceFloor: 0.03, LossFloor: 0.1, MinValues: 100}
}

// ColumnResult is one column of a window beside the baseline.
type ColumnResult struct {
	Column string
	// Values is the number of rows with a value, Rows of all.
	Values, Rows int64
	// Sufficient says that there were enough values to compare; without it PSI and JensenShannon are 0.
	Sufficient bool
	// Calibrated says that the thresholds come from the chunks of the baseline; else they are conventional.
	Calibrated                                bool
	PSI, PSIThreshold                         float64
	JensenShannon, JensenShannonThreshold     float64
	NullRate, BaselineNullRate, NullThreshold float64
	// OutOfRange is the share of values below the smallest or above the largest of the baseline.
	OutOfRange float64
}

// Compare puts a window beside the baseline, column by column, and then the scores (nil without a profile of them).
func (b *Baseline) Compare(w *Window, s Sensitivity) (columns []ColumnResult, score *ColumnResult) {
	alpha := s.FalseAlarms / float64(max(1, len(b.Columns)+1))
	columns = make([]ColumnResult, len(b.Columns))
	for i := range b.Columns {
		columns[i] = b.Columns[i].compare(&w.columns[i], s, alpha)
	}
	if b.Score != nil && w.score != nil {
		result := b.Score.compare(w.score, s, alpha)
		score = &result
	}
	return columns, score
}

// Compare is Baseline.Compare at DefaultSensitivity, columns only.
func Compare(b *Baseline, w *Window) []ColumnResult {
	columns, _ := b.Compare(w, DefaultSensitivity())
	return columns
}

func (c *Column) compare(live *columnCounts, s Sensitivity, alpha float64) ColumnResult {
	outside := live.below + live.above
	counts := c.liveGroups(live)
	r := ColumnResult{Column: c.Name, Values: sum(counts), BaselineNullRate: c.NullRate(), Calibrated: c.calibration.chunks >= minChunks}
	r.Rows = r.Values + live.nulls
	if r.Rows > 0 {
		r.NullRate = float64(live.nulls) / float64(r.Rows)
	}
	r.NullThreshold = c.calibration.nullThreshold(c, r.Rows, s.NullFloor, alpha)
	if r.Values == 0 || r.Values < s.MinValues || len(c.Groups) == 0 {
		return r
	}
	r.Sufficient = true
	r.OutOfRange = float64(outside) / float64(r.Values)
	base := c.groupCounts(c.Counts, 0)
	d := compareCounts(base, counts)
	r.PSI, r.JensenShannon = d.psi, math.Sqrt(d.divergence/divergenceScale)
	floor := s.Floor
	if !r.Calibrated {
		floor = math.Max(floor, uncalibratedPSI)
	}
	k := &c.calibration
	q := k.quantiles(len(base), alpha)
	r.PSIThreshold = math.Max(floor, k.threshold(k.psi, q, len(base), r.Values, sum(base)))
	divergence := math.Max(floor, k.threshold(k.divergence, q, len(base), r.Values, sum(base)))
	r.JensenShannonThreshold = math.Sqrt(divergence / divergenceScale)
	return r
}

func (c *Column) liveGroups(live *columnCounts) []int64 {
	if len(c.Edges) == 0 {
		return nil
	}
	return c.groupCounts(live.bins, live.below+live.above)
}

// Bins is the live distribution of column i over the same groups as Baseline.Columns[i].Bins.
func (w *Window) Bins(i int) []Bin {
	return w.baseline.Columns[i].bins(w.baseline.Columns[i].liveGroups(&w.columns[i]))
}

// ScoreBins is the live distribution of the scores; nil without a profile of them.
func (w *Window) ScoreBins() []Bin {
	if w.score == nil {
		return nil
	}
	return w.baseline.Score.bins(w.baseline.Score.liveGroups(w.score))
}

// AUCThreshold is the AUC that a window with so many labels must not fall below: the held-out one less what its chunks and the
// sample's size explain at the given probability, and less the floor at least.
func (p *Performance) AUCThreshold(positives, negatives int64, s Sensitivity) float64 {
	live := AUCError(p.AUC, positives, negatives)
	deviation := math.Sqrt(live*live + p.Variance)
	degrees := math.Max(2, float64(p.Chunks-1))
	slack := deviation * distuv.StudentsT{Mu: 0, Sigma: 1, Nu: degrees}.Quantile(1-s.FalseAlarms)
	return p.AUC - math.Max(s.PerformanceFloor, slack)
}
