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
)

// State is everything the page shows.
type State struct {
	Project     string              `json:"project"`
	Clock       string              `json:"clock"`
	At          time.Time           `json:"at"`
	Stages      []Stage             `json:"stages"`
	Topics      []schemas.Topic     `json:"topics"`
	Models      []Model             `json:"models"`
	Retrains    []schemas.Retrain   `json:"retrains"`
	DeadLetters DeadLetters         `json:"dead_letters"`
	Latest      *schemas.Prediction `json:"latest_prediction"`
}

// Stage is one consumer group of the project: who reads what, and how far behind.
type Stage struct {
	Group      string         `json:"group"`
	State      string         `json:"state"` // as Kafka names it: Stable, Empty, ...
	Members    int            `json:"members"`
	Lag        int64          `json:"lag"` // records, over all partitions
	Partitions []PartitionLag `json:"partitions"`
}

// PartitionLag is how far a partition has been read.
type PartitionLag struct {
	Topic     string `json:"topic"`
	Partition int32  `json:"partition"`
	Next      int64  `json:"next"`
	End       int64  `json:"end"`
	Lag       int64  `json:"lag"`
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

// stages is the lag of every consumer group of the project, the furthest behind last read first.
func (c *Console) stages(ctx context.Context) ([]Stage, error) {
	if c.client == nil {
		return nil, failure.New(failure.Unavailable, "console", "not connected to Kafka yet")
	}
	ctx, cancel := context.WithTimeout(ctx, c.cfg.Timeout)
	defer cancel()
	admin := kadm.NewClient(c.client)
	listed, err := admin.ListGroups(ctx)
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
	lags, err := admin.Lag(ctx, names...)
	if err != nil {
		return nil, failure.Wrap(failure.Unavailable, "Kafka", "reading lags", err)
	}
	var stages []Stage
	for _, l := range lags.Sorted() {
		stage := Stage{Group: l.Group, State: l.State, Members: len(l.Members)}
		for _, m := range l.Lag.Sorted() {
			if m.Err != nil {
				continue // a partition without a leader now has a lag again at the next look
			}
			next := max(m.Commit.At, 0)
			stage.Partitions = append(stage.Partitions, PartitionLag{m.Topic, m.Partition, next, m.End.Offset, max(m.Lag, 0)})
			stage.Lag += max(m.Lag, 0)
		}
		stages = append(stages, stage)
	}
	return stages, nil
}

// model puts together one model; c.tail.mu is held.
func (c *Console) model(name string) (Model, error) {
	r := c.deps.Registry
	m := Model{Name: name, Verdicts: slices.Clone(c.tail.drifts[name])}
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
