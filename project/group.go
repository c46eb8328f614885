package project

import (
	"cmp"
	"errors"
	"strconv"
	"strings"
	"time"

	"github.com/millrace/millrace/features"
	"github.com/millrace/millrace/schemas"
)

// Defaults of a feature group.
const (
	DefaultFlush        = 10 * time.Millisecond
	DefaultOfflineEvery = time.Hour
)

// group is nil when it has faults.
func (l *loader) group(e entry) *Group {
	before := len(l.faults)
	o := l.object(e.value, "feature group "+e.key, "source", "entity", "where", "windows", "lateness", "ttl", "features", "offline", "flush",
		"error", "exact", "exact_events", "edge", "dedup", "materialize")
	o.value.line, o.value.col = e.line, e.col
	source := l.sourceNamed(o.get("source"), o.what, o.text("source"))
	d := features.Definition{
		Name: e.key, Source: o.textOr("source", ""), Line: e.line,
		Where:   o.textOr("where", ""),
		Entity:  plain(l.required(o, "entity")),
		Windows: plain(o.texts("windows")),
		TTL:     o.duration("ttl", 0, 0),

		Tiles:       l.tiles(o),
		Exact:       o.flag("exact"),
		Materialize: o.flag("materialize"),
		ExactEvents: int(o.integer("exact_events", features.DefaultExactEvents, 1, features.MaxExactEvents)),
		Dedup:       l.dedup(o),
	}
	if o.choice("edge", features.EdgeNow.String(), features.EdgeEvent.String()) == features.EdgeEvent.String() {
		d.Edge = features.EdgeEvent
	}
	if source != nil {
		d.Lateness, d.Future = o.duration("lateness", source.Lateness, 0), source.Future
	}
	g := &Group{col: e.col, Source: source, Offline: l.offline(o), Flush: o.duration("flush", DefaultFlush, time.Millisecond)}
	declared := l.features(o, &d)
	if source == nil {
		return nil
	}
	if source.Where != nil {
		if _, err := features.CompileExpression(cmp.Or(d.Where, "true"), source.Schema, schemas.Bool); err == nil { // else the fault is the group's alone
			d.Where = both(source.condition(), d.Where)
		}
	}
	compiled, errs := features.Compile(d, source.Schema)
	for _, err := range errs {
		l.definitionFault(o, declared, err)
	}
	if len(l.faults) > before || compiled == nil {
		return nil
	}
	g.Group = compiled
	// What is looked up is kept with the re-keyed record: a table that changes must not change what was computed.
	g.Direct = !source.Merged() && len(source.Enrichments) == 0 && source.Partitioner != PartitionerUnknown && len(d.Entity) == 1 && d.Entity[0] == source.Key
	g.KeyedTopic = l.project.TopicPrefix + e.key + ".keyed"
	if g.Direct {
		g.KeyedTopic = source.Topic
	}
	return g
}

// tiles is how many tiles the windows' error stands for, 0 when there is none.
func (l *loader) tiles(group object) int {
	text := group.textOr("error", "")
	if text == "" {
		return 0
	}
	tiles, err := features.ParseError(text)
	if err != nil {
		l.faultAt(group.get("error"), "", "%s: error: %v", group.what, err)
	}
	return tiles
}

// dedup is an expression, or a mapping with by.
func (l *loader) dedup(group object) *features.DedupDefinition {
	v := group.get("dedup")
	switch {
	case !group.has("dedup"):
		return nil
	case v.shape == text:
		return &features.DedupDefinition{By: v.text}
	}
	o := l.object(v, group.what+": dedup", "by", "within", "most")
	d := &features.DedupDefinition{
		By:     o.text("by"),
		Within: o.duration("within", features.DefaultDedupWithin, time.Millisecond),
		Most:   int(o.integer("most", features.DefaultDedupMost, 1, features.MaxDedup)),
	}
	if d.By == "" {
		return nil // recorded
	}
	return d
}

// sourceNamed is a declared source, nil when there is none or it has no schema.
func (l *loader) sourceNamed(at value, what, name string) *Source {
	if name == "" || l.cycle(at, "source "+name) {
		return nil
	}
	l.resolveSource(name)
	if l.badSources[name] {
		return nil
	}
	s := l.project.Source(name)
	if s == nil {
		names := namesOf(l.resolving.sources)
		l.faultAt(at, didYouMean(name, names), "%s: there is no source %q", what, name)
	}
	return s
}

// required is a list that must not be empty.
func (l *loader) required(o object, key string) []value {
	if o.needs(key, "") {
		return nil
	}
	v := o.get(key)
	if v.shape == list && len(v.items) == 0 {
		l.faultAt(v, "", "%s: %s is empty", o.what, key)
	}
	return o.texts(key)
}

func plain(values []value) []string {
	if values == nil {
		return nil
	}
	out := make([]string, len(values))
	for i, v := range values {
		out[i] = v.text
	}
	return out
}

// offline is "every_event", "none", or a mapping with every.
func (l *loader) offline(group object) OfflineSettings {
	v := group.get("offline")
	if v.shape == text {
		switch v.text {
		case "every_event":
			return OfflineSettings{EveryEvent: true}
		case "none":
			return OfflineSettings{None: true}
		}
		l.faultAt(v, `write every_event, none, or a mapping like {every: 1h}`, "%s: offline cannot be %q", group.what, v.text)
		return OfflineSettings{}
	}
	o := l.object(v, group.what+": offline", "every")
	return OfflineSettings{Every: o.duration("every", DefaultOfflineEvery, time.Millisecond)}
}

// features reads a group's features into d and gives back where each is declared.
func (l *loader) features(group object, d *features.Definition) map[string]object {
	const hint = "name: aggregate, like delay_mean: mean(delay)"
	if group.needs("features", hint) {
		return nil
	}
	v := group.get("features")
	if v.shape != mapping || len(v.entries) == 0 {
		l.faultAt(v, hint, "%s: features must be a mapping of features", group.what)
		return nil
	}
	declared := map[string]object{}
	for _, e := range v.entries {
		l.checkName(value{line: e.line, col: e.col}, "feature", e.key)
		f := features.FeatureDefinition{Name: e.key, Line: e.line}
		var o object
		if e.value.shape == text {
			o = object{l: l, what: "feature " + d.Name + "." + e.key, value: value{line: e.value.line, col: e.value.col}}
			f.Aggregate = e.value.text
		} else {
			o = l.object(e.value, "feature "+d.Name+"."+e.key, "aggregate", "windows", "where", "default", "by", "most", "exact")
			f.Aggregate, f.Where, f.Windows = o.text("aggregate"), o.textOr("where", ""), plain(o.texts("windows"))
			f.By, f.Most, f.Exact = o.textOr("by", ""), int(o.integer("most", 0, 1, features.MaxCategories)), o.flag("exact")
			if o.has("default") {
				f.Default = l.number(o, "default")
			}
		}
		declared[e.key] = o
		if f.Aggregate != "" {
			d.Features = append(d.Features, f)
		}
	}
	return declared
}

func (l *loader) number(o object, key string) *float64 {
	v := o.get(key)
	f, err := strconv.ParseFloat(v.text, 64)
	if v.shape != number || err != nil {
		l.faultAt(v, "", "%s: %s must be a number, not %s", o.what, key, shapeNames[v.shape])
		return nil
	}
	return &f
}

// definitionFault puts a fault that the engine found at the setting it is about.
func (l *loader) definitionFault(group object, declared map[string]object, err error) {
	o, key := group, ""
	msg, hint := splitHint(err.Error())
	var at *features.DefinitionError
	if errors.As(err, &at) {
		msg, hint = splitHint(at.Msg)
		if f, ok := declared[at.Feature]; ok {
			o, key = f, "aggregate"
		}
	}
	for prefix, setting := range map[string]string{"where: ": "where", "window: ": "windows", "default: ": "default", "entity: ": "entity", "lateness ": "lateness", "ttl ": "ttl",
		"by: ": "by", "most: ": "most", "dedup: ": "dedup"} {
		if strings.HasPrefix(msg, prefix) {
			key = setting
		}
	}
	if msg == "the group names no entity column" || msg == "the group has no features" {
		return // recorded where it was read, if it is so
	}
	if strings.HasPrefix(msg, "no window") {
		if len(o.texts("windows")) > 0 || !o.has("windows") && len(group.texts("windows")) > 0 {
			return // there are some, whose own faults are recorded
		}
		if o.has("windows") {
			key = "windows"
		}
	}
	place := o.get(key)
	if key == "windows" {
		place = nearestItem(place, msg)
	}
	l.faultAt(place, hint, "%s: %s", o.what, msg)
}

// nearestItem is the item of a list that a message quotes, else the list.
func nearestItem(v value, msg string) value {
	for _, item := range v.items {
		if strings.Contains(msg, strconv.Quote(item.text)) {
			return item
		}
	}
	for _, item := range v.items {
		if item.text != "" && strings.Contains(msg, item.text) {
			return item
		}
	}
	return v
}

// splitHint takes a closing "(did you mean …?)" off a message, to be the fault's hint.
func splitHint(msg string) (what, hint string) {
	i := strings.LastIndex(msg, " (did you mean ")
	if i < 0 || !strings.HasSuffix(msg, ")") {
		return msg, ""
	}
	return msg[:i], msg[i+2 : len(msg)-1]
}

// kindOf is a column's kind, Null when there is no such column.
func kindOf(s *schemas.Schema, column string) schemas.Kind {
	c, _ := s.Column(column)
	return c.Kind
}
