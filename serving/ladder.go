package serving

import (
	"fmt"
	"math"

	"github.com/millrace/millrace/features"
	"github.com/millrace/millrace/internal/failure"
	"github.com/millrace/millrace/project"
	"github.com/millrace/millrace/schemas"
)

// reason is why the champion did not answer; the closed list is a metric label and the "code" of a refusal.
type reason string

// The reasons. The three of required inputs tell an entity that has never been seen, and one whose state has expired, from a value that is
// not there for another cause.
const (
	reasonNone        reason = ""
	reasonNoChampion  reason = "no_champion"
	reasonUnavailable reason = "features_unavailable"
	reasonRebuilding  reason = "features_rebuilding" // their partition is being computed again: what is read lacks events
	reasonDeadline    reason = "deadline"
	reasonOverloaded  reason = "overloaded"
	reasonCorrupt     reason = "state_corrupt"
	reasonRequired    reason = "required_missing"
	reasonNotFound    reason = "required_not_found"
	reasonExpired     reason = "required_expired"
	reasonMissing     reason = "too_many_missing"
	reasonNotFinite   reason = "score_not_finite"
)

// kind says what a refusal for the reason is to the outside.
func (r reason) kind() failure.Kind {
	switch r {
	case reasonNoChampion, reasonUnavailable, reasonRebuilding:
		return failure.Unavailable
	case reasonDeadline:
		return failure.Deadline
	case reasonOverloaded:
		return failure.Overloaded
	case reasonCorrupt, reasonNotFinite:
		return failure.Corrupt
	default:
		return failure.Refused
	}
}

// verdict is who answered a row, and what.
type verdict struct {
	rung    string
	arm     string // whose turn it was
	reason  reason // why it is not the champion's; none on the first rung
	detail  string // of the reason: the input, the share
	scorer  *scorer
	score   float64
	class   string // of the score, of a model with several
	classes []schemas.ClassScore
	reasons []schemas.Contribution
	method  string
}

func (v *verdict) refused() bool { return v.rung == schemas.RungRefused }

// text is the reason with its detail.
func (v *verdict) text() string {
	if v.detail == "" {
		return string(v.reason)
	}
	return string(v.reason) + ": " + v.detail
}

// decide goes down the ladder: the champion, then the rungs that the project declares, then nobody. A model may answer when the inputs
// that it uses were read, those required are present, and no more are missing than the project allows. The reason is the first one met:
// why it is not the champion that answers.
func (l *lineUp) decide(p *plan, in *filled, row schemas.Row, w *scoring) verdict {
	first, ok := verdict{reason: reasonNoChampion, detail: l.standsIn}, false
	if l.standsIn == "" {
		first, ok = try(l.champion, p, in, w)
	}
	if ok {
		first.rung = schemas.RungPrimary
		return first
	}
	for i := range p.model.Serve.Fallback {
		if v, ok := l.step(&p.model.Serve.Fallback[i], p, in, row, w); ok {
			v.reason, v.detail = first.reason, first.detail
			return v
		}
	}
	return verdict{rung: schemas.RungRefused, reason: first.reason, detail: first.detail}
}

// step is the answer of one rung below the champion; not ok when it has none.
func (l *lineUp) step(r *project.Rung, p *plan, in *filled, row schemas.Row, w *scoring) (v verdict, ok bool) {
	switch r.Kind {
	case project.RungPrevious:
		v, ok = try(l.previous, p, in, w)
		v.rung = schemas.RungPrevious
	case project.RungSimpler:
		v, ok = try(l.simpler, p, in, w)
		v.rung = schemas.RungSimpler
	case project.RungRule:
		v.rung = schemas.RungRule
		v.score, ok = ruled(r.Rule, row)
	default:
		v.rung, v.score, ok = schemas.RungDefault, r.Score, true
	}
	return v, ok
}

// ruled is what a rule says of a row; not ok when that is no finite number.
func ruled(rule *features.Expression, row schemas.Row) (score float64, ok bool) {
	value, err := rule.Eval(row)
	if err != nil {
		return 0, false
	}
	score, ok = value.Float()
	return score, ok && !math.IsNaN(score) && !math.IsInf(score, 0)
}

func try(s *scorer, p *plan, in *filled, w *scoring) (verdict, bool) {
	if s == nil {
		return verdict{reason: reasonNoChampion}, false
	}
	if why, detail := s.unable(p, in); why != reasonNone {
		return verdict{reason: why, detail: detail}, false
	}
	v, ok := s.score(in.values, w)
	if !ok {
		return verdict{reason: reasonNotFinite}, false
	}
	return v, true
}

// lacking is why a model does not answer without an input that it needs, and how the input is.
func (s inputStatus) lacking() (why reason, how string) {
	switch s {
	case notFound:
		return reasonNotFound, s.String()
	case expired:
		return reasonExpired, s.String()
	case withheld:
		return reasonRequired, s.String() + " with null"
	default:
		return reasonRequired, s.String()
	}
}

// unable says why a model must not answer with these inputs.
func (s *scorer) unable(p *plan, in *filled) (reason, string) {
	missing := 0
	for k, i := range s.order {
		status := s.statusOf(k, in)
		switch {
		case !status.missing():
			continue
		case status == unavailable:
			return in.unread, p.groups[p.inputs[i].group].group.Name
		case p.inputs[i].needed:
			why, how := status.lacking()
			return why, p.inputs[i].name + " is " + how
		}
		missing++
	}
	if allowed := p.model.Serve.MissingAllowed; float64(missing) > allowed*float64(len(s.order)) {
		return reasonMissing, fmt.Sprintf("%d of %d inputs, at most a share of %g", missing, len(s.order), allowed)
	}
	return reasonNone, ""
}
