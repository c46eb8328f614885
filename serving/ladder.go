package serving

import (
	"fmt"

	"github.com/millrace/millrace/internal/failure"
	"github.com/millrace/millrace/project"
	"github.com/millrace/millrace/schemas"
)

// reason is why the champion did not answer; the closed list is a metric label and the "code" of a refusal.
type reason string

// The reasons.
const (
	reasonNone        reason = ""
	reasonNoChampion  reason = "no_champion"
	reasonUnavailable reason = "features_unavailable"
	reasonDeadline    reason = "deadline"
	reasonOverloaded  reason = "overloaded"
	reasonCorrupt     reason = "state_corrupt"
	reasonRequired    reason = "required_missing"
	reasonMissing     reason = "too_many_missing"
	reasonNotFinite   reason = "score_not_finite"
)

// kind says what a refusal for the reason is to the outside.
func (r reason) kind() failure.Kind {
	switch r {
	case reasonNoChampion, reasonUnavailable:
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
	reason  reason // why it is not the champion's; none on the first rung
	detail  string // of the reason: the input, the share
	scorer  *scorer
	score   float64
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

// decide goes down the ladder: the champion; the champion before it, where the project allows; the declared default, where there is
// one; nobody. A model may answer when the inputs that it uses were read, those required are present, and no more are missing than
// the project allows. The reason is the first one met: why it is not the champion that answers.
func (l *lineUp) decide(p *plan, in *filled, w *scoring) verdict {
	v, ok := try(l.champion, p, in, w)
	if ok {
		v.rung = schemas.RungPrimary
		return v
	}
	first := v
	if p.model.Serve.Fallback == project.FallbackPrevious && l.previous != nil {
		if v, ok = try(l.previous, p, in, w); ok {
			v.rung, v.reason, v.detail = schemas.RungPrevious, first.reason, first.detail
			return v
		}
	}
	if p.model.Serve.Otherwise == project.OtherwiseDefault {
		return verdict{rung: schemas.RungDefault, reason: first.reason, detail: first.detail, score: p.model.Serve.Default}
	}
	return verdict{rung: schemas.RungRefused, reason: first.reason, detail: first.detail}
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

// unable says why a model must not answer with these inputs.
func (s *scorer) unable(p *plan, in *filled) (reason, string) {
	missing := 0
	for _, i := range s.order {
		switch {
		case in.status[i] == present:
			continue
		case in.status[i] == unavailable:
			return in.unread, p.groups[p.inputs[i].group].group.Name
		case p.inputs[i].needed:
			return reasonRequired, p.inputs[i].name
		}
		missing++
	}
	if allowed := p.model.Serve.MissingAllowed; float64(missing) > allowed*float64(len(s.order)) {
		return reasonMissing, fmt.Sprintf("%d of %d inputs, at most a share of %g", missing, len(s.order), allowed)
	}
	return reasonNone, ""
}
