package training

import (
	"context"
	"math"
	"runtime"

	"golang.org/x/sync/errgroup"

	"github.com/millrace/millrace/features/profile"
	"github.com/millrace/millrace/registry/model"
)

// certain is the probability that is taken for no less: one wrong certainty would make a mean of logarithms infinite.
const certain = 1e-15

// Measure is Evaluate for a model of any task. outputs has those of the first row, then of the next: one for each of classes of a
// multiclass model, else one. Labels are as project.Label.Truth gives them.
func Measure(task model.Task, classes int, outputs, labels, weights []float64) Metrics {
	of := func(value func(i int) float64) float64 { return mean(labels, weights, value) }
	m := Metrics{Task: task, Rows: int64(len(labels))}
	switch task {
	case model.TaskRegression, model.TaskPoisson:
		m.RMSE = math.Sqrt(of(func(i int) float64 { return (outputs[i] - labels[i]) * (outputs[i] - labels[i]) }))
		m.MAE = of(func(i int) float64 { return math.Abs(outputs[i] - labels[i]) })
		m.PoissonDeviance = of(func(i int) float64 { return deviance(outputs[i], labels[i]) })
	case model.TaskMulticlass:
		row := func(i int) []float64 { return outputs[i*classes : (i+1)*classes] }
		m.LogLoss = of(func(i int) float64 { return -math.Log(max(row(i)[int(labels[i])], certain)) })
		m.Accuracy = of(func(i int) float64 {
			if model.Highest(row(i)) == int(labels[i]) {
				return 1
			}
			return 0
		})
		m.AUC = macroAUC(classes, outputs, labels, weights)
	default:
		return Evaluate(outputs, labels, weights)
	}
	return m
}

// deviance is of a count by the Poisson distribution of that mean.
func deviance(expected, count float64) float64 {
	expected = max(expected, certain)
	if count == 0 {
		return 2 * expected
	}
	return 2 * (count*math.Log(count/expected) - count + expected)
}

// losses are what the model is charged with for each row's outputs; outputs and labels are as Measure has them.
func losses(kind profile.Loss, classes int, outputs, labels []float64) []float64 {
	of := make([]float64, len(labels))
	for i, label := range labels {
		answer := outputs[i]
		if kind == profile.LogLoss {
			answer = outputs[i*classes+int(label)]
		}
		of[i] = kind.Of(answer, label)
	}
	return of
}

// macroAUC is the mean over the classes that have rows, and do not have all, of the area under the curve of one against the rest.
func macroAUC(classes int, outputs, labels, weights []float64) float64 {
	scores, is := make([]float64, len(labels)), make([]float64, len(labels))
	total, n := 0.0, 0
	for k := range classes {
		for i, y := range labels {
			scores[i], is[i] = outputs[i*classes+k], 0
			if int(y) == k {
				is[i] = 1
			}
		}
		if auc, ok := profile.WeightedAUC(scores, is, weights); ok {
			total, n = total+auc, n+1
		}
	}
	return total / float64(n)
}

// leading is the metric by which runs tell what they compare in brief.
func (m Metrics) leading() (name string, value float64) {
	switch m.Task {
	case model.TaskRegression:
		return metricRMSE, m.RMSE
	case model.TaskPoisson:
		return metricDeviance, m.PoissonDeviance
	case model.TaskMulticlass:
		return metricMacroAUC, m.AUC
	default:
		return metricAUC, m.AUC
	}
}

// even is what a model that has nothing to go by scores: the mean of the training labels, of classes their shares; of a yes or no, any.
func even(task model.Task, classes int, train Part) []float64 {
	if task == model.TaskMulticlass {
		shares := make([]float64, classes)
		for k := range shares {
			shares[k] = mean(train.Labels, train.Weights, func(i int) float64 {
				if int(train.Labels[i]) == k {
					return 1
				}
				return 0
			})
		}
		return shares
	}
	return []float64{mean(train.Labels, train.Weights, func(i int) float64 { return train.Labels[i] })}
}

// scoreRows gives each row the model's outputs, with all processors: those of the first row, then of the next. columns says which of the part's columns
// the model's inputs are, in order.
func scoreRows(ctx context.Context, m model.Model, p Part, columns []int) ([]float64, error) {
	const block = 1024
	wide := len(m.Outputs())
	outputs := make([]float64, len(p.Labels)*wide)
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(runtime.GOMAXPROCS(0))
	for from := 0; from < len(p.Labels); from += block {
		g.Go(func() error {
			row := make([]float64, len(columns))
			for r := from; r < min(from+block, len(p.Labels)); r++ {
				for i, c := range columns {
					row[i] = p.Columns[c][r]
				}
				m.PredictInto(row, outputs[r*wide:(r+1)*wide])
			}
			return ctx.Err()
		})
	}
	return outputs, g.Wait()
}

// scores are what serving answers: the output, or of several the highest.
func scores(outputs []float64, wide int) []float64 {
	if wide == 1 {
		return outputs
	}
	highest := make([]float64, len(outputs)/wide)
	for i := range highest {
		row := outputs[i*wide : (i+1)*wide]
		highest[i] = row[model.Highest(row)]
	}
	return highest
}
