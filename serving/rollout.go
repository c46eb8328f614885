package serving

import (
	"context"
	"strings"
	"sync/atomic"

	"github.com/cespare/xxhash/v2"

	"github.com/millrace/millrace/features/profile"
	"github.com/millrace/millrace/internal/failure"
	"github.com/millrace/millrace/registry"
	"github.com/millrace/millrace/schemas"
)

// arm is a version that is tried beside the champion. It is one trial: the same version tried again is another arm.
type arm struct {
	scorer *scorer
	share  float64 // of the entities, 0 to 1
	entry  int     // of the registry's history, that began it
	guard  *guard  // of a challenger

	withdrawn atomic.Pointer[string] // why it answers no more; the registry is still to be told
}

// The salts keep apart what is decided by the hash of the same entity.
const (
	saltChallenger = "challenger"
	saltShadow     = "shadow"
)

// point is the place of an entity in [0, 1). It depends on the model and on nothing that changes, so that an entity stays on its side, in
// every replica and after a restart, and that those who were in a smaller share are in a larger one.
func point(salt, model, unit string) float64 {
	var h xxhash.Digest
	h.Reset()
	for _, part := range [...]string{salt, "\x00", model, "\x00", unit} {
		_, _ = h.WriteString(part) // never fails
	}
	return float64(h.Sum64()>>11) / (1 << 53)
}

// has reports whether a row's entity is in the share of an arm, nil for none.
func (a *arm) has(salt, model, unit string) bool {
	return a != nil && a.withdrawn.Load() == nil && (a.share >= 1 || point(salt, model, unit) < a.share)
}

// of is the version of an arm, nil for none.
func (a *arm) of() *scorer {
	if a == nil {
		return nil
	}
	return a.scorer
}

// challenges reports whether it is the challenger's turn to answer a row.
func (l *lineUp) challenges(p *plan, q *question) bool {
	return l.challenger != nil && l.challenger.has(saltChallenger, p.model.Name, p.unit(q.row))
}

// withdraw ends an arm at once in this process. The first reason stays.
func (a *arm) withdraw(reason string) { a.withdrawn.CompareAndSwap(nil, &reason) }

// arms brings the challenger and the shadow of a line-up to what the registry says; it tells whether anything changed. One that cannot be
// served is left out and said once.
func (d *deployment) arms(ctx context.Context, history []registry.Entry, line *lineUp) bool {
	changed := false
	for alias, at := range map[string]**arm{registry.Challenger: &line.challenger, registry.Shadow: &line.shadow} {
		want := registry.ArmOf(history, alias)
		if alias == registry.Shadow && want.Percent == 0 {
			want.Percent = 100 // promoted to the alias without a share
		}
		if want.Digest == line.champion.digest || want.Percent == 0 {
			want.Digest = ""
		}
		have := *at
		same := have != nil && have.entry == want.Entry
		switch {
		case same && want.Digest != "" && have.withdrawn.Load() != nil:
			d.end(ctx, alias, have)
			continue
		case same && want.Digest != "", have == nil && (want.Digest == "" || d.armFaults[alias] == want.Entry):
			continue
		case want.Digest == "" || d.armFaults[alias] == want.Entry:
			*at = nil
		default:
			*at = d.arm(history, alias, want, line)
		}
		changed = true
		share := 0.0
		if *at != nil {
			share = (*at).share
			d.log.Info("an arm is live", "model", d.model.Name, "arm", alias, "version", want.Version, "percent", want.Percent)
		}
		d.metrics.armShare.WithLabelValues(d.model.Name, alias).Set(share)
	}
	line.beside = line.plansBeside()
	return changed
}

// arm makes one; nil when the alias names nothing, or a version that cannot be served beside the champion.
func (d *deployment) arm(history []registry.Entry, alias string, want registry.Arm, line *lineUp) *arm {
	if want.Digest == "" {
		return nil
	}
	s, err := d.scorer(history, want.Digest)
	if err != nil {
		if !failure.Of(err).Retry() {
			d.armFaults[alias] = want.Entry
			d.metrics.swaps.WithLabelValues(d.model.Name, "refused").Inc()
		}
		d.log.Error("an arm cannot be served", "model", d.model.Name, "arm", alias, "version", want.Version, "error", err)
		return nil
	}
	a := &arm{scorer: s, share: want.Percent / 100, entry: want.Entry}
	if alias == registry.Challenger {
		a.guard = newGuard(d.baselineOf(s), d.baselineOf(line.champion))
	}
	return a
}

// end writes into the registry that an arm was withdrawn. Until that has succeeded it is tried at every look; the arm answers nobody
// meanwhile.
func (d *deployment) end(ctx context.Context, alias string, a *arm) {
	why := *a.withdrawn.Load()
	err := d.registry.EndAlias(ctx, d.model.Name, alias, a.scorer.digest, why)
	if kind := failure.Of(err); err != nil && (kind == failure.Conflict || kind == failure.NotFound) {
		return // another replica was first, or a person
	}
	if err != nil {
		d.log.Error("the registry cannot be told that an arm was withdrawn", "model", d.model.Name, "arm", alias, "version", a.scorer.version, "error", err)
		return
	}
	d.log.Warn("an arm was withdrawn", "model", d.model.Name, "arm", alias, "version", a.scorer.version, "reason", why)
	d.tell(schemas.ModelEvent{
		ID: d.model.Name + "/" + alias + "/" + a.scorer.digest, Model: d.model.Name, Kind: schemas.ModelWithdrawn, Version: a.scorer.version, Digest: a.scorer.digest,
		Reason: why, Metrics: a.guard.numbers(), At: d.clock().UnixMilli(),
	})
}

// turn decides who answers row i of a filler, filled into in, by whose turn it is, and keeps an eye on the challenger. late says that the
// features were there, and the deadline passed while rows were scored. read is the inputs of who answered.
func (d *deployment) turn(line *lineUp, f *filler, i int, q *question, in *filled, w *scoring, late bool) (v verdict, read *filled) {
	if !line.challenges(line.plan, q) {
		v = line.decide(line.plan, in, q.row, w)
		v.arm = schemas.ArmChampion
		return v, in
	}
	v, read = line.decideChallenged(in, f.by(line.challenger.scorer.plan, i, *q, in), q.row, w)
	v.arm = schemas.ArmChallenger
	d.watch(line, &v, in, w, late)
	return v, read
}

// decideChallenged is decide with the challenger above the champion, each with its own inputs.
func (l *lineUp) decideChallenged(in, challengers *filled, row schemas.Row, w *scoring) (v verdict, read *filled) {
	first, ok := try(l.challenger.scorer, challengers.plan, challengers, w)
	if ok {
		first.rung = schemas.RungPrimary
		return first, challengers
	}
	v = l.decide(in.plan, in, row, w)
	if v.rung == schemas.RungPrimary {
		v.rung = schemas.RungChampion
	}
	v.reason, v.detail = first.reason, first.detail
	return v, in
}

// watch tells the guard how a challenger's turn went, and withdraws it when the guard says so.
func (d *deployment) watch(line *lineUp, v *verdict, in *filled, w *scoring, late bool) {
	why := ""
	switch {
	case v.rung == schemas.RungPrimary:
		champion, asked := line.champion.glance(line.plan, in, w)
		why = line.challenger.guard.answered(v.score, champion, asked)
	case v.rung == schemas.RungChampion || late:
		why = line.challenger.guard.failed(v.text())
	}
	if why != "" {
		line.challenger.withdraw(why)
		d.metrics.withdrawn.WithLabelValues(d.model.Name).Inc()
	}
}

// glance is a model's score of a row without its reasons; not ok when it must not answer.
func (s *scorer) glance(p *plan, in *filled, w *scoring) (score float64, ok bool) {
	if why, _ := s.unable(p, in); why != reasonNone {
		return 0, false
	}
	var v verdict
	ok = s.bare(s.rowOf(in.values, w), w, &v)
	return v.score, ok
}

// baselineOf is the profile of a version's scores; nil when there is none that can be read.
func (d *deployment) baselineOf(s *scorer) *profile.Baseline {
	if s.baseline == "" {
		return nil
	}
	_, text, err := d.registry.Read(s.baseline)
	if err == nil {
		var b *profile.Baseline
		if b, err = profile.Decode(text); err == nil {
			return b
		}
	}
	d.log.Warn("scores are not compared with a baseline", "model", d.model.Name, "version", s.version, "error", err)
	return nil
}

// unit is who a row is about: the text of the sticky columns.
func (p *plan) unit(row schemas.Row) string {
	if len(p.sticky) == 1 {
		return row[p.sticky[0]].Text()
	}
	var b strings.Builder
	for _, c := range p.sticky {
		b.WriteString(row[c].Text())
		b.WriteByte(0)
	}
	return b.String()
}

// stickyOf is the columns that say who a row is about: those that the project names, else the entity of the first feature group among the
// inputs, else the column that labels are joined by.
func stickyOf(p *plan) []int {
	switch {
	case len(p.model.Serve.Sticky) > 0:
		return p.model.Serve.Sticky
	case len(p.groups) > 0:
		return p.groups[0].entity
	case p.joinKey >= 0:
		return []int{p.joinKey}
	default:
		return nil
	}
}
