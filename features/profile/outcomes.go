package profile

import "math"

const (
	outcomeOctaves = 20 // scores below 2^-20 (and above 1-2^-20) share a bin
	outcomeSteps   = 64 // bins per octave
	outcomeHalf    = outcomeOctaves * outcomeSteps
)

// Outcomes gathers scores in [0,1] with their labels in bounded memory, for AUC and calibration of a window. Bins are about 1.6 %
// wide, relative to the score below one half and to its complement above, so that rare events keep their order; within a bin
// scores count as tied. The zero value is empty.
type Outcomes struct {
	Positives, Negatives int64
	bins                 []outcomeBin
}

type outcomeBin struct {
	positives, negatives int64
	scores               float64
}

// Add counts a score and what came of it. Scores outside [0,1] are counted at the nearer end.
func (o *Outcomes) Add(score float64, positive bool) {
	if o.bins == nil {
		o.bins = make([]outcomeBin, 2*outcomeHalf+1)
	}
	score = min(max(score, 0), 1)
	bin := &o.bins[outcomeIndex(score)]
	bin.scores += score
	if positive {
		o.Positives++
		bin.positives++
		return
	}
	o.Negatives++
	bin.negatives++
}

// outcomeIndex ascends with the score: 0 for nearly 0, outcomeHalf for one half.
func outcomeIndex(score float64) int {
	if score > 0.5 {
		return 2*outcomeHalf - outcomeIndex(1-score)
	}
	fraction, exponent := math.Frexp(score) // score = fraction·2^exponent, fraction in [0.5, 1)
	octave := outcomeOctaves + exponent     // the last octave is [0.25, 0.5); one half begins the next
	if score == 0 || octave < 0 {
		return 0
	}
	return octave*outcomeSteps + int((fraction-0.5)*2*outcomeSteps)
}

// Labels is the number of rows added.
func (o *Outcomes) Labels() int64 { return o.Positives + o.Negatives }

// AUC is as the function AUC, up to ties within bins. ok is false unless both classes occur.
func (o *Outcomes) AUC() (auc float64, ok bool) {
	if o.Positives == 0 || o.Negatives == 0 {
		return 0, false
	}
	below, wins := 0.0, 0.0
	for _, bin := range o.bins {
		wins += float64(bin.positives) * (below + float64(bin.negatives)/2)
		below += float64(bin.negatives)
	}
	return wins / (float64(o.Positives) * float64(o.Negatives)), true
}

// CalibrationError is as the function CalibrationError over CalibrationBins bins, up to where bins of equal size are cut. ok is
// false without labels.
func (o *Outcomes) CalibrationError() (gap float64, ok bool) {
	n := o.Labels()
	if n == 0 {
		return 0, false
	}
	total, scores, positives, rows, cut := 0.0, 0.0, int64(0), int64(0), int64(1)
	seen := int64(0)
	for _, bin := range o.bins {
		scores += bin.scores
		positives += bin.positives
		rows += bin.positives + bin.negatives
		seen += bin.positives + bin.negatives
		if seen*CalibrationBins >= cut*n && rows > 0 {
			total += math.Abs(scores - float64(positives))
			scores, positives, rows = 0, 0, 0
			cut = seen*CalibrationBins/n + 1
		}
	}
	return total / float64(n), true
}
