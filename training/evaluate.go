package training

import (
	"context"
	"math"
	"runtime"

	"golang.org/x/sync/errgroup"

	"github.com/millrace/millrace/features/profile"
	"github.com/millrace/millrace/internal/failure"
	"github.com/millrace/millrace/project"
	"github.com/millrace/millrace/registry/model"
)

// Metrics is how well a model did on held-out rows. All but Rows are of weighted rows, where the project gives weights.
type Metrics struct {
	Rows             int64
	PositiveRate     float64
	AUC              float64 // area under the receiver operating characteristic; NaN unless both classes occur
	LogLoss          float64 // nats per row
	Brier            float64 // mean squared error of the probability (Brier 1950)
	CalibrationError float64 // expected, over 10 equally filled bins of scores
}

// Names of numbers that are not project.Metric constants.
const (
	metricPositiveRate = "positive_rate"
	metricTrainRows    = "train_rows"
	metricAblation     = "auc_without_stream_features"
)

// Values is the metrics by the names that gates use. A number that could not be had is left out.
func (m Metrics) Values() map[string]float64 {
	values := map[string]float64{
		project.MetricRows: float64(m.Rows), metricPositiveRate: m.PositiveRate, project.MetricAUC: m.AUC,
		project.MetricLogLoss: m.LogLoss, project.MetricBrier: m.Brier, project.MetricCalibrationError: m.CalibrationError,
	}
	for name, v := range values {
		if math.IsNaN(v) {
			delete(values, name)
		}
	}
	return values
}

// Evaluate measures scores (probabilities) against labels (0 or 1). weights, above 0, say what each row counts for; nil is 1
// for all.
func Evaluate(scores, labels, weights []float64) Metrics {
	auc, ok := profile.WeightedAUC(scores, labels, weights)
	if !ok {
		auc = math.NaN()
	}
	m := Metrics{
		Rows: int64(len(labels)), AUC: auc,
		PositiveRate:     mean(labels, weights, func(i int) float64 { return labels[i] }),
		LogLoss:          mean(labels, weights, func(i int) float64 { return logLoss(scores[i], labels[i]) }),
		Brier:            mean(labels, weights, func(i int) float64 { return (scores[i] - labels[i]) * (scores[i] - labels[i]) }),
		CalibrationError: profile.CalibrationError(scores, labels, profile.CalibrationBins),
	}
	if weights != nil {
		m.CalibrationError = profile.WeightedCalibrationError(scores, labels, weights, profile.CalibrationBins)
	}
	return m
}

// mean is of a value of each row, by weight.
func mean(labels, weights []float64, of func(row int) float64) float64 {
	total, all := 0.0, 0.0
	for i := range labels {
		w := 1.0
		if weights != nil {
			w = weights[i]
		}
		total += w * of(i)
		all += w
	}
	return total / all
}

// logLoss takes no probability for certain: one wrong certainty would make the mean infinite.
func logLoss(p, label float64) float64 {
	const certain = 1e-15
	p = min(max(p, certain), 1-certain)
	return -label*math.Log(p) - (1-label)*math.Log1p(-p)
}

// scoreRows gives each row its score, with all processors. columns says which of the part's columns the model's inputs
// are, in order.
func scoreRows(ctx context.Context, m model.Model, p Part, columns []int) ([]float64, error) {
	const block = 1024
	scores := make([]float64, len(p.Labels))
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(runtime.GOMAXPROCS(0))
	for from := 0; from < len(scores); from += block {
		g.Go(func() error {
			row := make([]float64, len(columns))
			for r := from; r < min(from+block, len(scores)); r++ {
				for i, c := range columns {
					row[i] = p.Columns[c][r]
				}
				scores[r] = m.Predict(row)
			}
			return ctx.Err()
		})
	}
	return scores, g.Wait()
}

// match finds a model's inputs among the names of a dataset.
func match(m model.Model, names []string) ([]int, error) {
	index := map[string]int{}
	for i, n := range names {
		index[n] = i
	}
	columns := make([]int, len(m.Inputs()))
	for i, n := range m.Inputs() {
		c, ok := index[n]
		if !ok {
			return nil, failure.New(failure.Refused, n, "the model reads an input that the project no longer has")
		}
		columns[i] = c
	}
	return columns, nil
}

// judge scores the rows of a part with a model and measures it.
func judge(ctx context.Context, m model.Model, names []string, p Part) (scores []float64, metrics Metrics, err error) {
	if m.Task() != model.TaskBinary {
		return nil, Metrics{}, failure.New(failure.Refused, "task", "the model's is %s, and a label is yes or no: only a binary one can be measured by it", m.Task())
	}
	columns, err := match(m, names)
	if err != nil {
		return nil, Metrics{}, err
	}
	if scores, err = scoreRows(ctx, m, p, columns); err != nil {
		return nil, Metrics{}, err
	}
	return scores, Evaluate(scores, p.Labels, p.Weights), nil
}

// higherIsBetter says which way a metric is good.
func higherIsBetter(metric string) bool { return metric == project.MetricAUC }

// gain is by how much a is better than b on a metric: positive when it is. NaN when either is not known.
func gain(metric string, a, b Metrics) float64 {
	x, okX := a.Values()[metric]
	y, okY := b.Values()[metric]
	switch {
	case !okX || !okY:
		return math.NaN()
	case higherIsBetter(metric):
		return x - y
	default:
		return y - x
	}
}
