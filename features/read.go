package features

import (
	"math"

	"github.com/millrace/millrace/schemas"
)

// Scratch is working memory of reading, for one goroutine at a time. The zero Scratch is ready, for any group; it is at
// its best when it stays with one.
type Scratch struct {
	group   *Group
	state   []uint64  // of one accumulator, folded so far
	folders []folder  // by slot
	runs    []run     // of all windows, one after the other
	ends    []int     // by window: where its runs end
	limits  []int     // by level: tiles that the windows so far have not taken
	view    View      // of ReadState
	bytes   []byte    // of the stored state that is read
	buffer  []uint64  // an accumulator's states, taken out of a stored state, one after the other
	own     ownTile   // the request's own event, where it is merged in
	levels  []stretch // what is read, and the remainder behind the last level
	parts   []schemas.Value
	// of the entity that is read
	newest, oldest, exactFrom int64
}

// run is tiles of one level that a window has and, unless it starts anew, the one before it has not.
type run struct{ level, from, until int }

// stretch is the tiles of one level, of an Entity or of a stored state.
type stretch struct {
	count   int
	rows    []uint64 // of an Entity
	columns []column // of a stored state
	times   tileTimes
	growing []extent
	arena   []uint64 // of growing
}

func (s *Scratch) prepare(g *Group) {
	if s.group == g {
		return
	}
	s.group = g
	most := 0
	s.folders = make([]folder, g.growing)
	for i := range g.accumulators {
		if a := &g.accumulators[i]; a.growing != nil {
			s.folders[a.slot] = a.growing.newFolder()
		} else {
			most = max(most, a.words)
		}
	}
	s.state = make([]uint64, most)
	s.ends = make([]int, len(g.windows))
	s.limits = make([]int, len(g.levels))
	s.levels = make([]stretch, len(g.levels)+1)
	s.parts = make([]schemas.Value, 2*len(g.ratios))
	s.own.prepare(g)
}

// Read returns the value of every output as of time at (Unix milliseconds), in the order of Outputs, in out's memory
// where that suffices. e may be nil. It does not change e. Package documentation says what a window covers.
func (g *Group) Read(e *Entity, at int64, out []Result) []Result {
	s, _ := g.scratches.Get().(*Scratch)
	if s == nil {
		s = &Scratch{}
	}
	out = g.ReadInto(s, e, at, out)
	g.scratches.Put(s)
	return out
}

// ReadInto is Read with working memory of the caller.
func (g *Group) ReadInto(s *Scratch, e *Entity, at int64, out []Result) []Result {
	s.prepare(g)
	if e == nil {
		return fill(g.room(out), NotFound)
	}
	s.of(e)
	return s.read(at, at, g.room(out), nil)
}

// of lays an entity ready to be read.
func (s *Scratch) of(e *Entity) {
	g := s.group
	s.newest, s.oldest, s.exactFrom = e.newest, e.oldest, e.exactFrom
	first := 0
	for l := len(g.levels); l >= 0; l-- {
		n := int(e.counts[l])
		s.levels[l] = stretch{count: n, rows: e.words[first*g.stride : (first+n)*g.stride],
			growing: e.growing[first*g.growing : (first+n)*g.growing], arena: e.arena}
		first += n
	}
}

// room is out with the length of the outputs.
func (g *Group) room(out []Result) []Result {
	if cap(out) < len(g.Outputs) {
		return make([]Result, len(g.Outputs))
	}
	return out[:len(g.Outputs)]
}

func fill(out []Result, status Status) []Result {
	for i := range out {
		out[i] = Result{Status: status}
	}
	return out
}

// read resolves all outputs, as of a time, of what prepare and the caller have laid ready: of the events before cut, and of the
// request's own where there is one. folded is what a sequence has folded already; it may be nil.
func (s *Scratch) read(cut, at int64, out []Result, folded *SequentialReader) []Result {
	g := s.group
	cut, at = min(max(cut, -maxTime), maxTime), min(max(at, -maxTime), maxTime)
	newest := s.newestBefore(cut)
	if s.own.merged {
		newest = max(newest, s.own.time)
	}
	switch {
	case newest == noTime:
		return fill(out, NotFound)
	case g.ttl > 0 && newest < at-g.ttl:
		return fill(out, Expired)
	}
	edge := at
	if g.Edge == EdgeEvent {
		edge = newest + 1
	}
	s.findRuns(cut, edge)
	if s.own.merged {
		s.own.place(g, edge)
	}
	if folded != nil {
		folded.advance()
	}
	for i := range g.accumulators {
		a := &g.accumulators[i]
		next := 0
		for w := range a.folds {
			if !a.folds[w] {
				continue
			}
			s.fold(a, w, folded)
			for ; next < len(a.reads) && a.reads[next].window == w; next++ {
				s.put(a, &a.reads[next], at, edge, out)
			}
		}
	}
	for i := range g.ratios {
		r := &g.ratios[i]
		out[r.output] = s.resultOf(r.window, edge, s.divide(r, len(out)), r.empty)
	}
	return out
}

// start is when a tile of a level starts, newestOf its newest event time.
func (s *Scratch) start(t *stretch, i int) int64 {
	if t.columns == nil {
		return int64(t.rows[i*s.group.stride+rowStart])
	}
	return t.times.base + t.times.width*int64(t.columns[rowStart].load(s.bytes, i))
}

func (s *Scratch) newestOf(t *stretch, i int) int64 {
	if t.columns == nil {
		return int64(t.rows[i*s.group.stride+rowNewest])
	}
	age := int64(t.columns[rowNewest].load(s.bytes, i))
	if t.times.rest {
		return t.times.base - age
	}
	return s.start(t, i) + age
}

// firstFrom is the index of the first of the first n > 0 tiles that starts at or after time. Most windows start in one
// level alone, so the ends are tried first.
func (s *Scratch) firstFrom(t *stretch, n int, time int64) int {
	low, high := 0, n-1
	if s.start(t, 0) >= time {
		return 0
	}
	if s.start(t, high) < time {
		return n
	}
	for low < high {
		middle := int(uint(low+high) >> 1)
		if s.start(t, middle) < time {
			low = middle + 1
		} else {
			high = middle
		}
	}
	return low
}

// endBefore is the number of tiles whose events all lie before time. Tiles do not overlap, so they are the first ones.
func (s *Scratch) endBefore(t *stretch, time int64) int {
	low, high := 0, t.count
	for low < high {
		middle := int(uint(low+high) >> 1)
		if s.newestOf(t, middle) < time {
			low = middle + 1
		} else {
			high = middle
		}
	}
	return low
}

// newestBefore is the newest event time that a read at a time may see, as far as tiles tell: the newest of those that end
// before it, else the oldest of the entity, else noTime.
func (s *Scratch) newestBefore(at int64) int64 {
	switch {
	case s.newest < at: // also without events
		return s.newest
	case s.oldest >= at:
		return noTime
	}
	for l := range s.levels {
		t := &s.levels[l]
		if n := s.endBefore(t, at); n > 0 {
			return s.newestOf(t, n-1)
		}
	}
	return s.oldest
}

// findRuns finds for each window the tiles that it adds to the one before it. Tiles with an event at the cut or later are no
// part of any window.
func (s *Scratch) findRuns(cut, edge int64) {
	g := s.group
	s.runs = s.runs[:0]
	for w := range g.windows {
		window := &g.windows[w]
		if window.fresh {
			s.limit(window, cut, edge)
		}
		if window.lifetime {
			s.runRest(cut)
		} else {
			s.runBack(window.tail(edge))
		}
		s.ends[w] = len(s.runs)
	}
}

// limit sets the limits to where a window ends.
func (s *Scratch) limit(window *window, cut, edge int64) {
	var head int64
	if window.delay > 0 {
		head = window.head(edge)
	}
	for l := range s.limits {
		t := &s.levels[l]
		n := t.count
		if n > 0 && s.newest >= cut {
			n = s.endBefore(t, cut)
		}
		if n > 0 && window.delay > 0 {
			n = s.firstFrom(t, n, head)
		}
		s.limits[l] = n
	}
}

// runBack takes the tiles back to a window's tail. Where a level has an older tile, no coarser level has a newer one.
func (s *Scratch) runBack(tail int64) {
	for l, until := range s.limits {
		if until == 0 {
			if s.levels[l].count > 0 && s.start(&s.levels[l], 0) < tail {
				return
			}
			continue
		}
		from := s.firstFrom(&s.levels[l], until, tail-s.group.levels[l].width+1)
		if from < until {
			s.runs = append(s.runs, run{l, from, until})
			s.limits[l] = from
		}
		if from > 0 {
			return
		}
	}
}

// runRest takes all tiles, and the remainder where it may be seen.
func (s *Scratch) runRest(cut int64) {
	for l, until := range s.limits {
		if until > 0 {
			s.runs = append(s.runs, run{l, 0, until})
			s.limits[l] = 0
		}
	}
	l := len(s.limits)
	if rest := &s.levels[l]; rest.count > 0 && s.newestOf(rest, 0) < cut {
		s.runs = append(s.runs, run{l, 0, 1})
	}
}

// fold folds the tiles that window w adds, after those of the window before it unless it starts anew.
func (s *Scratch) fold(a *accumulator, w int, folded *SequentialReader) {
	first := 0
	if w > 0 {
		first = s.ends[w-1]
	}
	if s.group.windows[w].fresh {
		clear(s.state[:a.words])
		if a.fixed == nil {
			s.folders[a.slot].reset()
		}
	}
	if s.own.merged && s.own.joins[w] {
		s.foldOwn(a)
	}
	for _, r := range s.runs[first:s.ends[w]] {
		if folded != nil && a.fixed != nil && r.level < len(s.group.levels) {
			r = folded.fold(a, w, r)
		}
		if r.from < r.until {
			s.foldTiles(a, &s.levels[r.level], r.from, r.until)
		}
	}
}

func (s *Scratch) foldTiles(a *accumulator, t *stretch, from, until int) {
	g := s.group
	switch {
	case a.fixed == nil:
		f := s.folders[a.slot]
		for i := from; i < until; i++ {
			f.fold(t.growing[i*g.growing+a.slot].of(t.arena))
		}
	case t.columns == nil:
		a.fixed.fold(s.state[:a.words], t.rows[from*g.stride+a.offset:until*g.stride], g.stride)
	default:
		s.foldColumns(a, t.columns[a.offset:a.offset+a.words], from, until)
	}
}

// foldColumns folds words that lie in columns: of the commonest states where they lie, of the others after putting each
// state's words together.
func (s *Scratch) foldColumns(a *accumulator, columns []column, from, until int) {
	b := s.bytes
	switch a.op {
	case opCount:
		s.state[0] += columns[0].sumWords(b, from, until)
	case opSum:
		s.state[0] += columns[0].sumWords(b, from, until)
		s.state[1] = math.Float64bits(columns[1].addFloats(math.Float64frombits(s.state[1]), b, from, until))
	case opMax:
		s.state[0] = max(s.state[0], columns[0].greatest(b, from, until))
	default:
		n := (until - from) * a.words
		if cap(s.buffer) < n {
			s.buffer = make([]uint64, n)
		}
		for c := range columns {
			columns[c].unpack(s.buffer[c:n], a.words, b, from, until)
		}
		a.fixed.fold(s.state[:a.words], s.buffer[:n], a.words)
	}
}

// put makes a value of what is folded.
func (s *Scratch) put(a *accumulator, r *read, at, edge int64, out []Result) {
	asOf := edge
	if r.readsClock {
		asOf = at
	}
	var v schemas.Value
	if a.fixed != nil {
		v = r.fixed(s.state[:a.words], asOf)
	} else {
		v = r.growing(s.folders[a.slot], asOf)
	}
	if r.output >= len(out) {
		s.parts[r.output-len(out)] = v
		return
	}
	out[r.output] = s.resultOf(r.window, edge, v, r.empty)
}

// resultOf is a value's result, and Overflow when its window begins before the exact tiles that are kept.
func (s *Scratch) resultOf(w int, edge int64, v, empty schemas.Value) Result {
	if s.exactFrom != noTime {
		if window := &s.group.windows[w]; window.exact && edge-window.reach() < s.exactFrom {
			return Result{Status: Overflow}
		}
	}
	if v.IsNull() {
		if v = empty; v.IsNull() {
			return Result{Status: Null}
		}
	}
	return Result{Value: v, Status: Present}
}

// divide is a ratio's value, null where a part is or the denominator is 0. outputs is their number.
func (s *Scratch) divide(r *ratio, outputs int) schemas.Value {
	above, ok := s.parts[r.numerator-outputs].Float()
	below, known := s.parts[r.denominator-outputs].Float()
	if !ok || !known || below == 0 {
		return schemas.NullValue()
	}
	return number(above / below)
}
