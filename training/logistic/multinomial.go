package logistic

import (
	"context"
	"fmt"
	"math"
	"slices"

	"github.com/millrace/millrace/internal/failure"
	"github.com/millrace/millrace/registry/model"
)

// FitMultinomial is Fit for labels that are the indices of classes, each of which must occur: the mean negative logarithm of the probability of the
// class that came, with L2/2 times the squared standardized weights of all classes.
func FitMultinomial(ctx context.Context, data Data, classes []string, p Params) (*model.Multinomial, error) {
	if err := p.Validate(); err != nil {
		return nil, err
	}
	if err := data.checkClasses(len(classes)); err != nil {
		return nil, failure.Wrap(failure.BadRequest, "training set", "checking the data", err)
	}
	l := newMultinomialLoss(&data, len(classes), p.L2)
	x, err := minimize(ctx, l.begin(), func(x []float64) (float64, []float64) {
		l.evaluate(x)
		return l.value, l.gradient
	}, p)
	if err != nil {
		return nil, err
	}
	columns := len(data.Columns)
	fitted := make([]model.MultinomialClass, len(classes))
	for k, class := range classes {
		of := x[k*l.size() : (k+1)*l.size()]
		fitted[k] = model.MultinomialClass{Class: class, Intercept: of[0], Inputs: make([]model.LogisticInput, columns)}
		for i, name := range data.Names {
			fitted[k].Inputs[i] = model.LogisticInput{Name: name, Weight: of[1+i], Mean: l.means[i], Scale: l.scales[i], Missing: of[1+columns+i]}
		}
	}
	return model.NewMultinomial(fitted)
}

func (d *Data) checkClasses(n int) error {
	if n < 2 {
		return fmt.Errorf("%d classes: there is nothing to tell apart", n)
	}
	if err := d.checkShape(); err != nil {
		return err
	}
	seen := make([]bool, n)
	for i, y := range d.Labels {
		if y != math.Trunc(y) || !(y >= 0 && y < float64(n)) {
			return fmt.Errorf("label %d is %v, not the index of one of %d classes", i, y, n)
		}
		seen[int(y)] = true
	}
	if k := slices.Index(seen, false); k >= 0 {
		return fmt.Errorf("no label is of class %d", k)
	}
	return nil
}

// multinomialLoss is loss for several classes. The coefficients are those of the first class, as loss has them, then of the next.
type multinomialLoss struct {
	*loss
	classes int
}

func newMultinomialLoss(data *Data, classes int, l2 float64) *multinomialLoss {
	return &multinomialLoss{loss: newLoss(data, classes, l2), classes: classes}
}

// begin is the logarithms of the shares of the classes.
func (l *multinomialLoss) begin() []float64 {
	x := make([]float64, l.classes*l.size())
	for i, y := range l.data.Labels {
		x[int(y)*l.size()] += weightOf(l.data, i)
	}
	for k := range l.classes {
		x[k*l.size()] = math.Log(x[k*l.size()] / l.weight)
	}
	return x
}

func (l *multinomialLoss) evaluate(x []float64) { l.sum(x, l.evaluateChunk) }

func (l *multinomialLoss) evaluateChunk(c *chunk, x []float64) {
	columns, size, classes := len(l.means), l.size(), l.classes
	for i := range c.margins {
		c.margins[i] = x[i%classes*size]
	}
	for j := range columns {
		for i, v := range l.data.Columns[j][c.from:c.until] {
			for k := range classes {
				if present(v) {
					c.margins[i*classes+k] += x[k*size+1+j] * (v - l.means[j]) / l.scales[j]
				} else {
					c.margins[i*classes+k] += x[k*size+1+columns+j]
				}
			}
		}
	}
	c.value = 0
	clear(c.gradient)
	for i := range c.until - c.from {
		row, w, y := c.margins[i*classes:(i+1)*classes], weightOf(l.data, c.from+i), int(l.data.Labels[c.from+i])
		most, sum, of := slices.Max(row), 0.0, row[y]
		for k, z := range row {
			row[k] = math.Exp(z - most)
			sum += row[k]
		}
		c.value += w * (math.Log(sum) + most - of)
		for k := range row {
			row[k] *= w / sum
		}
		row[y] -= w
		for k, d := range row {
			c.gradient[k*size] += d
		}
	}
	for j := range columns {
		for i, v := range l.data.Columns[j][c.from:c.until] {
			for k := range classes {
				if present(v) {
					c.gradient[k*size+1+j] += c.margins[i*classes+k] * (v - l.means[j]) / l.scales[j]
				} else {
					c.gradient[k*size+1+columns+j] += c.margins[i*classes+k]
				}
			}
		}
	}
}
