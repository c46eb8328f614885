package ingest

import (
	"context"
	"errors"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace/millrace/features"
	"github.com/millrace/millrace/internal/failure"
	"github.com/millrace/millrace/project"
	"github.com/millrace/millrace/schemas"
	"github.com/millrace/millrace/streams"
)

// A chained source is what a feature group gives out (project/chain.go). Its topic has the partitions of the topic that the group reads,
// and what the group's worker of a partition gives out goes to the partition of the same number. An event of it is named, here and wherever
// its place counts (keyed records, positions, offline files), by the partition and offset of the record that the group applied, which the
// header mr-pos carries: whoever gives it out again after a crash gives it the same name. See docs/decisions/0013-chained-groups.md.

// givenMost is about the most records that wait to be given out with the next flush.
const givenMost = 20_000

// givenBytes is the longest value that is given out. Kafka takes records up to 1 MiB with all that is around them.
const givenBytes = 1 << 20 * 9 / 10

// given is a chained source as its group's workers write it.
type given struct {
	source  *project.Source
	encoder schemas.Encoder
}

// outbox is what an applier has to give out before its position may pass the events it comes from.
type outbox struct {
	records []*kgo.Record
	last    []int64 // of each chained source: offset of the record that was given out last; -1 before the first
	row     schemas.Row
	results []features.Result
}

func (o *outbox) start(sources int) {
	o.records, o.last = nil, o.last[:0]
	for range sources {
		o.last = append(o.last, -1)
	}
}

// take hands over what is to be written with the next flush.
func (o *outbox) take() []*kgo.Record {
	records := o.records
	o.records = nil
	return records
}

// give notes what the group gives out for an event that was just applied.
func (a *applier) give(ctx context.Context, it *item, e *cached) error {
	if len(a.group.gives) == 0 {
		return nil
	}
	o := &a.outbox
	o.results = a.group.ReadInto(&a.scratch, a.cache.open(e), project.GivenAt(it.at), o.results[:0])
	for i := range a.group.gives {
		g := &a.group.gives[i]
		o.row = g.source.Given(it.row, it.at, o.results, o.row)
		value, err := g.encoder.Encode(ctx, o.row)
		if err != nil {
			return a.reject(it, err)
		}
		if len(value) > givenBytes {
			a.dead(it, classRefused, failure.New(failure.BadRecord, g.source.Name, "what is given out for the event has %d bytes, more than %d", len(value), givenBytes))
			continue
		}
		at := origin{partition: a.partition, offset: it.record.Offset, before: o.last[i]}
		o.last[i] = it.record.Offset
		o.records = append(o.records, &kgo.Record{
			Topic: g.source.Topic, Partition: a.partition, Key: []byte(e.key), Value: value, Timestamp: it.record.Timestamp,
			Headers: []kgo.RecordHeader{a.mark, {Key: headerOrigin, Value: at.append(make([]byte, 0, originSize))}},
		})
	}
	return nil
}

// send gives records out, and returns when Kafka has them all.
func (a *applier) send(ctx context.Context, records []*kgo.Record) error {
	if len(records) == 0 {
		return nil
	}
	if err := a.producer.ProduceSync(ctx, records...).FirstErr(); err != nil {
		return failure.Wrap(failure.Unavailable, a.group.Name, "giving out events", err)
	}
	return a.at("group: after giving out")
}

// checkGiven refuses to compute a group whose values are events under another definition or layout than before: events of one topic would
// mean two things, and between the two versions some would be missing.
func (s *Stage) checkGiven(ctx context.Context, g *group) error {
	if len(g.gives) == 0 {
		return nil
	}
	known, err := s.versions.Load(ctx, g.Name)
	if err != nil {
		return err
	}
	if active := known[0].Active; active != g.version.ID {
		return failure.New(failure.BadProject, g.Name, "version %s gives out the events of %s: it cannot be replaced by %s", active, g.gives[0].source.Name, g.version.ID).
			WithHint("leave the group as it was, and declare the new one and its source under other names")
	}
	for _, given := range g.gives {
		n, err := streams.Partitions(ctx, s.producer, given.source.Topic)
		switch {
		case errors.Is(err, streams.ErrNoTopic): // just created: not every broker knows of it yet
			return failure.Wrap(failure.Unavailable, given.source.Topic, "waiting for the new topic", err)
		case err != nil:
			return err
		case n != g.version.Partitions:
			return failure.New(failure.BadProject, given.source.Topic, "has %d partitions, the topic %s that %s reads has %d", n, g.version.Topic, g.Name, g.version.Partitions).
				WithHint("declare partitions: %d of source %s, and delete topic %s, which nobody has written to", g.version.Partitions, g.roots[0].Name, given.source.Topic)
		}
	}
	return nil
}

// links tells which records of one partition of a chained topic are events that were not there before. Offsets are those of their names.
type links struct {
	known  bool  // highest is: something was accepted
	kept   int64 // the highest that was accepted, by this worker or as far as the offline files tell; -1 before the first
	passed int64 // the highest that this worker has accepted
}

// newLinks begins where the offline files end; next 0 tells nothing.
func newLinks(next int64) links { return links{known: next > 0, kept: next - 1, passed: -1} }

// verdict is what a record of a chained topic is.
type verdict uint8

const (
	linkNew      verdict = iota
	linkRepeated         // it was accepted before
	linkEarly            // what its writer wrote before it is missing, and comes again before this does
)

func (l *links) judge(o origin) verdict {
	switch {
	case o.offset <= l.passed:
		return linkRepeated
	case l.known && o.offset > l.kept && o.before > l.kept:
		return linkEarly
	default:
		return linkNew
	}
}

func (l *links) accept(o origin) {
	l.known, l.passed, l.kept = true, o.offset, max(l.kept, o.offset)
}

// place names a record, and says whether it is new. A BadRecord has no name. hole says that records before it are gone.
func (w *sourceWorker) place(it *item, hole bool) (verdict, error) {
	r := it.record
	it.origin = origin{partition: r.Partition, offset: r.Offset}
	if !w.src.Chained() {
		return linkNew, nil
	}
	o, err := w.chainedOrigin(r)
	if err != nil {
		return linkNew, err
	}
	if hole { // by retention: what is missing does not come again
		w.links.known = false
	}
	it.origin = o
	return w.links.judge(o), nil
}

// passOver reports whether a record of a chained topic is none to process, and counts it.
func (w *sourceWorker) passOver(v verdict) bool {
	switch v {
	case linkRepeated:
		w.tally.duplicate.Inc()
	case linkEarly:
		w.tally.early.Inc()
	}
	return v != linkNew
}

// chainedOrigin is the name of a record of a chained topic.
func (s *Stage) chainedOrigin(r *kgo.Record) (origin, error) {
	for i := range r.Headers {
		if err := otherProject(&r.Headers[i], s.deps.Project.Name); err != nil {
			return origin{}, err
		}
		if r.Headers[i].Key == headerOrigin {
			if o, ok := parseOrigin(r.Headers[i].Value); ok && o.partition == r.Partition {
				return o, nil
			}
		}
	}
	return origin{}, &schemas.RecordError{Class: classForeign, Path: headerOrigin, Reason: "is not that of a record which the group of this source gave out"}
}

// keptUpTo is the offset up to which the events of a partition are offline once its rows are committed, as the files name them.
func (w *sourceWorker) keptUpTo() int64 {
	if w.src.Chained() {
		return w.links.kept + 1
	}
	return w.next
}
