package serving

import (
	"context"
	"math"
	"time"

	"github.com/millrace/millrace/schemas"
)

// askInputs scores rows whose caller gives the model's inputs themselves. Whoever answers, the inputs are the champion's: one of another
// model that the champion does not have is missing.
func (s *Stage) askInputs(ctx context.Context, d *deployment, rows [][]float64, start time.Time) ([]*schemas.Prediction, reason, *problem) {
	if p := s.admitted.enter(ctx); p != nil {
		return nil, reasonNone, p
	}
	defer s.admitted.leave()
	line := d.live.Load()
	if p := s.checkInputs(line, rows); p != nil {
		return nil, reasonNone, p
	}
	now, _ := s.now(0)
	f := line.filler()
	defer line.put(f)
	in, w := &f.in, &f.work
	w.method = ""
	q := question{row: make(schemas.Row, len(d.model.On.Schema.Columns)), at: now}
	predictions := make([]*schemas.Prediction, len(rows))
	var refused refusals
	for i, row := range rows {
		line.plan.given(line.champion, row, in)
		if ctx.Err() != nil {
			return nil, reasonNone, problemOf(context.Cause(ctx))
		}
		v := line.decide(line.plan, in, q.row, w)
		v.arm = schemas.ArmChampion // there is no entity to choose another by
		refused.note(&v)
		predictions[i] = s.conclude(d, line, q, in, &v, start)
	}
	s.keep(d, nil, predictions)
	return predictions, refused.of(len(rows)), nil
}

func (s *Stage) checkInputs(line *lineUp, rows [][]float64) *problem {
	switch {
	case line.champion == nil:
		kind := reasonNoChampion.kind()
		return &problem{Status: kind.Status(), Code: string(reasonNoChampion), Detail: "the model has no champion, whose inputs they would be", Hint: "try again"}
	case len(rows) == 0:
		return badRequest(codeNoRows, "", "there is no row to score")
	case len(rows) > s.cfg.MaxRows:
		p := badRequest(codeTooManyRows, "", "%d rows, at most %d", len(rows), s.cfg.MaxRows)
		p.Status = statusTooLarge
		return p
	}
	for _, row := range rows {
		if len(row) != len(line.champion.order) {
			return badRequest(codeType, "", "%d numbers in a row, the model has %d inputs", len(row), len(line.champion.order))
		}
	}
	return nil
}

// given fills the plan's inputs with those of one model.
func (p *plan) given(s *scorer, row []float64, out *filled) {
	out.plan = p
	out.values = append(out.values[:0], make([]float64, len(p.inputs))...)
	out.status = append(out.status[:0], make([]inputStatus, len(p.inputs))...)
	out.eventTime = append(out.eventTime[:0], make([]int64, len(p.groups))...)
	out.positions, out.unread = nil, ""
	for i := range p.inputs {
		out.values[i], out.status[i] = math.NaN(), null
	}
	for i, place := range s.order {
		out.set(place, schemas.FloatValue(row[i]))
	}
}
