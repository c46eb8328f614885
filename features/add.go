package features

import (
	"github.com/millrace/millrace/internal/failure"
	"github.com/millrace/millrace/schemas"
)

// Add folds a row of event time t (Unix milliseconds) into e. seq orders events of equal time: the Kafka offset. A row
// that the group filters, that repeats another or that is too late leaves e as it was, and so does one that fails;
// failures are of kind BadRecord.
func (g *Group) Add(e *Entity, row schemas.Row, t, seq int64) (Outcome, error) {
	if outcome, err := g.admit(row, t); err != nil || outcome != Applied {
		return outcome, err
	}
	var name uint64
	var named bool
	if g.dedup != nil {
		if name, named = g.dedup.nameOf(row); named && g.dedup.repeats(e, name) {
			return Duplicate, nil
		}
	}
	first := e.newest == noTime
	l, i := g.tile(e, t)
	if i < 0 {
		return TooLate, nil
	}
	if first || t < e.oldest {
		e.oldest = t
	}
	if named {
		g.dedup.remember(e, name, t)
	}
	g.gather(e, l, i, row, t, seq)
	return Applied, nil
}

// admit says of a row what can be said of it without a state.
func (g *Group) admit(row schemas.Row, t int64) (Outcome, error) {
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
	return Applied, nil
}

// checkTexts refuses a text that a state could not keep, before anything is changed.
func (g *Group) checkTexts(row schemas.Row) error {
	for _, i := range g.texts {
		in := &g.inputs[i]
		if in.where != nil && !in.where.isTrue(row) {
			continue
		}
		x := in.value
		if in.by != nil {
			x = in.by
		}
		v := x.value(row)
		if n := len(v.Str()); n > MaxText {
			return failure.New(failure.BadRecord, x.source, "a text of %d bytes is longer than a feature keeps (%d)", n, MaxText)
		}
	}
	return nil
}

// gather adds the row to the states of tile i, which is of a level. Each value is taken from the row once for all states
// that gather it.
func (g *Group) gather(e *Entity, level, i int, row schemas.Row, t, seq int64) {
	tile := e.row(i)
	if t > int64(tile[rowNewest]) {
		tile[rowNewest] = uint64(t)
	}
	s := sample{t: t, seq: seq}
	for k := range g.inputs {
		in := &g.inputs[k]
		if in.where != nil && !in.where.isTrue(row) {
			continue
		}
		var computed schemas.Value
		v := &computed
		if in.value != nil {
			if in.column >= 0 {
				v = &row[in.column]
			} else {
				computed = in.value.term.eval(row)
			}
			if !s.take(v) {
				continue
			}
		}
		if in.by != nil {
			if computed = in.by.value(row); computed.IsNull() {
				continue
			}
			v = &computed
		}
		for j := range in.steps {
			step := &in.steps[j]
			if step.deepest < level {
				continue
			}
			state := tile[step.offset:]
			switch step.op {
			case opCount:
				countState{}.add(state, s)
			case opSum:
				sumState{}.add(state, s)
			case opMoments:
				momentState{}.add(state, s)
			case opMax:
				extremeState{float: true, greatest: true}.add(state, s)
			case opFixed:
				step.fixed.add(state[:step.words], s)
			case opGrowing:
				x := &e.growing[i*g.growing+step.slot]
				e.keep(x, step.growing.add(e.grow(x), *v, s))
			}
		}
	}
}

// take reads a value that is not null, and not a number that is not finite.
func (s *sample) take(v *schemas.Value) bool {
	switch v.Kind() {
	case schemas.Null:
		return false
	case schemas.Float:
		s.x, _ = v.Float()
		s.bits = bitsOf(*v)
		return finite(s.x)
	case schemas.Bool, schemas.Int, schemas.Time:
		s.bits = uint64(v.Int())
		s.x = float64(v.Int())
	}
	return true
}

// tile finds or makes the tile for an event of time t: its level and its index, -1 when nothing that old is kept.
func (g *Group) tile(e *Entity, t int64) (level, i int) {
	width := g.levels[0].width
	if e.counts[0] > 0 { // the way of most events: the newest tile takes them
		if start := e.start(e.tiles - 1); t >= start && t < start+width {
			e.newest = max(e.newest, t)
			return 0, e.tiles - 1
		}
	}
	if t > e.newest {
		e.newest = t
		g.roll(e)
		g.boundExact(e)
		if t >= e.exactFrom {
			e.insert(0, e.tiles, t-floorMod(t, width))
			return 0, e.tiles - 1
		}
	}
	return g.lateTile(e, t)
}

// lateTile finds or makes the tile for an event that is older than the newest tile.
func (g *Group) lateTile(e *Entity, t int64) (level, i int) {
	for l := range g.levels {
		if t < e.cut(l) {
			continue
		}
		start := t - floorMod(t, g.levels[l].width)
		from, until := e.span(l)
		i := e.firstFrom(from, until, start)
		if i == until || e.start(i) != start {
			if l == 0 && g.boundExact(e) {
				return g.lateTile(e, t)
			}
			e.insert(l, i, start)
		}
		return l, i
	}
	if !g.lifetime {
		return 0, -1
	}
	if e.counts[len(g.levels)] == 0 {
		e.insert(len(g.levels), 0, 0)
		e.row(0)[rowNewest] = uint64(t)
	}
	return len(g.levels), 0
}

// boundExact makes room for one more exact tile: when there are as many as may be, the oldest ones go to the tile of the
// next level that they lie in, and it reports true.
func (g *Group) boundExact(e *Entity) bool {
	if g.exactMost == 0 || int(e.counts[0]) < g.exactMost {
		return false
	}
	from, _ := e.span(0)
	oldest := e.start(from)
	e.exactFrom = oldest - floorMod(oldest, g.levels[0].align) + g.levels[0].align
	g.roll(e)
	return true
}

// roll moves tiles that have grown too old for their level into the next one, from fine to coarse, and the last level's
// into the remainder or away.
func (g *Group) roll(e *Entity) {
	for l := range g.levels {
		if e.counts[l] == 0 {
			continue
		}
		from, until := e.span(l)
		if cut := e.cut(l); e.start(from) < cut {
			g.rollTiles(e, l, from, e.firstFrom(from, until, cut))
		}
	}
}

// rollTiles moves the tiles from..until, the oldest of a level, into the next level, whose tiles lie before them.
func (g *Group) rollTiles(e *Entity, l, from, until int) {
	next, at := l+1, from
	rest := next == len(g.levels)
	for i := from; i < until; i++ {
		start := int64(0)
		if !rest {
			start = e.start(i) - floorMod(e.start(i), g.levels[next].width)
		} else if !g.lifetime {
			continue
		}
		if e.counts[next] > 0 && (rest || e.start(at-1) == start) {
			g.merge(e, at-1, i, next)
			continue
		}
		e.move(at, i)
		g.coarsen(e, at, start, next)
		e.counts[next]++
		at++
	}
	e.counts[l] -= uint16(until - from)
	e.remove(at, until)
}

// coarsen makes a tile one of the next level, with the states that the level keeps.
func (g *Group) coarsen(e *Entity, i int, start int64, level int) {
	row := e.row(i)
	row[rowStart] = uint64(start)
	for k := range g.accumulators {
		switch a := &g.accumulators[k]; {
		case a.deepest >= level:
		case a.fixed != nil:
			clear(row[a.offset : a.offset+a.words])
		default:
			e.states(i)[a.slot] = extent{}
		}
	}
}

// merge merges a tile into an older one of a level, with the states that the level keeps. Growing states that meet
// nothing are handed over, not copied: the tile they come from is about to be dropped.
func (g *Group) merge(e *Entity, into, from, level int) {
	dst, src := e.row(into), e.row(from)
	dst[rowNewest] = uint64(max(int64(dst[rowNewest]), int64(src[rowNewest])))
	dstStates, srcStates := e.states(into), e.states(from)
	for k := range g.accumulators {
		a := &g.accumulators[k]
		switch {
		case a.deepest < level:
		case a.fixed != nil:
			a.fixed.merge(dst[a.offset:a.offset+a.words], src[a.offset:a.offset+a.words])
		case dstStates[a.slot].words == 0:
			dstStates[a.slot], srcStates[a.slot] = srcStates[a.slot], extent{}
		default:
			x := &dstStates[a.slot]
			into := e.grow(x)
			e.keep(x, a.growing.merge(into, srcStates[a.slot].of(e.arena)))
		}
	}
}
