package profile

import (
	"math"
	"slices"

	"gonum.org/v1/gonum/stat/distuv"
)

const (
	minChunkRows = 20 // chunks with fewer values say nothing about how far an innocent window strays
	minChunks    = 4  // fewer chunks cannot calibrate a threshold, but they can still raise it
	// uncalibratedPSI is the threshold where chunks are too few: the conventional bar of a major change.
	uncalibratedPSI = 0.25
	// extrapolate is how far beyond what any chunk strayed a threshold may lie.
	extrapolate = 3.0
	// leastEffective is the smallest number of independent chunks that is reckoned with. Fewer would leave no threshold that
	// anything could pass.
	leastEffective = 5.0
)

// calibration is how far chunks of the baseline stray from the rest of it.
//
// For a window of n and a baseline of m independent rows over G groups, PSI is about (1/n+1/m) times a chi-square with G-1
// degrees of freedom (Yurdakul and Naranjo 2020). Real windows stray further, because their rows depend on each other and the
// hour, the weekday and the weather matter. Comparing each chunk with all other chunks measures that. What a chunk strays is
// about a sum of squares of deviations, few or many. If these were normal, its cube root would nearly be (Wilson and Hilferty
// 1931), and the threshold the prediction limit of one more normal value after those of the chunks, cubed. The sixth root in its
// place has the heavier tail that a PSI has and that the levels of real columns have: in simulations with 20 to 30 chunks it
// keeps one and a half to two times the probability asked for, where the cube root takes four times as much and the logarithm a
// tenth; so it is asked for half. For windows of another size than the chunks' the threshold is scaled by the mean expected: what
// the level contributes stays the same, the sampling noise does not.
type calibration struct {
	chunks int
	// effective is the number of independent chunks that the chunks are worth: those of a column that moves slowly are alike,
	// and a level that was seen to vary little within the baseline will vary more outside it.
	effective       float64
	psi, divergence strays
	nullSpread      float64 // variance of the null rate between chunks beyond its binomial noise
	nullMost        float64 // the largest null rate of a chunk
}

// strays is what one statistic of the chunks came to; zero when they are too few.
type strays struct {
	excess          float64 // mean beyond the noise of independent rows
	mean            float64 // mean, excess and noise together
	root, deviation float64 // mean and standard deviation of the sixth root
	most            float64 // the largest
}

func calibrate(c *Column) calibration {
	chunks := usableChunks(c.Chunks)
	k := calibration{chunks: len(chunks), effective: float64(len(chunks))}
	k.nullSpread, k.nullMost = nullStrays(c)
	if len(chunks) < 2 || len(c.Groups) == 0 {
		return k
	}
	total := make([]int64, c.groupCount())
	for _, chunk := range c.Chunks {
		for g, n := range chunk.Groups {
			total[g] += n
		}
	}
	inflation, effective := slowness(chunks, total)
	psi, divergence, scales := make([]float64, len(chunks)), make([]float64, len(chunks)), make([]float64, len(chunks))
	rest := make([]int64, len(total))
	for i, chunk := range chunks {
		for g := range total {
			rest[g] = total[g] - chunk.Groups[g]
		}
		s := compareCounts(rest, chunk.Groups)
		psi[i], divergence[i] = s.psi, s.divergence
		scales[i] = 1/float64(sum(chunk.Groups)) + 1/float64(max(sum(rest), 1))
	}
	noise := 0.0
	for _, s := range scales {
		noise += float64(c.groupCount()-1) * s / float64(len(scales))
	}
	// What noise explains is independent whatever the ranks look like, so the correction goes by the share that it leaves.
	mean, _ := meanVariance(psi)
	level := 0.0
	if mean > noise {
		level = math.Sqrt((mean - noise) / mean)
	}
	inflation, k.effective = 1+(inflation-1)*level, k.effective-(k.effective-effective)*level
	k.psi = strayed(psi, noise, inflation)
	k.divergence = strayed(divergence, noise, inflation)
	return k
}

// usableChunks leaves out chunks that are too small to be like a window: the first and the last of a baseline usually are
// parts of a day, and a part of a day is another thing than a day.
func usableChunks(all []ChunkCounts) []ChunkCounts {
	sizes := make([]int64, len(all))
	for i, chunk := range all {
		sizes[i] = sum(chunk.Groups)
	}
	slices.Sort(sizes)
	if len(sizes) == 0 {
		return nil
	}
	least := max(minChunkRows, sizes[len(sizes)/2]/2)
	var usable []ChunkCounts
	for _, chunk := range all {
		if sum(chunk.Groups) >= least {
			usable = append(usable, chunk)
		}
	}
	return usable
}

// slowness measures how alike successive chunks are by the first autocorrelation rho of their mean rank in the baseline, and
// takes them for an autoregression of order one. inflation is what a variance within the baseline has to be multiplied by to be
// that of the process, effective the number of independent chunks (Bayley and Hammersley 1946).
func slowness(chunks []ChunkCounts, total []int64) (inflation, effective float64) {
	ranks := make([]float64, len(chunks))
	for i, chunk := range chunks {
		ranks[i] = meanRank(chunk.Groups, total)
	}
	n := float64(len(chunks))
	mean, variance := meanVariance(ranks)
	if variance == 0 {
		return 1, n
	}
	covariance := 0.0
	for i := 1; i < len(ranks); i++ {
		covariance += (ranks[i] - mean) * (ranks[i-1] - mean)
	}
	rho := covariance / ((n - 1) * variance)
	rho += (1 + 4*rho) / n // the estimate's bias (Marriott and Pope 1954)
	rho = min(max(rho, 0), 0.9)
	together := 0.0
	for lag := 1.0; lag < n; lag++ {
		together += (n - lag) * math.Pow(rho, lag)
	}
	together *= 2 / (n * (n - 1))
	return 1 / (1 - together), max(leastEffective, n*(1-rho)/(1+rho))
}

// meanRank is the mean place of a chunk's values in the order of all values, from 0 to 1 (the ridit, Bross 1958).
func meanRank(counts, total []int64) float64 {
	below, rank := 0.0, 0.0
	all, n := float64(sum(total)), float64(sum(counts))
	for g, weight := range total {
		rank += float64(counts[g]) * (below + float64(weight)/2) / all
		below += float64(weight)
	}
	return rank / n
}

// strayed sums up how far chunks strayed, q, of which noise is what independent rows explain on average. inflation corrects variances.
func strayed(q []float64, noise, inflation float64) strays {
	mean, _ := meanVariance(q)
	roots := make([]float64, len(q))
	for i, v := range q {
		roots[i] = math.Sqrt(math.Cbrt(v * inflation))
	}
	root, variance := meanVariance(roots)
	return strays{
		excess: math.Max(0, mean-noise) * inflation, mean: math.Max(0, mean-noise)*inflation + noise,
		root: root, deviation: math.Sqrt(variance), most: slices.Max(q),
	}
}

// quantiles are what thresholds are made with, for a probability alpha.
type quantiles struct {
	independent float64 // of chi-square with a degree of freedom per group but one
	chunks      float64 // of Student's t with a degree of freedom per effective chunk but one, for half of alpha
}

func (k *calibration) quantiles(groups int, alpha float64) (q quantiles) {
	q.independent = distuv.ChiSquared{K: float64(groups - 1)}.Quantile(1 - alpha)
	if k.psi.mean > 0 {
		q.chunks = distuv.StudentsT{Mu: 0, Sigma: 1, Nu: k.effective - 1}.Quantile(1 - alpha/2)
	}
	return q
}

// threshold is what the statistic of a window with n values must pass, so that a window like the chunks passes it with the
// probability of the quantiles: the larger of what independent rows and what the chunks ask for.
func (k *calibration) threshold(s strays, q quantiles, groups int, n, m int64) float64 {
	scale := 1/float64(max(n, 1)) + 1/float64(max(m, 1))
	independent := scale * q.independent
	if s.mean == 0 {
		return independent
	}
	root := math.Max(0, s.root+q.chunks*s.deviation*math.Sqrt(1+1/k.effective))
	limited := min(max(math.Pow(root, 6), s.most), extrapolate*s.most)
	ratio := (s.excess + float64(groups-1)*scale) / s.mean
	return math.Max(independent, ratio*limited)
}

// nullThreshold is the null rate that a window with n rows must pass.
func (k *calibration) nullThreshold(c *Column, n int64, floor, alpha float64) float64 {
	rows := float64(sum(c.Counts)+c.Nulls) + 1
	rate := (float64(c.Nulls) + smoothing) / rows
	deviation := math.Sqrt(rate*(1-rate)*(1/float64(max(n, 1))+1/rows) + k.nullSpread)
	degrees := math.Max(leastEffective, k.effective) - 1
	jump := deviation * distuv.StudentsT{Mu: 0, Sigma: 1, Nu: degrees}.Quantile(1-alpha)
	return math.Max(rate+math.Max(floor, jump), k.nullMost)
}

func nullStrays(c *Column) (spread, most float64) {
	var rates []float64
	noise := 0.0
	p := c.NullRate()
	for _, chunk := range c.Chunks {
		n := float64(sum(chunk.Groups) + chunk.Nulls)
		if n < minChunkRows {
			continue
		}
		rate := float64(chunk.Nulls) / n
		rates = append(rates, rate)
		noise += p * (1 - p) / n
		most = math.Max(most, rate)
	}
	if len(rates) < 2 {
		return 0, 0
	}
	_, variance := meanVariance(rates)
	return math.Max(0, variance-noise/float64(len(rates))), most
}

// meanVariance is the mean and the sample variance, which is 0 for fewer than two values.
func meanVariance(x []float64) (mean, variance float64) {
	for _, v := range x {
		mean += v / float64(len(x))
	}
	if len(x) < 2 {
		return mean, 0
	}
	for _, v := range x {
		variance += (v - mean) * (v - mean) / float64(len(x)-1)
	}
	return mean, variance
}
