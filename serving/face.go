package serving

import (
	"context"
	"net/http"
	"time"

	"github.com/millrace/millrace/project"
	"github.com/millrace/millrace/registry/model"
	"github.com/millrace/millrace/schemas"
	"github.com/millrace/millrace/serving/access"
)

// Call is a request for scores as a face read it. The faces, in packages of their own, speak other protocols than the stage's own HTTP
// API; what they ask goes the same way from here on.
type Call struct {
	Model   string
	Timeout time.Duration // that the client has; the model's declared timeout caps it, and is it when this is 0
}

// Score scores rows given as the body of POST /v1/models/{model}:score. It gives a problem when the request cannot be answered, or no
// row of it was.
func (s *Stage) Score(ctx context.Context, c Call, body []byte) ([]*schemas.Prediction, *Problem) {
	return s.call(ctx, c, func(ctx context.Context, d *deployment, start time.Time) ([]*schemas.Prediction, reason, *problem) {
		return s.ask(ctx, d, body, "", start)
	})
}

// ScoreInputs scores rows of the model's own inputs, in the order of Model.Inputs, NaN where one is missing. No feature is read.
func (s *Stage) ScoreInputs(ctx context.Context, c Call, rows [][]float64) ([]*schemas.Prediction, *Problem) {
	return s.call(ctx, c, func(ctx context.Context, d *deployment, start time.Time) ([]*schemas.Prediction, reason, *problem) {
		return s.askInputs(ctx, d, rows, start)
	})
}

func (s *Stage) call(ctx context.Context, c Call,
	ask func(ctx context.Context, d *deployment, start time.Time) ([]*schemas.Prediction, reason, *problem),
) ([]*schemas.Prediction, *problem) {
	d, p := s.allowed(ctx, c.Model)
	if p != nil {
		return nil, p
	}
	allowed := s.declared(d.model)
	if c.Timeout > 0 {
		allowed = min(allowed, c.Timeout)
	}
	ctx, cancel := deadlineOf(ctx, allowed)
	defer cancel()
	predictions, why, p := ask(ctx, d, s.deps.Clock())
	if p == nil && why != reasonNone {
		p = refusal(predictions, why)
	}
	return predictions, p
}

// ReadBody reads the body of a request, at most Config.MaxBody bytes.
func (s *Stage) ReadBody(w http.ResponseWriter, r *http.Request) ([]byte, *Problem) {
	return s.readBody(w, r)
}

// TimeoutOf is the time that a request's header gives it; 0 without one.
func TimeoutOf(r *http.Request) (time.Duration, *Problem) {
	if len(r.Header.Values(HeaderTimeout)) == 0 {
		return 0, nil
	}
	return timeout(r, longest)
}

// longest is above every timeout that can be declared.
const longest = time.Duration(1<<63 - 1)

// Model is what a face may tell of a model.
type Model struct {
	Name     string
	Source   *project.Source // whose events are asked about
	Live     bool            // it has a champion that answers
	Version  int             // the champion's; 0 without one
	Previous int             // that may stand in for it; 0 without one
	Kind     string          // the champion's
	Classes  []string        // the champion's, in the order of their scores; nil where it has no several
	Inputs   []string        // the champion's, in its order; without a champion those of the project

	Fetched []schemas.Column // the inputs that are fetched, which a row may override
}

// Models is the models of the project that who asks may use, in its order.
func (s *Stage) Models(ctx context.Context) []Model {
	var models []Model
	for _, m := range s.deps.Project.Models {
		if access.Allows(ctx, m.Name) {
			models = append(models, s.models[m.Name].describe())
		}
	}
	return models
}

// Model is the model of that name.
func (s *Stage) Model(ctx context.Context, name string) (Model, *Problem) {
	d, p := s.allowed(ctx, name)
	if p != nil {
		return Model{}, p
	}
	return d.describe(), nil
}

func (d *deployment) describe() Model {
	line := d.live.Load()
	m := Model{Name: d.model.Name, Source: d.model.On}
	for _, in := range fetchedInputs(d.model) {
		m.Fetched = append(m.Fetched, in.column)
	}
	if line.previous != nil {
		m.Previous = line.previous.version
	}
	if c := line.champion; c != nil {
		m.Live, m.Version, m.Kind, m.Inputs = true, c.version, c.model.Kind(), c.names
		if c.model.Task() == model.TaskMulticlass {
			m.Classes = c.model.Outputs()
		}
		return m
	}
	for _, in := range d.plan.inputs {
		m.Inputs = append(m.Inputs, in.name)
	}
	return m
}

// Measured counts and times what a handler of a face answers, under the name of its route.
func (s *Stage) Measured(route string, handle http.HandlerFunc) http.HandlerFunc {
	return s.measured(route, handle)
}

// Measure is Measured for a face that is not HTTP's; status is the protocol's own.
func (s *Stage) Measure(route, status string, took time.Duration) {
	s.metrics.requestSeconds.WithLabelValues(route).Observe(took.Seconds())
	s.metrics.requests.WithLabelValues(route, status).Inc()
}
