package project

import (
	"slices"
	"strings"

	"github.com/millrace/millrace/features"
	"github.com/millrace/millrace/schemas"
)

// MaxParts bounds the sources that one is merged of.
const MaxParts = 32

// The columns that every merged source has.
const (
	MergedTime   = "time"   // the event time that the part gives
	MergedSource = "source" // the part's name
)

// Part is one of the sources that a merged source is made of.
type Part struct {
	Source *Source
	where  *features.Expression   // of this part alone, with the source's own condition; nil takes every event
	values []*features.Expression // of the columns after time and source; nil is null
	merged *schemas.Schema
	rank   int64 // among the parts, by name
}

// Row appends to row[:0] the merged row of an event of the part, and reports whether the merged source takes it: whether the conditions
// hold.
func (p *Part) Row(event schemas.Row, at int64, row schemas.Row) (schemas.Row, bool) {
	row = append(row[:0], schemas.TimeValue(at), schemas.StringValue(p.Source.Name))
	for i, x := range p.values {
		v := schemas.NullValue()
		if x != nil {
			v, _ = x.Eval(event) // it never fails
		}
		if f, ok := v.Float(); ok && p.merged.Columns[i+2].Kind == schemas.Float && v.Kind() != schemas.Float {
			v = schemas.FloatValue(f)
		}
		row = append(row, v)
	}
	return p.merged.Complete(row), p.where == nil || p.where.True(event)
}

// Part is the merged source's part of that name, nil when there is none.
func (s *Source) Part(name string) *Part {
	for _, p := range s.Parts {
		if p.Source.Name == name {
			return p
		}
	}
	return nil
}

// From is the row of s that an event of root, which is one of its roots, and its time make, in the memory of into where it is another. It
// is false where s does not take the event: the row then says nothing, but has a key all the same.
func (s *Source) From(root *Source, event schemas.Row, at int64, into schemas.Row) (schemas.Row, bool) {
	if s == root {
		return event, s.Accepts(event)
	}
	p := s.Part(root.Name)
	if p == nil {
		return into, false
	}
	row, takes := p.Row(event, at, into)
	return row, takes && s.Accepts(row)
}

// Sequence orders events of one event time: those of a merged source by the name of the part, then as features.Sequence, which orders
// those of all others.
func (s *Source) Sequence(root *Source, partition int32, offset int64) int64 {
	within := features.Sequence(partition, offset)
	if p := s.Part(root.Name); p != nil {
		return p.rank<<rankShift | within
	}
	return within
}

// rankShift is above the offset's 44 bits and 14 of the partition, in which MaxPartitions fits; MaxParts fits in what is left.
const rankShift = 58

// Plain reports whether the source's rows are its records, all of them.
func (s *Source) Plain() bool { return !s.Merged() && s.Where == nil && s.Schema == s.Schema.Record() }

// Merged reports whether the source has no topic of its own but is made of others.
func (s *Source) Merged() bool { return len(s.Parts) > 0 }

// Roots are the sources with a topic that the events come from: the source itself, or those that it is merged of.
func (s *Source) Roots() []*Source {
	if !s.Merged() {
		return []*Source{s}
	}
	roots := make([]*Source, len(s.Parts))
	for i, p := range s.Parts {
		roots[i] = p.Source
	}
	return roots
}

func (s *Source) partNames() []string {
	names := make([]string, len(s.Parts))
	for i, p := range s.Parts {
		names[i] = p.Source.Name
	}
	return names
}

// mergedColumn is a column while the parts that give it are gathered.
type mergedColumn struct {
	schemas.Column
	by string // the first part that gives it
}

// merge reads a source that is merged of others.
func (l *loader) merge(e entry) *Source {
	o := l.object(e.value, "source "+e.key, "merge", "lateness", "partitions", "derive", "where")
	o.value.line, o.value.col = e.line, e.col
	s := &Source{Name: e.key, Line: e.line, col: e.col, Format: schemas.Avro, Time: MergedTime, Partitioner: PartitionerUnknown, OfflineBy: OfflineByDay}
	s.Partitions = int32(o.integer("partitions", int64(l.project.Partitions), 1, MaxPartitions))
	l.isolatePartitions(s)
	before := len(l.faults)
	const hint = "source: {columns: {name: expression}}"
	v := o.get("merge")
	if v.shape != mapping || len(v.entries) == 0 {
		l.faultAt(v, hint, "%s: merge must be a mapping of sources", o.what)
		return s
	}
	if len(v.entries) > MaxParts {
		l.faultAt(v, "", "%s is merged of %d sources, more than %d", o.what, len(v.entries), MaxParts)
		return s
	}
	var columns []mergedColumn
	complete := true
	for _, each := range v.entries {
		p := l.part(o.what, each, &columns)
		if p == nil {
			complete = false
			continue
		}
		s.Parts = append(s.Parts, p)
		s.Lateness = max(s.Lateness, p.Source.Lateness)
	}
	s.Lateness = o.duration("lateness", s.Lateness, 0)
	if !complete || len(l.faults) > before {
		return s
	}
	l.mergedSchema(v, o, s, columns)
	return s
}

// part reads one source of a merged one, and adds to the columns those that it is the first to give. It is nil where the source has
// faults of its own, or these.
func (l *loader) part(what string, e entry, columns *[]mergedColumn) *Part {
	what += ": merge: " + e.key
	at := value{line: e.line, col: e.col}
	source := l.sourceNamed(at, what, e.key)
	o := l.object(e.value, what, "columns", "where")
	if source == nil {
		return nil
	}
	if source.Merged() {
		l.faultAt(at, "name the sources that it is merged of", "%s is merged itself", what)
		return nil
	}
	p := &Part{Source: source, where: source.Where}
	if text := o.textOr("where", ""); text != "" {
		if p.where = l.expression(o.get("where"), what+": where", text, source.Schema, schemas.Bool); p.where == nil {
			return nil
		}
		p.where = l.expression(o.get("where"), what+": where", both(source.condition(), text), source.Schema, schemas.Bool)
	}
	v := o.get("columns")
	if v.shape != mapping || len(v.entries) == 0 {
		l.faultAt(v, "columns: {airport: origin}", "%s: columns must be a mapping of expressions", what)
		return nil
	}
	ok := true
	for _, each := range v.entries {
		ok = l.partColumn(what, p, each, columns) && ok
	}
	if !ok {
		return nil
	}
	return p
}

func (l *loader) partColumn(what string, p *Part, e entry, columns *[]mergedColumn) bool {
	at := value{line: e.line, col: e.col}
	switch {
	case !namePattern.MatchString(e.key):
		l.checkName(at, "column", e.key)
		return false
	case e.key == MergedTime || e.key == MergedSource:
		l.faultAt(at, "every merged source has it: the event time and the name of the source", "%s: the column %s is there already", what, e.key)
		return false
	case e.value.shape != text && e.value.shape != number && e.value.shape != boolean:
		l.faultAt(e.value, "", "%s: column %s must be an expression, not %s", what, e.key, shapeNames[e.value.shape])
		return false
	}
	x, err := features.CompileValue(e.value.text, p.Source.Schema)
	if err != nil {
		msg, hint := splitHint(err.Error())
		l.faultAt(e.value, hint, "%s: column %s: %s", what, e.key, msg)
		return false
	}
	i := 0
	for i < len(*columns) && (*columns)[i].Name != e.key {
		i++
	}
	if i == len(*columns) {
		*columns = append(*columns, mergedColumn{schemas.Column{Name: e.key, Kind: x.Kind(), Nullable: true}, p.Source.Name})
	}
	c := &(*columns)[i]
	switch {
	case c.Kind == x.Kind():
	case c.Kind.Numeric() && x.Kind().Numeric():
		c.Kind = schemas.Float
	default:
		l.faultAt(e.value, "", "%s: column %s is %s, but %s of %s", what, e.key, x.Kind(), c.Kind, c.by)
		return false
	}
	c.Definition += p.Source.Name + ": " + x.Meaning() + "; "
	for len(p.values) <= i {
		p.values = append(p.values, nil)
	}
	p.values[i] = x
	return true
}

// mergedSchema makes the schema of the merged rows, with what is derived from them.
func (l *loader) mergedSchema(at value, o object, s *Source, columns []mergedColumn) {
	var parts strings.Builder // what is merged is part of what every column means
	for _, p := range s.Parts {
		parts.WriteString(p.Source.Name)
		if p.where != nil {
			parts.WriteString(" where " + p.where.Meaning())
		}
		parts.WriteString("; ")
	}
	all := []schemas.Column{{Name: MergedTime, Kind: schemas.Time}, {Name: MergedSource, Kind: schemas.String}}
	for _, c := range columns {
		all = append(all, c.Column)
	}
	for i := range all {
		all[i].Definition = parts.String() + all[i].Definition
	}
	schema, err := schemas.Generate(s.Name, all)
	if err != nil {
		l.faultAt(at, "", "%s: %v", o.what, err)
		return
	}
	s.Schema = schema
	if l.derive(o, s) {
		l.where(o, s)
	} else {
		l.badSources[s.Name] = true
	}
	names := slices.Sorted(slices.Values(s.partNames()))
	for _, p := range s.Parts {
		p.merged, p.rank = s.Schema, int64(slices.Index(names, p.Source.Name))
		for len(p.values) < len(columns) {
			p.values = append(p.values, nil)
		}
	}
}
