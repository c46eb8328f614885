package features

import "time"

// Tile is one tile of an entity's history: all events with Start <= event time < End, folded into the group's states. Times are Unix
// milliseconds.
type Tile struct {
	Start, End int64
	Newest     int64 // event time of its newest event
	Remainder  bool  // everything older than the ladder, which only lifetime reads; Start and End are of no meaning
}

// Tiles is what the entity keeps, from the oldest to the newest. It is for people to look at, not for reading features.
func (e *Entity) Tiles() []Tile {
	var all []Tile
	for l := len(e.group.levels); l >= 0; l-- {
		from, until := e.span(l)
		for i := from; i < until; i++ {
			t := Tile{Newest: e.newestOf(i), Remainder: l == len(e.group.levels)}
			if !t.Remainder {
				t.Start = e.start(i)
				t.End = t.Start + e.group.levels[l].width
			}
			all = append(all, t)
		}
	}
	return all
}

// Span is what a window covers as it is resolved at a moment: all events with From <= event time < To. Times are Unix milliseconds.
type Span struct {
	From, To int64
	Lifetime bool // From is of no meaning
	Tiles    int  // that are folded into the value
}

// SpanOf is what an output's window covers when it is read at a time: the declared window, its start aligned down to Output.TailError. It is
// wider where coarser tiles are all that remains of its start, begins later when what came before is no longer kept (which takes a read of
// more than the group's lateness before the entity's newest event), and ends earlier when the newest tiles hold events at or after
// the time of reading: they are left out whole.
func (e *Entity) SpanOf(output Output, at int64) Span {
	edge := at
	if e.group.Edge == EdgeEvent {
		edge = min(at, e.newest+1)
	}
	s := Span{To: edge - output.Delay.Milliseconds(), Lifetime: output.Window == 0}
	declared := int64(0)
	if !s.Lifetime {
		declared = s.To - output.Window.Milliseconds()
		if align := output.TailError.Milliseconds(); align > 0 {
			declared -= floorMod(declared, align)
			if output.Delay > 0 {
				s.To -= floorMod(s.To, align)
			}
		}
		s.From = max(declared, e.keptFrom())
	}
	for _, t := range e.Tiles() {
		switch {
		case t.Newest >= at:
			if !t.Remainder {
				s.To = min(s.To, t.Start)
			}
		case t.Remainder:
			if s.Lifetime {
				s.Tiles++
			}
		case s.Lifetime || t.End > declared && t.Start < s.To:
			s.Tiles++
			if !s.Lifetime {
				s.From = min(s.From, t.Start)
			}
		}
	}
	return s
}

// keptFrom is where the tiles that windows are read from begin.
func (e *Entity) keptFrom() int64 {
	if e.newest == noTime {
		return noTime
	}
	return e.cut(len(e.group.levels) - 1)
}

// Ladder is the widths of the group's tiles, fine to coarse, and for each how far before an entity's newest event its tiles reach.
func (g *Group) Ladder() (widths, reach []time.Duration) {
	for _, l := range g.levels {
		widths = append(widths, time.Duration(l.width)*time.Millisecond)
		reach = append(reach, time.Duration(l.keep)*time.Millisecond)
	}
	return widths, reach
}
