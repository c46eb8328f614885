package project

import (
	"math"
	"strconv"
	"time"

	"github.com/millrace/millrace/features"
	"github.com/millrace/millrace/internal/duration"
	"github.com/millrace/millrace/registry/model"
	"github.com/millrace/millrace/schemas"
)

// Serve is how a model answers.
type Serve struct {
	Timeout        time.Duration // of a request, reading features included
	FetchTimeout   time.Duration // of reading features; 0 is what Timeout leaves when scoring has had its reserve
	Fallback       []Rung        // in their order, who answers when the champion cannot; behind the last is the refusal
	MissingAllowed float64       // share of a model's inputs, 0 to 1, that may be other than present
	Sticky         []int         // columns of the source that say who a row is about, for whoever splits by that; nil for the default
	LogSample      float64       // share of the entities whose answers over HTTP are logged, above 0 and at most 1; 0 is without sampling
	Required       []string      // inputs without which no model that uses them answers
}

// Rung is one step of the fallback ladder below the champion.
type Rung struct {
	Kind  string               // RungPrevious, RungSimpler, RungRule or RungDefault
	Rule  *features.Expression // of a rule: the score, of the columns of the request; a null is no answer
	Score float64              // of a default
}

// The kinds of rung, as the project file writes them.
const (
	RungPrevious = "previous" // the champion before
	RungSimpler  = "simpler"  // the model that was trained beside the champion on the request's own columns
	RungRule     = "rule"
	RungDefault  = "default"
)

// String is the rung as the project file writes it.
func (r Rung) String() string {
	switch r.Kind {
	case RungRule:
		return RungRule + ": " + r.Rule.Source()
	case RungDefault:
		return RungDefault + ": " + strconv.FormatFloat(r.Score, 'g', -1, 64)
	default:
		return r.Kind
	}
}

// Defaults of a model's serving.
const DefaultTimeout = 50 * time.Millisecond

// The words of fallback and otherwise that name no rung.
const (
	fallbackNone    = "none"
	otherwiseRefuse = "refuse"
)

func (l *loader) serve(declared object, m *Model, complete bool) Serve {
	o := l.object(declared.get("serve"), declared.what+": serve",
		"timeout", "fetch_timeout", "fallback", "otherwise", "default", "missing_allowed", "required", "optional", "sticky", "log")
	s := Serve{
		Timeout:        o.duration("timeout", DefaultTimeout, time.Millisecond),
		FetchTimeout:   o.duration("fetch_timeout", 0, time.Millisecond),
		MissingAllowed: o.float("missing_allowed", 1, 0, 1),
		Required:       l.inputNames(o, "required", m, complete),
	}
	if s.FetchTimeout > s.Timeout {
		l.faultAt(o.get("fetch_timeout"), "", "%s: fetch_timeout is %s, more than the timeout of %s", o.what, duration.Format(s.FetchTimeout), duration.Format(s.Timeout))
	}
	s.Fallback = l.ladder(o, m)
	s.Sticky = l.columns(o, "sticky", m.On)
	s.LogSample = l.object(o.get("log"), o.what+": log", "sample").percentage("sample")
	l.optional(o, m, &s, complete)
	required := map[string]bool{}
	for _, name := range s.Required {
		required[name] = true
	}
	for i := range m.Inputs {
		m.Inputs[i].Required = required[m.Inputs[i].Name]
	}
	return s
}

// columns finds columns of a source by name.
func (l *loader) columns(o object, key string, of *Source) []int {
	var found []int
	for _, v := range o.texts(key) {
		if of == nil || of.Schema == nil {
			continue
		}
		c := of.Schema.Index(v.text)
		if c < 0 {
			l.noColumn(v, o.what+": "+key, v.text, of.Schema)
			continue
		}
		found = append(found, c)
	}
	return found
}

// optional makes every input required but those named. It says the same as required the other way round, so that only one may be there.
func (l *loader) optional(o object, m *Model, s *Serve, complete bool) {
	if !o.has("optional") {
		return
	}
	if o.has("required") {
		l.faultAt(o.get("optional"), "what is not optional is required: keep the shorter list", "%s: required and optional are both there", o.what)
		return
	}
	optional := map[string]bool{}
	for _, name := range l.inputNames(o, "optional", m, complete) {
		optional[name] = true
	}
	for _, in := range m.Inputs {
		if !optional[in.Name] {
			s.Required = append(s.Required, in.Name)
		}
	}
}

// ladder reads fallback, a word or a list of rungs, and otherwise with its default, which is a last rung written another way.
func (l *loader) ladder(o object, m *Model) []Rung {
	var rungs []Rung
	v := o.get("fallback")
	switch v.shape {
	case absent:
		rungs = []Rung{{Kind: RungPrevious}}
	case list:
		for _, item := range v.items {
			rungs = l.addRung(o, m, rungs, item)
		}
	default:
		if v.shape != text || v.text != fallbackNone {
			rungs = l.addRung(o, m, rungs, v)
		}
	}
	otherwise := o.choice("otherwise", otherwiseRefuse, RungDefault)
	low, high := scores(m.Task)
	score := o.float("default", 0, low, high)
	switch has := o.has("default"); {
	case has && otherwise != RungDefault:
		l.faultAt(o.get("default"), "say otherwise: default, or take the default away", "%s: the default is never used", o.what)
	case !has && otherwise == RungDefault:
		l.faultAt(o.get("otherwise"), "", "%s: otherwise: default needs a default score", o.what)
	case has:
		if n := len(rungs); n > 0 && rungs[n-1].Kind == RungDefault {
			l.faultAt(o.get("otherwise"), "", "%s: fallback ends with a default already", o.what)
			break
		}
		rungs = append(rungs, Rung{Kind: RungDefault, Score: score})
	}
	return rungs
}

// addRung adds one rung to those above it.
func (l *loader) addRung(o object, m *Model, above []Rung, v value) []Rung {
	if v.shape == broken {
		return above
	}
	r, ok := l.rung(o, m, v)
	if !ok {
		return above
	}
	for _, other := range above {
		if other.Kind == RungDefault {
			l.faultAt(v, "", "%s: fallback: a rung below the default is never used", o.what)
			return above
		}
		if other.Kind == r.Kind && r.Kind != RungRule {
			l.faultAt(v, "", "%s: fallback: %q is there twice", o.what, r.Kind)
			return above
		}
	}
	return append(above, r)
}

// scores is the range of what a model of a task answers.
func scores(task model.Task) (low, high float64) {
	switch task {
	case model.TaskRegression:
		return -math.MaxFloat64, math.MaxFloat64
	case model.TaskPoisson:
		return 0, math.MaxFloat64
	default:
		return 0, 1
	}
}

func (l *loader) rung(o object, m *Model, v value) (Rung, bool) {
	words := []string{RungPrevious, RungSimpler, fallbackNone}
	switch {
	case v.shape == text && (v.text == RungPrevious || v.text == RungSimpler):
		return Rung{Kind: v.text}, true
	case v.shape == text:
		l.faultAt(v, didYouMean(v.text, words), "%s: fallback cannot be %q", o.what, v.text)
		return Rung{}, false
	case v.shape != mapping:
		l.faultAt(v, "write previous, simpler, {rule: <expression>} or {default: <score>}", "%s: a rung of fallback cannot be %s", o.what, shapeNames[v.shape])
		return Rung{}, false
	}
	r := l.object(v, o.what+": fallback", RungRule, RungDefault)
	if r.has(RungRule) == r.has(RungDefault) {
		if len(v.entries) != 1 || r.has(RungRule) { // a misspelt key is a fault already
			l.faultAt(v, "", "%s: a rung of fallback is one of rule and default", o.what)
		}
		return Rung{}, false
	}
	if r.has(RungDefault) {
		low, high := scores(m.Task)
		return Rung{Kind: RungDefault, Score: r.float(RungDefault, 0, low, high)}, true
	}
	source := r.text(RungRule)
	if source == "" || m.On == nil || m.On.Schema == nil {
		return Rung{}, false
	}
	at := r.get(RungRule)
	rule := l.expression(at, r.what+": rule", source, m.On.Schema, schemas.Null)
	if rule == nil {
		return Rung{}, false
	}
	return Rung{Kind: RungRule, Rule: rule}, true
}
