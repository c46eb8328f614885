package ingest

import (
	"time"

	"github.com/millrace/millrace/features/offline"
	"github.com/millrace/millrace/internal/failure"
	"github.com/millrace/millrace/streams"
)

// keeping is how far the events of a source's partition are in the offline files. They are written beside the worker, as a disk may take long
// to have them safe.
type keeping struct {
	upTo    int64 // first offset whose event is in no file
	next    int64 // the same once what is being committed is
	under   bool  // a commit is under way
	stalled bool  // the disk did not take the last: it is asked again by time only
	ended   chan keptRows
}

// keptRows is a commit that has ended.
type keptRows struct {
	commit *offline.Commit
	took   time.Duration
	err    error
}

// newKeeping begins at an offset. What an earlier one still has under way belongs to the past.
func newKeeping(at int64) keeping {
	return keeping{upTo: at, next: at, ended: make(chan keptRows, 1)}
}

// enough reports whether so many events wait that they are committed before their time.
func (w *sourceWorker) enough() bool {
	return !w.keeping.stalled && !w.keeping.under && (w.events.Rows() >= w.cfg.OfflineRows || w.events.Bytes() >= w.cfg.OfflineBytes)
}

// crowded reports whether so many events wait for the disk that the partition must wait with them.
func (w *sourceWorker) crowded() bool {
	return w.events.Rows() >= w.cfg.OfflineWaiting || w.keeping.under && (w.events.Rows() >= 2*w.cfg.OfflineRows || w.events.Bytes() >= w.cfg.OfflineBytes)
}

// keep has the events that wait committed.
func (w *sourceWorker) keep() error {
	if w.events == nil || w.keeping.under {
		return nil
	}
	c, err := w.begin()
	if c == nil || err != nil {
		return err
	}
	ended := w.keeping.ended
	go func() { ended <- w.run(c) }()
	return nil
}

// run writes the rows of a commit. It uses nothing of the worker that changes.
func (w *sourceWorker) run(c *offline.Commit) keptRows {
	began := w.deps.Clock()
	err := c.Run()
	return keptRows{commit: c, took: w.deps.Clock().Sub(began), err: err}
}

// begin takes the events that wait; nil when there are none.
func (w *sourceWorker) begin() (*offline.Commit, error) {
	k := &w.keeping
	if w.events.Rows() == 0 {
		k.upTo = w.next
		return nil, nil
	}
	if err := w.at("source: before offline commit"); err != nil {
		return nil, err
	}
	c, err := w.events.Begin(w.keptUpTo())
	if c == nil || err != nil {
		return nil, err
	}
	if !k.stalled { // else it is the same commit again
		k.next = w.next
	}
	k.under = true
	return c, nil
}

// kept takes note of a commit that has ended. A disk that did not take the events is no error: they wait in memory, and past OfflineWaiting
// the partition waits with them.
func (w *sourceWorker) kept(r keptRows, in *streams.Input) error {
	k := &w.keeping
	k.under = false
	w.tally.offlineWrite.Observe(r.took.Seconds())
	err := w.events.End(r.commit, r.err)
	if k.stalled = failure.Of(err) == failure.Unavailable && err != nil; k.stalled {
		w.log.Warn("keeping events offline", "source", w.src.Name, "partition", w.partition, "error", err)
		return nil
	}
	if err != nil {
		return err
	}
	k.upTo = k.next
	w.did(in)
	return w.at("source: after offline commit")
}

// keepLast commits what waits, and waits for it. Nothing may be under way.
func (w *sourceWorker) keepLast(in *streams.Input) error {
	for w.events != nil {
		c, err := w.begin()
		if err != nil {
			return err
		}
		if c == nil {
			break
		}
		again := w.keeping.stalled
		if err := w.kept(w.run(c), in); err != nil {
			return err
		}
		if w.keeping.stalled || !again { // after one that had stalled there may be more
			break
		}
	}
	w.did(in)
	return nil
}
