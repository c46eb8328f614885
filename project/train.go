package project

import (
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/millrace/millrace/features"
	"github.com/millrace/millrace/internal/duration"
	"github.com/millrace/millrace/registry/model"
	"github.com/millrace/millrace/schemas"
)

// Train is how a model is trained.
type Train struct {
	Candidates  []Candidate
	Metric      string               // one that measures the model's task: what the best candidate is chosen by
	Window      time.Duration        // event time of the rows trained on
	Holdout     time.Duration        // event time of the later rows held out
	Schedule    *Schedule            // times at which the model is trained anew; nil for none
	FirstAfter  time.Duration        // event time that the data must span before the first model is trained
	MaxRows     int                  // most rows trained on; 0 for no limit
	Weight      *features.Expression // of a row, of the columns of the model's source; nil is 1 for all
	Categorical []string             // inputs whose numbers are codes of categories
	Monotone    map[string]int       // input to 1 where the score must not fall as it rises, -1 where it must not rise
	GBDT        GBDT
	Seed        int64
}

// The candidates that Millrace trains itself. Any other is a program.
const (
	CandidateLogistic = "logistic"
	CandidateGBDT     = "gbdt"
)

// Candidate is a way to make the model. The best of them on the held-out rows is the one that the gates judge.
type Candidate struct {
	Name    string
	Program *Program // nil for CandidateLogistic and CandidateGBDT
}

// Program is a trainer of the user's: a command that is run in the project folder (docs/training.md has its contract).
type Program struct {
	Command []string // program and arguments; the path of job.json is added as the last
	Timeout time.Duration
	Env     map[string]string // beside the few variables that every program gets
	Params  json.RawMessage   // an object, handed on in job.json as it is
	Parent  bool              // hand over the champion, to go on from
}

// GBDT is the settings of CandidateGBDT. What is 0 or empty is the trainer's default.
type GBDT struct {
	Trees           int     // at most
	Leaves          int     // of a tree, at most
	Depth           int     // splits on the way to a leaf, at most
	Growth          string  // GrowthLeaf or GrowthDepth
	LearningRate    float64 // 0 to 1
	MinRows         int     // in a leaf
	MinHessian      float64 // in a leaf
	L2              float64
	RowFraction     float64 // of the rows that each tree looks at, 0 to 1
	FeatureFraction float64 // of the inputs that each tree looks at, 0 to 1
	EarlyStopping   int     // trees without gain on the later slice of the training rows after which to stop
}

// The orders in which a tree grows.
const (
	GrowthLeaf  = "leaf"  // the leaf that gains most first
	GrowthDepth = "depth" // level by level
)

// Defaults of a model's training.
const (
	DefaultTrainWindow    = 14 * duration.Day
	DefaultHoldout        = 3 * duration.Day
	DefaultMaxRows        = 200000
	DefaultTrainerTimeout = 10 * time.Minute
	MaxCandidates         = 16
)

func (l *loader) train(declared object, m *Model, complete bool) Train {
	o := l.object(declared.get("train"), declared.what+": train", "candidates", "metric", "window", "holdout", "first_after", "max_rows",
		"schedule", "weight", "categorical", "monotone", "gbdt", "seed")
	t := Train{
		Candidates:  l.candidates(o, m.Task),
		Metric:      o.choice("metric", metricsOf(m.Task)...),
		Window:      o.duration("window", DefaultTrainWindow, time.Minute),
		Holdout:     o.duration("holdout", DefaultHoldout, time.Minute),
		MaxRows:     int(o.integer("max_rows", DefaultMaxRows, 0, math.MaxInt32)),
		Schedule:    o.schedule("schedule"),
		Weight:      l.weight(o, m),
		Categorical: l.inputNames(o, "categorical", m, complete),
		Monotone:    l.monotone(o, m, complete),
		GBDT:        l.gbdt(o),
		Seed:        o.integer("seed", 1, 0, math.MaxInt64),
	}
	if m.Task == model.TaskMulticlass && len(t.Monotone) > 0 {
		l.faultAt(o.get("monotone"), "", "%s: monotone: the scores of several classes cannot all rise with an input", o.what)
	}
	for _, e := range o.get("monotone").entries {
		if slices.Contains(t.Categorical, e.key) || slices.ContainsFunc(m.Inputs, func(in Input) bool { return in.Name == e.key && in.Categories != nil }) {
			l.fault(e.line, e.col, "", "%s: monotone: %s is categorical: its codes have no order", o.what, e.key)
		}
	}
	t.FirstAfter = o.duration("first_after", t.Window+t.Holdout, time.Minute)
	if t.FirstAfter <= t.Holdout {
		l.faultAt(o.get("first_after"), "", "%s: first_after is %s, which leaves nothing to train on before the holdout of %s", o.what, duration.Format(t.FirstAfter), duration.Format(t.Holdout))
	}
	return t
}

// weight is what a row counts for, as a number of the columns of the model's source.
func (l *loader) weight(o object, m *Model) *features.Expression {
	source := o.textOr("weight", "")
	if source == "" || m.On == nil || m.On.Schema == nil {
		return nil
	}
	return l.expression(o.get("weight"), o.what+": weight", source, m.On.Schema, schemas.Null)
}

// candidates is a list of the trainers' names and of programs; all that fit the task when there is none.
func (l *loader) candidates(o object, task model.Task) []Candidate {
	known := []string{CandidateLogistic, CandidateGBDT}
	fitsLogistic := task == model.TaskBinary || task == model.TaskMulticlass
	if !fitsLogistic {
		known = known[1:]
	}
	v := o.get("candidates")
	if v.shape == broken {
		return nil
	}
	items := v.items
	if v.shape == text || v.shape == mapping {
		items = []value{v}
	}
	if !o.has("candidates") {
		var all []Candidate
		for _, name := range known {
			all = append(all, Candidate{Name: name})
		}
		return all
	}
	if len(items) == 0 || len(items) > MaxCandidates {
		l.faultAt(v, "", "%s: candidates must be a list of 1 to %d trainers", o.what, MaxCandidates)
		return nil
	}
	var candidates []Candidate
	for _, item := range items {
		var c Candidate
		switch item.shape {
		case broken:
			continue
		case mapping:
			c = l.program(item, o.what+": candidates")
		case text:
			if c.Name = item.text; c.Name == CandidateLogistic && !fitsLogistic {
				l.faultAt(item, "gbdt does for every task", "%s: candidates: logistic is for a yes or no, and for classes; the model is for %s", o.what, task)
				continue
			} else if !slices.Contains(known, c.Name) {
				l.faultAt(item, didYouMean(c.Name, known), "%s: candidates: there is no %q", o.what, c.Name)
				continue
			}
		default:
			l.faultAt(item, "", "%s: a candidate is a name, or a program like {name: mine, command: [python3, train.py]}, not %s", o.what, shapeNames[item.shape])
			continue
		}
		if slices.ContainsFunc(candidates, func(other Candidate) bool { return other.Name == c.Name }) {
			l.faultAt(item, "", "%s: candidates: %q is there twice", o.what, c.Name)
			continue
		}
		candidates = append(candidates, c)
	}
	return candidates
}

// program is a candidate that the user's own program trains.
func (l *loader) program(v value, where string) Candidate {
	o := l.object(v, where, "name", "command", "timeout", "env", "params", "parent")
	c := Candidate{Name: o.text("name")}
	l.checkName(o.get("name"), "candidate", c.Name)
	if c.Name == CandidateLogistic || c.Name == CandidateGBDT {
		l.faultAt(o.get("name"), "", "%s: %s is a trainer of Millrace's own: give the program another name", where, c.Name)
	}
	if c.Name != "" {
		o.what = where + ": " + c.Name
	}
	p := &Program{
		Timeout: o.duration("timeout", DefaultTrainerTimeout, time.Second), Env: map[string]string{}, Params: json.RawMessage("{}"),
		Parent: o.flag("parent"),
	}
	c.Program = p
	const hint = "a list of the program and its arguments, like [python3, train.py]"
	if !o.needs("command", hint) {
		for _, word := range o.texts("command") {
			p.Command = append(p.Command, word.text)
		}
		if at := o.get("command"); at.shape == text && strings.ContainsAny(at.text, " \t") {
			l.faultAt(at, hint, "%s: command: %q is not the name of a program", o.what, at.text)
		} else if at.shape == list && len(at.items) == 0 || len(p.Command) > 0 && strings.TrimSpace(p.Command[0]) == "" {
			l.faultAt(at, hint, "%s: command names no program", o.what)
		}
	}
	env := l.object(o.get("env"), o.what+": env", keysOf(o.get("env"))...)
	for _, e := range env.value.entries {
		switch {
		case e.key == "" || strings.ContainsAny(e.key, "=\x00") || strings.Contains(e.value.text, "\x00"):
			l.fault(e.line, e.col, "", "%s: %q cannot be the name of an environment variable, or its value has a zero byte", env.what, e.key)
		case e.value.shape == text || e.value.shape == number || e.value.shape == boolean:
			p.Env[e.key] = e.value.text
		case e.value.shape != broken:
			l.faultAt(e.value, "", "%s: %s must be text, not %s", env.what, e.key, shapeNames[e.value.shape])
		}
	}
	if params := l.object(o.get("params"), o.what+": params", keysOf(o.get("params"))...); params.value.shape == mapping {
		p.Params, _ = json.Marshal(l.plain(params.value, params.what)) // it is made of what JSON has
	}
	return c
}

func keysOf(v value) []string {
	keys := make([]string, len(v.entries))
	for i, e := range v.entries {
		keys[i] = e.key
	}
	return keys
}

// plain is a value as JSON has it.
func (l *loader) plain(v value, where string) any {
	switch v.shape {
	case text:
		return v.text
	case boolean:
		return v.text == "true"
	case number:
		if !json.Valid([]byte(v.text)) {
			l.faultAt(v, "write it in decimal digits, or in quotes", "%s: JSON has no number %s", where, v.text)
			return nil
		}
		return json.Number(v.text)
	case list:
		items := make([]any, len(v.items))
		for i, item := range v.items {
			items[i] = l.plain(item, where)
		}
		return items
	case mapping:
		members := make(map[string]any, len(v.entries))
		for _, e := range v.entries {
			members[e.key] = l.plain(e.value, where)
		}
		return members
	default:
		return nil
	}
}

// monotone reads which way the score may go with an input: {distance: +1}.
func (l *loader) monotone(o object, m *Model, complete bool) map[string]int {
	v := o.get("monotone")
	in := l.object(v, o.what+": monotone", keysOf(v)...)
	names := make([]string, 0, len(m.Inputs))
	for _, input := range m.Inputs {
		names = append(names, input.Name)
	}
	ways := map[string]int{}
	for _, e := range in.value.entries {
		if !slices.Contains(names, e.key) {
			if complete {
				l.fault(e.line, e.col, didYouMean(e.key, names), "%s: the model has no input %q", in.what, e.key)
			}
			continue
		}
		switch e.value.text {
		case "1", "+1":
			ways[e.key] = 1
		case "-1":
			ways[e.key] = -1
		default:
			l.faultAt(e.value, "+1 where the score must not fall as the input rises, -1 where it must not rise", "%s: %s is neither +1 nor -1", in.what, e.key)
		}
	}
	return ways
}

func (l *loader) gbdt(train object) GBDT {
	o := l.object(train.get("gbdt"), train.what+": gbdt", "trees", "leaves", "depth", "growth", "learning_rate", "min_rows", "min_hessian", "l2",
		"row_fraction", "feature_fraction", "early_stopping")
	const least = 1e-9 // above 0
	return GBDT{
		Trees:           int(o.integer("trees", 0, 1, 100_000)),
		Leaves:          int(o.integer("leaves", 0, 2, 100_000)),
		Depth:           int(o.integer("depth", 0, 1, 1000)),
		Growth:          o.choice("growth", GrowthLeaf, GrowthDepth),
		LearningRate:    o.float("learning_rate", 0, least, 1),
		MinRows:         int(o.integer("min_rows", 0, 1, math.MaxInt32)),
		MinHessian:      o.float("min_hessian", 0, least, math.MaxFloat64),
		L2:              o.float("l2", 0, 0, math.MaxFloat64),
		RowFraction:     o.float("row_fraction", 0, least, 1),
		FeatureFraction: o.float("feature_fraction", 0, least, 1),
		EarlyStopping:   int(o.integer("early_stopping", 0, 1, math.MaxInt32)),
	}
}

// setting is the training settings in one line; a changed one is a changed model.
func (t Train) setting() string {
	names := make([]string, len(t.Candidates))
	for i, c := range t.Candidates {
		names[i] = c.String()
	}
	line := "train " + fmt.Sprint(strings.Join(names, ","), " by ", t.Metric, ", window ", duration.Format(t.Window), ", holdout ", duration.Format(t.Holdout),
		", first after ", duration.Format(t.FirstAfter), ", rows ", t.MaxRows, ", seed ", t.Seed)
	if t.Schedule != nil {
		line += ", schedule " + t.Schedule.Text
	}
	if t.Weight != nil {
		line += ", weight " + t.Weight.Meaning()
	}
	if len(t.Categorical) > 0 {
		line += ", categorical " + strings.Join(t.Categorical, ",")
	}
	for _, name := range slices.Sorted(maps.Keys(t.Monotone)) {
		line += fmt.Sprintf(", monotone %s %+d", name, t.Monotone[name])
	}
	if t.GBDT != (GBDT{Growth: GrowthLeaf}) {
		line += fmt.Sprintf(", gbdt %+v", t.GBDT)
	}
	return line
}

// String is the candidate with what it is run with: of its environment the names alone, since a value may be a secret.
func (c Candidate) String() string {
	if c.Program == nil {
		return c.Name
	}
	p := c.Program
	env := strings.Join(slices.Sorted(maps.Keys(p.Env)), ",")
	return fmt.Sprintf("%s %q within %s, env %s, params %s, parent %v", c.Name, p.Command, duration.Format(p.Timeout), env, p.Params, p.Parent)
}
