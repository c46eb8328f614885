package project

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/millrace/millrace/internal/duration"
	"github.com/millrace/millrace/schemas"
)

// The kinds of Change.
const (
	ChangeCreate  = "create"
	ChangeUpdate  = "update"
	ChangeRebuild = "rebuild" // state is computed again from the log
	ChangeRemove  = "remove"  // Millrace no longer touches it; what is stored stays
)

// Change is one thing that applying a project would do.
type Change struct {
	Kind     string `json:"kind"`   // create, update, rebuild or remove
	Object   string `json:"object"` // project, topic, source, group, model or batch
	Name     string `json:"name"`
	What     string `json:"what"`
	Breaking bool   `json:"breaking"` // a consumer of what was there before would break
	Hint     string `json:"hint"`     // what to do about a breaking change
}

// Changes is a plan.
type Changes []Change

// Breaking reports whether any change would break a consumer.
func (c Changes) Breaking() bool {
	return slices.ContainsFunc(c, func(change Change) bool { return change.Breaking })
}

// Plan is what applying p would change, given what was applied last; the zero State is that of nothing. A change is breaking when
// records that lie on a topic could no longer be read, or when a reader of a topic, a feature or a model would no longer find what it
// asks for. The order is that of an event's way, names sorted.
func Plan(p *Project, previous State) Changes {
	d := &differ{now: p.State(), before: previous}
	if previous.Project != "" && previous.Project != d.now.Project {
		d.breaking(ChangeUpdate, "project", d.now.Project, "the name was "+previous.Project, "consumer groups are named after the project: all would begin again")
	}
	compare(d.before.Topics, d.now.Topics, d.newTopic, d.topic, d.oldTopic)
	compare(d.before.Sources, d.now.Sources, d.newSource, func(name string, a, b SourceState) { d.source(p, name, a, b) }, d.oldSource)
	compare(d.before.Groups, d.now.Groups, d.newGroup, d.group, d.oldGroup)
	compare(d.before.Models, d.now.Models, d.newModel, d.model, d.oldModel)
	compare(d.before.Batches, d.now.Batches, d.newBatch, d.batch, d.oldBatch)
	return d.changes
}

// compare walks the names of two maps in their order.
func compare[S any](before, now map[string]S, created func(string, S), both func(string, S, S), removed func(string, S)) {
	names := slices.AppendSeq(slices.Collect(maps.Keys(before)), maps.Keys(now))
	slices.Sort(names)
	for _, name := range slices.Compact(names) {
		a, was := before[name]
		b, is := now[name]
		switch {
		case !was:
			created(name, b)
		case !is:
			removed(name, a)
		default:
			both(name, a, b)
		}
	}
}

type differ struct {
	before, now State
	changes     Changes
}

func (d *differ) add(kind, object, name, what string) {
	d.changes = append(d.changes, Change{Kind: kind, Object: object, Name: name, What: what})
}

func (d *differ) breaking(kind, object, name, what, hint string) {
	d.changes = append(d.changes, Change{Kind: kind, Object: object, Name: name, What: what, Breaking: true, Hint: hint})
}

func (d *differ) newTopic(name string, t TopicState) {
	what := fmt.Sprintf("%d partitions, %s", t.Partitions, t.Purpose)
	if !t.Ours {
		what += "; one that exists is taken as it is"
	}
	d.add(ChangeCreate, "topic", name, what)
}

func (d *differ) topic(name string, a, b TopicState) {
	if a.Partitions != b.Partitions {
		what := fmt.Sprintf("%d partitions, were %d", b.Partitions, a.Partitions)
		switch {
		case b.Ours:
			d.breaking(ChangeUpdate, "topic", name, what, "keys would change their partition: keep the count, or take another topic_prefix to begin anew")
		default:
			d.add(ChangeUpdate, "topic", name, what+"; one that exists is taken as it is")
		}
	}
	if a.Compact != b.Compact || a.Retention != b.Retention {
		d.add(ChangeUpdate, "topic", name, fmt.Sprintf("kept for %s, was %s; one that exists keeps its own setting", kept(b), kept(a)))
	}
}

func kept(t TopicState) string {
	switch {
	case t.Compact:
		return "the newest of each key"
	case t.Retention == duration.Format(0):
		return "ever"
	default:
		return t.Retention
	}
}

func (d *differ) oldTopic(name string, t TopicState) {
	if !t.Ours {
		d.add(ChangeRemove, "topic", name, "is no longer read; it is not deleted")
		return
	}
	d.breaking(ChangeRemove, "topic", name, "is no longer written; it is not deleted", "its readers would wait for ever: move them first")
}

func (d *differ) newSource(name string, s SourceState) {
	if s.Topic == "" {
		d.add(ChangeCreate, "source", name, "merged of others")
		return
	}
	if s.Of != "" {
		d.add(ChangeCreate, "source", name, "what group "+s.Of+" gives out from now on, on topic "+s.Topic)
		return
	}
	d.add(ChangeCreate, "source", name, "from topic "+s.Topic)
}

func (d *differ) source(p *Project, name string, a, b SourceState) {
	if (a.Topic == "") != (b.Topic == "") {
		d.breaking(ChangeUpdate, "source", name, "is merged of others now, or was before", "it is another source: give it another name")
		return
	}
	if a.Of != b.Of {
		d.breaking(ChangeUpdate, "source", name, "is given out by another group now, or by none", "it is another source: give it another name")
		return
	}
	if a.Topic != b.Topic {
		d.add(ChangeUpdate, "source", name, fmt.Sprintf("from topic %s, was %s", b.Topic, a.Topic))
	}
	if a.Format != b.Format {
		d.breaking(ChangeUpdate, "source", name, fmt.Sprintf("format %s, was %s", b.Format, a.Format), "records that lie on the topic would go to the dead letters: take another topic")
	} else if a.Schema != b.Schema {
		d.schema(p.Source(name), a)
	}
	if a.Key != b.Key {
		d.add(ChangeUpdate, "source", name, fmt.Sprintf("key %s, was %s", b.Key, a.Key))
	}
	if a.Time != b.Time {
		d.breaking(ChangeUpdate, "source", name, fmt.Sprintf("event time %s, was %s", b.Time, a.Time), "features of before and after would not be the same: give the source another name")
	}
	for _, setting := range []struct{ name, was, is string }{{"partitioner", a.Partitioner, b.Partitioner}, {"lateness", a.Lateness, b.Lateness}, {"future", a.Future, b.Future}} {
		if setting.was != setting.is {
			d.add(ChangeUpdate, "source", name, fmt.Sprintf("%s %s, was %s", setting.name, setting.is, setting.was))
		}
	}
	if a.Where != b.Where {
		d.add(ChangeUpdate, "source", name, fmt.Sprintf("where %s, was %s", cmp.Or(b.Where, "true"), cmp.Or(a.Where, "true")))
	}
	d.columns(name, "from now on looks up", a.Joined, b.Joined)
	d.columns(name, "derives", a.Derived, b.Derived)
	d.columns(name, "merges", a.Merged, b.Merged)
}

// columns tells which of a source's own columns are new, gone or made in another way.
func (d *differ) columns(source, verb string, before, now map[string]string) {
	compare(before, now,
		func(column, by string) { d.add(ChangeUpdate, "source", source, verb+" "+column+": "+by) },
		func(column, was, is string) {
			if was != is {
				d.add(ChangeUpdate, "source", source, fmt.Sprintf("%s %s: %s, was %s", verb, column, is, was))
			}
		},
		func(column, _ string) { d.add(ChangeUpdate, "source", source, "no longer "+verb+" "+column) })
}

// schema reports whether what lies on the topic can still be read.
func (d *differ) schema(s *Source, a SourceState) {
	if err := s.Schema.Reads(a.Schema, s.Format); err != nil {
		hint := "records that lie on the topic would go to the dead letters: take another topic"
		if s.Format == schemas.Confluent {
			hint += ", or give new fields a default"
		}
		d.breaking(ChangeUpdate, "source", s.Name, "the schema does not read what was written before: "+err.Error(), hint)
		return
	}
	d.add(ChangeUpdate, "source", s.Name, "the schema changes, and reads what was written before")
}

func (d *differ) oldSource(name string, s SourceState) {
	if s.Topic == "" {
		d.add(ChangeRemove, "source", name, "is no longer merged")
		return
	}
	d.add(ChangeRemove, "source", name, "topic "+s.Topic+" is no longer read")
}

func (d *differ) newGroup(name string, g GroupState) {
	d.add(ChangeCreate, "group", name, fmt.Sprintf("%d features by %s, version %s%s", len(g.Outputs), strings.Join(g.Entity, ","), g.Version, d.rekeyed(g)))
}

// rekeyed says that records take the way through a topic of the group's own.
func (d *differ) rekeyed(g GroupState) string {
	if source := d.now.Sources[g.Source]; source.Topic == "" {
		return ", merged from " + g.Source + " through " + g.Topic
	} else if source.Topic != g.Topic {
		return fmt.Sprintf(", re-keyed from %s through %s", source.Key, g.Topic)
	}
	return ", read from " + g.Topic + " as it is keyed"
}

func (d *differ) group(name string, a, b GroupState) {
	if a.Version != b.Version {
		d.add(ChangeRebuild, "group", name, fmt.Sprintf("version %s, was %s: its state is computed again from the log", b.Version, a.Version))
		d.given(name)
	}
	if !slices.Equal(a.Entity, b.Entity) {
		d.breaking(ChangeUpdate, "group", name, fmt.Sprintf("entity %s, was %s", strings.Join(b.Entity, ","), strings.Join(a.Entity, ",")), "readers ask by another key: give the group another name")
	}
	d.outputs(name, a.Outputs, b.Outputs)
	if a.Source != b.Source {
		d.add(ChangeUpdate, "group", name, fmt.Sprintf("source %s, was %s", b.Source, a.Source))
	}
	if a.Topic != b.Topic {
		d.add(ChangeUpdate, "group", name, fmt.Sprintf("reads topic %s, was %s", b.Topic, a.Topic))
	}
	if a.Offline != b.Offline {
		d.add(ChangeUpdate, "group", name, fmt.Sprintf("offline rows %s, were %s", b.Offline, a.Offline))
	}
	switch {
	case b.Materialized && !a.Materialized:
		d.add(ChangeUpdate, "group", name, "its values are written as Redis hashes, too")
	case a.Materialized && !b.Materialized:
		d.breaking(ChangeUpdate, "group", name, "its values are no longer written as Redis hashes", "who reads them would find nothing: move them first")
	}
	if a.Flush != b.Flush {
		d.add(ChangeUpdate, "group", name, fmt.Sprintf("flushed after %s, was %s", b.Flush, a.Flush))
	}
}

// given refuses to change a group whose values are events.
func (d *differ) given(group string) {
	for _, source := range slices.Sorted(maps.Keys(d.now.Sources)) {
		if s := d.now.Sources[source]; s.Of == group && d.before.Sources[source].Of == group {
			d.breaking(ChangeUpdate, "source", source, "its events would mean something else than those before", "the stream role refuses it: give the group and the source other names")
		}
	}
}

func (d *differ) outputs(group string, before, now map[string]string) {
	created := func(name, kind string) {
		d.add(ChangeCreate, "group", group, fmt.Sprintf("output %s, %s", name, kind))
	}
	both := func(name, was, is string) {
		if was != is {
			d.breaking(ChangeUpdate, "group", group, fmt.Sprintf("output %s is %s, was %s", name, is, was), "readers expect the old kind: give the feature another name")
		}
	}
	removed := func(name, _ string) {
		d.breaking(ChangeRemove, "group", group, "output "+name, "readers of it would find nothing: move them first")
	}
	compare(before, now, created, both, removed)
}

func (d *differ) oldGroup(name string, g GroupState) {
	d.breaking(ChangeRemove, "group", name, fmt.Sprintf("%d features are no longer computed", len(g.Outputs)), "readers of them would get what was true when it ended: move them first")
}

func (d *differ) newModel(name string, m ModelState) {
	d.add(ChangeCreate, "model", name, fmt.Sprintf("%d inputs, asked on %s", len(m.Inputs), m.On))
}

func (d *differ) model(name string, a, b ModelState) {
	if a.On != b.On {
		d.breaking(ChangeUpdate, "model", name, fmt.Sprintf("asked on %s, was %s", b.On, a.On), "requests have other fields: give the model another name")
	}
	if a.Label != b.Label {
		d.breaking(ChangeUpdate, "model", name, fmt.Sprintf("label %s, was %s", b.Label, a.Label), "the score would mean something else: give the model another name")
	}
	if !slices.Equal(a.Inputs, b.Inputs) {
		d.add(ChangeUpdate, "model", name, "inputs"+listed(" with ", without(b.Inputs, a.Inputs))+listed(" without ", without(a.Inputs, b.Inputs))+": a new model is trained; until it is promoted, the old one can answer only from inputs that are still there")
	}
	for _, setting := range without(b.Settings, a.Settings) {
		d.add(ChangeUpdate, "model", name, setting)
	}
	for _, setting := range without(a.Settings, b.Settings) {
		if strings.HasPrefix(setting, "gate ") {
			d.add(ChangeRemove, "model", name, setting)
		}
	}
}

func without(list, other []string) []string {
	var out []string
	for _, s := range list {
		if !slices.Contains(other, s) {
			out = append(out, s)
		}
	}
	return out
}

func listed(word string, names []string) string {
	const most = 5
	if len(names) == 0 {
		return ""
	}
	if len(names) > most {
		return fmt.Sprintf("%s%s and %d more", word, strings.Join(names[:most], ", "), len(names)-most)
	}
	return word + strings.Join(names, ", ")
}

func (d *differ) oldModel(name string, m ModelState) {
	d.breaking(ChangeRemove, "model", name, "is no longer served", "its callers would get an error: move them first")
}
