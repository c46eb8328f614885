package profile

import (
	"cmp"
	"math"
	"slices"
)

// CalibrationBins is the number of equally filled bins that calibration errors are taken over.
const CalibrationBins = 10

// AUC is the area under the receiver operating characteristic: the probability that a positive row scores above a negative
// one, ties counting half (Hanley and McNeil 1982). Labels above 0.5 are positive. ok is false unless both classes occur.
func AUC(scores, labels []float64) (auc float64, ok bool) { return WeightedAUC(scores, labels, nil) }

// WeightedAUC is AUC where a row counts as often as its weight says, above 0: a pair of rows counts for the product of their
// weights. Without weights all count once.
func WeightedAUC(scores, labels, weights []float64) (auc float64, ok bool) {
	order := byScore(scores)
	var below, wins, positives float64 // below: negatives with a smaller score
	for i := 0; i < len(order); {
		tied := i
		var pos, neg float64
		for ; tied < len(order) && scores[order[tied]] == scores[order[i]]; tied++ {
			w := 1.0
			if weights != nil {
				w = weights[order[tied]]
			}
			if labels[order[tied]] > 0.5 {
				pos += w
			} else {
				neg += w
			}
		}
		wins += pos * (below + neg/2)
		below += neg
		positives += pos
		i = tied
	}
	if positives == 0 || below == 0 {
		return 0, false
	}
	return wins / (positives * below), true
}

// CalibrationError is the expected calibration error: the mean over equally filled bins of scores of how far the mean score is
// from the share of positive labels, weighted by rows. It is NaN without rows.
func CalibrationError(scores, labels []float64, bins int) float64 {
	order := byScore(scores)
	n := len(order)
	total, start := 0.0, 0
	for b := range bins {
		size := n / bins
		if b < n%bins {
			size++
		}
		gap := 0.0
		for _, i := range order[start : start+size] {
			gap += scores[i] - labels[i]
		}
		total += math.Abs(gap)
		start += size
	}
	return total / float64(n)
}

// WeightedCalibrationError is CalibrationError where a row counts for its weight: bins are filled with equal weight, and a row
// on the edge of two lies in both, with what each has of it.
func WeightedCalibrationError(scores, labels, weights []float64, bins int) float64 {
	order := byScore(scores)
	all := 0.0
	for _, w := range weights {
		all += w
	}
	room := all / float64(bins)
	total, gap, left := 0.0, 0.0, room
	for _, i := range order {
		w := weights[i]
		for w > left {
			gap += left * (scores[i] - labels[i])
			total, gap = total+math.Abs(gap), 0
			w, left = w-left, room
		}
		gap += w * (scores[i] - labels[i])
		left -= w
	}
	return (total + math.Abs(gap)) / all
}

func byScore(scores []float64) []int {
	order := make([]int, len(scores))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(scores[a], scores[b]) })
	return order
}

// AUCError is the standard error of an AUC measured on so many rows of each class (Hanley and McNeil 1982, equation 2).
func AUCError(auc float64, positives, negatives int64) float64 {
	if positives == 0 || negatives == 0 {
		return math.Inf(1)
	}
	p, n := float64(positives), float64(negatives)
	q1, q2 := auc/(2-auc), 2*auc*auc/(1+auc)
	variance := (auc*(1-auc) + (p-1)*(q1-auc*auc) + (n-1)*(q2-auc*auc)) / (p * n)
	return math.Sqrt(math.Max(0, variance))
}

func countPositive(labels []float64) (positives int64) {
	for _, l := range labels {
		if l > 0.5 {
			positives++
		}
	}
	return positives
}

func square(x float64) float64 { return x * x }
