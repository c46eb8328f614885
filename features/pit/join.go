package pit

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"github.com/millrace/millrace/features"
	"github.com/millrace/millrace/internal/failure"
	"github.com/millrace/millrace/schemas"
)

// Join fills the rows and hands them out block by block, in the order of time. A block is used again when sink has
// returned. An error of sink ends the join and is returned.
func (s *Spine) Join(ctx context.Context, sources []Source, sink func(*Block) error) error {
	if s.Len() == 0 {
		return nil
	}
	j := &join{cfg: s.cfg, spine: s, file: stateFile{dir: s.cfg.TempDir}, workers: make([]worker, s.cfg.Workers)}
	defer j.file.close()
	for _, g := range s.groups {
		j.groups = append(j.groups, &groupJoin{groupKeys: g, states: make([]held, len(g.ids)+1), events: make([]int32, len(g.ids)+1), rows: make([]int32, len(g.ids)+1)})
	}
	for i := range j.workers {
		j.workers[i].readers = make([]features.SequentialReader, len(j.groups))
	}
	cut, err := j.slicer(ctx, sources)
	if err != nil {
		return err
	}
	defer cut.close()
	return j.run(ctx, cut, len(sources), sink)
}

// join is a Spine.Join on its way.
type join struct {
	cfg     Config
	spine   *Spine
	groups  []*groupJoin
	workers []worker
	file    stateFile
	bytes   int64 // of states in memory
}

// groupJoin is a group's entities, and those of the current slice.
type groupJoin struct {
	*groupKeys
	states []held // by entity
	// The events and rows of each entity in the slice are chained in their order. Numbers count from 1, 0 is the end.
	events, rows       []int32 // the first one of each entity
	nextEvent, nextRow []int32 // after each
	touched            []uint32
}

func (j *join) slicer(ctx context.Context, sources []Source) (cut *slicer, err error) {
	merge, err := j.spine.rows.sorted()
	if err != nil {
		return nil, err
	}
	cut = &slicer{cfg: j.cfg, rows: merge}
	defer func() {
		if err != nil {
			cut.close()
		}
	}()
	for i, source := range sources {
		h := &head{name: source.Name, known: Never}
		for _, g := range j.groups {
			if g.source == i {
				h.width = g.group.Width()
			}
		}
		if h.Events, err = source.Open(ctx, j.spine.rows.latest); err != nil {
			return cut, err
		}
		cut.heads = append(cut.heads, h)
		if err := h.advance(); err != nil {
			return cut, err
		}
	}
	return cut, cut.nextRow()
}

// run reads, fills and hands out at the same time, each a slice behind the other.
func (j *join) run(ctx context.Context, cut *slicer, sources int, sink func(*Block) error) error {
	stages, ctx := errgroup.WithContext(ctx)
	slices, freeSlices := make(chan *slice), make(chan *slice, 3)
	blocks, freeBlocks := make(chan *Block), make(chan *Block, 3)
	for range cap(freeSlices) {
		freeSlices <- &slice{events: make([]eventList, sources)}
		freeBlocks <- newBlock(j.spine.lookups)
	}
	stages.Go(func() error {
		defer close(slices)
		for {
			s, err := receive(ctx, freeSlices)
			if err != nil {
				return err
			}
			if err := cut.fill(ctx, s); err != nil {
				return err
			}
			if len(s.rows) == 0 && !cut.more {
				return nil
			}
			if err := send(ctx, slices, s); err != nil {
				return err
			}
		}
	})
	stages.Go(func() error {
		defer close(blocks)
		for s := range slices {
			b, err := receive(ctx, freeBlocks)
			if err != nil {
				return err
			}
			if err := j.fill(ctx, s, b); err != nil {
				return err
			}
			if err := send(ctx, blocks, b); err != nil {
				return err
			}
			freeSlices <- s
		}
		return nil
	})
	stages.Go(func() error {
		for b := range blocks {
			if len(b.Rows) > 0 {
				if err := sink(b); err != nil {
					return err
				}
			}
			freeBlocks <- b
		}
		return ctx.Err()
	})
	return stages.Wait()
}

func receive[T any](ctx context.Context, from <-chan T) (v T, err error) {
	select {
	case v = <-from:
		return v, nil
	case <-ctx.Done():
		return v, ctx.Err()
	}
}

func send[T any](ctx context.Context, to chan<- T, v T) error {
	select {
	case to <- v:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// fill folds a slice's events in and reads its rows.
func (j *join) fill(ctx context.Context, s *slice, b *Block) error {
	b.Rows, b.Times = append(b.Rows[:0], s.rows...), append(b.Times[:0], s.times...)
	b.resize(len(s.rows))
	prepare, _ := errgroup.WithContext(ctx)
	for _, g := range j.groups {
		prepare.Go(func() error { return j.chain(g, s, b) })
	}
	if err := prepare.Wait(); err != nil {
		return err
	}
	for i, g := range j.groups {
		if err := j.replay(ctx, i, g, s, b); err != nil {
			return err
		}
	}
	if j.bytes > j.cfg.MaxStateBytes {
		return j.makeRoom()
	}
	return nil
}

// chain finds the events and rows of each entity. Rows without an entity are filled here.
func (j *join) chain(g *groupJoin, s *slice, b *Block) error {
	g.touched = g.touched[:0]
	events := &s.events[g.source]
	g.nextEvent = sized(g.nextEvent, len(events.rows)+1)
	for i := len(events.rows); i > 0; i-- {
		key, err := g.group.Key(events.rows[i-1])
		if err != nil {
			if failure.Of(err).DeadLetter() {
				continue // it taught the stream nothing either
			}
			return fmt.Errorf("finding the entity of an event: %w", err)
		}
		id, wanted := g.ids[key]
		if !wanted {
			continue
		}
		if g.events[id] == 0 {
			g.touched = append(g.touched, id)
		}
		g.nextEvent[i], g.events[id] = g.events[id], int32(i)
	}
	lookups, all := len(g.lookups), len(j.spine.lookups)
	g.nextRow = sized(g.nextRow, len(s.rows)*lookups+1)
	for r := len(s.rows) - 1; r >= 0; r-- {
		for k := lookups - 1; k >= 0; k-- {
			id := s.entities[r*all+g.lookups[k]]
			if id == 0 {
				b.lookups[g.lookups[k]].absent(r)
				continue
			}
			if g.events[id] == 0 && g.rows[id] == 0 {
				g.touched = append(g.touched, id)
			}
			n := int32(r*lookups + k + 1)
			g.nextRow[n], g.rows[id] = g.rows[id], n
		}
	}
	return nil
}

// entitiesAtOnce is how many entities a worker takes in turn.
const entitiesAtOnce = 4

// replay lets the workers take the slice's entities of a group.
func (j *join) replay(ctx context.Context, number int, g *groupJoin, s *slice, b *Block) error {
	work, ctx := errgroup.WithContext(ctx)
	var next atomic.Int64
	var one sync.Mutex
	for i := range min(len(j.workers), (len(g.touched)+entitiesAtOnce-1)/entitiesAtOnce) {
		w := &j.workers[i]
		work.Go(func() error {
			grown := int64(0)
			defer func() {
				one.Lock()
				j.bytes += grown
				one.Unlock()
			}()
			for ctx.Err() == nil {
				from := int(next.Add(entitiesAtOnce)) - entitiesAtOnce
				if from >= len(g.touched) {
					return nil
				}
				for _, id := range g.touched[from:min(from+entitiesAtOnce, len(g.touched))] {
					h := &g.states[id]
					before := h.bytes
					if err := w.entity(j, number, g, s, b, id); err != nil {
						return fmt.Errorf("replaying %s of %s: %w", s.describe(g), g.group.Name, err)
					}
					g.events[id], g.rows[id] = 0, 0
					grown += h.bytes - before
				}
			}
			return ctx.Err()
		})
	}
	return work.Wait()
}

func (s *slice) describe(g *groupJoin) string {
	l := &s.events[g.source]
	return fmt.Sprintf("events %d to %d", l.seq, l.seq+int64(len(l.rows)))
}

// worker is one goroutine's memory.
type worker struct {
	readers []features.SequentialReader // by group
	results []features.Result
	words   features.Words
	buffer  []byte
	scratch features.Scratch // for entities without a state
	own     schemas.Row
}

// entity folds an entity's events in and reads its rows, in the order of time. A row is read before the events that became
// known at its own moment.
func (w *worker) entity(j *join, number int, g *groupJoin, s *slice, b *Block, id uint32) error {
	h := &g.states[id]
	events, lookups := &s.events[g.source], len(g.lookups)
	switch {
	case h.size > 0:
		var err error
		if w.buffer, err = j.file.restore(g.group, h, w.buffer); err != nil {
			return err
		}
	case h.state == nil && g.events[id] != 0:
		h.state = g.group.NewEntity()
	}
	reader := &w.readers[number]
	if h.state != nil {
		h.used = s.number
		reader.Begin(g.group, h.state)
	}
	event, last, lastAt, asWords := g.events[id], -1, int32(0), false
	for row := g.rows[id]; row != 0; row = g.nextRow[row] {
		r, k := int(row-1)/lookups, int(row-1)%lookups
		lookup := g.lookups[k]
		at, c := s.times[r], &b.lookups[lookup]
		own := j.spine.lookups[lookup].Own
		for ; event != 0 && events.known[event-1] < at; event = g.nextEvent[event] {
			if err := w.add(g, reader, events, event); err != nil {
				return err
			}
			last = -1
		}
		switch {
		case own != nil && w.readOwn(g, reader, h.state, own, s.rows[r], at):
			c.set(r, j.spine.lookups[lookup].Outputs, w.results, newestOf(h.state))
			last = -1
			continue
		case h.state == nil:
			c.absent(r)
			continue
		case last == lookup && s.times[lastAt] == at:
			c.repeat(r, int(lastAt))
			continue
		case last < 0 || s.times[lastAt] != at:
			if asWords = reader.ReadWords(at, &w.words); !asWords {
				w.results = reader.Read(at, w.results)
			}
		}
		if asWords {
			c.setWords(r, j.spine.lookups[lookup].Outputs, &w.words, h.state.Newest())
		} else {
			c.set(r, j.spine.lookups[lookup].Outputs, w.results, h.state.Newest())
		}
		last, lastAt = lookup, int32(r)
	}
	for ; event != 0; event = g.nextEvent[event] {
		if err := w.add(g, reader, events, event); err != nil {
			return err
		}
	}
	if h.state != nil {
		h.bytes = int64(h.state.Bytes())
	}
	return nil
}

// readOwn reads an entity, of which there may be no state, with the row's own event. It is false where the row has none that the source takes.
func (w *worker) readOwn(g *groupJoin, reader *features.SequentialReader, state *features.Entity, own func(int64, schemas.Row) (schemas.Row, bool), row, at int64) bool {
	var takes bool
	if w.own, takes = own(row, w.own); !takes {
		return false
	}
	event := features.OwnEvent{Row: w.own, Time: at}
	if state == nil {
		w.results = g.group.ReadWith(&w.scratch, nil, event, at, w.results)
	} else {
		w.results = reader.ReadWith(event, at, w.results)
	}
	return true
}

func newestOf(state *features.Entity) int64 {
	if state == nil {
		return Never
	}
	return state.Newest()
}

// add folds one event in. An event that ingest would send to the dead letters teaches the entity nothing here either.
func (w *worker) add(g *groupJoin, reader *features.SequentialReader, events *eventList, event int32) error {
	i := int(event - 1)
	_, err := reader.Add(events.rows[i], events.times[i], events.seq+int64(event))
	if err != nil && !failure.Of(err).DeadLetter() {
		return err
	}
	return nil
}
