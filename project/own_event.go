package project

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/millrace/millrace/internal/failure"
	"github.com/millrace/millrace/schemas"
)

// includeRequest is the setting that merges the event that asks into what is read for it.
const includeRequest = "include_request"

// RequestMark is what stands behind the name of what was read with the request's own event merged in: of an output in a model's signature,
// of a group's version in a prediction's positions.
const RequestMark = "+request"

// OwnEvent makes of an event that asks for a score an event of the source that a group is computed from, to be merged into what is read
// of the group.
type OwnEvent struct {
	// Same says that the events that ask are events of the group's own source, so that each is applied to the group sooner or later.
	Same bool

	into  []int // columns of the group's source
	from  []int // each one's column of the asking source
	names []string
	width int
	part  *Part // instead of columns, when the asking source is a part of the group's
}

// OwnEvent is how an event that the model is asked about becomes one of g's source; entity is, for each of g's entity columns, the index
// of the asking source's column that names it. The error, of kind BadProject, says what is missing.
func (m *Model) OwnEvent(g *Group, entity []int) (*OwnEvent, error) {
	on := m.On
	wrong := func(hint, format string, args ...any) (*OwnEvent, error) {
		return nil, failure.New(failure.BadProject, includeRequest, format, args...).WithHint("%s", hint)
	}
	o := &OwnEvent{Same: on.Name == g.Source.Name, width: len(g.Source.Schema.Columns)}
	if part := g.Source.Part(on.Name); part != nil {
		o.Same, o.part, o.names = true, part, part.columns()
		if !slices.EqualFunc(part.Source.Schema.Columns, on.Schema.Columns, func(a, b schemas.Column) bool { return a.Name == b.Name && a.Kind == b.Kind }) {
			return wrong("train the model again", "%s had other columns when %s was merged of it", on.Name, g.Source.Name)
		}
	}
	for i, name := range g.Entity {
		given := name
		if o.part != nil {
			given = o.part.gives(name)
		}
		if read := on.Schema.Columns[entity[i]].Name; o.Same && read != given {
			return wrong("read the group by the event's own entity, or take "+includeRequest+" away",
				"an event of %s belongs to the entity that its %s names, not to the one that %s names", on.Name, given, read)
		}
	}
	if o.part != nil {
		return o, nil
	}
	for _, name := range g.Columns() {
		from := on.Schema.Index(name)
		if i := slices.Index(g.Entity, name); i >= 0 {
			from = entity[i]
		}
		if from < 0 {
			return wrong(fmt.Sprintf("add the column to the schema of %s, derive it there, or take %s away", on.Name, includeRequest),
				"%s is computed from the column %s of %s, which %s does not have", g.Name, name, g.Source.Name, on.Name)
		}
		if have, want := on.Schema.Columns[from].Kind, kindOf(g.Source.Schema, name); have != want {
			return wrong("derive a column of that name and kind, or take "+includeRequest+" away",
				"%s is computed from %s, which is %s in %s but %s in %s", g.Name, name, want, g.Source.Name, have, on.Name)
		}
		o.into, o.from = append(o.into, g.Source.Schema.Index(name)), append(o.from, from)
		o.names = append(o.names, on.Schema.Columns[from].Name)
	}
	return o, nil
}

// Columns are the asking source's columns that Row reads.
func (o *OwnEvent) Columns() []string { return o.names }

// Row makes, in the memory of into, the row of the group's source that an event of the asking source and its time make. It is false where
// the group's source does not take the event.
func (o *OwnEvent) Row(event schemas.Row, at int64, into schemas.Row) (schemas.Row, bool) {
	if o.part != nil {
		return o.part.Row(event, at, into)
	}
	if cap(into) < o.width {
		into = make(schemas.Row, o.width)
	}
	into = into[:o.width]
	for i, column := range o.into {
		into[column] = event[o.from[i]]
	}
	return into, true
}

// columns are the part's columns that a merged row is made of.
func (p *Part) columns() []string {
	var names []string
	if p.where != nil {
		names = append(names, p.where.Columns()...)
	}
	for _, x := range p.values {
		if x != nil {
			names = append(names, x.Columns()...)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// gives is the part's column that is the merged column as it stands, or the expression that it is made by.
func (p *Part) gives(merged string) string {
	i := p.merged.Index(merged) - 2
	if i < 0 || i >= len(p.values) || p.values[i] == nil {
		return merged
	}
	return strings.TrimSpace(p.values[i].Source())
}

// Meaning is an output of the group as a model's signature writes it: what its numbers depend on. own says that the request's own event is
// merged in.
func (g *Group) Meaning(output int, own bool) string {
	meaning := g.Name + "@" + g.Version + "/" + g.Outputs[output].Name
	if own {
		meaning += RequestMark
	}
	return meaning
}

// ownEvent reads include_request of an input of a group.
func (l *loader) ownEvent(m *Model, g *Group, item, by value, entity []int) (*OwnEvent, bool) {
	o := object{l: l, what: "model " + m.Name + ": input " + item.text, value: by}
	if !o.flag(includeRequest) {
		return nil, true
	}
	own, err := m.OwnEvent(g, entity)
	var fault *failure.Error
	if errors.As(err, &fault) {
		l.faultAt(o.get(includeRequest), fault.Hint, "%s: %s: %s", o.what, includeRequest, fault.What)
		return nil, false
	}
	return own, true
}
