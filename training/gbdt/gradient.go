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

func newGradients(rows int) *gradients {
	return &gradients{
		first: make([]float64, rows), second: make([]float64, rows), cells: make([]cell, rows),
		sums: make([]chunkSum, (rows+chunkRows-1)/chunkRows),
	}
}

// compute takes the derivatives at the margins and rounds them to cells.
func (g *gradients) compute(data *Data, objective model.Objective, margins []float64, pool pool) {
	pool.each(len(g.sums), func(chunk int) {
		from := chunk * chunkRows
		until := min(from+chunkRows, len(margins))
		if objective == model.Binary {
			g.logistic(data, margins, from, until)
		} else {
			g.squared(data, margins, from, until)
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
		g.quantize(from, min(from+chunkRows, len(margins)))
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

// start is the constant margin with the least loss, which boosting starts from.
func start(data *Data, objective model.Objective) float64 {
	var sum, weight float64
	for i, y := range data.Labels {
		w := 1.0
		if data.Weights != nil {
			w = data.Weights[i]
		}
		sum += w * y
		weight += w
	}
	mean := sum / weight
	if objective == model.Binary {
		return math.Log(mean / (1 - mean))
	}
	return mean
}
