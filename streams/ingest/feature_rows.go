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
		w.rows.Close()
	}
	var err error
	if w.rows, err = w.group.rows.NewWriter(w.partition, offline.WriterOptions{Clock: w.deps.Clock}); err != nil {
		return err
	}
	return readRows(left, func(offset, at int64, row schemas.Row) error { return w.rows.Append(row, at, offset) })
}

// boundary says whether a row is due before an event is added: when it is the entity's first after a boundary of the group's cadence, the
// values as of that boundary, to which the entity had changed for the last time. It depends on the entity and the event alone, so
// that a replay makes the same rows.
func (w *groupWorker) boundary(e *features.Entity, at int64) (boundary int64, due bool) {
	every := w.group.Offline.Every.Milliseconds()
	newest := e.Newest()
	if w.rows == nil || w.group.Offline.EveryEvent || every <= 0 || newest == math.MinInt64 {
		return 0, false
	}
	boundary = at - floorMod(at, every)
	return boundary, boundary > newest
}

func floorMod(a, b int64) int64 {
	if m := a % b; m < 0 {
		return m + b
	} else {
		return m
	}
}

// keepRow appends the row that came due with an event that was applied: the results read before at the boundary, or, when every event has
// a row, the values right after it.
func (w *groupWorker) keepRow(it *item, at int64, due bool) error {
	if w.rows == nil {
		return nil
	}
	if w.group.Offline.EveryEvent {
		at, due = it.at+1, true
		w.results = w.group.ReadInto(&w.scratch, it.entity.entity, at, w.results[:0])
	}
	if !due {
		return nil
	}
	w.row = offline.FeatureRow(w.group.Group.Group, it.entity.key, w.results, w.row)
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
