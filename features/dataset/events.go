package dataset

import (
	"context"
	"fmt"
	"iter"
	"math"
	"os"
	"slices"
	"strings"

	"github.com/apache/arrow/go/v17/arrow"

	"github.com/millrace/millrace/features/offline"
	"github.com/millrace/millrace/features/pit"
	"github.com/millrace/millrace/internal/failure"
	"github.com/millrace/millrace/project"
	"github.com/millrace/millrace/schemas"
)

// eventSource is a source of the project as the join reads it.
type eventSource struct {
	*project.Source
	columns []string // that groups read
	stored  []string // that those are made from: the columns of records, and what was looked up for them
	known   Known
	knownAt int // index in the schema of Known.Column, -1 without
	timeAt  int
	close   func()

	join   pit.Source
	report EventsReport
}

// EventsReport is what the manifest says of a source's events.
type EventsReport struct {
	Source      string `json:"source"`
	File        string `json:"file,omitempty"` // empty: the offline log
	Digest      string `json:"digest"`         // of the file's bytes, or of the log's commits
	Rows        int64  `json:"rows"`
	KnownAfter  string `json:"known_after,omitempty"`
	KnownColumn string `json:"known_column,omitempty"`
}

// eventSources are the sources of the lookups' groups, each once.
func (q *Request) eventSources(lookups []lookup) ([]*eventSource, error) {
	var all []*eventSource
	for _, l := range lookups {
		s := l.group.Source
		at := slices.IndexFunc(all, func(e *eventSource) bool { return e.Source == s })
		if at < 0 {
			at = len(all)
			all = append(all, &eventSource{Source: s, knownAt: -1, timeAt: s.TimeIndex(), known: q.Known[s.Name], close: func() {}})
		}
		all[at].columns = append(all[at].columns, l.group.Columns()...)
	}
	for _, e := range all {
		if c := e.known.Column; c != "" {
			column, ok := e.Schema.Column(c)
			if !ok || column.Kind != schemas.Time {
				return nil, failure.New(failure.BadRequest, e.Name, "%q, which is to say when an event became known, is no time column of its schema", c)
			}
			e.knownAt = e.Schema.Index(c)
			e.columns = append(e.columns, c)
		}
		e.columns = append(e.columns, e.Time)
		slices.Sort(e.columns)
		e.columns = slices.Compact(e.columns)
		for _, c := range e.columns {
			for _, at := range e.Schema.Needs(e.Schema.Index(c)) {
				e.stored = append(e.stored, e.Schema.Columns[at].Name)
			}
		}
		slices.Sort(e.stored)
		e.stored = slices.Compact(e.stored)
	}
	for what, names := range map[string][]string{"events": keys(q.Events), "known": keys(q.Known)} {
		for _, name := range names {
			if !slices.ContainsFunc(all, func(e *eventSource) bool { return e.Name == name }) {
				return nil, failure.New(failure.BadRequest, what, "no feature wanted comes of a source %q", name)
			}
		}
	}
	return all, nil
}

func keys[V any](m map[string]V) []string {
	var names []string
	for name := range m {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// prepare finds how the source's events are read.
func (e *eventSource) prepare(ctx context.Context, q *Request) error {
	e.report = EventsReport{Source: e.Name, KnownColumn: e.known.Column}
	if e.known.After > 0 {
		e.report.KnownAfter = e.known.After.String()
	}
	if e.Merged() {
		return e.fromParts(q)
	}
	if path, ok := q.Events[e.Name]; ok {
		return e.fromFile(ctx, path, q.Limits.TempDir)
	}
	t, err := offline.EventsTable(q.OfflineDir, e.Name, e.Schema)
	if err != nil {
		return err
	}
	if e.report.Digest, e.report.Rows, err = t.Digest(offline.ScanOptions{}); err != nil {
		return err
	}
	if e.report.Rows == 0 {
		return failure.New(failure.NotFound, e.Name, "there are no events in the offline log %s", t.Dir()).
			WithHint("run millrace stream, or name a file of them: --events %s=FILE", e.Name)
	}
	if e.knownAt < 0 {
		e.join = pit.TableEvents(e.Name, t, e.Schema, e.columns, e.known.After.Milliseconds())
		return nil
	}
	return e.resort(ctx, q.Limits.TempDir, tableRows(ctx, t, e.stored, e.Schema))
}

// fromParts reads the offline logs of the sources that it is merged of.
func (e *eventSource) fromParts(q *Request) error {
	if _, ok := q.Events[e.Name]; ok {
		return failure.New(failure.BadRequest, e.Name, "the source is merged of others: its events cannot be read from a file").
			WithHint("leave --events %s out: they are read from the offline log", e.Name)
	}
	if e.known.Column != "" {
		return failure.New(failure.BadRequest, e.Name, "the source is merged of others: when its events became known cannot be told by a column").
			WithHint("give a span after their event time")
	}
	var digests []string
	for _, root := range e.Roots() {
		t, err := offline.EventsTable(q.OfflineDir, root.Name, root.Schema)
		if err != nil {
			return err
		}
		digest, rows, err := t.Digest(offline.ScanOptions{})
		if err != nil {
			return err
		}
		digests = append(digests, root.Name+"="+digest)
		e.report.Rows += rows
	}
	e.report.Digest = strings.Join(digests, " ")
	if e.report.Rows == 0 {
		return failure.New(failure.NotFound, e.Name, "there are no events of what it is merged of in the offline log").WithHint("run millrace stream")
	}
	e.join = pit.MergedEvents(q.OfflineDir, e.Source, e.known.After.Milliseconds())
	return nil
}

// fromFile reads events from a file whose columns are called as the schema's.
func (e *eventSource) fromFile(ctx context.Context, path, tempDir string) (err error) {
	if e.knownAt >= e.Schema.Stored() {
		return failure.New(failure.BadRequest, e.Name, "%q is derived: it cannot say when an event of a file became known", e.known.Column)
	}
	kinds := map[string]schemas.Kind{}
	for _, c := range e.stored {
		column, _ := e.Schema.Column(c)
		kinds[c] = column.Kind
	}
	file, err := Open(ctx, path, tempDir, kinds)
	if err != nil {
		return fmt.Errorf("opening events of %s: %w", e.Name, err)
	}
	e.close = func() { _ = file.Close() }
	e.report.File = path
	if e.report.Digest, err = FileDigest(ctx, path); err != nil {
		return err
	}
	rows, err := e.fileRows(ctx, file)
	if err != nil {
		return err
	}
	// Most files of events are in order: a look at their times is much cheaper than sorting them.
	ordered, last := true, int64(math.MinInt64)
	for record, err := range rows {
		if err != nil {
			return err
		}
		for i := range record.times {
			ordered = ordered && record.known[i] >= last
			last = record.known[i]
		}
		e.report.Rows += int64(len(record.times))
	}
	if !ordered {
		return e.resort(ctx, tempDir, rows)
	}
	e.join = pit.Source{Name: e.Name, Open: func(ctx context.Context, until int64) (pit.Events, error) {
		rows, err := e.fileRows(ctx, file)
		if err != nil {
			return nil, err
		}
		f := &fileEvents{schema: e.Schema, until: until}
		f.next, f.stop = iter.Pull2(rows)
		return f, nil
	}}
	return nil
}

// eventBatch is some events.
type eventBatch struct {
	times, known []int64
	batch        *offline.Batch
	columns      []int  // of the schema, of each column of the batch
	widened      []bool // columns of integers that are floats in the schema; nil for none
}

// row sets the columns of row i.
func (b *eventBatch) row(i int, row schemas.Row) {
	for k, c := range b.columns {
		v := b.batch.Value(i, k)
		if b.widened != nil && b.widened[k] && !v.IsNull() {
			v = schemas.FloatValue(float64(v.Int()))
		}
		row[c] = v
	}
}

// fileRows reads the columns that are needed and checks them against the schema.
func (e *eventSource) fileRows(ctx context.Context, file Columnar) (iter.Seq2[eventBatch, error], error) {
	var fields []int
	at := map[int]int{} // position in the file of each column of the schema
	joined, derived := e.Schema.Joined()
	for _, c := range e.stored {
		column, _ := e.Schema.Column(c)
		found := file.Schema().FieldIndices(c)
		if len(found) == 0 {
			if at := e.Schema.Index(c); column.Nullable && (at < joined || at >= derived) { // what is looked up was for every event
				continue // absent is null, as in a record
			}
			return nil, failure.New(failure.BadRequest, c, "the events of %s have no such column", e.Name)
		}
		have := offline.KindOf(file.Schema().Field(found[0]).Type)
		if have != column.Kind && !(column.Kind == schemas.Float && have == schemas.Int) {
			return nil, failure.New(failure.BadRequest, c, "the column is %s, but %s in the schema of %s", file.Schema().Field(found[0]).Type, column.Kind, e.Name)
		}
		fields = append(fields, found[0])
		at[found[0]] = e.Schema.Index(c)
	}
	slices.Sort(fields)
	all, columns, widened := make([]int, len(fields)), make([]int, len(fields)), make([]bool, len(fields))
	for i, f := range fields {
		all[i], columns[i] = i, at[f]
		widened[i] = offline.KindOf(file.Schema().Field(f).Type) != e.Schema.Columns[at[f]].Kind
	}
	return func(yield func(eventBatch, error) bool) {
		for record, err := range file.Records(ctx, fields) {
			var b eventBatch
			if err == nil {
				b, err = e.batch(record, all, columns)
				b.widened = widened
			}
			if !yield(b, err) || err != nil {
				return
			}
		}
	}, nil
}

func (e *eventSource) batch(record arrow.Record, all, columns []int) (eventBatch, error) {
	b, err := offline.NewBatch(record, all)
	if err != nil {
		return eventBatch{}, err
	}
	out := eventBatch{times: make([]int64, b.Len()), known: make([]int64, b.Len()), batch: b, columns: columns}
	timeAt, knownAt := slices.Index(columns, e.timeAt), slices.Index(columns, e.knownAt)
	for i := range b.Len() {
		t := b.Value(i, timeAt)
		if t.IsNull() {
			return out, failure.New(failure.BadRequest, e.Time, "an event of %s has no time", e.Name)
		}
		out.times[i] = t.Int()
		var known schemas.Value
		if knownAt >= 0 {
			known = b.Value(i, knownAt)
		}
		out.known[i] = e.knownTime(t.Int(), known)
	}
	return out, nil
}

// knownTime is when an event became known, given the value of its column.
func (e *eventSource) knownTime(at int64, column schemas.Value) int64 {
	known := at + e.known.After.Milliseconds()
	if !column.IsNull() {
		known = max(known, column.Int())
	}
	return known
}

// fileEvents are the events of a file that is in order.
type fileEvents struct {
	schema *schemas.Schema
	next   func() (eventBatch, error, bool)
	stop   func()
	b      eventBatch
	i      int
	until  int64
	err    error
}

func (f *fileEvents) Next() bool {
	f.i++
	for f.i >= len(f.b.times) {
		b, err, more := f.next()
		if !more || err != nil {
			f.err = err
			return false
		}
		f.b, f.i = b, 0
	}
	return f.b.known[f.i] < f.until
}

func (f *fileEvents) Time() int64  { return f.b.times[f.i] }
func (f *fileEvents) Known() int64 { return f.b.known[f.i] }
func (f *fileEvents) Err() error   { return f.err }

func (f *fileEvents) Close() error {
	f.stop()
	return nil
}

func (f *fileEvents) Row(row schemas.Row) {
	f.b.row(f.i, row)
	f.schema.Compute(row)
}

// tableRows reads the offline log in no particular order.
func tableRows(ctx context.Context, t *offline.Table, columns []string, s *schemas.Schema) iter.Seq2[eventBatch, error] {
	positions := make([]int, len(columns))
	for i, c := range columns {
		positions[i] = s.Index(c)
	}
	return func(yield func(eventBatch, error) bool) {
		stopped := false
		err := t.Scan(ctx, offline.ScanOptions{Columns: columns}, func(b *offline.Batch) error {
			e := eventBatch{times: make([]int64, b.Len()), batch: b, columns: positions}
			for i := range e.times {
				e.times[i] = b.Time(i)
			}
			if !yield(e, nil) {
				stopped = true
				return context.Canceled
			}
			return nil
		})
		if err != nil && !stopped {
			yield(eventBatch{}, err)
		}
	}
}

// resort brings events into the order in which they became known, by way of a table in a temporary folder: its writer
// sorts with bounded memory, and its reader merges.
func (e *eventSource) resort(ctx context.Context, tempDir string, rows iter.Seq2[eventBatch, error]) error {
	dir, err := os.MkdirTemp(tempDir, "millrace-events-")
	if err != nil {
		return failure.Wrap(failure.Unavailable, tempDir, "making a temporary folder", err)
	}
	closeFile := e.close
	e.close = func() {
		closeFile()
		_ = os.RemoveAll(dir) // a folder of temporary files
	}
	t, err := offline.EventsTable(dir, e.Name, e.Schema)
	if err != nil {
		return err
	}
	w, err := t.NewWriter(0, offline.WriterOptions{})
	if err != nil {
		return err
	}
	defer func() { _ = w.Close() }() // what is committed stays
	offset := int64(0)
	row := make(schemas.Row, len(e.Schema.Columns))
	for b, err := range rows {
		if err != nil {
			return err
		}
		for i := range b.times {
			b.row(i, row)
			e.Schema.Compute(row)
			var known schemas.Value
			if e.knownAt >= 0 {
				known = row[e.knownAt]
			}
			if err := w.Append(row, e.knownTime(b.times[i], known), offset); err != nil {
				return err
			}
			offset++
		}
	}
	if err := w.Commit(offset); err != nil {
		return err
	}
	e.join = pit.Source{Name: e.Name, Open: func(ctx context.Context, until int64) (pit.Events, error) {
		inner, err := pit.TableEvents(e.Name, t, e.Schema, e.columns, 0).Open(ctx, until)
		return &resorted{inner, make(schemas.Row, len(e.Schema.Columns)), e.timeAt, false}, err
	}}
	return nil
}

// resorted are events whose table is sorted by when they became known; their own time is in a column.
type resorted struct {
	pit.Events
	row    schemas.Row
	timeAt int
	read   bool // row is that of the current event
}

func (r *resorted) Next() bool {
	r.read = false
	return r.Events.Next()
}

func (r *resorted) load() {
	if !r.read {
		r.Events.Row(r.row)
		r.read = true
	}
}

func (r *resorted) Time() int64 {
	r.load()
	return r.row[r.timeAt].Int()
}

func (r *resorted) Row(row schemas.Row) {
	r.load()
	copy(row, r.row)
}
