package consistency

import (
	"context"
	"math"
	"slices"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace/millrace/features"
	"github.com/millrace/millrace/internal/failure"
	"github.com/millrace/millrace/project"
	"github.com/millrace/millrace/schemas"
	"github.com/millrace/millrace/streams"
)

// Explained is one prediction with the events that its features were made of.
type Explained struct {
	Prediction schemas.Prediction `json:"prediction"`
	Reads      []ExplainedRead    `json:"reads"` // by group and entity
	Skipped    Skipped            `json:"skipped"`
}

// ExplainedRead is one entity as the prediction read it.
type ExplainedRead struct {
	Group   string           `json:"group"`
	Version string           `json:"version"`
	Entity  string           `json:"entity"`
	Pending bool             `json:"pending"` // it saw events that are not in the offline files yet: nothing is computed again
	Applied int              `json:"applied"` // events of the entity below the position
	Events  []ExplainedEvent `json:"events"`  // the newest of them, oldest first
	Values  []ExplainedValue `json:"values"`
}

// ExplainedEvent is an event of the offline log.
type ExplainedEvent struct {
	Partition int32             `json:"partition"` // of the source's topic
	Offset    int64             `json:"offset"`
	Time      int64             `json:"time"` // event time, Unix milliseconds
	Columns   map[string]string `json:"columns"`
}

// ExplainedValue is a feature as it was served and as the events give it: a number, or the status that took its place.
type ExplainedValue struct {
	Feature    string `json:"feature"`
	Served     string `json:"served"`
	Recomputed string `json:"recomputed"`
	Same       bool   `json:"same"` // to Config.RelativeError
}

// Explain finds a prediction on its topic by its id and computes its features again from the offline log, as of the positions that they were
// read at. most is how many events of an entity it shows. Errors: NotFound without such a prediction, and those of Check.
func Explain(ctx context.Context, cfg Config, d Deps, id string, most int) (*Explained, error) {
	p, err := find(ctx, d, id)
	if err != nil {
		return nil, err
	}
	cfg.Sample = 1
	e := &Explained{Prediction: *p, Reads: []ExplainedRead{}}
	c := newCollector(ctx, cfg, d, &e.Skipped)
	if err := c.prediction(p); err != nil {
		return nil, err
	}
	for _, source := range d.Project.Sources {
		groups := ofSource(d.Project, source, c.groups)
		if len(groups) == 0 {
			continue
		}
		kept, _, err := history(ctx, cfg, d.OfflineDir, source, groups)
		if err != nil {
			return nil, err
		}
		for _, s := range groups {
			r := &replay{served: s, kept: kept, bound: cfg.RelativeError}
			for _, key := range r.keys() {
				for _, read := range s.entities[key].reads {
					explained, err := r.explain(s.entities[key], read, most)
					if err != nil {
						return nil, err
					}
					e.Reads = append(e.Reads, explained)
				}
			}
		}
	}
	return e, nil
}

// find reads the predictions topic for an id.
func find(ctx context.Context, d Deps, id string) (*schemas.Prediction, error) {
	var found *schemas.Prediction
	topic := d.Project.Own().Predictions.Name
	_, err := streams.Read(ctx, d.Kafka, streams.ReadOptions{Topic: topic}, func(r *kgo.Record) error {
		if p, err := schemas.UnmarshalPrediction(r.Value); err == nil && p.ID == id {
			found = &p
		}
		return nil
	})
	if err == nil {
		err = ctx.Err()
	}
	if err != nil {
		return nil, err
	}
	if found == nil {
		return nil, failure.New(failure.NotFound, id, "there is no such prediction on %s", topic).
			WithHint("its id is in the answer; the topic keeps predictions for as long as its retention says, and of a model with serve: log: sample only the sample's")
	}
	return found, nil
}

// explain computes one read again and says of which events.
func (r *replay) explain(e *entity, read *read, most int) (ExplainedRead, error) {
	g := r.served.group
	x := ExplainedRead{Group: g.Name, Version: g.Version, Entity: e.key, Events: []ExplainedEvent{}, Values: []ExplainedValue{}}
	if x.Pending = r.pending(read); x.Pending {
		return x, nil
	}
	var below []*event
	for i := range e.events {
		if ev := &e.events[i]; ev.offset < offsetAt(read.upTo, int(ev.partition)) {
			below = append(below, ev)
		}
	}
	slices.SortStableFunc(below, func(a, b *event) int { return int(max(-1, min(1, a.time-b.time))) })
	x.Applied = len(below)
	for _, ev := range below[max(0, len(below)-most):] {
		columns := map[string]string{}
		for i, v := range ev.row {
			if !v.IsNull() {
				columns[g.Source.Schema.Columns[i].Name] = v.Text()
			}
		}
		x.Events = append(x.Events, ExplainedEvent{ev.partition, ev.offset, ev.time, columns})
	}
	p := newPast(r.served, e)
	if err := p.advance(read.upTo); err != nil {
		return x, err
	}
	r.read(p, read)
	for _, v := range read.values {
		status, number := computed(&r.results[v.output], v.names)
		bound := r.bound
		if v.names != nil {
			bound = 0
		}
		same := status == v.status && (status != statusPresent || math.Abs(number-v.number) <= bound*max(math.Abs(number), math.Abs(v.number)))
		x.Values = append(x.Values, ExplainedValue{g.Name + "." + g.Outputs[v.output].Name, side(v.status, v.number, v.names), side(status, number, v.names), same})
	}
	return x, nil
}

// read reads an entity as of its past.
func (r *replay) read(p *past, read *read) {
	if read.own != nil {
		r.results = r.served.group.ReadWith(&r.scratch, p.state(), *read.own, read.at, r.results)
		return
	}
	r.results = r.served.group.ReadInto(&r.scratch, p.state(), read.at, r.results)
}

// computed is a result as a prediction would have it: of a text its place among the names of categories; what is no finite number is null.
func computed(result *features.Result, names *project.Categories) (status string, number float64) {
	number, ok := names.Value(result.Value).Float()
	if result.Status == features.Present && (!ok || math.IsNaN(number) || math.IsInf(number, 0)) {
		return features.Null.String(), number
	}
	return result.Status.String(), number
}
