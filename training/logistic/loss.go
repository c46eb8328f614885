package logistic

import (
	"math"
	"runtime"
	"slices"

	"golang.org/x/sync/errgroup"
)

// loss is the mean loss of a data set with its penalty, and its gradient, as functions of the coefficients: the
// intercept, then a weight per column for its standardized values, then one per column for being missing.
type loss struct {
	data   *Data
	means  []float64
	scales []float64
	gaps   []bool // the column has missing values
	weight float64
	l2     float64

	at       []float64 // coefficients of the last evaluation
	value    float64
	gradient []float64
	chunks   []chunk
}

// chunk is a stretch of rows and what it adds. Chunks are summed in order, so that sums do not depend on the cores.
type chunk struct {
	from, until int
	margins     []float64 // by row, then output; then each row's derivative of the loss by its margin
	value       float64
	gradient    []float64
}

const chunkRows = 1 << 12

func newLoss(data *Data, outputs int, l2 float64) *loss {
	columns := len(data.Columns)
	l := &loss{data: data, means: make([]float64, columns), scales: make([]float64, columns), gaps: make([]bool, columns), l2: l2}
	var tasks errgroup.Group
	tasks.SetLimit(runtime.GOMAXPROCS(0))
	for c := range columns {
		tasks.Go(func() error {
			l.means[c], l.scales[c], l.gaps[c] = moments(data.Columns[c], data.Weights)
			return nil
		})
	}
	_ = tasks.Wait() // no task fails
	for i := range data.Labels {
		l.weight += weightOf(data, i)
	}
	for from := 0; from < len(data.Labels); from += chunkRows {
		until := min(from+chunkRows, len(data.Labels))
		l.chunks = append(l.chunks, chunk{
			from: from, until: until, margins: make([]float64, (until-from)*outputs), gradient: make([]float64, outputs*l.size()),
		})
	}
	l.gradient = make([]float64, outputs*l.size())
	return l
}

func (l *loss) size() int { return 1 + 2*len(l.means) }

// moments are weighted mean and standard deviation of the present values. A column that does not vary has scale 1.
func moments(column, weights []float64) (mean, scale float64, gaps bool) {
	var n, spread float64
	for i, x := range column { // West 1979: stable for values far from zero
		if !present(x) {
			gaps = true
			continue
		}
		w := 1.0
		if weights != nil {
			w = weights[i]
		}
		n += w
		step := x - mean
		mean += step * (w / n)
		spread += w * step * (x - mean)
	}
	scale = math.Sqrt(spread / n)
	if !(scale > math.Abs(mean)*1e-12) || !present(scale) {
		scale = 1
	}
	return mean, scale, gaps
}

func present(x float64) bool { return x-x == 0 } // neither NaN nor infinite

func weightOf(data *Data, row int) float64 {
	if data.Weights == nil {
		return 1
	}
	return data.Weights[row]
}

// evaluate computes value and gradient at x, unless the last evaluation was there.
func (l *loss) evaluate(x []float64) { l.sum(x, l.evaluateChunk) }

// sum is evaluate by what a chunk adds at x.
func (l *loss) sum(x []float64, add func(*chunk, []float64)) {
	if slices.Equal(l.at, x) {
		return
	}
	l.at = append(l.at[:0], x...)
	var tasks errgroup.Group
	tasks.SetLimit(runtime.GOMAXPROCS(0))
	for i := range l.chunks {
		tasks.Go(func() error {
			add(&l.chunks[i], x)
			return nil
		})
	}
	_ = tasks.Wait() // no task fails
	l.value = 0
	clear(l.gradient)
	for _, c := range l.chunks {
		l.value += c.value
		for i, g := range c.gradient {
			l.gradient[i] += g
		}
	}
	for i, w := range x {
		if i%l.size() > 0 { // no intercept
			l.value += l.l2 / 2 * w * w
			l.gradient[i] += l.l2 * w
		}
	}
	l.value /= l.weight
	for i := range l.gradient {
		l.gradient[i] /= l.weight
	}
}

func (l *loss) evaluateChunk(c *chunk, x []float64) {
	columns := len(l.means)
	for i := range c.margins {
		c.margins[i] = x[0]
	}
	for j := range columns {
		mean, weight, missing := l.means[j], x[1+j]/l.scales[j], x[1+columns+j]
		for i, v := range l.data.Columns[j][c.from:c.until] {
			if present(v) {
				c.margins[i] += weight * (v - mean)
			} else {
				c.margins[i] += missing
			}
		}
	}
	c.value, c.gradient[0] = 0, 0
	for i, z := range c.margins {
		w, y := weightOf(l.data, c.from+i), l.data.Labels[c.from+i]
		c.value += w * (softplus(z) - y*z)
		c.margins[i] = w * (1/(1+math.Exp(-z)) - y)
		c.gradient[0] += c.margins[i]
	}
	for j := range columns {
		mean, sum, gaps := l.means[j], 0.0, 0.0
		for i, v := range l.data.Columns[j][c.from:c.until] {
			if present(v) {
				sum += c.margins[i] * (v - mean)
			} else {
				gaps += c.margins[i]
			}
		}
		c.gradient[1+j], c.gradient[1+columns+j] = sum/l.scales[j], gaps
	}
}

// softplus is log(1+exp(z)) without overflow.
func softplus(z float64) float64 { return max(z, 0) + math.Log1p(math.Exp(-math.Abs(z))) }
