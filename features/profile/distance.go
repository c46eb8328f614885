package profile

import "math"

// smoothing is the count added to each group before shares are taken (the Jeffreys prior), so that an empty group of a small
// window costs little instead of infinitely much.
const smoothing = 0.5

// PSI is the population stability index of two distributions over the same groups, which must each sum to one and hold no
// zero: the sum of (live-baseline)·ln(live/baseline), also known as the symmetrised Kullback-Leibler divergence in nats. By
// convention 0.1 is a moderate and 0.25 a major change.
func PSI(baseline, live []float64) float64 {
	total := 0.0
	for i, p := range baseline {
		total += (live[i] - p) * math.Log(live[i]/p)
	}
	return total
}

// JensenShannon is the Jensen-Shannon distance of two distributions over the same groups, in base 2: the square root of the
// divergence (Lin 1991), from 0 for equal ones to 1 for those that share no group.
func JensenShannon(baseline, live []float64) float64 {
	return math.Sqrt(jensenShannonDivergence(baseline, live))
}

func jensenShannonDivergence(baseline, live []float64) float64 {
	total := 0.0
	for i, p := range baseline {
		middle := (p + live[i]) / 2
		total += relativeEntropy(p, middle) + relativeEntropy(live[i], middle)
	}
	return math.Max(0, total/2/math.Ln2)
}

func relativeEntropy(p, q float64) float64 {
	if p == 0 {
		return 0
	}
	return p * math.Log(p/q)
}

// shares turns counts into shares, each count raised by prior.
func shares(counts []int64, prior float64) []float64 {
	out := make([]float64, len(counts))
	total := float64(sum(counts)) + prior*float64(len(counts))
	if total == 0 {
		return out
	}
	for i, n := range counts {
		out[i] = (float64(n) + prior) / total
	}
	return out
}

// statistics compares counts. Both are scaled alike: for small differences each is the sum of (live-baseline)²/baseline, which
// is what calibration reckons with; the divergence is multiplied by 8·ln 2 for that.
type statistics struct{ psi, divergence float64 }

const divergenceScale = 8 * math.Ln2

func compareCounts(baseline, live []int64) statistics {
	return statistics{
		psi:        PSI(shares(baseline, smoothing), shares(live, smoothing)),
		divergence: divergenceScale * jensenShannonDivergence(shares(baseline, 0), shares(live, 0)),
	}
}
