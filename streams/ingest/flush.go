package ingest

import (
	"context"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace/millrace/features/online"
	"github.com/millrace/millrace/project"
	"github.com/millrace/millrace/schemas"
	"github.com/millrace/millrace/streams"
)

// flight is a write on its way to Redis.
type flight struct {
	raw      []byte // the position that Redis has when it has landed
	next     int64
	events   int // the worker's unflushed when it left, all of which it carries
	entities []*cached
	states   []byte // of all of them
	polled   time.Time
	written  time.Time
	began    time.Time
}

// idleStates is the most memory for encoded states that waits for another flush.
const idleStates = 8 << 20

// landing is how a flight ended.
type landing struct {
	of   *applier
	raw  []byte
	took time.Duration
	err  error
}

// pending reports whether there is anything that Redis does not have and no flight carries.
func (a *applier) pending() bool { return a.next > a.taken }

// flushIfDue sends off what is pending when its time has come or enough has come together.
func (a *applier) flushIfDue(ctx context.Context) error {
	if a.flight != nil || !a.pending() || !a.due && a.unflushed < a.cfg.FlushEvents && !a.crowded() {
		return nil
	}
	return a.flush(ctx)
}

// crowded reports whether the entities that Redis does not have yet take a good part of the cache: they cannot be let go of.
// Nor is more materialized at once than Redis writes in a short time.
func (a *applier) crowded() bool {
	return len(a.outbox.records) >= givenMost || a.cache.full() && 4*len(a.dirty) > a.cache.entities.entries || a.group.Materialize && len(a.dirty) >= materializeMost
}

// longestPause is the most that a slow write alone has the next one wait. Writes of a partition that keeps up come one after the other in any
// case, each with what came meanwhile; longer pauses only made events wait (docs/bench/peers.md).
const longestPause = 20 * time.Millisecond

// flushEvery is how long to wait after a flush that took so long: the declared time, or more after a slow one, so that a Redis with other work
// has the time for it. Of a partition that is behind, nobody waits for the next event: it writes an entity that has many events less often.
func (a *applier) flushEvery(took time.Duration, in *streams.Input) time.Duration {
	every := a.group.Flush
	if every == 0 {
		every = a.cfg.Flush
	}
	if in.End()-a.next > int64(a.cfg.BehindRecords) {
		return max(every, a.cfg.FlushBehind)
	}
	return max(every, min(4*took, longestPause))
}

// flush sends off everything that is pending. The states are encoded here, so that the entities can go on changing.
func (a *applier) flush(ctx context.Context) error {
	if err := a.at("group: before flush"); err != nil {
		return err
	}
	b := online.Batch{
		Expected: a.raw, Next: a.position(), TTL: a.group.expiry,
		Keys: make([]string, len(a.dirty)), States: make([][]byte, len(a.dirty)),
		Rows: a.dueRows, RowsMode: online.RowsKeep,
	}
	switch {
	case a.rowsInFile:
		b.RowsMode = online.RowsReplace
	case len(a.dueRows) > 0:
		b.RowsMode = online.RowsAppend
	}
	a.dueRows, a.rowsInFile, a.due = nil, false, false
	f := &flight{
		raw: b.Next.AppendBinary(nil), next: a.next, events: a.unflushed,
		entities: append([]*cached(nil), a.dirty...), polled: a.polled, written: a.written, began: a.deps.Clock(),
	}
	states, _ := a.Stage.spare.Get()
	states = slices.Grow(states[:0], a.encoded)
	for i, e := range a.dirty {
		from := len(states)
		states = a.cache.open(e).AppendBinary(states)
		b.Keys[i], b.States[i] = e.key, states[from:len(states):len(states)]
		a.cache.measure(e)
		e.dirty, e.flying = false, true
	}
	f.states, a.encoded = states, len(states)
	a.materializer.batch(&b, a.group, a.cache, f.entities, a.now())
	letters := a.letters
	a.dirty, a.letters, a.taken, a.polled, a.flight = a.dirty[:0], nil, a.next, time.Time{}, f
	a.timing.entities.Observe(float64(len(f.entities)))
	a.timing.bytes.Add(float64(len(states)))
	a.timing.records.Add(float64(f.events))
	given := a.outbox.take()
	landed := a.landed
	go func() {
		raw, err := a.write(ctx, b, letters, given)
		landed <- landing{of: a, raw: raw, took: a.deps.Clock().Sub(f.began), err: err}
	}()
	return nil
}

// write puts the dead letters on their topic and only then lets the position pass their records. It runs beside the worker and shares
// nothing with it that changes.
func (a *applier) write(ctx context.Context, b online.Batch, letters []schemas.DeadLetter, given []*kgo.Record) ([]byte, error) {
	if len(letters) > 0 {
		if err := a.Stage.letters.Write(ctx, letters...); err != nil {
			return nil, err
		}
		if err := a.at("group: after dead letters"); err != nil {
			return nil, err
		}
	}
	if err := a.send(ctx, given); err != nil {
		return nil, err
	}
	raw, err := a.store.Write(ctx, a.partition, b)
	if err != nil {
		return nil, err
	}
	return raw, a.at("group: after write")
}

// settle takes note of how a flight ended.
func (a *applier) settle(l landing) error {
	if l.err != nil {
		return l.err
	}
	f := a.flight
	a.flight, a.raw = nil, l.raw
	a.Stage.spare.Put(f.states, cap(f.states))
	a.unflushed -= f.events
	for _, e := range f.entities {
		e.flying = false
	}
	a.done = f.next
	a.progress.next.Store(f.next)
	a.timing.observe(a, f, l)
	return nil
}

// groupTiming is the metrics of one group, looked up once.
type groupTiming struct {
	flush, entities, readable, eventReadable prometheus.Observer
	records, bytes, late                     prometheus.Counter
	hits, misses, created                    prometheus.Counter
}

func (m *metrics) timing(group string) groupTiming {
	return groupTiming{
		flush: m.flushSeconds.WithLabelValues(group), entities: m.flushEntities.WithLabelValues(group),
		readable: m.readable.WithLabelValues(group), eventReadable: m.eventReadable.WithLabelValues(group),
		records: m.flushRecords.WithLabelValues(group), bytes: m.flushBytes.WithLabelValues(group), late: m.late.WithLabelValues(group),
		hits: m.cacheLookups.WithLabelValues(group, "hit"), misses: m.cacheLookups.WithLabelValues(group, "miss"),
		created: m.cacheLookups.WithLabelValues(group, "new"),
	}
}

func (t groupTiming) observe(a *applier, f *flight, l landing) {
	t.flush.Observe(l.took.Seconds())
	landed := f.began.Add(l.took)
	if f.polled.IsZero() {
		return
	}
	t.readable.Observe(landed.Sub(f.polled).Seconds())
	if a.deps.Project.Clock != project.ClockEvent { // a replayed past was not written when its timestamps say
		t.eventReadable.Observe(landed.Sub(f.written).Seconds())
	}
}
