package serving

import (
	"context"
	"math"

	"github.com/millrace/millrace/schemas"
)

// shadows asks the shadow what others have answered. It never costs an answer anything but the place in its queue: the inputs are those
// that were read for the answer, and what does not fit is dropped and counted.
type shadows struct {
	queue   chan shadowed
	metrics *metrics
}

// shadowed is a row that somebody has answered, with its inputs, and the line-up that it was answered by.
type shadowed struct {
	d          *deployment
	line       *lineUp
	prediction *schemas.Prediction
}

// shadowWorkers is how many goroutines score for shadows: one keeps up with several cores of requests, and takes no more than one.
const shadowWorkers = 1

func newShadows(size int, m *metrics) *shadows {
	return &shadows{queue: make(chan shadowed, size), metrics: m}
}

// offer mirrors a row whose entity is in the shadow's share.
func (s *shadows) offer(d *deployment, line *lineUp, unit string, p *schemas.Prediction) {
	if !line.shadow.has(saltShadow, d.model.Name, unit) {
		return
	}
	select {
	case s.queue <- shadowed{d, line, p}:
	default:
		s.metrics.shadowDropped.WithLabelValues(d.model.Name).Inc()
	}
}

// mirror counts a row by its arm while there are several, and shows it to the shadow when a model has answered it.
func (s *Stage) mirror(d *deployment, line *lineUp, q *question, p *schemas.Prediction, m *modelMetrics) {
	if line.challenger == nil && line.shadow == nil {
		return
	}
	m.countArm(p)
	if p.Rung == schemas.RungPrimary || p.Rung == schemas.RungChampion {
		s.shadows.offer(d, line, line.plan.unit(q.row), p)
	}
}

// runShadows scores what is in the queue and logs it, until ctx ends.
func (s *Stage) runShadows(ctx context.Context) error {
	var w scoring
	var values []float64
	for {
		select {
		case job := <-s.shadows.queue:
			var p *schemas.Prediction
			p, values = job.score(values, &w)
			job.d.http.countArm(p)
			if len(s.deps.Kafka.Brokers) > 0 {
				s.log.put(p)
			}
		case <-ctx.Done():
			return nil
		}
	}
}

// score is what the shadow says of a row: a copy of the answer with the shadow's part in the place of the other's. Where an input that the
// project requires is missing, it says no more than the others could.
func (j *shadowed) score(values []float64, w *scoring) (*schemas.Prediction, []float64) {
	p, s := *j.prediction, j.line.shadow.scorer
	values = values[:0]
	for i := range p.Inputs {
		v := math.NaN()
		if p.Inputs[i].Value != nil {
			v = *p.Inputs[i].Value
		}
		values = append(values, v)
	}
	p.ID, p.Arm, p.Digest, p.Version = p.ID+"/"+schemas.ArmShadow, schemas.ArmShadow, s.digest, s.version
	v, ok := s.score(values, w)
	if ok {
		p.Score, p.Refused, p.Rung, p.Reason, p.Reasons, p.ReasonMethod = v.score, false, schemas.RungPrimary, "", v.reasons, v.method
	} else {
		p.Score, p.Refused, p.Rung, p.Reason, p.Reasons, p.ReasonMethod = 0, true, schemas.RungRefused, string(reasonNotFinite), nil, ""
	}
	return &p, values
}
