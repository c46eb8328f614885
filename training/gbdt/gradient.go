package gbdt

import (
	"math"

	"github.com/millrace/millrace/registry/model"
)

// gradients are the first and second derivatives of the loss by the margin, per row, and the same as cells.
type gradients struct {
	first, second         []float64
	cells                 []cell
	firstUnit, secondUnit float64 // what 1 in a cell's half stands for
	sums                  []chunkSum
	shares                [][]float64 // of a Multiclass objective: the probability of each class, per row
}

// chunkSum is what a chunk of rows sums to. Chunks are summed in order, so that float sums do not depend on the cores.
type chunkSum struct{ first, second float64 } // |first|, second

const chunkRows = 1 << 13

// Bounds on the sum over all rows of a cell's halves. Rounding can move a sum by half a unit per row, which for the 2^30
// rows that Data may have stays below the 2^31 and 2^32 where a half would overflow.
const (
	firstLimit  = 1 << 30
	secondLimit = 1 << 31
	maxRows     = 1 << 30
)

func newGradients(rows, outputs int) *gradients {
	g := &gradients{
		first: make([]float64, rows), second: make([]float64, rows), cells: make([]cell, rows),
		sums: make([]chunkSum, (rows+chunkRows-1)/chunkRows),
	}
	if outputs > 1 {
		g.shares = constant(make([]float64, outputs), rows)
	}
	return g
}

// share turns the margins of all classes into probabilities, which the derivatives of a round are taken at.
func (g *gradients) share(margins [][]float64, pool pool) {
	if g.shares == nil {
		return
	}
	pool.each(len(g.sums), func(chunk int) {
		from := chunk * chunkRows
		until := min(from+chunkRows, len(g.first))
		for i := from; i < until; i++ {
			highest, sum := math.Inf(-1), 0.0
			for _, m := range margins {
				highest = max(highest, m[i])
			}
			for k, m := range margins {
				g.shares[k][i] = math.Exp(m[i] - highest)
				sum += g.shares[k][i]
			}
			for _, s := range g.shares {
				s[i] /= sum
			}
		}
	})
}

// compute takes the derivatives by the margin of one output and rounds them to cells.
func (g *gradients) compute(data *Data, p *Params, output int, margins [][]float64, pool pool) {
	pool.each(len(g.sums), func(chunk int) {
		from := chunk * chunkRows
		until := min(from+chunkRows, len(g.first))
		switch p.Objective {
		case model.Binary:
			g.logistic(data, margins[0], from, until)
		case model.Poisson:
			g.poisson(data, margins[0], p.PoissonStep, from, until)
		case model.Multiclass:
			g.softmax(data, output, from, until)
		default:
			g.squared(data, margins[0], from, until)
		}
		var sum chunkSum
		for i := from; i < until; i++ {
			sum.first += math.Abs(g.first[i])
			sum.second += g.second[i]
		}
		g.sums[chunk] = sum
	})
	var total chunkSum
	for _, s := range g.sums {
		total.first += s.first
		total.second += s.second
	}
	g.firstUnit, g.secondUnit = unit(total.first, firstLimit), unit(total.second, secondLimit)
	pool.each(len(g.sums), func(chunk int) {
		from := chunk * chunkRows
		g.quantize(from, min(from+chunkRows, len(g.first)))
	})
}

// unit divides a sum into so many parts; where there is next to nothing to divide, any unit will do.
func unit(sum, parts float64) float64 {
	const least = 1e-300 // its inverse is still a number
	if u := sum / parts; u > least {
		return u
	}
	return 1
}

func (g *gradients) logistic(data *Data, margins []float64, from, until int) {
	for i := from; i < until; i++ {
		p := 1 / (1 + math.Exp(-margins[i]))
		g.first[i], g.second[i] = p-data.Labels[i], p*(1-p)
	}
	g.weigh(data, from, until)
}

func (g *gradients) squared(data *Data, margins []float64, from, until int) {
	for i := from; i < until; i++ {
		g.first[i], g.second[i] = margins[i]-data.Labels[i], 1
	}
	g.weigh(data, from, until)
}

// poisson is of the negative log likelihood of a count, exp(margin) - label*margin. Its hessian is taken at a higher margin,
// which bounds the step where the count is far above what is expected.
func (g *gradients) poisson(data *Data, margins []float64, step float64, from, until int) {
	higher := math.Exp(step)
	for i := from; i < until; i++ {
		expected := math.Exp(margins[i])
		g.first[i], g.second[i] = expected-data.Labels[i], expected*higher
	}
	g.weigh(data, from, until)
}

// softmax is of the log loss of the probabilities of all classes. The hessian is the diagonal of the matrix, scaled as LightGBM does
// it to make up for what is beside it (Friedman 2001, section 4.6).
func (g *gradients) softmax(data *Data, class, from, until int) {
	classes := float64(len(g.shares))
	scale := classes / (classes - 1)
	for i := from; i < until; i++ {
		p, y := g.shares[class][i], 0.0
		if data.Labels[i] == float64(class) {
			y = 1
		}
		g.first[i], g.second[i] = p-y, scale*p*(1-p)
	}
	g.weigh(data, from, until)
}

func (g *gradients) weigh(data *Data, from, until int) {
	if data.Weights == nil {
		return
	}
	for i := from; i < until; i++ {
		g.first[i] *= data.Weights[i]
		g.second[i] *= data.Weights[i]
	}
}

// quantize rounds to the nearest unit. Adding and subtracting 1.5*2^52 rounds a float of less than 2^51 to an integer,
// and leaves that integer in its low bits.
func (g *gradients) quantize(from, until int) {
	const shift = 3 << 51
	a, b := 1/g.firstUnit, 1/g.secondUnit
	for i := from; i < until; i++ {
		first := int64(math.Float64bits(g.first[i]*a+shift)) - int64(math.Float64bits(shift))
		second := int64(math.Float64bits(g.second[i]*b+shift)) - int64(math.Float64bits(shift))
		g.cells[i] = cell(first<<32 + second)
	}
}

// start is the constant margins with the least loss, by output, which boosting starts from.
func start(data *Data, p *Params) []float64 {
	sums, weight := make([]float64, max(1, len(data.Classes))), 0.0
	for i, y := range data.Labels {
		w := 1.0
		if data.Weights != nil {
			w = data.Weights[i]
		}
		weight += w
		if data.Classes != nil {
			sums[int(y)] += w
		} else {
			sums[0] += w * y
		}
	}
	const least = 1e-15 // of a class that no row has (LightGBM's kEpsilon)
	for i, sum := range sums {
		mean := sum / weight
		switch p.Objective {
		case model.Binary:
			sums[i] = math.Log(mean / (1 - mean))
		case model.Poisson:
			sums[i] = math.Log(mean)
		case model.Multiclass:
			sums[i] = math.Log(max(mean, least))
		default:
			sums[i] = mean
		}
	}
	return sums
}
