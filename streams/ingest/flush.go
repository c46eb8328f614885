package ingest

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"

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
	polled   time.Time
	written  time.Time
	began    time.Time
}

// landing is how a flight ended.
type landing struct {
	raw  []byte
	took time.Duration
	err  error
}

// pending reports whether there is anything that Redis does not have and no flight carries.
func (w *groupWorker) pending() bool { return w.next > w.taken }

// flush sends off everything that is pending. The states are encoded here, so that the entities can go on changing.
func (w *groupWorker) flush(ctx context.Context) error {
	if err := w.at("group: before flush"); err != nil {
		return err
	}
	b := online.Batch{
		Expected: w.raw, Next: w.position(), TTL: w.group.expiry,
		Keys: make([]string, len(w.dirty)), States: make([][]byte, len(w.dirty)),
		Rows: w.due, RowsMode: online.RowsKeep,
	}
	switch {
	case w.rowsInFile:
		b.RowsMode = online.RowsReplace
	case len(w.due) > 0:
		b.RowsMode = online.RowsAppend
	}
	w.due, w.rowsInFile = nil, false
	f := &flight{
		raw: b.Next.AppendBinary(nil), next: w.next, events: w.unflushed,
		entities: append([]*cached(nil), w.dirty...), polled: w.polled, written: w.written, began: w.deps.Clock(),
	}
	var size int
	var states []byte
	for i, e := range w.dirty {
		from := len(states)
		states = e.entity.AppendBinary(states)
		b.Keys[i], b.States[i] = e.key, states[from:len(states):len(states)]
		w.cache.sized(e, int64(e.entity.Bytes()))
		e.dirty, e.flying = false, true
	}
	size = len(states)
	letters := w.letters
	w.dirty, w.letters, w.taken, w.polled, w.flight = w.dirty[:0], nil, w.next, time.Time{}, f
	w.timing.entities.Observe(float64(len(f.entities)))
	w.timing.bytes.Add(float64(size))
	w.timing.records.Add(float64(f.events))
	landed := w.landed
	go func() {
		raw, err := w.write(ctx, b, letters)
		landed <- landing{raw: raw, took: w.deps.Clock().Sub(f.began), err: err}
	}()
	return nil
}

// write puts the dead letters on their topic and only then lets the position pass their records. It runs beside the worker and shares
// nothing with it that changes.
func (w *groupWorker) write(ctx context.Context, b online.Batch, letters []schemas.DeadLetter) ([]byte, error) {
	if len(letters) > 0 {
		if err := w.Stage.letters.Write(ctx, letters...); err != nil {
			return nil, err
		}
		if err := w.at("group: after dead letters"); err != nil {
			return nil, err
		}
	}
	raw, err := w.store.Write(ctx, w.partition, b)
	if err != nil {
		return nil, err
	}
	return raw, w.at("group: after write")
}

// settle takes note of how a flight ended.
func (w *groupWorker) settle(l landing, in *streams.Input) error {
	if l.err != nil {
		return l.err
	}
	f := w.flight
	w.flight, w.raw = nil, l.raw
	w.unflushed -= f.events
	for _, e := range f.entities {
		e.flying = false
	}
	w.progress.next.Store(f.next)
	in.Done(f.next)
	w.timing.observe(w, f, l)
	return nil
}

// groupTiming is the metrics of one group, looked up once.
type groupTiming struct {
	flush, entities, readable, eventReadable prometheus.Observer
	records, bytes, hits, misses, late       prometheus.Counter
}

func (m *metrics) timing(group string) groupTiming {
	return groupTiming{
		flush: m.flushSeconds.WithLabelValues(group), entities: m.flushEntities.WithLabelValues(group),
		readable: m.readable.WithLabelValues(group), eventReadable: m.eventReadable.WithLabelValues(group),
		records: m.flushRecords.WithLabelValues(group), bytes: m.flushBytes.WithLabelValues(group), late: m.late.WithLabelValues(group),
		hits: m.cacheLookups.WithLabelValues(group, "hit"), misses: m.cacheLookups.WithLabelValues(group, "miss"),
	}
}

func (t groupTiming) observe(w *groupWorker, f *flight, l landing) {
	t.flush.Observe(l.took.Seconds())
	landed := f.began.Add(l.took)
	if f.polled.IsZero() {
		return
	}
	t.readable.Observe(landed.Sub(f.polled).Seconds())
	if w.deps.Project.Clock != project.ClockEvent { // a replayed past was not written when its timestamps say
		t.eventReadable.Observe(landed.Sub(f.written).Seconds())
	}
}
