package project

import (
	"slices"

	"github.com/millrace/millrace/features"
	"github.com/millrace/millrace/schemas"
)

// ChainedTime is the column of a chained source's event time, which is that of the event that its group applied.
const ChainedTime = "time"

// A chained source is what a feature group gives out: for every event that the group applies, one event with the entity, columns of that
// event's row, and the entity's features right after it. Group and source are fixed under their names: were the group's definition
// another, events of one topic would mean two things.

// Chained reports whether the source is what a group gives out.
func (s *Source) Chained() bool { return s.Of != nil }

// GivenBy is the sources that are what the group gives out.
func (p *Project) GivenBy(g *Group) (given []*Source) {
	for _, s := range p.Sources {
		if s.Of == g {
			given = append(given, s)
		}
	}
	return given
}

// Given is the row of a chained source, in the memory of into: of an event of its group's source and its time, and of the outputs of its
// entity right after it. An output without a value is null.
func (s *Source) Given(event schemas.Row, at int64, results []features.Result, into schemas.Row) schemas.Row {
	row := append(into[:0], schemas.TimeValue(at))
	for _, i := range s.ofColumns {
		row = append(row, event[i])
	}
	for _, i := range s.ofOutputs {
		row = append(row, results[i].Value)
	}
	return s.Schema.Complete(row)
}

// GivenAt is the time as of which the outputs are read that an event gives out: windows end just after it.
func GivenAt(at int64) int64 { return at + 1 }

// chained reads a source that is what a group gives out.
func (l *loader) chained(e entry) *Source {
	o := l.object(e.value, "source "+e.key, "of", "columns", "features", "lateness", "offline", "derive", "where")
	o.value.line, o.value.col = e.line, e.col
	s := &Source{
		Name: e.key, Line: e.line, col: e.col, Topic: l.project.TopicPrefix + e.key,
		Format: schemas.Avro, Time: ChainedTime, Partitioner: PartitionerUnknown, OfflineBy: l.offlineBy(o),
	}
	g := l.groupNamed(o.get("of"), o.what, o.text("of"))
	if g == nil {
		return s
	}
	s.Of, s.Key, s.Partitions = g, g.Entity[0], g.Source.Partitions
	s.Lateness = o.duration("lateness", g.Source.Lateness, 0)
	columns, ok := l.givenColumns(o, s)
	if !ok {
		return s
	}
	for i := range columns { // which events there are is part of what every column means
		columns[i].Definition = g.Name + "@" + g.Version + "; " + columns[i].Definition
	}
	schema, err := schemas.Generate(s.Name, columns)
	if err != nil {
		l.faultAt(o.value, "", "%s: %v", o.what, err)
		return s
	}
	s.Schema = schema
	if l.derive(o, s) {
		l.where(o, s)
	} else {
		l.badSources[s.Name] = true
	}
	return s
}

// groupNamed is a declared feature group, nil when there is none or it has faults.
func (l *loader) groupNamed(at value, what, name string) *Group {
	if name == "" || l.cycle(at, "feature group "+name) {
		return nil
	}
	l.resolveGroup(name)
	if l.badGroups[name] {
		return nil
	}
	if g := l.project.Group(name); g != nil {
		return g
	}
	l.faultAt(at, didYouMean(name, namesOf(l.resolving.groups)), "%s: there is no feature group %q", what, name)
	return nil
}

// givenColumns are the columns of a chained source's records, and where they come from.
func (l *loader) givenColumns(o object, s *Source) (columns []schemas.Column, ok bool) {
	g, from := s.Of, s.Of.Source.Schema
	columns, ok = []schemas.Column{{Name: ChainedTime, Kind: schemas.Time}}, true
	add := func(at value, c schemas.Column) bool {
		if slices.ContainsFunc(columns, func(other schemas.Column) bool { return other.Name == c.Name }) {
			l.faultAt(at, "derive the one or the other under another name", "%s: there is a column %q already", o.what, c.Name)
			return false
		}
		columns = append(columns, c)
		return true
	}
	column := func(at value, name string, nullable bool) {
		c, known := from.Column(name)
		if !known {
			l.noColumn(at, o.what+": columns", name, from)
			ok = false
			return
		}
		s.ofColumns = append(s.ofColumns, from.Index(name))
		ok = add(at, schemas.Column{Name: name, Kind: c.Kind, Nullable: nullable, Doc: c.Doc, Definition: c.Meaning()}) && ok
	}
	for _, name := range g.Entity {
		column(o.get("of"), name, false) // an event that names no entity is not applied
	}
	for _, v := range o.texts("columns") {
		column(v, v.text, true)
	}
	output := func(at value, i int) {
		out := &g.Outputs[i]
		if out.Kind == schemas.Composite {
			l.faultAt(at, "name others under features", "%s: %s is a list or a map, which no column can be", o.what, out.Name)
			ok = false
			return
		}
		s.ofOutputs = append(s.ofOutputs, i)
		ok = add(at, schemas.Column{Name: out.Name, Kind: out.Kind, Nullable: true, Definition: out.Name}) && ok
	}
	if !o.has("features") {
		for i := range g.Outputs {
			output(o.get("of"), i)
		}
		return columns, ok
	}
	for _, v := range o.texts("features") {
		i := g.Output(v.text)
		if i < 0 {
			names := make([]string, len(g.Outputs))
			for k := range g.Outputs {
				names[k] = g.Outputs[k].Name
			}
			l.faultAt(v, didYouMean(v.text, names), "%s: features: %s has no output %q", o.what, g.Name, v.text)
			ok = false
			continue
		}
		output(v, i)
	}
	return columns, ok
}
