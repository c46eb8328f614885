package project

import (
	"fmt"
	"strings"

	"github.com/millrace/millrace/internal/duration"
)

// State is what a project was when it was last applied: as much of it as a change can break.
type State struct {
	Project string                 `json:"project"`
	Topics  map[string]TopicState  `json:"topics"`
	Sources map[string]SourceState `json:"sources"`
	Groups  map[string]GroupState  `json:"groups"`
	Models  map[string]ModelState  `json:"models"`
	Batches map[string]BatchState  `json:"batches,omitempty"`
}

// TopicState is an applied topic.
type TopicState struct {
	Purpose    string `json:"purpose"`
	Partitions int32  `json:"partitions"`
	Compact    bool   `json:"compact"`
	Retention  string `json:"retention"` // a duration; 0s is for ever
	Ours       bool   `json:"ours"`      // not the user's
}

// SourceState is an applied source.
type SourceState struct {
	Topic       string `json:"topic"`
	Format      string `json:"format"`
	Key         string `json:"key"`
	Time        string `json:"time"`
	Partitioner string `json:"partitioner"`
	Lateness    string `json:"lateness"`
	Future      string `json:"future"`
	Schema      string `json:"schema"` // the .avsc

	Of      string            `json:"of,omitempty"`      // the group that gives it out
	Merged  map[string]string `json:"merged,omitempty"`  // column to what each part gives for it
	Joined  map[string]string `json:"joined,omitempty"`  // column to what it is looked up in, and by what
	Derived map[string]string `json:"derived,omitempty"` // column to expression
	Where   string            `json:"where,omitempty"`
}

// GroupState is an applied feature group.
type GroupState struct {
	Version string            `json:"version"`
	Source  string            `json:"source"`
	Topic   string            `json:"topic"` // that its worker reads
	Entity  []string          `json:"entity"`
	Outputs map[string]string `json:"outputs"` // name to kind
	Offline string            `json:"offline"`
	Flush   string            `json:"flush"`

	Materialized bool `json:"materialized,omitempty"`
}

// ModelState is an applied model.
type ModelState struct {
	On       string   `json:"on"`
	Inputs   []string `json:"inputs"`
	Label    string   `json:"label"`
	Settings []string `json:"settings"` // train, gates, serve and monitor, one a line
}

// State is the project as it would be recorded once applied. It is deterministic.
func (p *Project) State() State {
	s := State{Project: p.Name, Topics: map[string]TopicState{}, Sources: map[string]SourceState{}, Groups: map[string]GroupState{}, Models: map[string]ModelState{}, Batches: map[string]BatchState{}}
	users := map[string]bool{}
	for _, source := range p.Sources {
		users[source.Topic] = !source.Chained()
		s.Sources[source.Name] = SourceState{
			Topic: source.Topic, Format: string(source.Format), Key: source.Key, Time: source.Time, Partitioner: source.Partitioner,
			Lateness: duration.Format(source.Lateness), Future: duration.Format(source.Future), Schema: source.Schema.Avsc(),
			Joined: source.joined(), Derived: source.derivedColumns(), Where: source.condition(),
		}
		if source.Merged() {
			state := s.Sources[source.Name]
			state.Schema, state.Merged = "", source.merged()
			s.Sources[source.Name] = state
		}
		if source.Chained() {
			state := s.Sources[source.Name]
			state.Of = source.Of.Name
			s.Sources[source.Name] = state
		}
	}
	for _, t := range p.Tables {
		users[t.Topic] = true
	}
	for _, t := range p.Topology() {
		s.Topics[t.Name] = TopicState{Purpose: t.Purpose, Partitions: t.Partitions, Compact: t.Compact, Retention: duration.Format(t.Retention), Ours: !users[t.Name]}
	}
	for _, g := range p.Groups {
		s.Groups[g.Name] = g.state()
	}
	for _, m := range p.Models {
		s.Models[m.Name] = m.state()
	}
	for _, b := range p.Batches {
		s.Batches[b.Name] = b.state()
	}
	return s
}

func (g *Group) state() GroupState {
	outputs := map[string]string{}
	for _, out := range g.Outputs {
		outputs[out.Name] = out.Kind.String()
	}
	offline := "every " + duration.Format(g.Offline.Every)
	if g.Offline.None {
		offline = "none"
	}
	if g.Offline.EveryEvent {
		offline = "every event"
	}
	return GroupState{
		Version: g.Version, Source: g.Source.Name, Topic: g.KeyedTopic, Entity: g.Entity, Outputs: outputs,
		Offline: offline, Flush: duration.Format(g.Flush), Materialized: g.Materialize,
	}
}

func (m *Model) state() ModelState {
	s := ModelState{
		On:    m.On.Name,
		Label: fmt.Sprintf("%s of %s by %s within %s", m.Label.Value.Meaning(), m.Label.Source.Name, m.Label.Join, duration.Format(m.Label.Within)),
	}
	if !m.Binary() {
		s.Label = string(m.Task) + " of " + s.Label
	}
	if m.Label.Classes != nil {
		s.Label += ", classes " + strings.Join(m.Label.Classes, ",")
	}
	for _, in := range m.Inputs {
		s.Inputs = append(s.Inputs, m.describe(in))
	}
	t, v, w := m.Train, m.Serve, m.Monitor
	s.Settings = []string{
		t.setting(),
		"serve within " + duration.Format(v.Timeout) + fmt.Sprint(", features within ", duration.Format(v.FetchTimeout), ", fallback ", v.Fallback, ", missing ", v.MissingAllowed,
			", required ", strings.Join(v.Required, ",")) + stickiness(m) + sampling(v),
		"monitor by " + duration.Format(w.Window) + fmt.Sprint(", rows ", w.MinRows, ", columns ", w.MinColumns, ", ", w.Features, " and ", w.Prediction, ", after ", w.After, " of ", w.Of,
			", cooldown ", duration.Format(w.Cooldown), ", without ", strings.Join(w.Exclude, ",")),
	}
	for _, g := range m.Gates {
		s.Settings = append(s.Settings, "gate "+g.String())
	}
	return s
}

// stickiness is what a model is split by, where it says so.
func stickiness(m *Model) string {
	if m.Serve.Sticky == nil {
		return ""
	}
	names := make([]string, len(m.Serve.Sticky))
	for i, c := range m.Serve.Sticky {
		names[i] = m.On.Schema.Columns[c].Name
	}
	return ", sticky by " + strings.Join(names, ",")
}

// sampling is what share of the entities is logged, where not all are.
func sampling(v Serve) string {
	if v.LogSample == 0 {
		return ""
	}
	return fmt.Sprintf(", log of %g%%", v.LogSample*100)
}

// describe is an input with all that its value depends on.
func (m *Model) describe(in Input) string {
	switch {
	case in.Categories != nil:
		number := in
		number.Categories = nil
		return m.describe(number) + " in " + in.Categories.Meaning()
	case in.Expr != nil:
		return in.Name + " = " + in.Expr.Meaning()
	case in.Group == nil:
		return m.On.Schema.Columns[in.Column].Meaning()
	}
	var columns []string
	for _, c := range in.Entity {
		columns = append(columns, m.On.Schema.Columns[c].Name)
	}
	by := in.Name + " by " + strings.Join(columns, ",")
	if in.Own != nil {
		by += " with the request's event"
	}
	return by
}

func (s *Source) derivedColumns() map[string]string {
	if len(s.Derived) == 0 {
		return nil
	}
	columns := make(map[string]string, len(s.Derived))
	for _, d := range s.Derived {
		columns[d.Name] = d.Expr
	}
	return columns
}

func (s *Source) merged() map[string]string {
	columns := map[string]string{}
	for _, c := range s.Schema.Record().Columns {
		columns[c.Name] = c.Definition
	}
	return columns
}

func (s *Source) joined() map[string]string {
	if len(s.Enrichments) == 0 {
		return nil
	}
	columns := map[string]string{}
	for _, x := range s.Enrichments {
		for i, into := range x.Into {
			columns[s.Schema.Columns[into].Name] = x.Table.Name + "." + x.Table.Schema.Columns[x.Columns[i]].Name + " by " + s.Schema.Columns[x.On].Meaning()
		}
	}
	return columns
}
