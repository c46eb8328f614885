package project

import (
	"slices"
	"strings"

	"github.com/millrace/millrace/features/profile"
	"github.com/millrace/millrace/registry/model"
	"github.com/millrace/millrace/schemas"
)

// tasks are what a model can be trained for; the first is the default.
var tasks = []string{string(model.TaskBinary), string(model.TaskRegression), string(model.TaskPoisson), string(model.TaskMulticlass)}

// Binary reports whether the model foretells a yes or no.
func (m *Model) Binary() bool { return m.Task == model.TaskBinary }

// Loss is what the model's answers are charged with by what came of them; "" of a yes or no, which is judged by how well it ranks.
func (m *Model) Loss() profile.Loss {
	switch m.Task {
	case model.TaskRegression:
		return profile.SquaredError
	case model.TaskPoisson:
		return profile.PoissonDeviance
	case model.TaskMulticlass:
		return profile.LogLoss
	default:
		return ""
	}
}

// MaxClasses is how many classes a label may have.
const MaxClasses = 100

// metricsOf are the metrics that a model of a task is measured by: the first is what the best candidate is chosen by, where the project
// does not say.
func metricsOf(task model.Task) []string {
	switch task {
	case model.TaskRegression:
		return []string{MetricRMSE, MetricMAE}
	case model.TaskPoisson:
		return []string{MetricPoissonDeviance, MetricRMSE, MetricMAE}
	case model.TaskMulticlass:
		return []string{MetricLogLoss, MetricMacroAUC, MetricAccuracy}
	default:
		return []string{MetricAUC, MetricLogLoss, MetricBrier}
	}
}

// labelKind is what the label's expression must give: a number of any kind is schemas.Null.
func labelKind(task model.Task) schemas.Kind {
	switch task {
	case model.TaskRegression, model.TaskPoisson:
		return schemas.Null
	case model.TaskMulticlass:
		return schemas.String
	default:
		return schemas.Bool
	}
}

// classes are the names of what a label can be, of a multiclass model.
func (l *loader) classes(o object, task model.Task) []string {
	if task != model.TaskMulticlass {
		if o.has("classes") {
			l.faultAt(o.get("classes"), "say task: multiclass", "%s: classes are those of a multiclass model", o.what)
		}
		return nil
	}
	if o.needs("classes", "the values that the label can have, like [on_time, late, very_late]") {
		return nil
	}
	var names []string
	for _, v := range o.texts("classes") {
		if slices.Contains(names, v.text) || strings.TrimSpace(v.text) == "" {
			l.faultAt(v, "", "%s: classes: %q is empty, or there twice", o.what, v.text)
			continue
		}
		names = append(names, v.text)
	}
	if len(names) < 2 || len(names) > MaxClasses {
		l.faultAt(o.get("classes"), "", "%s: classes must be a list of 2 to %d", o.what, MaxClasses)
	}
	return names
}

// Truth is the label of a row as a number: 1 or 0 of a yes or no, the index of a class, else the value. ok is false for a row that
// labels nothing; known is false when that is for want of the class.
func (l *Label) Truth(row schemas.Row) (truth float64, ok, known bool, err error) {
	v, err := l.Value.Eval(row)
	if err != nil || v.IsNull() {
		return 0, false, true, err
	}
	if l.Classes != nil {
		i := slices.Index(l.Classes, v.Text())
		return float64(i), i >= 0, i >= 0, nil
	}
	truth, ok = v.Float()
	return truth, ok, true, nil
}
