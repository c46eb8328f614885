package logistic

import (
	"context"
	"fmt"
	"math"

	"gonum.org/v1/gonum/floats"
	"gonum.org/v1/gonum/optimize"

	"github.com/millrace/millrace/internal/failure"
	"github.com/millrace/millrace/registry/model"
)

// Data is a training set, column by column. Fit reads it only.
type Data struct {
	Names   []string    // of the columns
	Columns [][]float64 // [column][row]; NaN is missing
	Labels  []float64   // [row]; 0 or 1
	Weights []float64   // [row], above 0; nil is 1 for all
}

// Fit trains a model on all cores. The same data and settings give the same model to the bit. When ctx ends it returns
// its error; data that cannot be trained on are an error of kind BadRequest, settings out of bounds one of kind
// BadProject, a fit that does not converge one of kind Refused. Running out of iterations is not a failure.
func Fit(ctx context.Context, data Data, p Params) (*model.Logistic, error) {
	if err := p.Validate(); err != nil {
		return nil, err
	}
	if err := data.check(); err != nil {
		return nil, failure.Wrap(failure.BadRequest, "training set", "checking the data", err)
	}
	l := newLoss(&data, 1, p.L2)
	begin := make([]float64, l.size())
	begin[0] = l.logOdds()
	x, err := minimize(ctx, begin, func(x []float64) (float64, []float64) {
		l.evaluate(x)
		return l.value, l.gradient
	}, p)
	if err != nil {
		return nil, err
	}
	inputs := make([]model.LogisticInput, len(data.Columns))
	for i, name := range data.Names {
		inputs[i] = model.LogisticInput{
			Name: name, Weight: x[1+i], Mean: l.means[i], Scale: l.scales[i], Missing: x[1+len(inputs)+i],
		}
	}
	return model.NewLogistic(x[0], inputs)
}

// minimize goes from where it begins, the best constant, to the best coefficients.
func minimize(ctx context.Context, begin []float64, evaluate func(x []float64) (value float64, gradient []float64), p Params) ([]float64, error) {
	problem := optimize.Problem{
		Func: func(x []float64) float64 {
			value, _ := evaluate(x)
			return value
		},
		Grad: func(gradient, x []float64) {
			_, g := evaluate(x)
			copy(gradient, g)
		},
		Status: func() (optimize.Status, error) {
			if err := ctx.Err(); err != nil {
				return optimize.Failure, err
			}
			return optimize.NotTerminated, nil
		},
	}
	settings := &optimize.Settings{
		GradientThreshold: p.Tolerance, MajorIterations: p.Iterations,
		Converger: &optimize.FunctionConverge{Relative: 1e-12, Iterations: 20},
	}
	result, err := optimize.Minimize(problem, begin, settings, &optimize.LBFGS{})
	if ctx.Err() != nil {
		return nil, fmt.Errorf("fitting logistic regression: %w", ctx.Err())
	}
	// Close to the minimum a line search can find no better float: that is as good as converged.
	if err != nil && (result == nil || !(floats.Norm(result.Gradient, math.Inf(1)) <= 100*p.Tolerance)) {
		return nil, failure.Wrap(failure.Refused, "logistic", "fitting logistic regression", err)
	}
	return result.X, nil
}

// logOdds of the labels.
func (l *loss) logOdds() float64 {
	sum := 0.0
	for i, y := range l.data.Labels {
		sum += y * weightOf(l.data, i)
	}
	return math.Log(sum / (l.weight - sum))
}

func (d *Data) check() error {
	if err := d.checkShape(); err != nil {
		return err
	}
	differ := false
	for i, y := range d.Labels {
		if y != 0 && y != 1 {
			return fmt.Errorf("label %d is %v, neither 0 nor 1", i, y)
		}
		differ = differ || y != d.Labels[0]
	}
	if !differ {
		return fmt.Errorf("all %d labels are %v: there is nothing to tell apart", len(d.Labels), d.Labels[0])
	}
	return nil
}

func (d *Data) checkShape() error {
	rows := len(d.Labels)
	switch {
	case rows == 0:
		return fmt.Errorf("no rows")
	case len(d.Names) != len(d.Columns) || len(d.Columns) == 0:
		return fmt.Errorf("%d names for %d columns", len(d.Names), len(d.Columns))
	case d.Weights != nil && len(d.Weights) != rows:
		return fmt.Errorf("%d weights for %d labels", len(d.Weights), rows)
	}
	for i, c := range d.Columns {
		if len(c) != rows {
			return fmt.Errorf("column %q has %d values for %d labels", d.Names[i], len(c), rows)
		}
	}
	for i, w := range d.Weights {
		if !(w > 0) || math.IsInf(w, 0) {
			return fmt.Errorf("weight %d is %v, not a number above 0", i, w)
		}
	}
	return nil
}
