package features

import (
	"math"

	"github.com/millrace/millrace/schemas"
)

// Words is the values of all outputs of a group at one time as bare words.
type Words struct {
	Values []uint64 // by output: the bits of a float, an int, Unix milliseconds, or 0 or 1; 0 where null
	Nulls  []uint64 // bit i%64 of word i/64 is set where output i is null
	Status Status   // Present, though single values may be null, or NotFound, or Expired
}

func (w *Words) reset(outputs int) {
	if n := (outputs + 63) / 64; len(w.Values) != outputs || len(w.Nulls) != n {
		w.Values, w.Nulls = make([]uint64, outputs), make([]uint64, n)
	}
	clear(w.Nulls)
	w.Status = Present
}

// absent makes all values null.
func (w *Words) absent(status Status) {
	w.Status = status
	clear(w.Values)
	for i := range w.Nulls {
		w.Nulls[i] = math.MaxUint64
	}
}

func (w *Words) put(output int, v schemas.Value) {
	switch v.Kind() {
	case schemas.Null:
		w.Values[output] = 0
		w.Nulls[output/64] |= 1 << (output % 64)
	case schemas.Float:
		f, _ := v.Float()
		w.Values[output] = math.Float64bits(f)
	default:
		w.Values[output] = uint64(v.Int())
	}
}

// wordPlan is what ReadWords does for a group: whole rows of tiles are folded, instead of one state after the other.
type wordPlan struct {
	able   bool         // every output is made of one fixed state, so that there is nothing but words
	all    []rowStep    // every fixed state
	folds  [][]rowStep  // by window: the states that are folded over it
	puts   [][]wordRead // by window: the values that are read from it
	state  []uint64     // a tile's row, of what is folded so far
	limits []int        // by level: tiles that the windows so far have not taken
}

// wordRead is one value made of a row.
type wordRead struct {
	*read
	from, until int // of the row
}

func planWords(g *Group) wordPlan {
	p := wordPlan{able: g.growing == 0 && len(g.ratios) == 0, folds: make([][]rowStep, len(g.windows)), puts: make([][]wordRead, len(g.windows)),
		state: make([]uint64, g.stride), limits: make([]int, len(g.levels)+1)}
	for i := range g.accumulators {
		a := &g.accumulators[i]
		if a.fixed == nil {
			continue
		}
		step := rowStepOf(a)
		p.all = append(p.all, step)
		for w, folds := range a.folds {
			if folds {
				p.folds[w] = append(p.folds[w], step)
			}
		}
		for k := range a.reads {
			r := &a.reads[k]
			p.puts[r.window] = append(p.puts[r.window], wordRead{r, a.offset, a.offset + a.words})
		}
	}
	return p
}

// ReadWords is Read into words. It is false, and nothing is read, where only Read can: when values are not words alone, the state has events at the
// time or later, or the time is before that of the last read.
func (s *SequentialReader) ReadWords(at int64, into *Words) bool {
	g, e, p := s.group, s.entity, &s.words
	if !p.able || e.newest >= at || at < s.last || e.exactFrom != noTime || at > maxTime {
		return false
	}
	into.reset(len(g.Outputs))
	s.last = at
	switch {
	case e.newest == noTime:
		into.absent(NotFound)
		return true
	case g.ttl > 0 && e.newest < at-g.ttl:
		into.absent(Expired)
		return true
	}
	edge := at
	if g.Edge == EdgeEvent {
		edge = e.newest + 1
	}
	s.reads++
	for w := range g.windows {
		window := &g.windows[w]
		if window.fresh {
			clear(p.state)
			s.limitWords(window, edge)
		}
		s.foldWindow(w, window, edge)
		for k := range p.puts[w] {
			r := &p.puts[w][k]
			asOf := edge
			if r.readsClock {
				asOf = at
			}
			v := r.fixed(p.state[r.from:r.until], asOf)
			if v.IsNull() {
				v = r.empty
			}
			into.put(r.output, v)
		}
	}
	return true
}

// limitWords sets the limits to where a window ends.
func (s *SequentialReader) limitWords(window *window, edge int64) {
	e := s.entity
	for l := range s.words.limits {
		n := int(e.counts[l])
		if n > 0 && window.delay > 0 && l < len(s.group.levels) {
			from, until := e.span(l)
			n = e.firstFrom(from, until, window.head(edge)) - from
		}
		s.words.limits[l] = n
	}
}

// foldWindow folds the tiles that a window adds to the one before it: back to its tail, or all of them. Where a level has an older tile, no
// coarser level has a newer one.
func (s *SequentialReader) foldWindow(w int, window *window, edge int64) {
	e, limits := s.entity, s.words.limits
	until := e.tiles
	if window.lifetime {
		for l := range limits {
			until -= int(e.counts[l])
			if limits[l] > 0 {
				s.foldRun(w, l, until, 0, limits[l])
				limits[l] = 0
			}
		}
		return
	}
	tail := window.tail(edge)
	for l := range s.group.levels {
		n := int(e.counts[l])
		until -= n
		if limits[l] == 0 {
			if n > 0 && e.start(until) < tail {
				return
			}
			continue
		}
		from := s.firstTile(until, limits[l], tail-s.group.levels[l].width+1)
		if from < limits[l] {
			s.foldRun(w, l, until, from, limits[l])
			limits[l] = from
		}
		if from > 0 {
			return
		}
	}
}

// firstTile is the index of the first of n > 0 tiles, which lie from base on, that starts at or after time. Most windows start in one level
// alone, and where the last read's did, so the ends are tried first.
func (s *SequentialReader) firstTile(base, n int, time int64) int {
	e := s.entity
	switch {
	case e.start(base) >= time:
		return 0
	case e.start(base+n-1) < time:
		return n
	}
	return e.firstFrom(base, base+n-1, time) - base
}

// foldRun folds tiles of a level, whose first one is the entity's tile base: by the queue of the window and level, where there are many.
func (s *SequentialReader) foldRun(w, l, base, from, until int) {
	e, stride, steps := s.entity, s.group.stride, s.words.folds[w]
	count := int(e.counts[l])
	rows := e.words[base*stride : (base+count)*stride]
	if l < len(s.group.levels) {
		closed := until
		if l == 0 && until == count {
			closed-- // the newest tile may still grow
		}
		if closed-from > shortRun {
			q := &s.queues[w*len(s.group.levels)+l]
			if q.read != s.reads-1 {
				q.clear()
			}
			q.read = s.reads
			s.advanceQueue(q, rows, run{l, from, closed})
			if n := len(q.front); n > 0 {
				mergeRow(steps, s.words.state, q.front[n-stride:])
			}
			if q.behind {
				mergeRow(steps, s.words.state, q.back)
			}
			from = closed
		}
	}
	for i := from; i < until; i++ {
		mergeRow(steps, s.words.state, rows[i*stride:(i+1)*stride])
	}
}
