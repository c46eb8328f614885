package training

import (
	"context"
	"fmt"
	"math"
	"strings"
	"sync"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"github.com/millrace/millrace/features"
	"github.com/millrace/millrace/features/offline"
	"github.com/millrace/millrace/internal/failure"
	"github.com/millrace/millrace/project"
	"github.com/millrace/millrace/schemas"
)

// replay fills the columns that come from feature groups. Each source is read once, in the order of (event time,
// partition, offset), and handed in chunks to its groups; each group folds the events into its entities in a goroutine
// of its own and writes columns of its own, so that the outcome does not depend on who is faster.
func (b *builder) replay(ctx context.Context, d *Dataset, rows []*spineRow) error {
	if len(rows) == 0 || len(d.Lookups) == 0 {
		return nil
	}
	g, ctx := errgroup.WithContext(ctx)
	gauge := b.gauge(int64(len(rows) * len(d.Lookups)))
	for _, source := range groupSources(b.model) {
		var feeds []chan *chunk
		for _, group := range b.model.Groups() {
			if group.Source != source {
				continue
			}
			feed := make(chan *chunk, 4)
			feeds = append(feeds, feed)
			r := b.replayer(group, d, rows, gauge)
			g.Go(func() error { return r.run(ctx, feed) })
		}
		g.Go(func() error { return b.feed(ctx, source, d.Times[len(rows)-1], feeds) })
	}
	return g.Wait()
}

// groupSources lists the sources of the model's groups, each once.
func groupSources(m *project.Model) []*project.Source {
	var sources []*project.Source
	seen := map[*project.Source]bool{}
	for _, g := range m.Groups() {
		if !seen[g.Source] {
			seen[g.Source] = true
			sources = append(sources, g.Source)
		}
	}
	return sources
}

// gauge counts rows read by all groups together and tells the progress.
func (b *builder) gauge(total int64) func(int) {
	var done atomic.Int64
	var one sync.Mutex
	return func(n int) {
		now := done.Add(int64(n))
		one.Lock()
		defer one.Unlock()
		b.progress("features", min(max(now, done.Load()), total), total)
	}
}

// chunk is some events of a source, read by several groups at once and changed by none.
type chunk struct {
	rows  []schemas.Row
	at    []position
	cells []schemas.Value // what rows are slices of
}

func newChunk(rows, width int) *chunk {
	return &chunk{rows: make([]schemas.Row, 0, rows), at: make([]position, 0, rows), cells: make([]schemas.Value, 0, rows*width)}
}

func (c *chunk) add(row schemas.Row, at position) {
	start := len(c.cells)
	c.cells = append(c.cells, row...)
	c.rows = append(c.rows, c.cells[start:len(c.cells):len(c.cells)])
	c.at = append(c.at, at)
}

// feed reads a source up to the last row's time and hands every group every event. The log is read from its beginning:
// a group without a TTL remembers an entity for ever, and so must the replay (not_found is not an empty window).
func (b *builder) feed(ctx context.Context, s *project.Source, last int64, feeds []chan *chunk) error {
	defer func() {
		for _, f := range feeds {
			close(f)
		}
	}()
	it, err := offline.SourceEvents(ctx, b.dir, s, offline.ScanOptions{Until: last})
	if err != nil {
		return fmt.Errorf("sorting %s: %w", s.Name, err)
	}
	defer func() { _ = it.Close() }() // it was only read from
	c := newChunk(b.cfg.ChunkRows, len(s.Schema.Columns))
	for it.Next() {
		c.add(it.Row(), position{it.Time(), it.Partition(), it.Offset()})
		if len(c.rows) == b.cfg.ChunkRows {
			if err := hand(ctx, c, feeds); err != nil {
				return err
			}
			c = newChunk(b.cfg.ChunkRows, len(s.Schema.Columns))
		}
	}
	if err := it.Err(); err != nil {
		return fmt.Errorf("reading %s: %w", s.Name, err)
	}
	return hand(ctx, c, feeds)
}

func hand(ctx context.Context, c *chunk, feeds []chan *chunk) error {
	for _, f := range feeds {
		select {
		case f <- c:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// replayer is one group's replay.
type replayer struct {
	group    *project.Group
	inputs   []project.Input
	data     *Dataset
	rows     []*spineRow
	lookups  []int // of the dataset, those that read this group
	next     int   // the first row that is still to be read
	applied  int64 // events seen: what breaks ties of event time, so that they fall as the order of the replay has it
	entities map[string]*replayed
	scratch  features.Scratch
	results  []features.Result
	gauge    func(int)
}

// replayed is an entity with the values last read from it: rows of the same moment share them.
type replayed struct {
	entity *features.Entity
	at     int64
	values []float64 // of all outputs; nil before the first read
}

func (b *builder) replayer(g *project.Group, d *Dataset, rows []*spineRow, gauge func(int)) *replayer {
	r := &replayer{group: g, inputs: b.model.Inputs, data: d, rows: rows, gauge: gauge, entities: map[string]*replayed{}}
	for i, l := range d.Lookups {
		if l.Group == g.Name {
			r.lookups = append(r.lookups, i)
		}
	}
	return r
}

// run folds events in and reads rows, in the order of time. A row is read before the events of its own moment.
func (r *replayer) run(ctx context.Context, feed <-chan *chunk) error {
	for {
		before := r.next
		select {
		case <-ctx.Done():
			return ctx.Err()
		case c, more := <-feed:
			if !more {
				r.readUntil(math.MaxInt64)
				r.gauge((r.next - before) * len(r.lookups))
				return ctx.Err()
			}
			for i, row := range c.rows {
				r.readUntil(c.at[i].time)
				if err := r.apply(row, c.at[i]); err != nil {
					return fmt.Errorf("applying %s offset %d/%d: %w", r.group.Source.Name, c.at[i].partition, c.at[i].offset, err)
				}
			}
			r.gauge((r.next - before) * len(r.lookups))
		}
	}
}

// apply folds one event in. An event that ingest would send to the dead letters teaches the entity nothing here either.
func (r *replayer) apply(row schemas.Row, at position) error {
	r.applied++
	key, err := r.group.Key(row)
	if err != nil {
		return unlessLetter(err)
	}
	e, known := r.entities[key]
	if !known {
		e = &replayed{entity: r.group.NewEntity()}
	}
	outcome, err := r.group.Add(e.entity, row, at.time, r.applied)
	if err != nil {
		return unlessLetter(err)
	}
	if !known && outcome == features.Applied {
		r.entities[strings.Clone(key)] = e // text of a scan keeps its whole batch in memory
	}
	return nil
}

// unlessLetter forgets the error of an event that belongs on the dead-letter topic.
func unlessLetter(err error) error {
	if failure.Of(err).DeadLetter() {
		return nil
	}
	return err
}

// readUntil reads the rows whose time is at most t: all events before t have been folded in.
func (r *replayer) readUntil(t int64) {
	for ; r.next < len(r.rows) && r.rows[r.next].time <= t; r.next++ {
		for _, l := range r.lookups {
			r.read(&r.data.Lookups[l], r.rows[r.next].entity[l], r.next)
		}
	}
}

func (r *replayer) read(l *Lookup, key string, row int) {
	e, at := r.entities[key], r.rows[row].time
	if e == nil {
		l.Newest[row] = never
		for _, i := range l.Inputs {
			r.data.Columns[i][row] = math.NaN()
		}
		return
	}
	if e.values == nil || e.at != at {
		r.results = r.group.ReadInto(&r.scratch, e.entity, at, r.results[:0])
		e.values, e.at = e.values[:0], at
		for _, v := range r.results {
			e.values = append(e.values, number(v.Value))
		}
	}
	l.Newest[row] = e.entity.Newest()
	for _, i := range l.Inputs {
		r.data.Columns[i][row] = e.values[r.inputs[i].Output]
	}
}
