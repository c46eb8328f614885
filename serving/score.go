package serving

import (
	"context"
	"net/http"
	"strconv"
	"time"

	"github.com/millrace/millrace/features/online"
	"github.com/millrace/millrace/internal/clock"
	"github.com/millrace/millrace/project"
	"github.com/millrace/millrace/schemas"
)

// score answers POST /v1/models/{model}:score. The time that the request has runs from here.
//
// 200 means that at least one row has a score; each row says by which rung. When every row was refused, the status is that of the first
// refusal and the rows are in the problem's "predictions".
func (s *Stage) score(w http.ResponseWriter, r *http.Request, d *deployment) {
	start := s.deps.Clock()
	allowed, p := timeout(r, s.declared(d.model))
	if p != nil {
		p.Write(w)
		return
	}
	method, p := explanation(r)
	if p != nil {
		p.Write(w)
		return
	}
	ctx, cancel := deadlineOf(r.Context(), allowed)
	defer cancel()
	body, p := s.readBody(w, r)
	if p != nil {
		p.Write(w)
		return
	}
	predictions, why, p := s.ask(ctx, d, body, method, start)
	if p != nil {
		p.Write(w)
		return
	}
	s.writePredictions(w, predictions, why)
}

// ask is a scoring request from its body to the predictions, which are kept. Every face comes through here. method is the explanation
// asked for, "" for the model's own.
func (s *Stage) ask(ctx context.Context, d *deployment, body []byte, method string, start time.Time) ([]*schemas.Prediction, reason, *problem) {
	if p := s.admitted.enter(ctx); p != nil {
		return nil, reasonNone, p
	}
	defer s.admitted.leave()
	questions, p := d.reader.read(body, s.cfg.MaxRows)
	if p != nil {
		return nil, reasonNone, p
	}
	for i := range questions {
		questions[i].method = method
	}
	predictions, why, p := s.answer(ctx, d, questions, start)
	if p != nil {
		return nil, reasonNone, p
	}
	s.keep(d, questions, predictions)
	return predictions, why, nil
}

// declared is the model's timeout.
func (s *Stage) declared(m *project.Model) time.Duration {
	if m.Serve.Timeout > 0 {
		return m.Serve.Timeout
	}
	return s.cfg.MaxTimeout
}

// answer scores the rows of one request. why is the first refusal's reason if every row was refused.
func (s *Stage) answer(ctx context.Context, d *deployment, questions []question, start time.Time) ([]*schemas.Prediction, reason, *problem) {
	line := d.live.Load()
	f := line.filler()
	var p *problem
	f.prepare(questions, func(row int, column string, err error) {
		if p == nil {
			p = unnamed(err)
			p.Field = column
			if len(questions) > 1 {
				p.Field = within(rowPath(row), column)
			}
		}
	})
	if p != nil {
		line.put(f)
		return nil, "", p
	}
	entries, err := s.readFor(ctx, d.model, f)
	switch {
	case err == nil:
		f.read(entries)
		defer line.put(f)
	case s.deps.Redis == nil:
		f.fail(reasonUnavailable)
		defer line.put(f)
	default: // a read left behind may still look at the filler's refs: it is not used again
		f.fail(reasonOf(err))
	}
	s.chooseTimes(d.plan, f, questions)
	predictions, why := s.judge(ctx, d, line, f, questions, start)
	if gone(ctx) {
		return nil, "", clientGone()
	}
	return predictions, why, nil
}

// readFor reads the features: for as long as the model declares, and no longer than leaves the reserve for scoring.
func (s *Stage) readFor(ctx context.Context, m *project.Model, f *filler) ([]online.Entry, error) {
	if len(f.refs) == 0 {
		return []online.Entry{}, nil
	}
	now := clock.System() // contexts know no other
	deadline, ok := ctx.Deadline()
	if !ok {
		deadline = now.Add(s.declared(m))
	}
	ctx, cancel := context.WithDeadline(ctx, fetchUntil(deadline, now, m.Serve.FetchTimeout))
	defer cancel()
	return s.fetch.get(ctx, f.refs)
}

// judge takes each row down the ladder. Rows whose turn comes after the deadline find their features unread.
func (s *Stage) judge(ctx context.Context, d *deployment, line *lineUp, f *filler, questions []question, start time.Time) ([]*schemas.Prediction, reason) {
	predictions := make([]*schemas.Prediction, len(questions))
	in, w := &f.in, &f.work
	var refused refusals
	late := false
	for i, q := range questions {
		if gone(ctx) {
			break
		}
		if ctx.Err() != nil && f.entries != nil {
			f.fail(reasonDeadline)
			late = true
		}
		f.fill(i, q, in)
		w.method = q.method
		v, read := d.turn(line, f, i, &q, in, w, late)
		refused.note(&v)
		predictions[i] = s.conclude(d, line, q, read, &v, start)
		questions[i].line, questions[i].shown = line, d.show(line, f, i, &q, in, read)
	}
	return predictions, refused.of(len(questions))
}

// conclude counts what was decided of a row of a request, and makes its prediction.
func (s *Stage) conclude(d *deployment, line *lineUp, q question, in *filled, v *verdict, start time.Time) *schemas.Prediction {
	d.http.count(v, in.status)
	return d.compose(asked{id: s.nextID(d), source: sourceHTTP, start: start, now: s.deps.Clock()}, q, in, v, line)
}

// refusals are those among the rows of a request.
type refusals struct {
	first reason
	rows  int
}

func (r *refusals) note(v *verdict) {
	if !v.refused() {
		return
	}
	if r.rows++; r.first == reasonNone {
		r.first = v.reason
	}
}

// of is why all of so many rows were refused; none when one was not.
func (r *refusals) of(rows int) reason {
	if r.rows < rows {
		return reasonNone
	}
	return r.first
}

// nextID names a prediction that was asked for by a client.
func (s *Stage) nextID(d *deployment) string {
	return d.model.Name + "/http/" + s.cfg.Instance + "-" + strconv.FormatUint(s.requests.Add(1), 10)
}

// chooseTimes gives the rows that name no time the time it is now. Under clock: event, before any event, that is the row's own.
func (s *Stage) chooseTimes(p *plan, f *filler, questions []question) {
	now, known := s.now(f.newest())
	for i := range questions {
		q := &questions[i]
		switch {
		case q.at != noTime:
		case !known && p.time >= 0 && !q.row[p.time].IsNull():
			q.at = q.row[p.time].Int()
		default:
			q.at = now
		}
	}
}

// now is the machine's time or, for a project that runs by event time, just after the newest event seen, so that it counts. It is not
// known while there has been no event; the machine's time then has to do.
func (s *Stage) now(newest int64) (ms int64, known bool) {
	if s.deps.Project.Clock != project.ClockEvent {
		return s.deps.Clock().UnixMilli(), true
	}
	if t := s.seen(newest); t > 0 {
		return t + 1, true
	}
	return s.deps.Clock().UnixMilli(), false
}

// seen takes note of an event time and gives the newest so far.
func (s *Stage) seen(t int64) int64 {
	for {
		newest := s.newest.Load()
		if t <= newest {
			return newest
		}
		if s.newest.CompareAndSwap(newest, t) {
			return t
		}
	}
}

// keep hands answers to the prediction log, to those who will ask by name, and to the shadow. questions is nil where there is no entity.
func (s *Stage) keep(d *deployment, questions []question, predictions []*schemas.Prediction) {
	line := d.live.Load()
	for i, p := range predictions {
		record, err := predictionRecord(s.topic, p)
		if err != nil {
			s.metrics.logDropped.WithLabelValues(dropEncoding).Inc()
			continue
		}
		var row schemas.Row
		if questions != nil {
			row = questions[i].row
			s.mirror(d, &questions[i], mirrored{p.Arm, p.Rung, p.Score, record.Value}, d.http)
		}
		s.recent.put(p.Model, p.JoinKey, record.Value)
		s.logAnswer(d, line.plan, row, p, record)
	}
}

// logTo hands a prediction to the log alone.
func (s *Stage) logTo(topic string, p *schemas.Prediction) {
	if len(s.deps.Kafka.Brokers) == 0 {
		return
	}
	record, err := predictionRecord(topic, p)
	if err != nil {
		s.metrics.logDropped.WithLabelValues(dropEncoding).Inc()
		return
	}
	s.log.put(record)
}

func (s *Stage) writePredictions(w http.ResponseWriter, predictions []*schemas.Prediction, why reason) {
	const opening = `{"predictions":`
	buffer := s.buffers.Get().(*[]byte)
	defer s.buffers.Put(buffer)
	b := appendPredictions(append((*buffer)[:0], opening...), predictions)
	*buffer = b
	if why == reasonNone {
		writeBody(w, append(b, "}\n"...))
		return
	}
	p := refusal(predictions, why)
	p.Predictions = b[len(opening):]
	p.Write(w)
}

// refusal is the problem of a request of which every row was refused.
func refusal(predictions []*schemas.Prediction, why reason) *problem {
	kind := why.kind()
	p := &problem{Status: kind.Status(), Code: string(why), Detail: "no row could be answered: " + predictions[0].Reason}
	if kind.Retry() {
		p.Hint = "try again"
	}
	return p
}
