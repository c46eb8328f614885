package features

// View is a stored state, open to be read where it lies, as often as wanted. It refers to the state's bytes, which must not change
// meanwhile. A View is for one goroutine at a time; the zero View is ready to be opened, and its memory serves the next state.
type View struct {
	group *Group
	stored
}

// Open checks a stored state's checksum and what memory safety needs, and finds what reading it takes. Errors are of kind Corrupt; v
// then holds nothing.
func (g *Group) Open(v *View, state []byte) error {
	v.group = g
	if err := v.open(g, state); err != nil {
		v.Close()
		return g.corrupt(err)
	}
	return nil
}

// Newest is the newest event time applied, math.MinInt64 when there is none.
func (v *View) Newest() int64 { return v.newest }

// Close lets go of the state.
func (v *View) Close() { v.b = nil }

// ReadView is ReadInto of a stored state. v is open, of this group, or nil where there is no state.
func (g *Group) ReadView(s *Scratch, v *View, at int64, out []Result) []Result {
	s.prepare(g)
	if v == nil {
		return fill(g.room(out), NotFound)
	}
	s.ofView(v)
	return s.read(at, at, g.room(out), nil)
}

// ofView lays a stored state ready to be read.
func (s *Scratch) ofView(v *View) {
	g := s.group
	s.bytes = v.b
	s.newest, s.oldest, s.exactFrom = v.newest, v.oldest, v.exactFrom
	columns, growing := v.columns, v.growing
	times := tileTimes{base: v.newest, rest: true}
	newestTile := int64(0)
	if v.newest != noTime {
		newestTile = v.newest - floorMod(v.newest, g.levels[0].width)
	}
	for l := len(g.levels); l >= 0; l-- {
		n := int(v.counts[l])
		t := &s.levels[l]
		t.count = n
		if n == 0 {
			continue
		}
		if l < len(g.levels) {
			times = tileTimes{base: g.levels[l].cut(newestTile), width: g.levels[l].width}
		}
		t.columns, t.times = columns[:g.stride], times
		t.growing, t.arena = growing[:n*g.growing], v.arena
		columns, growing = columns[g.stride:], growing[n*g.growing:]
	}
}

// ReadState is Open and ReadView at once. newest is the entity's newest event time, math.MinInt64 when it has none. It keeps no
// reference to the state.
func (g *Group) ReadState(s *Scratch, state []byte, at int64, out []Result) (_ []Result, newest int64, err error) {
	if err := g.Open(&s.view, state); err != nil {
		return out[:0], noTime, err
	}
	out = g.ReadView(s, &s.view, at, out)
	s.view.Close()
	s.bytes = nil
	return out, s.newest, nil
}

// appliedAt is the event time that a name was applied with; false when it was not, or is forgotten.
func (v *View) appliedAt(name uint64) (int64, bool) { return v.stored.appliedAt(v.group, name) }
