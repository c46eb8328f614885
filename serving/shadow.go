package serving

import (
	"context"
	"math"

	"github.com/millrace/millrace/schemas"
)

// shadows asks the shadow what others have answered. It never costs an answer anything but the place in its queue: the inputs are those
// that were read for the answer, or beside them where the shadow reads other versions of the features, and what does not fit is dropped and counted.
type shadows struct {
	queue   chan shadowed
	metrics *metrics
}

// shadowed is a row that a model has answered, as its prediction stands in the log, and the line-up of then.
type shadowed struct {
	d          *deployment
	line       *lineUp
	prediction []byte
	shown      *shown // in the place of the prediction's inputs, where the shadow reads other versions
}

func newShadows(size int, m *metrics) *shadows {
	return &shadows{queue: make(chan shadowed, size), metrics: m}
}

// offer mirrors a row. It never waits.
func (s *shadows) offer(job shadowed) {
	select {
	case s.queue <- job:
	default:
		s.metrics.shadowDropped.WithLabelValues(job.d.model.Name).Inc()
	}
}

// mirrored is what an answer shows of itself.
type mirrored struct {
	arm, rung  string
	score      float64
	prediction []byte // as it stands in the log
}

// mirror counts a row by its arm while there are several, and shows it to the shadow when a model has answered it.
func (s *Stage) mirror(d *deployment, q *question, m mirrored, count *modelMetrics) {
	line := q.line
	if line.challenger == nil && line.shadow == nil {
		return
	}
	count.countArm(m.arm, m.rung, m.score)
	answered := m.rung == schemas.RungPrimary || m.rung == schemas.RungChampion
	if answered && line.shadow.has(saltShadow, d.model.Name, line.plan.unit(q.row)) {
		s.shadows.offer(shadowed{d, line, m.prediction, q.shown})
	}
}

// runShadows scores what is in the queue and logs it, until ctx ends. It is one goroutine: it keeps up with several cores of requests, and
// takes no more than one.
func (s *Stage) runShadows(ctx context.Context) error {
	topic := s.deps.Project.Own().Shadows.Name
	var w scoring
	var values []float64
	for {
		select {
		case job := <-s.shadows.queue:
			p, err := schemas.UnmarshalPrediction(job.prediction)
			if err != nil { // we wrote it
				continue
			}
			values = job.score(&p, values, &w)
			job.d.http.countArm(p.Arm, p.Rung, p.Score)
			s.logTo(topic, &p)
		case <-ctx.Done():
			return nil
		}
	}
}

// score puts what the shadow says of a row in the place of the answer.
func (j *shadowed) score(p *schemas.Prediction, values []float64, w *scoring) []float64 {
	if j.shown != nil {
		p.Inputs, p.Positions = j.shown.inputs, j.shown.positions
	}
	values = values[:0]
	for i := range p.Inputs {
		v := math.NaN()
		if p.Inputs[i].Value != nil {
			v = *p.Inputs[i].Value
		}
		values = append(values, v)
	}
	s := j.line.shadow.scorer
	p.ID, p.Arm, p.Digest, p.Version = p.ID+"/"+schemas.ArmShadow, schemas.ArmShadow, s.digest, s.version
	v, ok := s.score(values, w)
	p.Score, p.Class, p.Classes, p.Refused, p.Rung, p.Reason = v.score, v.class, v.classes, false, schemas.RungPrimary, ""
	p.Reasons, p.ReasonMethod = v.reasons, v.method
	if !ok {
		p.Score, p.Refused, p.Rung, p.Reason = 0, true, schemas.RungRefused, string(reasonNotFinite)
	}
	return values
}
