package offline

import (
	"cmp"
	"crypto/rand"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/millrace/millrace/internal/clock"
	"github.com/millrace/millrace/internal/failure"
	"github.com/millrace/millrace/schemas"
)

// WriterOptions are the limits of a Writer. A limit of 0 takes the value of DefaultWriterOptions.
type WriterOptions struct {
	By            By          // how the files are laid out; empty: by day
	RowsPerFile   int         // rows of one file at most
	BufferedRows  int         // rows held in memory at most; above it, the rows of a day (or month) go to a file before the commit
	BufferedBytes int         // the same, as an estimate of memory; below 1 GiB
	Clock         clock.Clock // tells Since; may be nil
}

// DefaultWriterOptions hold at most 64 MiB or 256 Ki rows in memory.
func DefaultWriterOptions() WriterOptions {
	return WriterOptions{RowsPerFile: 1 << 18, BufferedRows: 1 << 18, BufferedBytes: 64 << 20}
}

func (o WriterOptions) filled() WriterOptions {
	d := DefaultWriterOptions()
	o.By = cmp.Or(o.By, ByDay)
	o.RowsPerFile = cmp.Or(o.RowsPerFile, d.RowsPerFile)
	o.BufferedRows = cmp.Or(o.BufferedRows, d.BufferedRows)
	o.BufferedBytes = cmp.Or(o.BufferedBytes, d.BufferedBytes)
	return o
}

// Validate names every limit that cannot work.
func (o WriterOptions) Validate() error {
	var faults []error
	check := func(name string, value, most int) {
		if value < 0 || value > most {
			faults = append(faults, failure.New(failure.BadProject, name, "%d is not between 0 (default) and %d", value, most))
		}
	}
	if o.By != "" && o.By != ByDay && o.By != ByMonth {
		faults = append(faults, failure.New(failure.BadProject, "By", "%q is neither %s nor %s", string(o.By), ByDay, ByMonth))
	}
	check("RowsPerFile", o.RowsPerFile, 1<<30)
	check("BufferedRows", o.BufferedRows, 1<<30)
	check("BufferedBytes", o.BufferedBytes, 1<<30) // text offsets of a file are 32 bit
	return errors.Join(faults...)
}

// By is a table's layout: how much event time a folder of files spans.
type By string

// The layouts. By month suits a history of years that is thin: a file costs as much as thousands of its rows.
const (
	ByDay   By = "day"   // dt=2001-05-20
	ByMonth By = "month" // month=2001-05
)

// span numbers the folders in the order of time.
func (b By) span(eventTime int64) int64 {
	if b == ByMonth {
		year, month, _ := time.UnixMilli(eventTime).UTC().Date()
		return int64(year)*12 + int64(month) - 1
	}
	return floorDiv(eventTime, millisPerDay)
}

func (b By) folder(span int64) string {
	if b == ByMonth {
		return fmt.Sprintf("month=%04d-%02d", floorDiv(span, 12), span-floorDiv(span, 12)*12+1)
	}
	return "dt=" + time.UnixMilli(span*millisPerDay).UTC().Format(time.DateOnly)
}

// Writer is the owner of one partition of a table. It is for one goroutine.
//
// After an error of kind Unavailable nothing is lost: make the same call again. After a Conflict the partition has another owner: Close,
// and where it is ours again, make a new Writer and go on from its Next.
type Writer struct {
	t         *Table
	partition int32
	opts      WriterOptions
	id        string
	claim     int   // step at which the partition was claimed
	step      int   // next step of the log
	next      int64 // committed up to here

	spans   map[int64]*segment // rows in memory, by the day or month
	rows    int                // of the rows in memory
	bytes   int                // of the rows in memory
	staged  []stagedFile       // files written, not yet in an entry
	inFiles int                // rows of staged
	last    int64              // highest offset appended
	since   time.Time

	current, from, until int64 // the month of the last event, and its bounds

	committing *Commit // begun and not ended
	finished   error   // why nothing more can be committed
}

// stagedFile is a file under _tmp and the day or month that it belongs to.
type stagedFile struct {
	entryFile
	span int64
}

// maxClaims bounds how often NewWriter tries again when others add to the log at the same time.
const maxClaims = 16

// NewWriter takes a partition over: earlier writers of it, in whatever process, get a Conflict from now on, what they had committed is
// completed, and what they had not is removed.
func (t *Table) NewWriter(partition int32, opts WriterOptions) (*Writer, error) {
	if err := opts.Validate(); err != nil {
		return nil, err
	}
	if partition < 0 {
		return nil, failure.New(failure.Internal, t.dir, "there is no partition %d", partition)
	}
	w := &Writer{t: t, partition: partition, opts: opts.filled(), id: rand.Text(), spans: map[int64]*segment{}}
	for range maxClaims {
		c, err := t.chain(partition)
		if err != nil {
			return nil, err
		}
		w.claim = len(c.entries)
		err = t.addEntry(w.claim, w.claim, entry{Partition: partition, Writer: w.id, Claim: true, First: c.end(), End: c.end()})
		if errors.Is(err, errTaken) {
			continue
		}
		if err != nil {
			return nil, unavailable(t.dir, fmt.Sprintf("taking over partition %d", partition), err)
		}
		w.step, w.next = w.claim+1, c.end()
		return w, w.inherit(c)
	}
	return nil, failure.New(failure.Conflict, t.dir, "partition %d is being taken over by others", partition)
}

// inherit completes the last commit and removes what was not committed.
func (w *Writer) inherit(c chain) error {
	if e := c.lastCommit(); e != nil {
		if err := w.t.publish(e); err != nil {
			return unavailable(w.t.dir, "completing the last commit", err)
		}
	}
	if err := w.t.clearStaged(w.partition, w.claim); err != nil {
		return unavailable(w.t.dir, "removing what was not committed", err)
	}
	return nil
}

// Next is the offset up to which the partition is committed.
func (w *Writer) Next() int64 { return w.next }

// Rows is how many rows wait for the next Commit.
func (w *Writer) Rows() int {
	n := w.rows + w.inFiles
	if w.committing != nil {
		n += w.committing.rows
	}
	return n
}

// Bytes is about how much memory the rows take that are not in a file yet, without those of a commit that was begun.
func (w *Writer) Bytes() int { return w.bytes }

// Since is when the first row that waits was appended, by the clock of the options; zero when none waits or there is no clock.
func (w *Writer) Since() time.Time { return w.since }

// Append adds a row with its event time. A row whose offset is below Next is ignored: it is there already. Rows that wait are not compared,
// as an offset may have several: who rewinds to Next makes a new Writer. The values are copied. After an error the row was not added.
func (w *Writer) Append(row schemas.Row, eventTime, offset int64) error {
	if offset < w.next || w.committing != nil && offset < w.committing.end {
		return nil
	}
	if w.t.events != nil && len(row) == len(w.t.events.Columns) {
		row = row[:len(w.t.columns)] // the others are computed as they are read
	}
	if err := checkRow(w.t.columns, row); err != nil {
		return fmt.Errorf("appending offset %d of partition %d: %w", offset, w.partition, err)
	}
	span := w.span(eventTime)
	if err := w.makeRoom(span); err != nil {
		return err
	}
	s := w.spans[span]
	if s == nil {
		s = w.t.segment()
		w.spans[span] = s
	}
	if w.since.IsZero() && w.opts.Clock != nil {
		w.since = w.opts.Clock()
	}
	before := s.bytes
	s.add(row, eventTime, offset)
	w.rows++
	w.bytes += s.bytes - before
	w.last = max(w.last, offset)
	return nil
}

const millisPerDay = 86_400_000

// span is the day or month of an event time: mostly that of the event before.
func (w *Writer) span(eventTime int64) int64 {
	if w.opts.By == ByDay {
		return floorDiv(eventTime, millisPerDay)
	}
	if eventTime < w.from || eventTime >= w.until {
		t := time.UnixMilli(eventTime).UTC()
		first := time.Date(t.Year(), t.Month(), 1, 0, 0, 0, 0, time.UTC)
		w.from, w.until, w.current = first.UnixMilli(), first.AddDate(0, 1, 0).UnixMilli(), w.opts.By.span(eventTime)
	}
	return w.current
}

// makeRoom writes rows to a file ahead of the commit where a limit is reached: those of the day or month when its file would be too
// long, else those of the one that holds most memory.
func (w *Writer) makeRoom(span int64) error {
	if s := w.spans[span]; s != nil && s.rows() >= w.opts.RowsPerFile {
		return w.stage(span, s)
	}
	if w.rows < w.opts.BufferedRows && w.bytes < w.opts.BufferedBytes {
		return nil
	}
	var largest *segment
	for d, s := range w.spans {
		if largest == nil || s.bytes > largest.bytes {
			span, largest = d, s
		}
	}
	return w.stage(span, largest)
}

// stage writes the rows of a day or month to a file under _tmp. They stay in memory until that is done.
func (w *Writer) stage(span int64, s *segment) error {
	f, err := w.writeFile(span, s)
	if err != nil {
		return err
	}
	w.staged = append(w.staged, f)
	w.inFiles += s.rows()
	w.rows -= s.rows()
	w.bytes -= s.bytes
	delete(w.spans, span)
	w.t.release(s)
	return nil
}

// writeFile sorts the rows of a segment and writes them to a file under _tmp. It changes nothing of the Writer.
func (w *Writer) writeFile(span int64, s *segment) (stagedFile, error) {
	s.sort()
	f := stagedFile{span: span, entryFile: entryFile{Rows: int64(s.rows()), From: s.times[0], Until: s.times[s.rows()-1] + 1}}
	path, err := w.t.writeStaged(w.partition, w.claim, func(out file) (err error) {
		f.Bytes, f.CRC32C, err = s.writeTo(out, w.t, w.partition)
		return err
	})
	if err != nil {
		return stagedFile{}, unavailable(w.t.dir, "writing offline file", err)
	}
	f.Staged = stagedDir + "/" + filepath.Base(path)
	return f, nil
}

// Commit makes the rows of [Next, end) part of the table, all or none, and moves Next to end. Committing what is committed does nothing.
// It returns a Conflict when the partition has another owner, and Unavailable when the disk does not do its part: try again then.
func (w *Writer) Commit(end int64) error {
	if w.committing != nil { // one that was tried before comes first
		if err := w.End(w.committing, w.committing.Run()); err != nil {
			return err
		}
	}
	c, err := w.Begin(end)
	if err != nil || c == nil {
		return err
	}
	return w.End(c, c.Run())
}

// discard drops everything that no commit was tried with.
func (w *Writer) discard() {
	w.remove(w.staged)
	clear(w.spans)
	w.rows, w.bytes, w.staged, w.inFiles, w.since = 0, 0, nil, 0, time.Time{}
}

func (w *Writer) remove(files []stagedFile) {
	for _, f := range files {
		_ = w.t.disk.Remove(filepath.Join(w.t.dir, f.Staged)) // in vain at worst: the next owner clears what lies in _tmp
	}
}

// Close gives up what has not been committed. A commit whose outcome is not known is left to the next owner, who completes or clears it.
func (w *Writer) Close() error {
	w.discard()
	if w.finished == nil {
		w.finished = failure.New(failure.Internal, w.t.dir, "the writer of partition %d is closed", w.partition)
	}
	if c := w.committing; c != nil && !c.running {
		return c.close()
	}
	return nil
}
