package consistency

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace/millrace/features"
	"github.com/millrace/millrace/features/online"
	"github.com/millrace/millrace/internal/failure"
	"github.com/millrace/millrace/project"
	"github.com/millrace/millrace/schemas"
	"github.com/millrace/millrace/streams"
)

// served is the reads of one group that are to be computed again.
type served struct {
	group    *project.Group
	entities map[string]*entity
	width    int // source partitions that positions name
}

// entity is one entity of the sample: how it was read, and what happened to it.
type entity struct {
	key    string
	reads  []*read
	events []event
}

// read is one entity as one prediction was made from it.
type read struct {
	prediction string
	at         int64   // Unix milliseconds: windows are resolved as of it
	upTo       []int64 // by source partition the offset after the last event applied
	values     []value
	own        *features.OwnEvent // the event that asked, where it was merged in
}

// value is one input of the prediction.
type value struct {
	output int // of the group
	status string
	number float64             // where the status is present
	names  *project.Categories // of a text, whose code the number is; nil of a number
}

// The statuses of an input, as a prediction has them.
const (
	statusPresent     = "present"
	statusUnavailable = "unavailable" // it was not read
	statusOverridden  = "overridden"  // the request said what it was
)

// lookup is a group as a model reads it: by which columns of its source, and into which inputs.
type lookup struct {
	group   *project.Group
	columns []string          // of the model's source, one for each of the group's entity columns
	outputs map[string]int    // by input
	own     *project.OwnEvent // nil where the event that asked is not merged in
	on      *project.Source   // whose events ask
}

func lookups(m *project.Model) []*lookup {
	var list []*lookup
	for _, in := range m.Inputs {
		if in.Group == nil {
			continue
		}
		columns := make([]string, len(in.Entity))
		for i, c := range in.Entity {
			columns[i] = m.On.Schema.Columns[c].Name
		}
		at := slices.IndexFunc(list, func(l *lookup) bool {
			return l.group == in.Group && slices.Equal(l.columns, columns) && (l.own != nil) == (in.Own != nil)
		})
		if at < 0 {
			at = len(list)
			list = append(list, &lookup{group: in.Group, columns: columns, outputs: map[string]int{}, own: in.Own, on: m.On})
		}
		list[at].outputs[in.Name] = in.Output
	}
	return list
}

// collector gathers the reads of the sample.
type collector struct {
	cfg     Config
	models  map[string][]*lookup
	groups  map[*project.Group]*served
	reads   int
	skipped *Skipped
	width   func(topic string) (int32, error) // a topic's partition count
	names   *codeNames
}

func newCollector(ctx context.Context, cfg Config, d Deps, skipped *Skipped) *collector {
	c := &collector{cfg: cfg, models: map[string][]*lookup{}, groups: map[*project.Group]*served{}, skipped: skipped, names: newCodeNames(d.Registry)}
	for _, m := range d.Project.Models {
		c.models[m.Name] = lookups(m)
	}
	widths := map[string]int32{}
	c.width = func(topic string) (n int32, err error) {
		if n, ok := widths[topic]; ok {
			return n, nil
		}
		client, err := streams.NewClient(d.Kafka)
		if err != nil {
			return 0, err
		}
		defer client.Close()
		n, err = streams.Partitions(ctx, client, topic)
		widths[topic] = n
		return n, err
	}
	return c
}

// collect reads the predictions topic.
func collect(ctx context.Context, cfg Config, d Deps, from Range, r *Report) (groups map[*project.Group]*served, next map[int32]int64, err error) {
	c := newCollector(ctx, cfg, d, &r.Skipped)
	left := map[int32]int64{} // by partition, the first prediction that is too new
	next, err = streams.Read(ctx, d.Kafka, streams.ReadOptions{Topic: d.Project.Own().Predictions.Name, From: from.Offsets}, func(record *kgo.Record) error {
		if _, over := left[record.Partition]; over {
			return nil
		}
		p, err := schemas.UnmarshalPrediction(record.Value)
		switch {
		case err != nil:
			c.skipped.Unreadable++
			return nil
		case p.ScoredAt < from.Since:
			return nil
		case from.Until > 0 && p.ScoredAt >= from.Until:
			left[record.Partition] = record.Offset
			return nil
		}
		r.Predictions++
		return c.prediction(&p)
	})
	if err == nil {
		err = ctx.Err()
	}
	if err != nil {
		return nil, nil, fmt.Errorf("reading predictions: %w", err)
	}
	maps.Copy(next, left)
	return c.groups, next, nil
}

// prediction takes the reads that a prediction was made from.
func (c *collector) prediction(p *schemas.Prediction) error {
	inputs := map[string]*schemas.PredictionInput{}
	for i := range p.Inputs {
		inputs[p.Inputs[i].Name] = &p.Inputs[i]
	}
	for _, l := range c.models[p.Model] {
		if err := c.lookup(p, l, inputs); err != nil {
			return err
		}
	}
	return nil
}

func (c *collector) lookup(p *schemas.Prediction, l *lookup, inputs map[string]*schemas.PredictionInput) error {
	names := make(map[string]string, len(l.columns))
	for i, column := range l.columns {
		text, ok := p.Request.Get(column)
		if !ok {
			return nil // nobody was asked about
		}
		names[l.group.Entity[i]] = text
	}
	key, err := l.group.KeyOf(names)
	if err != nil || !c.cfg.Sample.has(key) {
		return nil // no entity can have such a key, or it is not of the sample
	}
	if l.group.Source.Merged() {
		c.skipped.Merged++
		return nil
	}
	position, err := c.position(p, l, key)
	if err != nil || position == nil {
		return err
	}
	r := &read{prediction: p.ID, at: p.At, upTo: upTo(l.group, position)}
	if l.own != nil {
		if r.own, err = l.ownEvent(p, r.upTo); err != nil {
			c.skipped.Unreadable++
			return nil
		}
	}
	for _, name := range slices.Sorted(maps.Keys(l.outputs)) {
		in, output := inputs[name], l.outputs[name]
		names, known, err := c.names.of(p.Digest, name, l.group.Outputs[output].Kind)
		switch {
		case err != nil:
			return err
		case in == nil: // the model did not have it then
		case in.Status == statusUnavailable:
			c.skipped.Unread++
		case in.Status == statusOverridden:
			c.skipped.Overridden++
		case !known:
			c.skipped.Unnamed++
		case in.Value != nil:
			r.values = append(r.values, value{output, in.Status, *in.Value, names})
		default:
			r.values = append(r.values, value{output, in.Status, 0, names})
		}
	}
	if len(r.values) == 0 {
		return nil
	}
	return c.keep(l.group, key, r)
}

// position is the one that the entity was read at: where a model reads several entities of a group, that of the entity's partition. It is nil
// when there is none to compare with, which is counted.
func (c *collector) position(p *schemas.Prediction, l *lookup, key string) (*schemas.ReadPosition, error) {
	var of []*schemas.ReadPosition
	read := false
	for i := range p.Positions {
		if at := &p.Positions[i]; at.Group == l.group.Name {
			read = true
			if at.Version == l.version() {
				of = append(of, at)
			}
		}
	}
	switch {
	case !read:
		c.skipped.Unread++
		return nil, nil
	case len(of) == 0:
		c.skipped.OtherVersion++
		return nil, nil
	case len(of) == 1:
		return of[0], nil
	}
	n, err := c.width(l.group.KeyedTopic)
	if err != nil {
		return nil, err
	}
	partition := online.Partition(online.Partitioner(l.group.Partitioner()), key, n)
	for _, at := range of {
		if at.Partition == partition {
			return at, nil
		}
	}
	c.skipped.Unread++ // its own read failed
	return nil, nil
}

func (c *collector) keep(g *project.Group, key string, r *read) error {
	if c.reads++; c.reads > c.cfg.MaxReads {
		return failure.New(failure.Overloaded, "consistency", "the sample has more than %d reads", c.cfg.MaxReads).
			WithHint("take a smaller --sample or a later --since")
	}
	s := c.groups[g]
	if s == nil {
		s = &served{group: g, entities: map[string]*entity{}}
		c.groups[g] = s
	}
	s.width = max(s.width, len(r.upTo))
	e := s.entities[key]
	if e == nil {
		e = &entity{key: key}
		s.entities[key] = e
	}
	e.reads = append(e.reads, r)
	return nil
}

// upTo is a position in the offsets of the source's partitions.
func upTo(g *project.Group, p *schemas.ReadPosition) []int64 {
	if g.Direct {
		offsets := make([]int64, p.Partition+1)
		offsets[p.Partition] = p.Next
		return offsets
	}
	for _, s := range p.Sources {
		if s.Source == g.Source.Name {
			return s.Next
		}
	}
	return nil // before the first event
}
