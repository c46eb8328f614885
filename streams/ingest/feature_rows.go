package ingest

import (
	"math"

	"github.com/millrace/millrace/features"
	"github.com/millrace/millrace/features/offline"
	"github.com/millrace/millrace/internal/failure"
	"github.com/millrace/millrace/schemas"
)

// startRows takes the partition's files over, and brings the rows that the last owner left in Redis on their way.
func (w *groupWorker) startRows(left []byte) error {
	if w.group.rows == nil {
		return nil
	}
	if w.rows != nil {
		_ = w.rows.Close() // what it holds is read again
	}
	var err error
	if w.rows, err = w.group.rows.NewWriter(w.partition, offline.WriterOptions{Clock: w.deps.Clock}); err != nil {
		return err
	}
	return readRows(left, func(offset, at int64, row schemas.Row) error { return w.rows.Append(row, at, offset) })
}

// dueRows reads the rows that come due with an event, before it is added. A row is the values as of a boundary of the group's cadence; it is
// due when the entity's event time passes the boundary by the group's lateness, so that what was under way when the boundary was passed is
// in it. After its last event an entity has one more boundary; then nothing new can be said of it. All this depends on the
// entity and the event alone, so that a replay makes the same rows.
func (w *groupWorker) dueRows(e *cached, at int64) {
	w.dueAt = w.dueAt[:0]
	every, lateness := w.group.Offline.Every.Milliseconds(), w.group.Lateness.Milliseconds()
	newest := e.entity.Newest()
	if w.rows == nil || w.group.Offline.EveryEvent || every <= 0 || newest == math.MinInt64 {
		return
	}
	passed := newest - lateness // boundaries up to here have had their rows
	last := min(at-lateness, newest-floorMod(newest, every)+every)
	for boundary := passed - floorMod(passed, every) + every; boundary <= last; boundary += every {
		n := len(w.dueAt)
		if n == len(w.dueResults) {
			w.dueResults = append(w.dueResults, nil)
		}
		w.dueAt = append(w.dueAt, boundary)
		w.dueResults[n] = w.group.ReadInto(&w.scratch, e.entity, boundary, w.dueResults[n][:0])
	}
}

func floorMod(a, b int64) int64 {
	if m := a % b; m < 0 {
		return m + b
	} else {
		return m
	}
}

// keepRows appends the rows that came due with an event that was applied, or, when every event has a row, the values right after it.
func (w *groupWorker) keepRows(it *item) error {
	if w.rows == nil {
		return nil
	}
	if w.group.Offline.EveryEvent {
		at := it.at + 1
		w.results = w.group.ReadInto(&w.scratch, it.entity.entity, at, w.results[:0])
		return w.keepRow(it, at, w.results)
	}
	for i, at := range w.dueAt {
		if err := w.keepRow(it, at, w.dueResults[i]); err != nil {
			return err
		}
	}
	return nil
}

func (w *groupWorker) keepRow(it *item, at int64, results []features.Result) error {
	w.row = offline.FeatureRow(w.group.Group.Group, it.entity.key, results, w.row)
	if err := w.rows.Append(w.row, at, it.record.Offset); err != nil {
		return err
	}
	w.due = appendRow(w.due, it.record.Offset, at, w.row)
	w.tally.offlineRows.Inc()
	if w.rows.Rows() >= w.cfg.OfflineRows && !w.stalled {
		w.keepSoon = true
	}
	return nil
}

// keep commits the rows to the files. A disk that does not take them is no error: they wait in memory, and past OfflineWaiting the
// partition waits with them.
func (w *groupWorker) keep() error {
	w.keepSoon = false
	if w.rows == nil || w.rows.Rows() == 0 {
		return nil
	}
	if err := w.at("group: before offline commit"); err != nil {
		return err
	}
	began := w.deps.Clock()
	err := w.rows.Commit(w.next)
	w.tally.offlineWrite.Observe(w.deps.Clock().Sub(began).Seconds())
	if w.stalled = err != nil && failure.Of(err) == failure.Unavailable; w.stalled {
		w.log.Warn("keeping feature rows offline", "group", w.group.Name, "partition", w.partition, "error", err)
		return nil
	}
	if err != nil {
		return err
	}
	w.due, w.rowsInFile = nil, true
	return w.at("group: after offline commit")
}
