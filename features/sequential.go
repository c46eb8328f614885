package features

import "github.com/millrace/millrace/schemas"

// SequentialReader reads one entity at ascending times, between which rows are folded in, as a replay does. What it returns is
// what Group.ReadInto returns, but for sums of floats, which agree to about 1e-9 relative because they are added in
// another order. It is for one goroutine; the zero one is ready, and is at its best when it stays with one group.
//
// A read folds a tile for each part of a window; from one read to the next few tiles join a window at its head and leave
// it at its tail. So for each window and level the tiles between are kept folded, as a queue of two stacks (Tangwongsan,
// Hirzel and Schneider, "General Incremental Sliding-Window Aggregation", VLDB 2015): a tile is folded twice altogether,
// and a read folds two states for a window instead of all its tiles.
type SequentialReader struct {
	scratch Scratch
	group   *Group
	entity  *Entity
	words   wordPlan
	queues  []queue // by window, then level
	last    int64   // time of the last read
	reads   int     // so far
}

// queue is the tiles that a window has of one level, folded: those in front from each of them to the last one in front,
// those behind all together. A state is a tile's row, with the start of its first tile.
type queue struct {
	front  []uint64 // rows, the whole front on top of the stack
	back   []uint64 // one row
	behind bool     // back holds something
	newest int64    // start of the newest tile in the queue; noTime when there is none
	read   int      // the last read whose window had tiles of the level
}

// shortRun is how many tiles are folded one by one all the same.
const shortRun = 3

// Begin starts with an entity of the group.
func (s *SequentialReader) Begin(g *Group, e *Entity) {
	if s.group != g {
		s.group, s.words = g, planWords(g)
		s.queues = make([]queue, len(g.windows)*len(g.levels))
		for i := range s.queues {
			s.queues[i].back = make([]uint64, g.stride)
		}
	}
	s.entity = e
	s.forget()
}

// forget empties the queues.
func (s *SequentialReader) forget() {
	s.last = noTime
	for i := range s.queues {
		s.queues[i].clear()
	}
}

func (q *queue) clear() { q.front, q.behind, q.newest = q.front[:0], false, noTime }

// Add is Group.Add.
func (s *SequentialReader) Add(row schemas.Row, t, seq int64) (Outcome, error) {
	e := s.entity
	late := e.newest != noTime && t < e.newestTile()
	outcome, err := s.group.Add(e, row, t, seq)
	if late && outcome == Applied && s.last != noTime {
		s.forget() // a tile that is folded already has changed
	}
	return outcome, err
}

// Read is Group.ReadInto.
func (s *SequentialReader) Read(at int64, out []Result) []Result {
	g, e := s.group, s.entity
	if e.newest >= at || at < s.last {
		s.forget()
		return g.ReadInto(&s.scratch, e, at, out)
	}
	s.last = at
	s.scratch.prepare(g)
	s.scratch.of(e)
	return s.scratch.read(at, at, g.room(out), s)
}

// advance brings the queues to the windows that were found.
func (s *SequentialReader) advance() {
	s.reads++
	n, first := len(s.group.levels), 0
	for w := range s.group.windows {
		for _, r := range s.scratch.runs[first:s.scratch.ends[w]] {
			if r.level == n {
				continue // the remainder
			}
			t, q := &s.scratch.levels[r.level], &s.queues[w*n+r.level]
			if r.level == 0 && r.until == t.count {
				r.until-- // the newest tile may still grow
			}
			if r.until-r.from > shortRun {
				if q.read != s.reads-1 {
					q.clear()
				}
				q.read = s.reads
				s.advanceQueue(q, t.rows, r)
			}
		}
		first = s.scratch.ends[w]
	}
	for i := range s.queues {
		if q := &s.queues[i]; q.read != s.reads && q.newest != noTime {
			q.clear()
		}
	}
}

// advanceQueue makes the queue hold the tiles of a run, which begins and ends no earlier than what it holds. rows are those of the run's level.
func (s *SequentialReader) advanceQueue(q *queue, rows []uint64, r run) {
	stride := s.group.stride
	first := int64(rows[r.from*stride+rowStart])
	for len(q.front) > 0 && int64(q.front[len(q.front)-stride+rowStart]) < first {
		q.front = q.front[:len(q.front)-stride]
	}
	next := r.until // the first tile that is not in the queue
	for next > r.from && int64(rows[(next-1)*stride+rowStart]) > q.newest {
		next--
	}
	if len(q.front) == 0 {
		// Its tiles have all left: those behind come to the front, without those that have left, too.
		q.behind = false
		for i := next - 1; i >= r.from; i-- {
			q.front = append(q.front, rows[i*stride:(i+1)*stride]...)
			if top := len(q.front) - stride; i < next-1 {
				mergeRow(s.words.all, q.front[top:], q.front[top-stride:top])
			}
		}
	}
	for ; next < r.until; next++ {
		row := rows[next*stride : (next+1)*stride]
		if q.behind {
			mergeRow(s.words.all, q.back, row)
		} else {
			copy(q.back, row)
			q.behind = true
		}
	}
	q.newest = int64(rows[(r.until-1)*stride+rowStart])
}

// fold folds what the queue of a window and level holds and reports the tiles that it does not hold.
func (s *SequentialReader) fold(a *accumulator, w int, r run) (rest run) {
	g := s.group
	q := &s.queues[w*len(g.levels)+r.level]
	if q.newest == noTime {
		return r
	}
	state := s.scratch.state[:a.words]
	if n := len(q.front); n > 0 {
		a.fixed.merge(state, q.front[n-g.stride+a.offset:][:a.words])
	}
	if q.behind {
		a.fixed.merge(state, q.back[a.offset:][:a.words])
	}
	if r.level == 0 && r.until == s.scratch.levels[0].count {
		return run{0, r.until - 1, r.until}
	}
	return run{}
}
