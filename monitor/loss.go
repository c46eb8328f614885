package monitor

import (
	"fmt"

	"github.com/millrace/millrace/schemas"
)

// LossVerdict is how much a window's answers were off, beside what was held out.
type LossVerdict struct {
	Metric  string // rmse, poisson_deviance or log_loss
	Live    float64
	HeldOut *float64 // nil when the version's baseline has none
}

// riseStatistic ends the name of the statistic of a performance event: by how much a metric is worse than it was held out.
const riseStatistic = "_rise"

// performLoss is Perform of a model that foretells no yes or no: by the mean of what its answers are charged with (profile.Loss). The event's one
// column is the metric, with by how much it is worse than held out, and by how much it may be.
func (j *Judge) performLoss(w LabelledWindow) Verdict {
	full := j.event(schemas.DriftPerformance, w.Start, w.End)
	full.Rows, full.Labels = w.Rows, w.Losses.Rows
	if w.Rows > 0 {
		full.LabelCoverage = float64(full.Labels) / float64(w.Rows)
	}
	mean, ok := w.Losses.Mean()
	metric, base := w.Loss.Metric(), j.baseline.Loss
	if base != nil && base.Loss != w.Loss { // the model's task was another
		base = nil
	}
	var shown *LossVerdict
	if ok {
		shown = &LossVerdict{Metric: metric, Live: w.Loss.Shown(mean)}
	}
	if !ok || base == nil || full.Labels < j.policy.MinValues {
		full.State, full.Reason = StateInsufficient, fmt.Sprintf("%d labels for %d predictions", full.Labels, w.Rows)
		return Verdict{Events: []schemas.Drift{full}, Full: full, Loss: shown}
	}
	held := w.Loss.Shown(base.Mean)
	shown.HeldOut = &held
	rise := schemas.ColumnVerdict{
		Column: metric, Statistic: metric + riseStatistic, Value: shown.Live - held,
		Threshold: w.Loss.Shown(base.Threshold(w.Losses, j.policy.Sensitivity)) - held,
	}
	j.measured = metric
	j.performance.push(rise.Value, rise.Threshold, j.policy)
	rise.State = j.performance.state()
	full.Columns, full.State = []schemas.ColumnVerdict{rise}, rise.State
	full.Reason = fmt.Sprintf("%s %.4g, held out %.4g, a rise of %.3g is allowed", metric, shown.Live, held, rise.Threshold)
	v := j.conclude(full, j.move(), nil)
	v.Loss = shown
	return v
}
