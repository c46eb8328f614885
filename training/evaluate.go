package training

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/millrace/millrace/features/profile"
	"github.com/millrace/millrace/internal/failure"
	"github.com/millrace/millrace/project"
	"github.com/millrace/millrace/registry/model"
)

// Metrics is how well a model did on held-out rows. All but Rows are of weighted rows, where the project gives weights.
type Metrics struct {
	Task             model.Task // which of the numbers there are
	Rows             int64
	PositiveRate     float64
	AUC              float64 // area under the receiver operating characteristic, of classes the mean of each against the rest; NaN unless two classes occur
	LogLoss          float64 // nats per row
	Brier            float64 // mean squared error of the probability (Brier 1950)
	CalibrationError float64 // expected, over 10 equally filled bins of scores
	Accuracy         float64 // share of rows whose class has the highest score
	RMSE             float64 // root of the mean squared error
	MAE              float64 // mean absolute error
	PoissonDeviance  float64 // mean deviance of counts from the Poisson distribution
}

// Names of numbers that are not project.Metric constants.
const (
	metricPositiveRate = "positive_rate"
	metricTrainRows    = "train_rows"
	withoutGroups      = "_without_stream_features" // behind the leading metric
)

// Names of numbers that lead.
const (
	metricAUC      = project.MetricAUC
	metricRMSE     = project.MetricRMSE
	metricDeviance = project.MetricPoissonDeviance
	metricMacroAUC = project.MetricMacroAUC
)

// Values is the metrics by the names that gates use. A number that could not be had is left out.
func (m Metrics) Values() map[string]float64 {
	values := map[string]float64{
		project.MetricRows: float64(m.Rows), metricPositiveRate: m.PositiveRate, project.MetricAUC: m.AUC,
		project.MetricLogLoss: m.LogLoss, project.MetricBrier: m.Brier, project.MetricCalibrationError: m.CalibrationError,
	}
	switch m.Task {
	case model.TaskRegression:
		values = map[string]float64{project.MetricRows: float64(m.Rows), project.MetricRMSE: m.RMSE, project.MetricMAE: m.MAE}
	case model.TaskPoisson:
		values = map[string]float64{project.MetricRows: float64(m.Rows), project.MetricPoissonDeviance: m.PoissonDeviance, project.MetricRMSE: m.RMSE, project.MetricMAE: m.MAE}
	case model.TaskMulticlass:
		values = map[string]float64{project.MetricRows: float64(m.Rows), project.MetricLogLoss: m.LogLoss, project.MetricAccuracy: m.Accuracy, project.MetricMacroAUC: m.AUC}
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
		Task: model.TaskBinary, Rows: int64(len(labels)), AUC: auc,
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

// logLoss takes no probability for certain.
func logLoss(p, label float64) float64 {
	p = min(max(p, certain), 1-certain)
	return -label*math.Log(p) - (1-label)*math.Log1p(-p)
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

// judge scores the rows of a part with a model of the dataset's task and measures it.
func judge(ctx context.Context, m model.Model, d *Dataset, p Part) (outputs []float64, metrics Metrics, err error) {
	if why := otherTask(m, d); why != "" {
		return nil, Metrics{}, failure.New(failure.Refused, "task", "the model %s", why)
	}
	columns, err := match(m, d.Names)
	if err != nil {
		return nil, Metrics{}, err
	}
	outputs, err = scoreRows(ctx, m, p, columns)
	if err != nil {
		return nil, Metrics{}, err
	}
	return outputs, Measure(m.Task(), len(d.Classes), outputs, p.Labels, p.Weights), nil
}

// otherTask says why a model's scores cannot be measured by the dataset's labels; empty when they can.
func otherTask(m model.Model, d *Dataset) string {
	switch {
	case m.Task() != d.Task:
		return fmt.Sprintf("is for %s, and the labels are those of %s", m.Task(), d.Task)
	case d.Classes != nil && !sameClasses(m.Outputs(), d.Classes):
		return fmt.Sprintf("has the classes %s, and the labels %s", strings.Join(m.Outputs(), ", "), strings.Join(d.Classes, ", "))
	default:
		return ""
	}
}

// sameClasses reports whether a model's outputs are these classes. A program's file has no names for them: then they are in their order.
func sameClasses(outputs, classes []string) bool {
	numbered := len(outputs) == len(classes)
	for i, name := range outputs {
		numbered = numbered && name == strconv.Itoa(i)
	}
	return numbered || slices.Equal(outputs, classes)
}

// higherIsBetter says which way a metric is good.
func higherIsBetter(metric string) bool {
	return metric == project.MetricAUC || metric == project.MetricAccuracy || metric == project.MetricMacroAUC
}

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
