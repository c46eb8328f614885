package monitor

import (
	"slices"

	"github.com/millrace/millrace/project"
	"github.com/millrace/millrace/schemas"
)

// Status is what the monitor knows, for showing.
type Status struct {
	Leader bool          `json:"leader"` // this replica judges; the others know nothing
	Models []ModelStatus `json:"models"`
}

// ModelStatus is one model, in the order of the project.
type ModelStatus struct {
	Model     string       `json:"model"`
	Digest    string       `json:"digest"`    // of the version that is judged
	State     string       `json:"state"`     // ok, suspected, confirmed; insufficient before the first verdict
	Watermark int64        `json:"watermark"` // event time up to which predictions were read; 0 before the first
	Problem   string       `json:"problem"`   // why the version is not judged
	Open      []WindowOpen `json:"open"`
	// Last is the verdict on the last window that was closed, with the live and baseline bins of every column; Performance the last that
	// got its labels.
	Last          *schemas.Drift `json:"last"`
	Performance   *schemas.Drift `json:"performance"`
	RetrainAt     int64          `json:"retrain_at"`     // window end at which a new model was last asked for; 0 for never
	EarlyLabels   int            `json:"early_labels"`   // kept for predictions to come
	PendingLabels int            `json:"pending_labels"` // predictions that wait for a label
}

// WindowOpen is a window that is being filled or waits for labels.
type WindowOpen struct {
	Start  int64  `json:"start"`
	End    int64  `json:"end"`
	Digest string `json:"digest"`
	Rows   int64  `json:"rows"`
	Labels int64  `json:"labels"`
	Closed bool   `json:"closed"` // judged, waiting for labels
}

func newStatus(p *project.Project) Status {
	status := Status{Models: make([]ModelStatus, len(p.Models))}
	for i, m := range p.Models {
		status.Models[i] = ModelStatus{Model: m.Name, State: StateInsufficient}
	}
	return status
}

// Status is a snapshot. It may be called at any time.
func (s *Stage) Status() Status {
	s.lock.Lock()
	defer s.lock.Unlock()
	status := s.status
	status.Models = slices.Clone(status.Models)
	return status
}

// show takes a snapshot of the session.
func (s *Stage) show(work *session) {
	s.lock.Lock()
	defer s.lock.Unlock()
	s.status.Leader = true
	for i := range s.status.Models {
		m := &s.status.Models[i]
		w := work.watches[m.Model]
		m.State, m.Digest, m.RetrainAt = w.state(), w.current, w.lastRetrain
		m.EarlyLabels, m.PendingLabels = w.early.size(), w.pending
		if w.read.watermark != never {
			m.Watermark = w.read.watermark
		}
		m.Problem, m.Open = "", nil
		for _, o := range w.windows {
			m.Open = append(m.Open, WindowOpen{Start: o.start, End: o.end, Digest: o.version.digest, Rows: o.rows, Labels: o.labels(), Closed: o.closed})
			m.Problem = o.version.problem
		}
		m.restore(work.known)
		s.metrics.watched(w, m)
	}
}

// restore fills in what another leader published, until there is something newer.
func (m *ModelStatus) restore(known *published) {
	if e, ok := known.last(m.Model, schemas.DriftWindowClosed); ok && m.Last == nil {
		m.Last = &e
	}
	if e, ok := known.last(m.Model, schemas.DriftPerformance); ok && m.Performance == nil {
		m.Performance = &e
	}
}

func (s *Stage) remember(verdicts []Verdict) {
	s.lock.Lock()
	defer s.lock.Unlock()
	for i := range verdicts {
		e := &verdicts[i].Full
		for at := range s.status.Models {
			m := &s.status.Models[at]
			switch {
			case m.Model != e.Model:
			case e.Kind == schemas.DriftPerformance:
				m.Performance = e
			default:
				m.Last = e
			}
		}
	}
}

// resign forgets what only the leader knows.
func (s *Stage) resign() {
	s.metrics.resign()
	s.lock.Lock()
	defer s.lock.Unlock()
	s.status = newStatus(s.project)
}
