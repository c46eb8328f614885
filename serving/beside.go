package serving

import (
	"slices"

	"github.com/millrace/millrace/schemas"
)

// A challenger or a shadow may have been trained on other versions of the features than the champion. Then a request names its entities by
// the plan of each, all are read in one round trip, and every model is given the values of its own versions. Where all read the same,
// which is nearly always, there is nothing beside.

// plansBeside is the plans of the arms that are not the champion's, each once.
func (l *lineUp) plansBeside() []*plan {
	var beside []*plan
	for _, a := range []*arm{l.challenger, l.shadow} {
		if s := a.of(); s != nil && s.plan != l.plan && !slices.Contains(beside, s.plan) {
			beside = append(beside, s.plan)
		}
	}
	return beside
}

// filler is one for the champion's plan, with those of the plans beside it. Give it back with put, unless somebody may still look at its refs.
func (l *lineUp) filler() *filler {
	f := l.plan.fillers.Get().(*filler)
	for _, p := range l.beside {
		f.beside = append(f.beside, p.fillers.Get().(*filler))
	}
	return f
}

func (l *lineUp) put(f *filler) {
	for _, b := range f.beside {
		b.plan.fillers.Put(b)
	}
	f.beside = f.beside[:0]
	l.plan.fillers.Put(f)
}

// fits reports whether a filler is for the plans of a line-up.
func (f *filler) fits(l *lineUp) bool {
	return f.plan == l.plan && slices.EqualFunc(f.beside, l.beside, func(b *filler, p *plan) bool { return b.plan == p })
}

// prepareBeside names the entities by the other plans. A row that names none was told by the champion's already.
func (f *filler) prepareBeside(questions []question) {
	for _, b := range f.beside {
		b.prepare(questions, func(int, string, error) {})
		f.refs = append(f.refs, b.refs...)
	}
}

// readBeside takes what was read for the refs behind the first own ones.
func (f *filler) readBeside(own int) {
	for _, b := range f.beside {
		b.read(f.entries[own : own+len(b.refs)])
		own += len(b.refs)
	}
}

// by is a row as a plan has it: in, if that is the champion's, which is there already.
func (f *filler) by(p *plan, row int, q question, in *filled) *filled {
	if p == f.plan {
		return in
	}
	for _, b := range f.beside {
		if b.plan == p {
			b.fill(row, q, &b.in)
			return &b.in
		}
	}
	return nil
}

// shown is what a row shows of itself to a shadow that reads other versions than who answered.
type shown struct {
	inputs    []schemas.PredictionInput
	positions []schemas.ReadPosition
}

// show makes it; nil where the shadow reads what stands in the prediction, or is not asked.
func (d *deployment) show(line *lineUp, f *filler, row int, q *question, in, answered *filled) *shown {
	if len(line.beside) == 0 || !line.shadow.has(saltShadow, d.model.Name, line.plan.unit(q.row)) {
		return nil
	}
	p := line.shadow.scorer.plan
	if p == answered.plan {
		return nil
	}
	own := f.by(p, row, *q, in)
	return &shown{p.describe(own), own.positions}
}
