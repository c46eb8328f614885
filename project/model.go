package project

import (
	"math"
	"slices"
	"strings"
	"time"

	"github.com/millrace/millrace/features"
	"github.com/millrace/millrace/internal/duration"
	"github.com/millrace/millrace/registry/model"
	"github.com/millrace/millrace/schemas"
)

func (l *loader) models(entries []entry) {
	for _, e := range entries {
		l.project.Models = append(l.project.Models, l.model(e))
	}
}

func (l *loader) model(e entry) *Model {
	o := l.object(e.value, "model "+e.key, "on", "task", "inputs", "label", "train", "gates", "serve", "monitor")
	o.value.line, o.value.col = e.line, e.col
	m := &Model{Name: e.key, Line: e.line}
	m.On = l.topicSource(o.get("on"), o.what, o.text("on"))
	m.Task = model.Task(o.choice("task", tasks...))
	complete := l.inputs(o, m)
	m.Label = l.label(o, m)
	m.Train = l.train(o, m, complete)
	m.Gates = l.gates(o, m)
	m.Serve = l.serve(o, m, complete)
	m.Monitor = l.monitor(o, m, complete)
	return m
}

// topicSource is a declared source whose events lie on a topic of its own.
func (l *loader) topicSource(at value, what, name string) *Source {
	s := l.sourceNamed(at, what, name)
	if s != nil && s.Merged() {
		l.faultAt(at, "name one of "+strings.Join(s.partNames(), ", "), "%s: %s is merged of others and has no topic of its own", what, name)
		return nil
	}
	if s != nil && s.Chained() {
		l.faultAt(at, "", "%s: %s is what feature group %s gives out: its events ask for no score and label nothing", what, name, s.Of.Name)
		return nil
	}
	return s
}

func (l *loader) label(declared object, m *Model) Label {
	o := l.object(declared.get("label"), declared.what+": label", "source", "join", "value", "within", "classes")
	label := Label{Line: o.value.line, Source: l.topicSource(o.get("source"), o.what, o.text("source"))}
	label.Join = o.text("join")
	label.Classes = l.classes(o, m.Task)
	o.needs("within", "the event time after which a label that has not come never will, like 24h")
	label.Within = o.duration("within", duration.Day, time.Millisecond)
	source := o.text("value")
	if label.Source == nil {
		return label
	}
	if label.Source.enriched(label.Source.Where) {
		l.faultAt(o.get("source"), "", "%s: where of %s reads a column that is looked up, which a label cannot", o.what, label.Source.Name)
	}
	if label.Join != "" {
		l.checkJoin(o, m, label)
	}
	if source != "" {
		label.Value = l.expression(o.get("value"), o.what+": value", source, label.Source.Schema, labelKind(m.Task))
		if label.Source.enriched(label.Value) {
			l.faultAt(o.get("value"), "", "%s: value: it reads a column that is looked up, which a label cannot", o.what)
		}
		if where := label.Source.condition(); where != "" && label.Value != nil { // what is no event of the source labels nothing
			label.Value = l.expression(o.get("value"), o.what+": value", "("+where+") ? ("+source+") : nil", label.Source.Schema, labelKind(m.Task))
		}
	}
	return label
}

// checkJoin finds a join column that either side lacks, or that they have in different kinds.
func (l *loader) checkJoin(o object, m *Model, label Label) {
	at, where := o.get("join"), o.what+": join"
	if label.Source.Schema.Index(label.Join) < 0 {
		l.noColumn(at, where, label.Join, label.Source.Schema)
		return
	}
	if m.On == nil {
		return
	}
	if m.On.Schema.Index(label.Join) < 0 {
		l.noColumn(at, where, label.Join, m.On.Schema)
		return
	}
	if a, b := kindOf(m.On.Schema, label.Join), kindOf(label.Source.Schema, label.Join); a != b {
		l.faultAt(at, "", "%s: %s is %s in %s but %s in %s", where, label.Join, a, m.On.Name, b, label.Source.Name)
	}
}

func (l *loader) expression(at value, where, source string, s *schemas.Schema, want schemas.Kind) *features.Expression {
	x, err := features.CompileExpression(source, s, want)
	if err != nil {
		msg, hint := splitHint(err.Error())
		l.faultAt(at, hint, "%s: %s", where, msg)
		return nil
	}
	return x
}

// Defaults of a model's monitoring.
const (
	DefaultMonitorWindow = duration.Day
	DefaultMinRows       = 200
	DefaultCooldown      = duration.Day
	MaxMonitorWindows    = 100
)

func (l *loader) monitor(model object, m *Model, complete bool) Monitor {
	o := l.object(model.get("monitor"), model.what+": monitor", "window", "min_rows", "features", "prediction", "exclude", "min_columns", "after", "of", "cooldown")
	w := Monitor{
		Window:     o.duration("window", DefaultMonitorWindow, time.Second),
		MinRows:    int(o.integer("min_rows", DefaultMinRows, 1, math.MaxInt32)),
		Features:   o.choice("features", StatisticPSI),
		Prediction: o.choice("prediction", StatisticPSI),
		Exclude:    l.inputNames(o, "exclude", m, complete),
		MinColumns: int(o.integer("min_columns", 1, 1, math.MaxInt32)),
		After:      int(o.integer("after", 2, 1, MaxMonitorWindows)),
		Cooldown:   o.duration("cooldown", DefaultCooldown, 0),
	}
	w.Of = int(o.integer("of", max(int64(w.After), 3), 1, MaxMonitorWindows))
	if w.After > w.Of {
		l.faultAt(o.get("after"), "", "%s: after %d of %d windows can never be", o.what, w.After, w.Of)
	}
	return w
}

// inputNames is a list of the model's inputs; "group.*" is all of a group's.
func (l *loader) inputNames(o object, key string, m *Model, complete bool) []string {
	var out []string
	all := make([]string, 0, len(m.Inputs))
	for _, in := range m.Inputs {
		all = append(all, in.Name)
	}
	for _, v := range o.texts(key) {
		prefix, wild := strings.CutSuffix(v.text, "*")
		wild = wild && strings.HasSuffix(prefix, ".")
		found := false
		for _, name := range all {
			if name == v.text || wild && strings.HasPrefix(name, prefix) {
				found = true
				if !slices.Contains(out, name) {
					out = append(out, name)
				}
			}
		}
		if !found && complete {
			l.faultAt(v, didYouMean(v.text, all), "%s: %s: the model has no input %q", o.what, key, v.text)
		}
	}
	return out
}
