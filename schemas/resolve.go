package schemas

import (
	"errors"
	"slices"
)

// program decodes what was written with one schema into rows of another (Avro specification, "Schema Resolution"): the writer's
// fields in their order, each to a column or to nothing. Nested records are laid out flat, as they are in the bytes.
type program struct {
	steps []step
	width int // columns of the row
}

// step reads one of the writer's fields, or sets what a field that the writer does not have stands for.
type step struct {
	path     string
	node     *node // the writer's type
	column   int   // -1 to pass over it
	kind     Kind  // of the column
	nullable bool
	null     int     // for a union of null and one scalar, the common case: the branch that is null; else -1
	symbols  []Value // of an enum
	limits   limits
	branches []branch // of any other union
	preset   []constant
}

// branch is one alternative of a union: the steps that read it, or why it cannot be read.
type branch struct {
	steps   []step
	failure *RecordError
}

// resolve makes the program from a writer's type to a reader's schema. Its error is a *RecordError of class schema.
func resolve(writer *node, s *Schema) (*program, error) {
	steps, err := resolver{s}.record(writer, s.root, "")
	if err != nil {
		return nil, err
	}
	return &program{steps: steps, width: len(s.Columns)}, nil
}

type resolver struct{ schema *Schema }

// record matches the fields of two records by name, or by the reader's aliases.
func (r resolver) record(w, want *node, path string) ([]step, error) {
	if w.wire != wireRecord {
		return nil, recordError(ClassSchema, path, "written as %s, not as a record", w.wire)
	}
	var steps []step
	matched := make([]bool, len(want.fields))
	for _, f := range w.fields {
		i := slices.IndexFunc(want.fields, func(t field) bool { return t.name == f.name })
		if i < 0 {
			i = slices.IndexFunc(want.fields, func(t field) bool { return slices.Contains(t.aliases, f.name) })
		}
		if i < 0 || matched[i] {
			steps = append(steps, step{path: join(path, f.name), node: f.node, column: -1, null: -1})
			continue
		}
		matched[i] = true
		more, err := r.field(f.node, want.fields[i], join(path, want.fields[i].name))
		if err != nil {
			return nil, err
		}
		steps = append(steps, more...)
	}
	for i, f := range want.fields {
		if matched[i] {
			continue
		}
		name := join(path, f.name)
		if !f.hasDefault {
			return nil, recordError(ClassSchema, name, "the writer's schema lacks this field, and it has no default")
		}
		steps = append(steps, step{path: name, column: -1, null: -1, preset: r.schema.fallbacks[name]})
	}
	return steps, nil
}

func (r resolver) field(w *node, want field, path string) ([]step, error) {
	if w.wire == wireUnion {
		return r.union(w, want, path)
	}
	if want.node.wire == wireRecord {
		return r.record(w, want.node, path)
	}
	st, err := r.scalar(w, path)
	return []step{st}, err
}

// union resolves each of the writer's branches. Whether one that cannot be read is there is known only record by record.
func (r resolver) union(w *node, want field, path string) ([]step, error) {
	column := r.schema.Index(path)
	if inner, null, err := scalar(w); err == nil && column >= 0 {
		st, err := r.scalar(inner, path)
		st.null = null
		return []step{st}, err
	}
	st := step{path: path, node: w, column: column, null: -1}
	readable := false
	for _, b := range w.branches {
		steps, err := r.branch(b, want, path)
		var failed *RecordError
		errors.As(err, &failed) // every error of a resolver is one
		st.branches = append(st.branches, branch{steps: steps, failure: failed})
		readable = readable || err == nil
	}
	if !readable {
		return nil, recordError(ClassSchema, path, "no type of the writer's union can be read as %s", want.node.wire)
	}
	return []step{st}, nil
}

func (r resolver) branch(w *node, want field, path string) ([]step, error) {
	if w.wire != wireNull {
		return r.field(w, want, path)
	}
	column := r.schema.Index(path)
	if column < 0 || !r.schema.Columns[column].Nullable {
		return nil, recordError(ClassMissing, path, "null, but the field is not nullable")
	}
	return []step{{path: path, node: w, column: column, nullable: true, null: -1}}, nil
}

func (r resolver) scalar(w *node, path string) (step, error) {
	column := r.schema.Index(path)
	if column < 0 {
		return step{}, recordError(ClassSchema, path, "written as %s, not as a record", w.wire)
	}
	c, want := r.schema.Columns[column], r.schema.slots[column].node
	if !readable(w, want) {
		return step{}, recordError(ClassSchema, path, "written as %s, which cannot be read as %s", w.wire, want.wire)
	}
	if c.Kind == Time && w.logical != timestampMillis && w.logical != timestampMicros {
		w = &node{wire: wireLong, logical: want.logical} // a bare long has the reader's unit
	}
	st := step{path: path, node: w, column: column, kind: c.Kind, nullable: c.Nullable, null: -1, limits: limitsOf(c)}
	for _, symbol := range w.symbols {
		v := StringValue(symbol)
		if want.wire == wireEnum && !slices.Contains(want.symbols, symbol) {
			v = NullValue() // known to the writer alone
		}
		st.symbols = append(st.symbols, v)
	}
	return st, nil
}

// readable reports whether Avro promotes the writer's scalar to the reader's.
func readable(w, want *node) bool {
	if w.wire == wireFixed && want.wire == wireFixed {
		return w.size == want.size
	}
	if w.wire == want.wire {
		return true
	}
	switch w.wire {
	case wireInt:
		return want.wire == wireLong || want.wire == wireFloat || want.wire == wireDouble
	case wireLong:
		return want.wire == wireFloat || want.wire == wireDouble
	case wireFloat:
		return want.wire == wireDouble
	case wireString:
		return want.wire == wireBytes
	case wireBytes:
		return want.wire == wireString
	default:
		return false
	}
}

// Reads reports whether records that were written with another schema (.avsc) can still be decoded with s in a format; nil means yes.
// Bare Avro says nothing of its writer, so nothing but names, docs and defaults may differ; Confluent records are resolved; a JSON
// record may lack what has a default, but not have what s does not know.
func (s *Schema) Reads(avsc string, f Format) error {
	s = s.Record()
	text, writer, err := parseNodes([]byte(avsc))
	if err != nil {
		return err
	}
	if f == Avro {
		if other, err := Parse(s.Name, []byte(avsc)); err != nil || text != s.canonical || !other.sameTimes(s) {
			return recordError(ClassSchema, "", "bare Avro records do not say what they were written with, and the schema is another")
		}
		return nil
	}
	p, err := resolve(writer, s)
	if err != nil || f == Confluent {
		return err
	}
	for _, st := range p.steps {
		if st.column < 0 && st.preset == nil {
			return recordError(ClassUnknown, st.path, "the schema has no such field any more")
		}
	}
	return nil
}

// sameTimes reports whether times are counted in the same unit, which the canonical form does not say.
func (s *Schema) sameTimes(other *Schema) bool {
	for i := range s.slots {
		if s.slots[i].node.logical != other.slots[i].node.logical {
			return false
		}
	}
	return true
}

// Avsc is the schema as it was read, with its docs, defaults and logical types.
func (s *Schema) Avsc() string { return s.source }
