package ingest

import (
	"math"

	"github.com/millrace/millrace/features"
	"github.com/millrace/millrace/features/offline"
	"github.com/millrace/millrace/internal/failure"
	"github.com/millrace/millrace/schemas"
)

// startRows takes the partition's files over, and brings the rows that the last owner left in Redis on their way.
func (a *applier) startRows(left []byte) error {
	if a.group.rows == nil {
		return nil
	}
	if a.rows != nil {
		_ = a.rows.Close() // what it holds is read again
	}
	var err error
	if a.rows, err = a.group.rows.NewWriter(a.partition, offline.WriterOptions{By: offline.By(a.group.Source.OfflineBy), Clock: a.deps.Clock}); err != nil {
		return err
	}
	return readRows(left, func(offset, at int64, row schemas.Row) error { return a.rows.Append(row, at, offset) })
}

// rowsDue reads the rows that come due with an event, before it is added. A row is the values as of a boundary of the group's cadence; it is
// due when the entity's event time passes the boundary by the group's lateness, so that what was under way when the boundary was passed is
// in it. After its last event an entity has one more boundary; then nothing new can be said of it. All this depends on the
// entity and the event alone, so that a replay makes the same rows.
func (a *applier) rowsDue(e *features.Entity, at int64) {
	a.dueAt = a.dueAt[:0]
	every, lateness := a.group.Offline.Every.Milliseconds(), a.group.Lateness.Milliseconds()
	newest := e.Newest()
	if a.group.Offline.EveryEvent || every <= 0 || newest == math.MinInt64 {
		return
	}
	passed := newest - lateness // boundaries up to here have had their rows
	last := min(at-lateness, newest-floorMod(newest, every)+every)
	for boundary := passed - floorMod(passed, every) + every; boundary <= last; boundary += every {
		n := len(a.dueAt)
		if n == len(a.dueResults) {
			a.dueResults = append(a.dueResults, nil)
		}
		a.dueAt = append(a.dueAt, boundary)
		a.dueResults[n] = a.group.ReadInto(&a.scratch, e, boundary, a.dueResults[n][:0])
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
func (a *applier) keepRows(it *item, e *cached) error {
	if a.group.Offline.EveryEvent {
		at := it.at + 1
		a.results = a.group.ReadInto(&a.scratch, a.cache.open(e), at, a.results[:0])
		return a.keepRow(it, e, at, a.results)
	}
	for i, at := range a.dueAt {
		if err := a.keepRow(it, e, at, a.dueResults[i]); err != nil {
			return err
		}
	}
	return nil
}

func (a *applier) keepRow(it *item, e *cached, at int64, results []features.Result) error {
	a.row = offline.FeatureRow(a.group.Group.Group, e.key, results, a.row)
	if err := a.rows.Append(a.row, at, it.record.Offset); err != nil {
		return err
	}
	a.dueRows = appendRow(a.dueRows, it.record.Offset, at, a.row)
	a.tally.offlineRows.Inc()
	if a.rows.Rows() >= a.cfg.OfflineRows && !a.stalled {
		a.keepSoon = true
	}
	return nil
}

// keep commits the rows to the files. A disk that does not take them is no error: they wait in memory, and past OfflineWaiting the
// partition waits with them.
func (a *applier) keep() error {
	a.keepSoon = false
	if a.rows == nil || a.rows.Rows() == 0 {
		return nil
	}
	if err := a.at("group: before offline commit"); err != nil {
		return err
	}
	began := a.deps.Clock()
	err := a.rows.Commit(a.next)
	a.tally.offlineWrite.Observe(a.deps.Clock().Sub(began).Seconds())
	if a.stalled = err != nil && failure.Of(err) == failure.Unavailable; a.stalled {
		a.log.Warn("keeping feature rows offline", "group", a.group.Name, "partition", a.partition, "error", err)
		return nil
	}
	if err != nil {
		return err
	}
	a.dueRows, a.rowsInFile = nil, true
	return a.at("group: after offline commit")
}

// closeRows gives up the files; what was kept is committed.
func (a *applier) closeRows() error {
	if a.rows == nil {
		return nil
	}
	return a.rows.Close()
}
