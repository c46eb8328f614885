package features

import (
	"math"

	"github.com/millrace/millrace/schemas"
)

// OwnEvent is the event that a request is about, to be merged into what is read for it.
type OwnEvent struct {
	Row     schemas.Row // as one of the group's source
	Time    int64       // event time, Unix milliseconds
	Applied bool        // the event's place in its topic has been applied to the state already
}

// ReadWith is ReadInto with the request's own event counted exactly once: the value is of the events before at and of this one, read
// at at or, where that is later, a millisecond after the event, so that windows hold it. It is the newest of its time. An event that
// Add would not apply (filtered, refused, or a repetition of a record applied with an earlier time) is not merged, and the read
// is ReadInto's.
//
// An event that was applied already is read where it lies, unless events at or after the reading were applied too: tiles that hold
// such are left out whole, so then the value is of the events before the own one, and of it. e may be nil and is not changed.
func (g *Group) ReadWith(s *Scratch, e *Entity, own OwnEvent, at int64, out []Result) []Result {
	s.prepare(g)
	if e == nil {
		s.ofNobody()
		return s.readWith(own, nil, at, g.room(out), nil)
	}
	s.of(e)
	return s.readWith(own, e.seen, at, g.room(out), nil)
}

// ReadViewWith is ReadWith of a stored state. v is nil where there is none.
func (g *Group) ReadViewWith(s *Scratch, v *View, own OwnEvent, at int64, out []Result) []Result {
	s.prepare(g)
	if v == nil {
		s.ofNobody()
		return s.readWith(own, nil, at, g.room(out), nil)
	}
	s.ofView(v)
	return s.readWith(own, v, at, g.room(out), nil)
}

// ReadWith is Group.ReadWith.
func (s *SequentialReader) ReadWith(own OwnEvent, at int64, out []Result) []Result {
	g, e := s.group, s.entity
	s.scratch.prepare(g)
	s.scratch.of(e)
	until := own.readAt(at)
	if e.newest >= at || until < s.last {
		s.forget()
		return s.scratch.readWith(own, e.seen, at, g.room(out), nil)
	}
	s.last = until
	return s.scratch.readWith(own, e.seen, at, g.room(out), s)
}

// readAt is what a read of an event is as of: windows end there.
func (o *OwnEvent) readAt(at int64) int64 { return max(at, o.Time+1) }

// names finds when records were applied.
type names interface {
	// appliedAt is the event time that a name was applied with; false when it was not, or is forgotten.
	appliedAt(name uint64) (int64, bool)
}

// ofNobody lays an entity ready that there is no state of.
func (s *Scratch) ofNobody() {
	s.newest, s.oldest, s.exactFrom = noTime, noTime, noTime
	for l := range s.levels {
		s.levels[l].count = 0
	}
}

// readWith reads what was laid ready with an own event.
func (s *Scratch) readWith(own OwnEvent, known names, at int64, out []Result, folded *SequentialReader) []Result {
	g := s.group
	if !g.appliesOwn(&own, known) {
		return s.read(at, at, out, folded)
	}
	cut, until := at, own.readAt(at)
	if own.Applied && s.newest >= own.Time {
		if s.newest < until {
			return s.read(until, until, out, folded)
		}
		cut = min(at, own.Time)
	}
	s.own.gather(g, &own)
	out = s.read(cut, until, out, folded)
	s.own.merged = false
	return out
}

// appliesOwn reports whether Add would apply the event, to an entity that has applied all before it and nothing since.
func (g *Group) appliesOwn(own *OwnEvent, known names) bool {
	if outcome, err := g.admit(own.Row, own.Time); err != nil || outcome != Applied {
		return false
	}
	if g.dedup == nil || known == nil {
		return true
	}
	name, named := g.dedup.nameOf(own.Row)
	if !named {
		return true
	}
	t, applied := known.appliedAt(name)
	return !applied || t >= own.Time
}

// ownTile is a tile with the request's event alone.
type ownTile struct {
	merged bool // into the read under way
	time   int64
	tile   *Entity
	joins  []bool // by window: it holds the event, and the window that it is folded on top of does not
}

func (o *ownTile) prepare(g *Group) {
	*o = ownTile{
		tile:  &Entity{group: g, tiles: 1, words: make([]uint64, g.stride), growing: make([]extent, g.growing)},
		joins: make([]bool, len(g.windows)),
	}
}

// gather makes the tile.
func (o *ownTile) gather(g *Group, own *OwnEvent) {
	clear(o.tile.words)
	clear(o.tile.growing)
	o.tile.arena = o.tile.arena[:0]
	g.gather(o.tile, 0, 0, own.Row, own.Time, math.MaxInt64)
	o.merged, o.time = true, own.Time
}

// place finds the windows that the event joins.
func (o *ownTile) place(g *Group, edge int64) {
	held := false
	for w := range g.windows {
		window := &g.windows[w]
		held = held && !window.fresh
		o.joins[w] = !held && window.holds(o.time, edge)
		held = held || o.joins[w]
	}
}

// foldOwn folds the event.
func (s *Scratch) foldOwn(a *accumulator) {
	if a.fixed == nil {
		s.folders[a.slot].fold(s.own.tile.growing[a.slot].of(s.own.tile.arena))
		return
	}
	a.fixed.merge(s.state[:a.words], s.own.tile.words[a.offset:a.offset+a.words])
}
