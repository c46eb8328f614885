package schemas

import (
	"fmt"
	"slices"
)

// Column is one scalar of a record.
type Column struct {
	Name     string // the field's path, nested records joined with "."
	Kind     Kind
	Nullable bool
	Min, Max *float64 // declared range, inclusive; nil where there is none
	Symbols  []string // of an enum
	Doc      string

	Definition string // what a column that no record has is made by; empty otherwise
}

// Schema is a record type: its columns in the order of their declaration, and how they lie in Avro.
type Schema struct {
	Name    string
	Columns []Column

	source    string // as it was read, with defaults, docs and logical types
	canonical string
	root      *node
	index     map[string]int
	slots     []slot
	fallbacks map[string][]constant // what a field that is absent stands for, by its path
	own       *program              // decodes what was written with this very schema

	record   *Schema    // of the records, where there are more columns than theirs; else nil
	computed []computed // of the last columns
}

// slot is what the codecs know of a column beyond Column.
type slot struct {
	node      *node // without the union around it
	nullIndex int   // the union's branch that is null; -1 when not nullable
}

// constant is a column's value that does not come from the record.
type constant struct {
	column int
	value  Value
}

// maxNesting bounds how deep records lie in each other.
const maxNesting = 32

// flatten appends the columns below a record. outer are the records around it, to refuse one that contains itself.
func (s *Schema) flatten(record *node, path string, outer []*node) error {
	if slices.Contains(outer, record) {
		return at(path, "record %s contains itself", record.name)
	}
	if len(outer) >= maxNesting {
		return at(path, "records are nested more than %d deep", maxNesting)
	}
	for _, f := range record.fields {
		name, first := join(path, f.name), len(s.Columns)
		var err error
		if f.node.wire == wireRecord {
			err = s.flatten(f.node, name, append(outer, record))
		} else {
			err = s.addColumn(f, name)
		}
		if err == nil && f.hasDefault {
			err = s.addDefault(f, name, first)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (s *Schema) addColumn(f field, name string) error {
	c := Column{Name: name, Min: f.min, Max: f.max, Doc: f.doc}
	n, nullIndex, err := scalar(f.node)
	if err != nil {
		return at(name, "%w", err)
	}
	c.Kind, c.Symbols, c.Nullable = kindOf(n), n.symbols, nullIndex >= 0
	if (c.Min != nil || c.Max != nil) && c.Kind != Int && c.Kind != Float && c.Kind != Time {
		return at(name, "a %s has no range: take away minimum and maximum", c.Kind)
	}
	if c.Min != nil && c.Max != nil && *c.Min > *c.Max {
		return at(name, "the minimum %v is above the maximum %v", *c.Min, *c.Max)
	}
	if _, twice := s.index[name]; twice {
		return at(name, "two columns have this name")
	}
	s.index[name] = len(s.Columns)
	s.Columns = append(s.Columns, c)
	s.slots = append(s.slots, slot{node: n, nullIndex: nullIndex})
	return nil
}

// addDefault remembers what a field's default makes of the columns from first on, which are the field's own.
func (s *Schema) addDefault(f field, path string, first int) error {
	for i := first; i < len(s.Columns); i++ {
		value, n := f.fallback, f.node
		if name := s.Columns[i].Name; name != path {
			var ok bool
			if value, n, ok = dig(f.fallback, f.node, name[len(path)+1:]); !ok {
				return at(name, "the default of %s lacks this field", path)
			}
		}
		v, err := defaultValue(n, value)
		if err == nil {
			err = limitsOf(s.Columns[i]).check(path, v)
		}
		if err != nil {
			return at(s.Columns[i].Name, "default: %w", err)
		}
		s.fallbacks[path] = append(s.fallbacks[path], constant{i, v})
	}
	return nil
}

// scalar is the type below an optional union with null. nullIndex is the union's branch that is null, -1 without a union.
func scalar(n *node) (inner *node, nullIndex int, err error) {
	nullIndex = -1
	if n.wire == wireUnion {
		if len(n.branches) != 2 || (n.branches[0].wire == wireNull) == (n.branches[1].wire == wireNull) {
			return nil, -1, fmt.Errorf("a union must be of null and one scalar")
		}
		if n.branches[0].wire == wireNull {
			nullIndex, n = 0, n.branches[1]
		} else {
			nullIndex, n = 1, n.branches[0]
		}
	}
	if kindOf(n) == Null {
		if nullIndex >= 0 {
			return nil, -1, fmt.Errorf("a nullable %s is not supported: columns are scalars", n.wire)
		}
		return nil, -1, fmt.Errorf("%s is not supported: columns are scalars", n.wire)
	}
	return n, nullIndex, nil
}

// kindOf is the column type of a scalar, Null for anything else.
func kindOf(n *node) Kind {
	switch n.wire {
	case wireBoolean:
		return Bool
	case wireInt:
		return Int
	case wireLong:
		if n.logical == timestampMillis || n.logical == timestampMicros {
			return Time
		}
		return Int
	case wireFloat, wireDouble:
		return Float
	case wireString, wireEnum:
		return String
	case wireBytes, wireFixed:
		return Bytes
	default:
		return Null
	}
}

// Index is the position of a column, -1 when there is none of that name.
func (s *Schema) Index(column string) int {
	if i, ok := s.index[column]; ok {
		return i
	}
	return -1
}

// Column is the column of that name.
func (s *Schema) Column(name string) (Column, bool) {
	i := s.Index(name)
	if i < 0 {
		return Column{}, false
	}
	return s.Columns[i], true
}

// HasDefault reports whether a field, a column or a record by its path, may be absent in JSON.
func (s *Schema) HasDefault(path string) bool {
	_, ok := s.fallbacks[path]
	return ok
}

// Canonical is the schema in Avro's parsing canonical form (Avro specification, "Parsing Canonical Form for Schemas").
func (s *Schema) Canonical() string { return s.canonical }

// Suggest is the column whose name is nearest to name, "" when none is near.
func (s *Schema) Suggest(name string) string {
	names := make([]string, len(s.Columns))
	for i, c := range s.Columns {
		names[i] = c.Name
	}
	return Nearest(name, names)
}
