package features

import (
	"github.com/millrace/millrace/internal/failure"
	"github.com/millrace/millrace/schemas"
)

// Add folds a row of event time t (Unix milliseconds) into e. seq orders events of equal time: the Kafka offset. A row
// that the group filters or that is too late leaves e as it was, and so does one that fails; failures are of kind
// BadRecord.
func (g *Group) Add(e *Entity, row schemas.Row, t, seq int64) (Outcome, error) {
	if len(row) != g.columns {
		return Filtered, g.wrongRow(row)
	}
	if t <= -maxTime || t >= maxTime {
		return Filtered, failure.New(failure.BadRecord, g.Name, "event time %d ms is out of range", t)
	}
	if g.where != nil && !g.where.isTrue(row) {
		return Filtered, nil
	}
	if len(g.texts) > 0 {
		if err := g.checkTexts(row); err != nil {
			return Filtered, err
		}
	}
	if e.newest == noTime {
		e.oldest = t
	}
	l, i := g.tile(e, t)
	if i < 0 {
		return TooLate, nil
	}
	e.oldest = min(e.oldest, t)
	g.gather(e.at(l), l, i, row, t, seq)
	return Applied, nil
}

// checkTexts refuses a text that last could not keep, before anything is changed.
func (g *Group) checkTexts(row schemas.Row) error {
	for _, i := range g.texts {
		in := &g.inputs[i]
		if in.where != nil && !in.where.isTrue(row) {
			continue
		}
		if n := len(in.value.value(row).Str()); n > MaxText {
			return failure.New(failure.BadRecord, in.value.source, "a text of %d bytes is longer than last keeps (%d)", n, MaxText)
		}
	}
	return nil
}

// gather adds the row to the states of tile i of a level. Each value is taken from the row once for all states that
// gather it.
func (g *Group) gather(in *tiles, level, i int, row schemas.Row, t, seq int64) {
	tile, states := in.row(g, i), in.states(g, i)
	tile[rowNewest] = uint64(max(int64(tile[rowNewest]), t))
	s := sample{t: t, seq: seq}
	for i := range g.inputs {
		in := &g.inputs[i]
		if in.where != nil && !in.where.isTrue(row) {
			continue
		}
		var v schemas.Value
		if in.value != nil {
			if v = in.value.value(row); v.IsNull() {
				continue
			}
			s.bits = bitsOf(v)
			s.x, _ = v.Float()
		}
		for _, k := range in.accumulators {
			a := &g.accumulators[k]
			switch {
			case a.deepest < level:
			case a.fixed != nil:
				a.fixed.add(tile[a.offset:a.offset+a.words], s)
			default:
				states[a.slot] = a.growing.add(states[a.slot], v, s)
			}
		}
	}
}

// tile finds or makes the tile for an event of time t: its level and its index there, -1 when nothing that old is kept.
func (g *Group) tile(e *Entity, t int64) (level, i int) {
	finest := &e.levels[0]
	width := g.levels[0].width
	if n := finest.count; n > 0 { // the way of most events: the newest tile takes them
		if start := finest.start(g, n-1); t >= start && t < start+width {
			e.newest = max(e.newest, t)
			return 0, n - 1
		}
	}
	if t > e.newest {
		e.newest = t
		start := t - floorMod(t, width)
		g.roll(e, start)
		finest.insert(g, finest.count, start)
		return 0, finest.count - 1
	}
	return g.lateTile(e, t)
}

// lateTile finds or makes the tile for an event that is older than the newest tile.
func (g *Group) lateTile(e *Entity, t int64) (level, i int) {
	newestTile := e.newest - floorMod(e.newest, g.levels[0].width)
	for l := range g.levels {
		if t < g.levels[l].cut(newestTile) {
			continue
		}
		start := t - floorMod(t, g.levels[l].width)
		in := &e.levels[l]
		i := in.firstFrom(g, start)
		if i == in.count || in.start(g, i) != start {
			in.insert(g, i, start)
		}
		return l, i
	}
	if !g.lifetime {
		return 0, -1
	}
	g.remainder(e, t)
	return len(g.levels), 0
}

// at is a level's tiles, or the remainder after the last level.
func (e *Entity) at(level int) *tiles {
	if level == len(e.levels) {
		return &e.rest
	}
	return &e.levels[level]
}

// remainder is the one tile of everything older than the ladder.
func (g *Group) remainder(e *Entity, t int64) *tiles {
	if e.rest.count == 0 {
		e.rest.insert(g, 0, 0)
		e.rest.words[rowNewest] = uint64(t)
	}
	return &e.rest
}

// roll moves tiles that have grown too old for their level into the next one, from fine to coarse, and the last level's
// into the remainder or away. newestTile is the start of the newest event's tile.
func (g *Group) roll(e *Entity, newestTile int64) {
	for l := range g.levels {
		from := &e.levels[l]
		if from.count == 0 {
			continue
		}
		cut := g.levels[l].cut(newestTile)
		n := 0
		for n < from.count && from.start(g, n) < cut {
			g.rollTile(e, l, n)
			n++
		}
		if n > 0 {
			from.dropFront(g, n)
		}
	}
}

func (g *Group) rollTile(e *Entity, l, i int) {
	from := &e.levels[l]
	if l+1 == len(g.levels) {
		if g.lifetime {
			g.mergeTile(g.remainder(e, from.newest(g, i)), 0, from, i, l+1)
		}
		return
	}
	into := &e.levels[l+1]
	start := from.start(g, i)
	start -= floorMod(start, g.levels[l+1].width)
	if into.count == 0 || into.start(g, into.count-1) != start {
		into.insert(g, into.count, start)
	}
	g.mergeTile(into, into.count-1, from, i, l+1)
}

// mergeTile merges a tile into an older one of the level, with the states that the level keeps. Growing states that meet
// nothing are handed over, not copied: the tile they come from is about to be dropped.
func (g *Group) mergeTile(into *tiles, at int, from *tiles, i, level int) {
	dst, src := into.row(g, at), from.row(g, i)
	dst[rowNewest] = uint64(max(int64(dst[rowNewest]), int64(src[rowNewest])))
	dstStates, srcStates := into.states(g, at), from.states(g, i)
	for k := range g.accumulators {
		a := &g.accumulators[k]
		switch {
		case a.deepest < level:
		case a.fixed != nil:
			a.fixed.merge(dst[a.offset:a.offset+a.words], src[a.offset:a.offset+a.words])
		case len(dstStates[a.slot]) == 0:
			dstStates[a.slot] = srcStates[a.slot]
		default:
			dstStates[a.slot] = a.growing.merge(dstStates[a.slot], srcStates[a.slot])
		}
	}
}
