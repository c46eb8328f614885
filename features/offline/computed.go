package offline

import (
	"slices"

	"github.com/millrace/millrace/schemas"
)

// computation makes the columns that a scan asks for out of those that its files have.
type computation struct {
	schema *schemas.Schema
	reads  []int // columns of the schema that are read, in the order of a batch's
	wants  []int // columns of the schema that are asked for
}

// compute finds what must be read for columns, some of which are computed; nil when none is.
func (t *Table) compute(columns []Column) (reads []Column, c *computation) {
	c = &computation{schema: t.events}
	computed := false
	for _, column := range columns {
		i := t.events.Index(column.Name)
		c.wants = append(c.wants, i)
		c.reads = append(c.reads, t.events.Needs(i)...)
		computed = computed || i >= len(t.columns)
	}
	if !computed {
		return columns, nil
	}
	slices.Sort(c.reads)
	c.reads = slices.Compact(c.reads)
	reads = make([]Column, len(c.reads))
	for i, column := range c.reads {
		reads[i] = t.columns[column]
	}
	return reads, c
}

// apply puts the columns asked for in place of those that were read.
func (c *computation) apply(b *Batch) {
	read := b.columns
	b.columns = make([]vector, len(c.wants))
	made := make(map[int][]schemas.Value, len(c.wants))
	for i, column := range c.wants {
		if at, ok := slices.BinarySearch(c.reads, column); ok {
			b.columns[i] = read[at]
		} else {
			made[column] = make([]schemas.Value, b.rows)
			b.columns[i].made = made[column]
		}
	}
	row := make(schemas.Row, len(c.schema.Columns))
	for i := range b.rows {
		for k, column := range c.reads {
			row[column] = read[k].value(i)
		}
		c.schema.Compute(row)
		for column, values := range made {
			values[i] = row[column]
		}
	}
}
