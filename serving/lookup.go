package serving

import (
	"net/http"
	"time"

	"github.com/millrace/millrace/features"
	"github.com/millrace/millrace/features/online"
	"github.com/millrace/millrace/internal/duration"
	"github.com/millrace/millrace/project"
	"github.com/millrace/millrace/schemas"
	"github.com/millrace/millrace/serving/access"
)

// modelView is a model as GET /v1/models shows it. Version and Digest are the champion's; State is "live", "degraded" while who
// answers is not the registry's champion, as that cannot be served, or "waiting" without anybody.
type modelView struct {
	Name        string       `json:"name"`
	On          string       `json:"on"`
	State       string       `json:"state"`
	Version     int          `json:"version,omitempty"`
	Digest      string       `json:"digest,omitempty"`
	Kind        string       `json:"kind,omitempty"`
	Since       string       `json:"since,omitempty"`      // wall time of the swap
	DataUntil   string       `json:"data_until,omitempty"` // event time up to which it was trained
	Previous    *versionView `json:"previous,omitempty"`   // who stands in for the champion
	Fault       string       `json:"fault,omitempty"`      // why the registry's champion is not the one that answers
	TimeoutMs   int64        `json:"timeout_ms"`
	Simpler     *versionView `json:"simpler,omitempty"`    // trained beside the champion on the request's own columns
	Challenger  *armView     `json:"challenger,omitempty"` // answers some of the entities
	Shadow      *armView     `json:"shadow,omitempty"`     // is asked beside the champion, and answers nobody
	Fallback    []string     `json:"fallback"`             // the rungs below the champion, as the project writes them
	Inputs      []inputView  `json:"inputs,omitempty"`
	RequestForm []columnView `json:"request,omitempty"`
}

type versionView struct {
	Version int    `json:"version"`
	Digest  string `json:"digest"`
	Kind    string `json:"kind"`
}

// armView is a version that is tried beside the champion.
type armView struct {
	versionView
	Percent   float64 `json:"percent"`             // of the entities that it is asked about
	Withdrawn string  `json:"withdrawn,omitempty"` // why it answers no more, until the registry has been told
}

func (a *arm) view() *armView {
	if a == nil {
		return nil
	}
	v := &armView{versionView: *a.scorer.view(), Percent: 100 * a.share}
	if reason := a.withdrawn.Load(); reason != nil {
		v.Withdrawn = *reason
	}
	return v
}

type inputView struct {
	Name     string `json:"name"`
	Source   string `json:"source"`
	Required bool   `json:"required"`
}

// columnView is a field of a scoring request.
type columnView struct {
	Name     string `json:"name"`
	Kind     string `json:"kind"`
	Nullable bool   `json:"nullable"`
}

func (s *Stage) listModels(w http.ResponseWriter, r *http.Request) {
	views := []modelView{}
	for _, m := range s.deps.Project.Models {
		if access.Allows(r.Context(), m.Name) {
			views = append(views, s.view(s.models[m.Name]))
		}
	}
	writeJSON(w, map[string]any{"models": views})
}

func (s *Stage) describeModel(w http.ResponseWriter, _ *http.Request, d *deployment) {
	v := s.view(d)
	for _, in := range d.plan.inputs {
		v.Inputs = append(v.Inputs, inputView{in.name, in.source, in.needed})
	}
	for _, c := range d.model.On.Schema.Record().Columns {
		v.RequestForm = append(v.RequestForm, columnView{c.Name, c.Kind.String(), c.Nullable})
	}
	writeJSON(w, v)
}

func (s *Stage) view(d *deployment) modelView {
	m, line := d.model, d.live.Load()
	v := modelView{
		Name: m.Name, On: m.On.Name, State: "waiting", Fault: d.faultText(),
		TimeoutMs: s.declared(m).Milliseconds(), Fallback: make([]string, len(m.Serve.Fallback)),
	}
	for i, r := range m.Serve.Fallback {
		v.Fallback[i] = r.String()
	}
	if c := line.champion; c != nil {
		v.State, v.Version, v.Digest, v.Kind, v.Since = "live", c.version, c.digest, c.model.Kind(), formatTime(line.since)
		if c.dataUntil != noTime {
			v.DataUntil = formatTime(c.dataUntil)
		}
	}
	if d.degraded() {
		v.State = "degraded"
	}
	v.Previous, v.Simpler = line.previous.view(), line.simpler.view()
	v.Challenger, v.Shadow = line.challenger.view(), line.shadow.view()
	return v
}

func (s *scorer) view() *versionView {
	if s == nil {
		return nil
	}
	return &versionView{s.version, s.digest, s.model.Kind()}
}

func formatTime(ms int64) string { return milli(ms).Format(time.RFC3339Nano) }

// prediction answers GET /v1/models/{model}/predictions/{join_key}: the last one that this process made, over HTTP or from the topic.
func (s *Stage) prediction(w http.ResponseWriter, d *deployment, joinKey string) {
	kept := s.recent.get(d.model.Name, joinKey)
	if kept == nil {
		absent("join_key", "none of the last %d predictions here has this join key", s.cfg.Recent).Write(w)
		return
	}
	p, err := schemas.UnmarshalPrediction(kept)
	if err != nil {
		problemOf(err).Write(w)
		return
	}
	writeBody(w, append(appendPrediction(nil, &p), '\n'))
}

// entityView is the features of one entity.
type entityView struct {
	Group    string            `json:"group"`
	Version  string            `json:"version"`
	Entity   map[string]string `json:"entity"`
	At       string            `json:"at"`
	Newest   *string           `json:"newest"` // newest event of the entity
	Position positionView      `json:"position"`
	Features []featureView     `json:"features"`
}

// positionView is how far the entity's partition was applied when it was read.
type positionView struct {
	Partition int32   `json:"partition"`
	Next      int64   `json:"next"`
	Newest    *string `json:"newest"`
}

type featureView struct {
	Name        string `json:"name"`
	Value       any    `json:"value"`
	Status      string `json:"status"`
	Window      string `json:"window"`
	TailErrorMs int64  `json:"tail_error_ms"` // the window begins up to so much earlier
}

// features answers GET /v1/features/{group}/{entity…}: one segment for each entity column, "at" as query parameter.
func (s *Stage) features(w http.ResponseWriter, r *http.Request) {
	g, number, values, p := s.entity(r)
	if p != nil {
		p.Write(w)
		return
	}
	at := int64(noTime)
	if query := r.URL.Query(); query.Has(fieldAt) {
		if at, p = parseAt(fieldAt, query.Get(fieldAt)); p != nil {
			p.Write(w)
			return
		}
	}
	allowed, p := timeout(r, s.cfg.MaxTimeout)
	if p != nil {
		p.Write(w)
		return
	}
	key, err := g.KeyOf(values)
	if err != nil {
		unnamed(err).Write(w)
		return
	}
	ctx, cancel := deadlineOf(r.Context(), allowed)
	defer cancel()
	if p := s.admitted.enter(ctx); p != nil {
		p.Write(w)
		return
	}
	defer s.admitted.leave()
	entries, err := s.fetch.get(ctx, []online.Ref{{Group: number, Key: key}})
	if err != nil {
		problemOf(err).Write(w)
		return
	}
	if entries[0].Rebuilding {
		rebuilding(g.Name).Write(w)
		return
	}
	view, err := s.entityView(g, &entries[0], at)
	if err != nil {
		problemOf(err).Write(w)
		return
	}
	view.Entity = values
	writeJSON(w, view)
}

func (s *Stage) entity(r *http.Request) (*project.Group, int, map[string]string, *problem) {
	path, ok := segments(r, "/v1/features/")
	if !ok {
		return nil, 0, nil, absent("path", "there is nothing at this path: behind the group there is a part for each column of its entity, URL-escaped and not empty")
	}
	if !access.AllowsAny(r.Context(), s.readers[path[0]]) {
		return nil, 0, nil, ProblemOf(access.Refuse(r.Context()))
	}
	if s.groups[path[0]] == nil {
		return nil, 0, nil, absent("group", "the project has no such feature group")
	}
	number, g := s.catalog.activeOf(path[0])
	if len(path)-1 != len(g.Entity) {
		return nil, 0, nil, badRequest(codeMissing, "entity", "%d parts behind the group, its entity has %d: %v", len(path)-1, len(g.Entity), g.Entity)
	}
	values := make(map[string]string, len(g.Entity))
	for i, c := range g.Entity {
		values[c] = path[i+1]
	}
	return g, number, values, nil
}

func (s *Stage) entityView(g *project.Group, e *online.Entry, at int64) (entityView, error) {
	var state *features.View
	v := entityView{Group: g.Name, Version: g.Version, Position: positionView{Partition: e.Partition, Next: e.Position.Next, Newest: known(e.Position.Newest)}}
	if e.State != nil {
		state = &features.View{}
		if err := g.Open(state, e.State); err != nil {
			return v, err
		}
		newest := formatTime(state.Newest())
		v.Newest = &newest
	}
	if at == noTime {
		at, _ = s.now(e.Position.Newest)
	}
	v.At = formatTime(at)
	for i, r := range g.ReadView(&features.Scratch{}, state, at, nil) {
		o := g.Outputs[i]
		f := featureView{Name: o.Name, Value: r.Value.Any(), Status: statusOf(r.Status).String(), Window: "lifetime", TailErrorMs: o.TailError.Milliseconds()}
		if o.Window > 0 {
			f.Window = duration.Format(o.Window)
		}
		v.Features = append(v.Features, f)
	}
	return v, nil
}

func known(ms int64) *string {
	if ms == 0 {
		return nil
	}
	text := formatTime(ms)
	return &text
}
