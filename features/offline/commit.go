package offline

import (
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"time"

	"github.com/millrace/millrace/internal/failure"
)

// Commit is rows on their way into the table: Begin takes them from their Writer, Run writes them, on another goroutine if need be, while
// the Writer takes further rows, and End, on the Writer's goroutine, tells it how that went.
//
// Once it was tried a commit may be in the log, whatever the error said. So it is never changed, and is tried until it is known to be
// there or not.
type Commit struct {
	w          *Writer // Run uses what does not change of it
	step       int
	first, end int64
	rows       int
	running    bool

	spans  map[int64]*segment // rows that are in no file yet
	staged []stagedFile
	entry  *entry // of all files; nil while there are rows in none
	logged bool   // the entry is in the log, though its files may not all be in place yet
	taken  bool   // another owner had the step
}

// Begin takes the rows of [Next, end) to be committed; nil when there is nothing to commit. A commit that failed for want of the disk is
// given again: it comes before any other.
func (w *Writer) Begin(end int64) (*Commit, error) {
	if w.finished != nil {
		return nil, w.finished
	}
	if c := w.committing; c != nil {
		if c.running {
			return nil, failure.New(failure.Internal, w.t.dir, "a commit of partition %d is under way", w.partition)
		}
		c.running = true
		return c, nil
	}
	if end <= w.next {
		return nil, nil
	}
	if w.Rows() > 0 && w.last >= end {
		return nil, failure.New(failure.Internal, w.t.dir, "committing up to offset %d with a row of offset %d", end, w.last)
	}
	w.committing = &Commit{
		w: w, step: w.step, first: w.next, end: end, rows: w.Rows(), running: true,
		spans: w.spans, staged: w.staged,
	}
	w.spans, w.staged = map[int64]*segment{}, nil
	w.rows, w.bytes, w.inFiles, w.since = 0, 0, 0, time.Time{}
	return w.committing, nil
}

// Run writes the rows to files and makes these part of the table.
func (c *Commit) Run() error {
	for _, span := range slices.Sorted(maps.Keys(c.spans)) {
		s := c.spans[span]
		f, err := c.w.writeFile(span, s)
		if err != nil {
			return err
		}
		c.staged = append(c.staged, f)
		delete(c.spans, span)
		c.w.t.release(s)
	}
	if c.entry == nil {
		c.entry = c.describe()
	}
	if !c.logged {
		if err := c.log(); err != nil {
			return err
		}
		c.logged = true
	}
	return c.place()
}

// End takes note of how a commit went, err being what Run returned, and gives the error on. After one of kind Unavailable the commit waits for the
// next Begin; after a Conflict the partition has another owner.
func (w *Writer) End(c *Commit, err error) error {
	c.running = false
	if c.taken {
		w.committing, w.finished = nil, err
		w.discard()
		return err
	}
	if err != nil {
		return err
	}
	w.committing = nil
	w.step, w.next = c.step+1, c.end
	return nil
}

// End is the offset up to which the rows are committed.
func (c *Commit) End() int64 { return c.end }

// describe is the entry of what is staged.
func (c *Commit) describe() *entry {
	e := &entry{Partition: c.w.partition, Writer: c.w.id, First: c.first, End: c.end}
	parts := map[int64]int{}
	for _, f := range c.staged {
		name := fmt.Sprintf("%d-%d-%d", c.w.partition, c.first, c.end)
		if n := parts[f.span]; n > 0 {
			name = fmt.Sprintf("%s-%d", name, n)
		}
		parts[f.span]++
		f.Path = c.w.opts.By.folder(f.span) + "/" + name + ".arrow"
		e.Files = append(e.Files, f.entryFile)
	}
	return e
}

// log makes the entry the next step of the log.
func (c *Commit) log() error {
	t := c.w.t
	if len(c.entry.Files) > 0 { // they must survive a power cut that the entry survives
		if err := t.disk.SyncDir(filepath.Join(t.dir, stagedDir)); err != nil {
			return unavailable(t.dir, "committing", err)
		}
	}
	err := t.addEntry(c.w.claim, c.step, *c.entry)
	if errors.Is(err, errTaken) {
		c.taken = true
		c.w.remove(c.staged)
		return failure.New(failure.Conflict, t.dir, "partition %d has another owner since offset %d", c.w.partition, c.first)
	}
	if err != nil {
		return unavailable(t.dir, "committing", err)
	}
	return nil
}

// place brings the files of the entry into their folders.
func (c *Commit) place() error {
	if err := c.w.t.publish(c.entry); err != nil {
		return unavailable(c.w.t.dir, "moving committed files into place", err)
	}
	return nil
}

// close completes a commit that is in the log, and forgets one that was never tried. One of which nothing is known is the next owner's.
func (c *Commit) close() error {
	switch {
	case c.logged:
		return c.place()
	case c.entry == nil:
		c.w.remove(c.staged)
	}
	return nil
}
