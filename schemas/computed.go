package schemas

import (
	"context"
	"fmt"
	"maps"
	"slices"
)

// A row may be wider than its record: after the record's columns come those that were looked up elsewhere (Schema.Join), and then those
// that are computed from the row itself (Schema.Derive). What was looked up is kept with the event, since the place it came from changes;
// what is computed is not, and so always means what the project says now.

// Computed is a column that is made from other columns of its row.
type Computed struct {
	Name       string
	Kind       Kind
	Reads      []string // columns that it is made from
	Eval       func(Row) Value
	Definition string // what it is made by, in one spelling
}

// computed is a Computed in its schema.
type computed struct {
	eval  func(Row) Value
	reads []int // stored columns, directly or through other computed ones; ascending
}

// Join is the schema with further columns that a lookup fills; they are null until it does. Columns cannot be joined to a schema that
// computes some already.
func (s *Schema) Join(columns ...Column) (*Schema, error) {
	if len(s.computed) > 0 {
		return nil, fmt.Errorf("columns are joined before others are computed from them")
	}
	wide := s.widen()
	for _, c := range columns {
		c.Nullable = true
		if err := wide.append(c); err != nil {
			return nil, err
		}
	}
	return wide, nil
}

// Derive is the schema with one more column, computed from those it has.
func (s *Schema) Derive(c Computed) (*Schema, error) {
	wide := s.widen()
	definition := c.Definition
	var reads []int
	for _, name := range c.Reads {
		i := s.Index(name)
		switch {
		case i < 0:
			return nil, fmt.Errorf("%s has no column %q", s.Name, name)
		case i < s.Stored():
			reads = append(reads, i)
		default:
			reads = append(reads, s.computed[i-s.Stored()].reads...)
		}
		if s.Columns[i].Definition != "" {
			definition += "; " + s.Columns[i].Meaning()
		}
	}
	slices.Sort(reads)
	if err := wide.append(Column{Name: c.Name, Kind: c.Kind, Nullable: true, Definition: definition}); err != nil {
		return nil, err
	}
	wide.computed = append(wide.computed, computed{c.Eval, slices.Compact(reads)})
	return wide, nil
}

// Meaning is the column's name, with what it is made by where no record has it.
func (c Column) Meaning() string {
	if c.Definition == "" {
		return c.Name
	}
	return c.Name + ": " + c.Definition
}

// widen is a copy of the schema that columns can be appended to.
func (s *Schema) widen() *Schema {
	wide := *s
	wide.record = s.Record()
	wide.index, wide.Columns, wide.computed = maps.Clone(s.index), slices.Clone(s.Columns), slices.Clone(s.computed)
	return &wide
}

func (s *Schema) append(c Column) error {
	if _, twice := s.index[c.Name]; twice {
		return fmt.Errorf("%s has a column %q already", s.Name, c.Name)
	}
	s.index[c.Name] = len(s.Columns)
	s.Columns = append(s.Columns, c)
	return nil
}

// Record is the schema of the records: the schema itself where nothing was joined or derived.
func (s *Schema) Record() *Schema {
	if s.record != nil {
		return s.record
	}
	return s
}

// Stored is the number of columns, from the first on, that are not computed.
func (s *Schema) Stored() int { return len(s.Columns) - len(s.computed) }

// Joined are the indices [from, until) of the columns that lookups fill.
func (s *Schema) Joined() (from, until int) { return len(s.Record().Columns), s.Stored() }

// Needs is the stored columns that a column is made from, ascending: itself where it is stored.
func (s *Schema) Needs(column int) []int {
	if column < s.Stored() {
		return []int{column}
	}
	return s.computed[column-s.Stored()].reads
}

// Complete lengthens a row of the record's or of all stored columns to all columns: what was not looked up is null, and the rest is
// computed.
func (s *Schema) Complete(row Row) Row {
	n := len(row)
	row = slices.Grow(row, len(s.Columns)-n)[:len(s.Columns)]
	clear(row[n:])
	s.Compute(row)
	return row
}

// Compute fills the computed columns of a whole row.
func (s *Schema) Compute(row Row) {
	stored := s.Stored()
	for i := range s.computed {
		row[stored+i] = s.computed[i].eval(row)
	}
}

// completing decodes records into whole rows.
type completing struct {
	decoder Decoder
	schema  *Schema
}

func (d completing) Decode(ctx context.Context, record []byte, row Row) (Row, error) {
	row, err := d.decoder.Decode(ctx, record, row)
	if err != nil {
		return row, err
	}
	return d.schema.Complete(row), nil
}

func (d completing) Borrow(ctx context.Context, record []byte, row Row) (Row, error) {
	row, err := d.decoder.Borrow(ctx, record, row)
	if err != nil {
		return row, err
	}
	return d.schema.Complete(row), nil
}

// recording encodes the record's columns of whole rows.
type recording struct {
	encoder Encoder
	columns int
}

func (e recording) Encode(ctx context.Context, row Row) ([]byte, error) {
	return e.encoder.Encode(ctx, row[:min(e.columns, len(row))])
}
