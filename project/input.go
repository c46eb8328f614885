package project

import (
	"slices"
	"strings"

	"github.com/millrace/millrace/schemas"
)

// MaxInputs bounds the inputs of one model.
const MaxInputs = 4096

// inputs reads what goes into a model. It reports whether all of it could be resolved, so that a reference to an input is not called
// wrong when the input itself was.
func (l *loader) inputs(model object, m *Model) (complete bool) {
	const hint = "a list of group.*, group.output, columns, and name: expression"
	if model.needs("inputs", hint) {
		return false
	}
	v := model.get("inputs")
	if v.shape != list || len(v.items) == 0 {
		l.faultAt(v, hint, "%s: inputs must be a list of inputs", model.what)
		return false
	}
	if m.On == nil {
		return false
	}
	before := len(l.faults)
	complete = true
	for _, item := range v.items {
		complete = l.input(m, item) && complete
	}
	l.checkInputNames(m)
	if len(m.Inputs) > MaxInputs {
		l.faultAt(v, "", "%s has %d inputs, more than %d", model.what, len(m.Inputs), MaxInputs)
	}
	return complete && len(l.faults) == before
}

// input adds the inputs that one item stands for: "group.*", "group.output" (either with the columns its entity is read by), a column,
// or a named expression. It is false when the item refers to a group that has faults of its own.
func (l *loader) input(m *Model, item value) bool {
	if item.shape == text {
		return l.plainInput(m, item)
	}
	if item.shape != mapping || len(item.entries) != 1 {
		l.faultAt(item, "", "model %s: an input is a name, or one name: expression, not %s", m.Name, shapeNames[item.shape])
		return false
	}
	e := item.entries[0]
	key := value{shape: text, text: e.key, line: e.line, col: e.col}
	switch e.value.shape {
	case mapping:
		if m.On.Schema.Index(e.key) >= 0 || !strings.Contains(e.key, ".") {
			return l.categoryInput(m, key, e.value)
		}
		return l.groupInput(m, key, e.value)
	case text:
		if !namePattern.MatchString(e.key) {
			l.checkName(key, "model input", e.key)
			return false
		}
		x := l.expression(e.value, "model "+m.Name+": input "+e.key, e.value.text, m.On.Schema, schemas.Null)
		m.Inputs = append(m.Inputs, Input{Name: e.key, Output: -1, Column: -1, Expr: x, Line: e.line, col: e.col})
		return x != nil
	default:
		l.faultAt(e.value, "", "model %s: input %s must be an expression, not %s", m.Name, e.key, shapeNames[e.value.shape])
		return false
	}
}

func (l *loader) plainInput(m *Model, item value) bool {
	if c := m.On.Schema.Index(item.text); c >= 0 {
		column := m.On.Schema.Columns[c]
		if !column.Kind.Numeric() {
			l.faultAt(item, "name its categories, like "+item.text+": {categories: [a, b]}, or give a number made of it, like name: expression", "model %s: the column %s is %s, but an input is a number", m.Name, item.text, column.Kind)
			return false
		}
		m.Inputs = append(m.Inputs, Input{Name: item.text, Output: -1, Column: c, Line: item.line, col: item.col})
		return true
	}
	if strings.Contains(item.text, ".") {
		return l.groupInput(m, item, value{})
	}
	names := make([]string, 0, len(m.On.Schema.Columns)+len(l.project.Groups))
	for _, c := range m.On.Schema.Columns {
		names = append(names, c.Name)
	}
	for _, g := range l.project.Groups {
		names = append(names, g.Name+".*")
	}
	l.faultAt(item, didYouMean(item.text, names), "model %s: there is no column %q in %s", m.Name, item.text, m.On.Schema.Name)
	return false
}

// groupInput adds one or all outputs of a group. by maps its entity columns to columns of the model's source, which otherwise have
// the same names, says whether the event that asks is included, and names the categories of an output of text.
func (l *loader) groupInput(m *Model, item, by value) bool {
	name, output, _ := strings.Cut(item.text, ".")
	if l.badGroups[name] {
		return false
	}
	g := l.project.Group(name)
	if g == nil {
		var names []string
		for _, other := range l.project.Groups {
			names = append(names, other.Name)
		}
		l.faultAt(item, didYouMean(name, names), "model %s: there is no feature group %q", m.Name, name)
		return false
	}
	o := l.object(by, "model "+m.Name+": input "+item.text, append(slices.Clone(g.Entity), includeRequest, keyCategories)...)
	entity, ok := l.entityOf(m, g, item, o)
	if !ok {
		return false
	}
	own, ok := l.ownEvent(m, g, item, by, entity)
	if !ok {
		return false
	}
	if output == "*" {
		if o.has(keyCategories) {
			l.faultAt(o.get(keyCategories), "name the output of text that they are of, beside "+item.text, "%s: categories are of one output", o.what)
			return false
		}
		for i, out := range g.Outputs {
			if out.Kind.Numeric() {
				m.Inputs = append(m.Inputs, Input{Name: name + "." + out.Name, Group: g, Output: i, Entity: entity, Own: own, Column: -1, Line: item.line, col: item.col})
			}
		}
		return true
	}
	i := g.Output(output)
	if i < 0 {
		var names []string
		for _, out := range g.Outputs {
			names = append(names, out.Name)
		}
		l.faultAt(item, didYouMean(output, names), "model %s: the feature group %s has no output %q", m.Name, name, output)
		return false
	}
	in := Input{Name: item.text, Group: g, Output: i, Entity: entity, Own: own, Column: -1, Line: item.line, col: item.col}
	switch kind := g.Outputs[i].Kind; {
	case o.has(keyCategories):
		if !l.takesCategories(o, item, "output", kind) {
			return false
		}
		if in.Categories = l.categories(o); in.Categories == nil {
			return false
		}
	case kind == schemas.String:
		l.faultAt(item, "name its categories, like "+item.text+": {categories: [a, b]}", "model %s: %s is %s, but an input is a number", m.Name, item.text, kind)
		return false
	case !kind.Numeric():
		l.faultAt(item, "", "model %s: %s is %s, but an input is a number", m.Name, item.text, kind)
		return false
	}
	m.Inputs = append(m.Inputs, in)
	return true
}

// entityOf finds the columns of the model's source that name the group's entity.
func (l *loader) entityOf(m *Model, g *Group, item value, o object) (columns []int, ok bool) {
	ok = true
	for _, entity := range g.Entity {
		at, name := item, entity
		if o.has(entity) {
			at, name = o.get(entity), o.textOr(entity, entity)
		}
		c := m.On.Schema.Index(name)
		if c < 0 {
			names := make([]string, len(m.On.Schema.Columns))
			for i, column := range m.On.Schema.Columns {
				names[i] = column.Name
			}
			hint := didYouMean(name, names)
			if at.text == item.text {
				hint = "say which column it is: " + item.text + ": {" + entity + ": <column>}"
			}
			l.faultAt(at, hint, "model %s: %s needs the entity column %q, which %s does not have", m.Name, item.text, name, m.On.Schema.Name)
			ok = false
			continue
		}
		if have, want := m.On.Schema.Columns[c].Kind, kindOf(g.Source.Schema, entity); have != want {
			l.faultAt(at, "", "model %s: %s is %s in %s, but the entity of %s is %s", m.Name, name, have, m.On.Schema.Name, g.Name, want)
			ok = false
		}
		columns = append(columns, c)
	}
	return columns, ok
}

func (l *loader) checkInputNames(m *Model) {
	lines := map[string]int{}
	for _, in := range m.Inputs {
		if first, twice := lines[in.Name]; twice {
			l.fault(in.Line, in.col, "", "model %s: the input %s is there twice, first in line %d", m.Name, in.Name, first)
			continue
		}
		lines[in.Name] = in.Line
	}
}
