package serving

import (
	"slices"
	"strings"
	"sync"

	"github.com/millrace/millrace/features"
	"github.com/millrace/millrace/internal/failure"
	"github.com/millrace/millrace/project"
	"github.com/millrace/millrace/registry/model"
	"github.com/millrace/millrace/schemas"
)

// plan is the way from a row of the model's source to the model's inputs, worked out once: which entities to read, which of their
// outputs go where, which columns and expressions fill the rest. It is made from the project alone; models of several versions, with
// other inputs in another order, share it and pick their rows out of it (scorer.order).
type plan struct {
	model     *project.Model
	inputs    []plannedInput // as the project lists them
	groups    []plannedGroup // each once by the columns that name its entity and by whether the event that asks is merged in
	sticky    []int          // columns that say who a row is about
	joinKey   int            // column that labels are joined by; -1 without
	time      int            // column of the event time; -1 without
	ownEvents bool           // some group has the event that asks merged in
	catalog   *catalog       // where the groups are read; nil: under plannedGroup.reader
	fillers   sync.Pool      // of *filler

	entityColumns, requestColumns []named // what predictions keep of the row
}

// number is what a group is read under at this time.
func (p *plan) number(g *plannedGroup) int {
	if p.catalog == nil {
		return g.reader
	}
	return p.catalog.number(g.group)
}

// noColumn is the column of an input that the version of its group does not have.
const noColumn = -2

type plannedInput struct {
	name   string
	source string               // as a model's signature writes it
	group  int                  // in plan.groups, -1 when it is of the row itself
	column int                  // of the row; -1 when it is an expression
	expr   *features.Expression // nil when it is a column
	needed bool                 // without it no model that uses it may answer

	categories *project.Categories // of a text; nil of a number
}

type plannedGroup struct {
	group    *project.Group
	reader   int               // the fetcher's number of the group
	entity   []int             // columns of the row, one for each of the group's entity columns
	outputs  []int             // of the group
	inputs   []int             // where each of outputs goes
	declared int               // all outputs of the group
	own      *project.OwnEvent // nil where the event that asks is not merged in
}

// compilePlan makes the plan of a model. versions are the groups, by name, that another definition is to be read of than the project's.
func compilePlan(m *project.Model, groups []*project.Group, versions map[string]*project.Group) (*plan, error) {
	p := &plan{model: m, joinKey: m.On.Schema.Index(m.Label.Join), time: m.On.TimeIndex()}
	for i, in := range m.Inputs {
		planned := plannedInput{
			name: in.Name, group: -1, column: in.Column, expr: in.Expr, needed: in.Required || slices.Contains(m.Serve.Required, in.Name),
			categories: in.Categories,
		}
		var kind schemas.Kind
		switch {
		case in.Group != nil:
			group, output := in.Group, in.Output
			if other := versions[in.Group.Name]; other != nil {
				group, output = other, outputOf(other, in.Group.Outputs[in.Output])
			}
			if output < 0 || !slices.Equal(group.Entity, in.Group.Entity) {
				planned.column, kind = noColumn, in.Group.Outputs[in.Output].Kind
				break
			}
			own := in.Own
			if own != nil && group != in.Group {
				var err error
				if own, err = m.OwnEvent(group, in.Entity); err != nil {
					planned.column, kind = noColumn, in.Group.Outputs[in.Output].Kind
					break
				}
			}
			number := slices.Index(groups, in.Group)
			n := slices.IndexFunc(p.groups, func(g plannedGroup) bool {
				return g.reader == number && slices.Equal(g.entity, in.Entity) && (g.own != nil) == (own != nil)
			})
			if n < 0 {
				n = len(p.groups)
				p.groups = append(p.groups, plannedGroup{group: group, reader: number, entity: in.Entity, declared: len(group.Outputs), own: own})
			}
			p.ownEvents = p.ownEvents || own != nil
			g := &p.groups[n]
			g.outputs, g.inputs = append(g.outputs, output), append(g.inputs, i)
			planned.group, kind, planned.source = n, group.Outputs[output].Kind, group.Meaning(output, own != nil)
		case in.Expr != nil:
			kind, planned.source = in.Expr.Kind(), in.Expr.Meaning()
		default:
			c := m.On.Schema.Columns[in.Column]
			kind, planned.source = c.Kind, c.Meaning()
		}
		if !kind.Numeric() && kind != schemas.Time && in.Categories == nil {
			return nil, failure.New(failure.BadProject, in.Name, "is %s, and a model's input must be a number", kind)
		}
		p.inputs = append(p.inputs, planned)
	}
	p.sticky = stickyOf(p)
	p.nameColumns()
	p.fillers.New = func() any { return newFiller(p) }
	return p, nil
}

// order finds a model's inputs among the plan's. An input that the project does not have, or that meant something else when the
// model was trained, is Refused: its numbers would be filled with others.
func (p *plan) order(signature []model.SignatureInput) ([]int, error) {
	order := make([]int, len(signature))
	for i, in := range signature {
		order[i] = slices.IndexFunc(p.inputs, func(x plannedInput) bool { return x.name == in.Name })
		if order[i] < 0 {
			return nil, failure.New(failure.Refused, in.Name, "the model needs an input that the project does not have").
				WithHint("train again, or restore the input in the project file")
		}
		if now := p.inputs[order[i]].source; in.Source != "" && in.Source != now {
			return nil, failure.New(failure.Refused, in.Name, "the model was trained with %s, the project now has %s", in.Source, now).
				WithHint("train again, or restore the definition")
		}
	}
	return order, nil
}

// named is a column under the name that a prediction keeps it by.
type named struct {
	name   string
	column int
}

// nameColumns works out, in the order of their names, what entities and request write.
func (p *plan) nameColumns() {
	for _, g := range p.groups {
		for i, c := range g.entity {
			name := g.group.Entity[i]
			p.entityColumns = slices.DeleteFunc(p.entityColumns, func(n named) bool { return n.name == name })
			p.entityColumns = append(p.entityColumns, named{name, c})
		}
	}
	for i, c := range p.model.On.Schema.Columns {
		p.requestColumns = append(p.requestColumns, named{c.Name, i})
	}
	for _, columns := range [][]named{p.entityColumns, p.requestColumns} {
		slices.SortFunc(columns, func(a, b named) int { return strings.Compare(a.name, b.name) })
	}
}

// entities names the row's entities: the group's entity columns and their text.
func (p *plan) entities(row schemas.Row) schemas.Texts {
	texts := make(schemas.Texts, len(p.entityColumns))
	for i, n := range p.entityColumns {
		texts[i] = schemas.NamedText{Name: n.name, Text: row[n.column].Text()}
	}
	return texts
}

// request is the row as the prediction keeps it: the columns that are not null, as text. The texts are parts of one.
func (p *plan) request(row schemas.Row) schemas.Texts {
	var textRoom [1024]byte
	var endRoom [64]int
	written, ends := textRoom[:0], endRoom[:0]
	texts := make(schemas.Texts, 0, len(p.requestColumns))
	for _, n := range p.requestColumns {
		if v := row[n.column]; !v.IsNull() {
			written = v.AppendText(written)
			texts, ends = append(texts, schemas.NamedText{Name: n.name}), append(ends, len(written))
		}
	}
	all, start := string(written), 0
	for i, end := range ends {
		texts[i].Text, start = all[start:end], end
	}
	return texts
}

// labelKey is the text that the row's label will be joined by.
func (p *plan) labelKey(row schemas.Row) string {
	if p.joinKey < 0 {
		return ""
	}
	return row[p.joinKey].Text()
}
