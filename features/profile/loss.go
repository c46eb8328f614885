package profile

import (
	"math"

	"gonum.org/v1/gonum/stat/distuv"
)

// Loss is what the answer to a row is charged with once it is known what came of it; its mean is how well a model does that says no yes or no.
type Loss string

// The losses.
const (
	SquaredError    Loss = "squared_error"    // of an expected value; the root of its mean is the RMSE
	PoissonDeviance Loss = "poisson_deviance" // of an expected count, as McCullagh and Nelder have it
	LogLoss         Loss = "log_loss"         // of the score that the class got which it was, in nats
)

// certain is the score that is taken for no less: one wrong certainty would make a mean of logarithms infinite.
const certain = 1e-15

// Of is the loss of an answer. For LogLoss the answer is the score of the class that came true, and truth is not looked at.
func (l Loss) Of(answer, truth float64) float64 {
	switch l {
	case PoissonDeviance:
		answer = max(answer, certain)
		if truth == 0 {
			return 2 * answer
		}
		return 2 * (truth*math.Log(truth/answer) - truth + answer)
	case LogLoss:
		return -math.Log(max(answer, certain))
	default:
		return square(answer - truth)
	}
}

// Metric is the name of what is shown of a mean loss.
func (l Loss) Metric() string {
	if l == SquaredError {
		return "rmse"
	}
	return string(l)
}

// Shown is a mean loss in the metric's own unit.
func (l Loss) Shown(mean float64) float64 {
	if l == SquaredError {
		return math.Sqrt(max(mean, 0))
	}
	return mean
}

// Losses gathers losses. The zero value is empty.
type Losses struct {
	Rows         int64
	mean, spread float64 // by Welford's method
}

// Add counts a loss.
func (l *Losses) Add(loss float64) {
	l.Rows++
	step := loss - l.mean
	l.mean += step / float64(l.Rows)
	l.spread += step * (loss - l.mean)
}

// Mean is the mean loss; ok is false without any.
func (l *Losses) Mean() (mean float64, ok bool) { return l.mean, l.Rows > 0 }

// variance is the sample variance of the losses.
func (l *Losses) variance() float64 {
	if l.Rows < 2 {
		return 0
	}
	return l.spread / float64(l.Rows-1)
}

// HeldOutLoss is what a model was charged with on rows that it was not trained on, and how much that varied from chunk to chunk.
type HeldOutLoss struct {
	Loss     Loss    `json:"loss"`
	Rows     int64   `json:"rows"`
	Mean     float64 `json:"mean"`
	Variance float64 `json:"variance"` // of the losses of rows
	// Chunks is the number of chunks with enough rows; Drift the sample variance of their means beyond what their sizes explain.
	Chunks int     `json:"chunks"`
	Drift  float64 `json:"drift"`
}

// HoldOutLoss adds what the model was charged with on the rows of HoldOut: losses of rows, and their chunks as in Build.
func (b *Baseline) HoldOutLoss(kind Loss, losses []float64, chunk []int) {
	if len(losses) == 0 {
		return
	}
	dense, chunks := denseChunks(chunk, len(losses))
	var all Losses
	perChunk := make([]Losses, chunks)
	for i, loss := range losses {
		all.Add(loss)
		perChunk[dense[i]].Add(loss)
	}
	h := &HeldOutLoss{Loss: kind, Rows: all.Rows, Mean: all.mean, Variance: all.variance()}
	var means []float64
	noise := 0.0
	for _, c := range perChunk {
		if c.Rows >= minChunkRows {
			means = append(means, c.mean)
			noise += h.Variance / float64(c.Rows)
		}
	}
	if h.Chunks = len(means); h.Chunks > 1 {
		_, v := meanVariance(means)
		h.Drift = math.Max(0, v-noise/float64(h.Chunks))
	}
	b.Loss = h
}

// Threshold is the mean loss that a window of losses must not exceed: the held-out one, and what its chunks and the sizes of both samples
// explain at the given probability, and the floor's share of it at least. Where the window's losses spread wider than the held-out ones, theirs counts:
// one row of a heavy tail is no change.
func (h *HeldOutLoss) Threshold(w *Losses, s Sensitivity) float64 {
	if w.Rows == 0 {
		return h.Mean
	}
	spread := max(h.Variance, w.variance())
	deviation := math.Sqrt(spread/float64(w.Rows) + h.Variance/float64(h.Rows) + h.Drift)
	degrees := math.Max(2, float64(h.Chunks-1))
	slack := deviation * distuv.StudentsT{Mu: 0, Sigma: 1, Nu: degrees}.Quantile(1-s.FalseAlarms)
	return h.Mean + math.Max(s.LossFloor*h.Mean, slack)
}
