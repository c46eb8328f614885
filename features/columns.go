package features

import "slices"

// Columns are the names of the columns that the group reads of a row, ascending: a reader may leave the others null.
func (g *Group) Columns() []string {
	names := slices.Clone(g.Definition.Entity)
	add := func(x *Expression) {
		if x != nil {
			names = append(names, x.columns...)
		}
	}
	add(g.where)
	for i := range g.inputs {
		add(g.inputs[i].where)
		add(g.inputs[i].value)
		add(g.inputs[i].by)
	}
	if g.dedup != nil {
		add(g.dedup.name)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// Width is how many columns a row has that the group takes: those of its source's schema.
func (g *Group) Width() int { return g.columns }
