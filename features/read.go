package features

import (
	"github.com/millrace/millrace/schemas"
)

// Scratch is working memory of ReadInto, for one goroutine at a time. The zero Scratch is ready, for any group; it is at
// its best when it stays with one.
type Scratch struct {
	group   *Group
	state   []uint64 // of one accumulator, folded so far
	folders []folder // by slot
	runs    []run    // by window, then level
}

// run is the tiles of one level that a window has and the next shorter one has not.
type run struct{ from, until int }

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
	s.runs = make([]run, len(g.windows)*(len(g.levels)+1))
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
	if cap(out) < len(g.Outputs) {
		out = make([]Result, len(g.Outputs))
	}
	out = out[:len(g.Outputs)]
	at = min(max(at, -maxTime), maxTime)
	newest := int64(noTime)
	if e != nil {
		newest = e.newestBefore(at)
	}
	switch {
	case newest == noTime:
		return fill(out, NotFound)
	case g.ttl > 0 && newest < at-g.ttl:
		return fill(out, Expired)
	}
	s.prepare(g)
	rest := s.findRuns(e, at)
	for i := range g.accumulators {
		if a := &g.accumulators[i]; a.fixed != nil {
			s.readFixed(a, e, rest, out)
		} else {
			s.readGrowing(a, e, rest, out)
		}
	}
	return out
}

func fill(out []Result, status Status) []Result {
	for i := range out {
		out[i] = Result{Status: status}
	}
	return out
}

// newestBefore is the newest event time that a read at a time may see, as far as tiles tell: the newest of those that end
// before it, else the oldest of the entity, else noTime.
func (e *Entity) newestBefore(at int64) int64 {
	g := e.group
	switch {
	case e.newest < at:
		return e.newest
	case e.oldest >= at:
		return noTime
	}
	for l := range e.levels {
		if n := e.levels[l].endBefore(g, at); n > 0 {
			return e.levels[l].newest(g, n-1)
		}
	}
	if e.rest.count > 0 && e.rest.newest(g, 0) < at {
		return e.rest.newest(g, 0)
	}
	return e.oldest
}

// findRuns finds for each window the tiles that it adds to the next shorter one, and whether the remainder, which only
// lifetime has, may be seen. Tiles with an event at the time of reading or later are no part of any window.
func (s *Scratch) findRuns(e *Entity, at int64) (rest bool) {
	g := s.group
	for l := range e.levels {
		in := &e.levels[l]
		until := in.count
		if e.newest >= at {
			until = in.endBefore(g, at)
		}
		for w := range g.windows {
			from := 0
			if window := &g.windows[w]; !window.lifetime && until > 0 {
				tail := at - window.length
				tail -= floorMod(tail, g.levels[window.level].width)
				from = min(in.firstFrom(g, tail-g.levels[l].width+1), until)
			}
			s.runs[w*len(g.levels)+l] = run{from, until}
			until = from
		}
	}
	return g.lifetime && e.rest.count > 0 && e.rest.newest(g, 0) < at
}

// readFixed folds tiles from the newest to the oldest, and reads each output when the fold has come to its tail.
func (s *Scratch) readFixed(a *accumulator, e *Entity, rest bool, out []Result) {
	g := s.group
	state := s.state[:a.words]
	clear(state)
	next := 0
	for w := 0; w <= a.window; w++ {
		for l := range e.levels {
			if r := s.runs[w*len(g.levels)+l]; r.from < r.until {
				a.fixed.fold(state, e.levels[l].words[r.from*g.stride+a.offset:r.until*g.stride], g.stride)
			}
		}
		if rest && g.windows[w].lifetime {
			a.fixed.fold(state, e.rest.words[a.offset:], g.stride)
		}
		for ; next < len(a.reads) && a.reads[next].window == w; next++ {
			r := &a.reads[next]
			out[r.output] = r.result(r.fixed(state))
		}
	}
}

func (s *Scratch) readGrowing(a *accumulator, e *Entity, rest bool, out []Result) {
	g := s.group
	f := s.folders[a.slot]
	f.reset()
	next := 0
	for w := 0; w <= a.window; w++ {
		for l := range e.levels {
			states := e.levels[l].growing
			r := s.runs[w*len(g.levels)+l]
			for i := r.from; i < r.until; i++ {
				f.fold(states[i*g.growing+a.slot])
			}
		}
		if rest && g.windows[w].lifetime {
			f.fold(e.rest.growing[a.slot])
		}
		for ; next < len(a.reads) && a.reads[next].window == w; next++ {
			r := &a.reads[next]
			out[r.output] = r.result(r.growing(f))
		}
	}
}

func (r *read) result(v schemas.Value) Result {
	if v.IsNull() {
		v = r.empty
	}
	if v.IsNull() {
		return Result{Status: Null}
	}
	return Result{Value: v, Status: Present}
}
