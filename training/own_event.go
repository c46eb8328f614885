package training

import (
	"slices"

	"github.com/millrace/millrace/project"
	"github.com/millrace/millrace/schemas"
)

// ownColumns are the indices of the asking source's columns that the inputs with the row's own event are made of, ascending.
func ownColumns(m *project.Model) []int {
	var columns []int
	for _, in := range m.Inputs {
		if in.Own == nil {
			continue
		}
		for _, name := range in.Own.Columns() {
			columns = append(columns, m.On.Schema.Index(name))
		}
	}
	slices.Sort(columns)
	return slices.Compact(columns)
}

// ownEvents makes the own events of the rows, by their number, for an input. Its columns are those that were kept of each row.
func ownEvents(m *project.Model, in project.Input, rows []*spineRow) func(int64, schemas.Row) (schemas.Row, bool) {
	columns, width := ownColumns(m), len(m.On.Schema.Columns)
	return func(row int64, into schemas.Row) (schemas.Row, bool) {
		event := make(schemas.Row, width)
		for i, c := range columns {
			event[c] = rows[row].event[i]
		}
		return in.Own.Row(event, rows[row].time, into)
	}
}
