package project

import (
	"cmp"
	"context"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/millrace/millrace/features"
	"github.com/millrace/millrace/internal/failure"
	"github.com/millrace/millrace/schemas"
)

// Defaults and bounds of a table.
const (
	DefaultTableRows  = 1_000_000 // all versions of all keys
	MaxTableRows      = 100_000_000
	DefaultTableEvery = time.Minute
	MaxEnriched       = 256 // columns that one source looks up
)

// Table is what events are looked up in: a file, a compacted topic, or the answer of a PostgreSQL query. Exactly one of File, Topic and
// Query is set.
type Table struct {
	Name       string
	File       string // relative to the project's folder: .csv, .jsonl or .parquet
	Topic      string
	Query      string
	URLEnv     string        // the environment variable with the PostgreSQL connection URL
	Every      time.Duration // between two looks at the file, or two runs of the query
	Schema     *schemas.Schema
	SchemaFile string
	Format     schemas.Format // of the topic's records
	Key        string         // column
	ValidFrom  string         // column: the time from which a row holds; empty where a row always does, or, on a topic, from its record's time
	MaxRows    int
	Line       int
	col        int
}

// KeyIndex is the key's index in the schema.
func (t *Table) KeyIndex() int { return t.Schema.Index(t.Key) }

// Enrichment is columns of a source's rows that are looked up in a table.
type Enrichment struct {
	Table   *Table
	On      int   // column of the row, compared with the table's key
	Columns []int // of the table
	Into    []int // of the row
}

func (l *loader) tables(entries []entry) {
	l.badTables = map[string]bool{}
	for _, e := range entries {
		t := l.table(e)
		if t.Schema == nil {
			l.badTables[t.Name] = true
		}
		l.project.Tables = append(l.project.Tables, t)
	}
}

func (l *loader) table(e entry) *Table {
	o := l.object(e.value, "table "+e.key, "file", "topic", "query", "url_env", "every", "schema", "format", "key", "valid_from", "max_rows")
	o.value.line, o.value.col = e.line, e.col
	t := &Table{
		Name: e.key, Line: e.line, col: e.col,
		File: o.textOr("file", ""), Topic: o.textOr("topic", ""), Query: o.textOr("query", ""), URLEnv: o.textOr("url_env", ""),
		Every: o.duration("every", DefaultTableEvery, time.Second), SchemaFile: o.text("schema"),
		Format:  schemas.Format(o.choice("format", string(schemas.Avro), string(schemas.Confluent), string(schemas.JSON))),
		MaxRows: int(o.integer("max_rows", DefaultTableRows, 1, MaxTableRows)),
	}
	l.checkOrigin(o, t)
	l.isolateTable(t)
	if t.SchemaFile != "" {
		t.Schema = l.schema(o.get("schema"), t.SchemaFile)
	}
	t.Key = l.column(o, "key", t.Schema)
	if o.has("valid_from") {
		t.ValidFrom = l.column(o, "valid_from", t.Schema)
	}
	if t.Schema == nil {
		return t
	}
	if c, ok := t.Schema.Column(t.Key); ok && c.Nullable {
		l.faultAt(o.get("key"), "", "%s: key: %s is nullable, but every row has a key", o.what, c.Name)
	}
	if c, ok := t.Schema.Column(t.ValidFrom); ok && (c.Kind != schemas.Time || c.Nullable) {
		l.faultAt(o.get("valid_from"), "its Avro type must be a long with the logicalType timestamp-millis or timestamp-micros", "%s: valid_from: %s must be a time, and never null", o.what, c.Name)
	}
	return t
}

// checkOrigin finds a table that comes from nowhere, from two places, or with settings that its place does not have.
func (l *loader) checkOrigin(o object, t *Table) {
	var origins []string
	for _, key := range []string{"file", "topic", "query"} {
		if o.has(key) {
			origins = append(origins, key)
		}
	}
	if len(origins) != 1 {
		l.fault(t.Line, t.col, "a file, a compacted topic, or a PostgreSQL query", "%s needs one of file, topic and query, and has %d", o.what, len(origins))
		return
	}
	for key, of := range map[string][]string{"url_env": {"query"}, "every": {"file", "query"}, "format": {"topic"}} {
		if o.has(key) && !slices.Contains(of, origins[0]) {
			l.faultAt(o.get(key), "", "%s: %s is of a table with %s, not with %s", o.what, key, strings.Join(of, " or "), origins[0])
		}
	}
	switch {
	case t.Query != "":
		o.needs("url_env", "the name of the environment variable with the connection URL")
	case t.Topic != "" && !topicPattern.MatchString(t.Topic):
		l.faultAt(o.get("topic"), "", "%s: a topic has letters, digits, '.', '_' and '-' only, at most 200, not %q", o.what, t.Topic)
	case t.File != "" && !filepath.IsLocal(t.File):
		l.faultAt(o.get("file"), "", "%s: the file %q is not within the project's folder", o.what, t.File)
	case t.File != "" && !slices.Contains([]string{".csv", ".jsonl", ".parquet"}, strings.ToLower(filepath.Ext(t.File))):
		l.faultAt(o.get("file"), "it ends with .csv, .jsonl or .parquet", "%s: there is no way to read %q", o.what, t.File)
	}
}

// enriching is an enrichment whose key column is still to be found, among columns derived after it.
type enriching struct {
	Enrichment
	object object
	on     string
}

// enrich adds to a source's schema the columns that it looks up. It is false where something could not be resolved.
func (l *loader) enrich(o object, s *Source) (all []enriching, ok bool) {
	v := o.get("enrich")
	switch v.shape {
	case absent, null, broken:
		return nil, true
	case mapping:
	default:
		l.faultAt(v, "table: {on: column, columns: [column]}", "%s: enrich must be a mapping of tables, not %s", o.what, shapeNames[v.shape])
		return nil, false
	}
	ok = true
	for _, e := range v.entries {
		x := enriching{object: l.object(e.value, o.what+": enrich: "+e.key, "table", "on", "columns")}
		x.object.value.line, x.object.value.col = e.line, e.col
		x.on = x.object.text("on")
		name := x.object.textOr("table", e.key)
		x.Table = l.tableNamed(x.object, e, name)
		if x.Table == nil || x.on == "" || !l.lookups(&x, s) {
			ok = false
			continue
		}
		all = append(all, x)
	}
	if from, until := s.Schema.Joined(); until-from > MaxEnriched {
		l.faultAt(v, "", "%s looks up %d columns, more than %d", o.what, until-from, MaxEnriched)
	}
	return all, ok
}

func (l *loader) tableNamed(o object, e entry, name string) *Table {
	if l.badTables[name] {
		return nil
	}
	var names []string
	for _, t := range l.project.Tables {
		if t.Name == name {
			return t
		}
		names = append(names, t.Name)
	}
	at := value{line: e.line, col: e.col}
	if o.has("table") {
		at = o.get("table")
	}
	l.faultAt(at, cmp.Or(didYouMean(name, names), "declare it under tables"), "%s: there is no table %q", o.what, name)
	return nil
}

// lookups adds the columns of one enrichment: a list of the table's, or a mapping of new names to them.
func (l *loader) lookups(x *enriching, s *Source) bool {
	if x.object.needs("columns", "a list of the table's columns, or a mapping of names to them") {
		return false
	}
	v := x.object.get("columns")
	var named []entry
	switch v.shape {
	case mapping:
		named = v.entries
	default:
		for _, item := range x.object.texts("columns") {
			named = append(named, entry{key: item.text, line: item.line, col: item.col, value: item})
		}
	}
	ok := len(named) > 0
	for _, e := range named {
		at := value{line: e.line, col: e.col}
		c, known := x.Table.Schema.Column(e.value.text)
		if e.value.shape != text || !known {
			l.noColumn(e.value, x.object.what+": columns", e.value.text, x.Table.Schema)
			ok = false
			continue
		}
		wide, err := s.Schema.Join(schemas.Column{Name: e.key, Kind: c.Kind, Doc: c.Doc})
		if err != nil {
			l.faultAt(at, "give it another name: columns: {name: "+e.value.text+"}", "%s: there is a column %q already", x.object.what, e.key)
			ok = false
			continue
		}
		x.Columns, x.Into = append(x.Columns, x.Table.Schema.Index(e.value.text)), append(x.Into, len(wide.Columns)-1)
		s.Schema = wide
	}
	return ok
}

// on finds the columns that the enrichments are looked up by, once all columns are there. They cannot be looked up themselves.
func (l *loader) on(s *Source, all []enriching) {
	records := len(s.Schema.Record().Columns)
	for _, x := range all {
		at, i := x.object.get("on"), s.Schema.Index(x.on)
		if i < 0 {
			l.noColumn(at, x.object.what+": on", x.on, s.Schema)
			continue
		}
		if have, want := s.Schema.Columns[i].Kind, kindOf(x.Table.Schema, x.Table.Key); have != want {
			l.faultAt(at, "", "%s: on: %s is %s, but the key of table %s is %s", x.object.what, x.on, have, x.Table.Name, want)
		}
		if slices.ContainsFunc(s.Schema.Needs(i), func(c int) bool { return c >= records }) {
			l.faultAt(at, "", "%s: on: %s is looked up itself", x.object.what, x.on)
		}
		x.On = i
		s.Enrichments = append(s.Enrichments, x.Enrichment)
	}
}

// Enriched reports whether an expression over the source's rows reads a column that is looked up.
func (s *Source) enriched(x *features.Expression) bool {
	from, until := s.Schema.Joined()
	if x == nil {
		return false
	}
	return slices.ContainsFunc(x.Columns(), func(name string) bool {
		return slices.ContainsFunc(s.Schema.Needs(s.Schema.Index(name)), func(c int) bool { return c >= from && c < until })
	})
}

// Tables are the tables of a project by name, for lookups.
type Tables map[string]*features.Table

// NewTables are the project's tables without any rows.
func (p *Project) NewTables() Tables {
	tables := Tables{}
	for _, t := range p.Tables {
		tables[t.Name] = features.NewTable(t.Name, t.MaxRows)
	}
	return tables
}

// Table is the table of that name, nil when there is none.
func (p *Project) Table(name string) *Table {
	for _, t := range p.Tables {
		if t.Name == name {
			return t
		}
	}
	return nil
}

// Enrich fills the columns of a source's row that are looked up, as of the event's time, and computes those derived from them. missed is
// told the table of each lookup that found nothing; the columns are null then. It changes nothing for a source without enrichments.
func (t Tables) Enrich(s *Source, row schemas.Row, at int64, missed func(table string)) {
	if len(s.Enrichments) == 0 {
		return
	}
	for i := range s.Enrichments {
		x := &s.Enrichments[i]
		var found schemas.Row
		ok := false
		if table := t[x.Table.Name]; table != nil && !row[x.On].IsNull() {
			found, ok = table.At(row[x.On].Text(), at)
		}
		for k, into := range x.Into {
			row[into] = schemas.NullValue()
			if ok {
				row[into] = found[x.Columns[k]]
			}
		}
		if !ok && missed != nil {
			missed(x.Table.Name)
		}
	}
	s.Schema.Compute(row)
}

// Put adds a row of a table to it, valid from the time that it names, else from known on.
func (t *Table) Put(into *features.Table, row schemas.Row, known int64) error {
	from := known
	if t.ValidFrom != "" {
		from = row[t.Schema.Index(t.ValidFrom)].Int()
	}
	return into.Put(row[t.KeyIndex()].Text(), from, row)
}

// Put adds a row to the named table of a project, as a JSON record, valid from the time that it names, else always; NotFound where there
// is no such table.
func (t Tables) Put(ctx context.Context, p *Project, name string, record []byte) error {
	table := p.Table(name)
	if table == nil {
		return failure.New(failure.NotFound, name, "there is no such source")
	}
	decoder, err := schemas.NewDecoder(table.Schema, schemas.JSON, nil)
	if err != nil {
		return err
	}
	row, err := decoder.Decode(ctx, record, nil)
	if err != nil {
		return err
	}
	return table.Put(t[name], row, features.Always)
}
