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
	if e.rest.count > 0 {
		all = append(all, Tile{Newest: e.rest.newest(e.group, 0), Remainder: true})
	}
	for l := len(e.levels) - 1; l >= 0; l-- {
		in, width := &e.levels[l], e.group.levels[l].width
		for i := range in.count {
			start := in.start(e.group, i)
			all = append(all, Tile{Start: start, End: start + width, Newest: in.newest(e.group, i)})
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
	s := Span{To: at, Lifetime: output.Window == 0}
	declared := int64(0)
	if !s.Lifetime {
		declared = at - output.Window.Milliseconds()
		if align := output.TailError.Milliseconds(); align > 0 {
			declared -= floorMod(declared, align)
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
		case s.Lifetime || t.End > declared:
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
	return e.group.levels[len(e.group.levels)-1].cut(e.newestTile())
}

// Ladder is the widths of the group's tiles, fine to coarse, and for each how far before an entity's newest event its tiles reach.
func (g *Group) Ladder() (widths, reach []time.Duration) {
	for _, l := range g.levels {
		widths = append(widths, time.Duration(l.width)*time.Millisecond)
		reach = append(reach, time.Duration(l.keep)*time.Millisecond)
	}
	return widths, reach
}
