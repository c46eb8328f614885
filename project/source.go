package project

import (
	"errors"
	"io/fs"
	"path/filepath"
	"slices"

	"github.com/millrace/millrace/schemas"
)

// source reads one source; without a schema it has faults.
func (l *loader) source(e entry) *Source {
	if (object{l: l, value: e.value}).has("merge") {
		return l.merge(e)
	}
	if (object{l: l, value: e.value}).has("of") {
		return l.chained(e)
	}
	o := l.object(e.value, "source "+e.key, "topic", "schema", "format", "key", "time", "partitioner", "lateness", "future", "partitions", "offline", "derive", "where", "enrich")
	o.value.line, o.value.col = e.line, e.col
	s := &Source{
		Name: e.key, Line: e.line, col: e.col,
		Topic:       o.textOr("topic", e.key),
		SchemaFile:  o.text("schema"),
		Format:      schemas.Format(o.choice("format", string(schemas.Avro), string(schemas.Confluent), string(schemas.JSON))),
		Partitioner: o.choice("partitioner", PartitionerUnknown, PartitionerMurmur2, PartitionerCRC32),
		Lateness:    o.duration("lateness", 0, 0),
		Future:      o.duration("future", 0, 0),
		Partitions:  int32(o.integer("partitions", int64(l.project.Partitions), 1, MaxPartitions)),
	}
	s.OfflineBy = l.offlineBy(o)
	if !topicPattern.MatchString(s.Topic) {
		l.faultAt(o.get("topic"), "", "%s: a topic has letters, digits, '.', '_' and '-' only, at most 200, not %q", o.what, s.Topic)
	}
	l.isolateSource(s)
	if s.SchemaFile != "" {
		s.Schema = l.schema(o.get("schema"), s.SchemaFile)
	}
	s.Key = l.column(o, "key", s.Schema)
	s.Time = l.column(o, "time", s.Schema)
	l.checkSourceColumns(o, s)
	if s.Schema != nil {
		l.checkKept(o, s.Schema)
		l.ownColumns(o, s)
	}
	return s
}

// offlineBy is how the files of a source's events are laid out.
func (l *loader) offlineBy(source object) string {
	return l.object(source.get("offline"), source.what+": offline", "by").choice("by", OfflineByDay, OfflineByMonth)
}

// keptColumns are those that files of events have beside the source's own (features/offline).
var keptColumns = []string{"_time", "_partition", "_offset"}

// checkKept refuses columns that could not be kept offline.
func (l *loader) checkKept(o object, s *schemas.Schema) {
	for _, c := range s.Columns {
		if slices.Contains(keptColumns, c.Name) {
			l.faultAt(o.get("schema"), "rename the field; its old name can be an alias where the schema is in a registry",
				"%s: a column cannot be called %q: offline files of events have one of that name", o.what, c.Name)
		}
	}
}

// schema reads and parses an Avro schema. Its own faults are in its own file.
func (l *loader) schema(at value, file string) *schemas.Schema {
	if !filepath.IsLocal(file) {
		l.faultAt(at, "", "the schema %q is not within the project's folder", file)
		return nil
	}
	text, err := l.read(file)
	if errors.Is(err, fs.ErrNotExist) {
		l.faultAt(at, "", "there is no schema file %q", file)
		return nil
	}
	if err != nil {
		l.faultAt(at, "", "reading schema %q: %v", file, err)
		return nil
	}
	s, err := schemas.Parse(file, text)
	if err != nil {
		l.faultAt(at, "", "%v", err)
		return nil
	}
	return s
}

// column is a required column of a schema, "" when it cannot be resolved.
func (l *loader) column(o object, key string, s *schemas.Schema) string {
	name := o.text(key)
	if name == "" || s == nil {
		return name
	}
	if s.Index(name) < 0 {
		l.noColumn(o.get(key), o.what+": "+key, name, s)
		return ""
	}
	return name
}

func (l *loader) noColumn(at value, where, name string, s *schemas.Schema) {
	names := make([]string, len(s.Columns))
	for i, c := range s.Columns {
		names[i] = c.Name
	}
	l.faultAt(at, didYouMean(name, names), "%s: %s has no column %q", where, s.Name, name)
}

func (l *loader) checkSourceColumns(o object, s *Source) {
	if s.Schema == nil {
		return
	}
	if c, ok := s.Schema.Column(s.Time); ok {
		if c.Kind != schemas.Time {
			l.faultAt(o.get("time"), "its Avro type must be a long with the logicalType timestamp-millis or timestamp-micros", "%s: time: %s is %s, not a time", o.what, c.Name, c.Kind)
		} else if c.Nullable {
			l.faultAt(o.get("time"), "", "%s: time: %s is nullable, but every event has a time", o.what, c.Name)
		}
	}
	if c, ok := s.Schema.Column(s.Key); ok && c.Nullable {
		l.faultAt(o.get("key"), "", "%s: key: %s is nullable, but every record has a key", o.what, c.Name)
	}
}

// ownColumns adds what the project says of a source's rows beyond what its records have.
func (l *loader) ownColumns(o object, s *Source) {
	looked, ok := l.enrich(o, s)
	if !ok || !l.derive(o, s) {
		l.badSources[s.Name] = true
		return
	}
	l.on(s, looked)
	l.where(o, s)
}
