package console

import (
	"context"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"

	"github.com/millrace/millrace/internal/failure"
	"github.com/millrace/millrace/registry"
	"github.com/millrace/millrace/schemas"
	"github.com/millrace/millrace/streams"
)

// State is everything the page shows.
type State struct {
	Project     string              `json:"project"`
	Clock       string              `json:"clock"`
	At          time.Time           `json:"at"`
	Stages      []streams.GroupLag  `json:"stages"` // the consumer groups: who reads what, and how far behind
	Topics      []schemas.Topic     `json:"topics"`
	Models      []Model             `json:"models"`
	Retrains    []schemas.Retrain   `json:"retrains"`
	DeadLetters DeadLetters         `json:"dead_letters"`
	Latest      *schemas.Prediction `json:"latest_prediction"`
}

// DeadLetters is what has been refused.
type DeadLetters struct {
	Count  int64                `json:"count"`
	Class  map[string]int64     `json:"by_class"`
	Newest []schemas.DeadLetter `json:"newest"`
}

// Model is one model: what is live, how it came to be, and how it is doing.
type Model struct {
	Name     string               `json:"name"`
	Champion string               `json:"champion"` // digest, empty when there is none
	Version  int                  `json:"version"`
	Versions []registry.Version   `json:"versions"`
	History  []registry.Entry     `json:"history"`
	Lineage  *registry.Node       `json:"lineage"` // what the champion was made of
	Events   []schemas.ModelEvent `json:"events"`
	Verdicts []schemas.Drift      `json:"verdicts"` // oldest first

	Performance map[string]Performance `json:"performance"` // of the windows among Verdicts whose labels have come, by the verdict's ID
}

// Performance is how well a window was foretold, by what the model's task is measured by.
type Performance struct {
	Labels int64  `json:"labels"`
	State  string `json:"state"`
	Text   string `json:"text"` // like "rmse 14.2, held out 12.9, a rise of 2.1 is allowed"
}

// performances finds, for each closed window, what was told when its labels had come.
func performances(verdicts []schemas.Drift) map[string]Performance {
	type window struct {
		digest     string
		start, end int64
	}
	told := map[window]Performance{}
	for _, v := range verdicts {
		if v.Kind == schemas.DriftPerformance {
			told[window{v.Digest, v.WindowStart, v.WindowEnd}] = Performance{v.Labels, v.State, v.Reason}
		}
	}
	byVerdict := map[string]Performance{}
	for _, v := range verdicts {
		if p, ok := told[window{v.Digest, v.WindowStart, v.WindowEnd}]; ok && v.Kind == schemas.DriftWindowClosed {
			byVerdict[v.ID] = p
		}
	}
	return byVerdict
}

// assemble asks Kafka for the lags and the registry for the models; c.mu is held.
func (c *Console) assemble(ctx context.Context, now time.Time) (*State, error) {
	p := c.deps.Project
	s := &State{Project: p.Name, Clock: p.Clock, At: now, Topics: p.Topology()}
	var err error
	if s.Stages, err = c.stages(ctx); err != nil {
		return nil, err
	}
	c.tail.mu.Lock()
	defer c.tail.mu.Unlock()
	for _, m := range p.Models {
		model, err := c.model(m.Name)
		if err != nil {
			return nil, err
		}
		s.Models = append(s.Models, model)
	}
	s.Retrains = slices.Clone(c.tail.retrains)
	s.Latest = c.tail.latest
	s.DeadLetters = DeadLetters{Class: maps.Clone(c.tail.lettered), Newest: slices.Clone(c.tail.letters)}
	for _, n := range c.tail.lettered {
		s.DeadLetters.Count += n
	}
	return s, nil
}

// stages is the lag of every consumer group of the project.
func (c *Console) stages(ctx context.Context) ([]streams.GroupLag, error) {
	if c.client == nil {
		return nil, failure.New(failure.Unavailable, "console", "not connected to Kafka yet")
	}
	ctx, cancel := context.WithTimeout(ctx, c.cfg.Timeout)
	defer cancel()
	listed, err := kadm.NewClient(c.client).ListGroups(ctx)
	if err != nil {
		return nil, failure.Wrap(failure.Unavailable, "Kafka", "listing consumer groups", err)
	}
	var names []string
	for _, name := range listed.Groups() {
		if strings.HasPrefix(name, c.deps.Project.Name+".") {
			names = append(names, name)
		}
	}
	if len(names) == 0 {
		return nil, nil
	}
	return streams.Lag(ctx, c.client, names...)
}

// model puts together one model; c.tail.mu is held.
func (c *Console) model(name string) (Model, error) {
	r := c.deps.Registry
	m := Model{Name: name, Verdicts: slices.Clone(c.tail.drifts[name])}
	m.Performance = performances(m.Verdicts)
	for _, e := range c.tail.models {
		if e.Model == name {
			m.Events = append(m.Events, e)
		}
	}
	var err error
	if m.Versions, err = r.Versions(name); err != nil {
		return m, err
	}
	if m.History, err = r.History(name); err != nil {
		return m, err
	}
	m.Champion, m.Version, err = r.Alias(name, registry.Champion)
	if failure.Of(err) == failure.NotFound {
		return m, nil
	}
	if err != nil {
		return m, err
	}
	m.Lineage, _, err = r.Lineage(m.Champion)
	return m, err
}
