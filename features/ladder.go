package features

import (
	"cmp"
	"fmt"
	"slices"
	"time"
)

// Limits of what a group may ask for. Each bounds the size of an entity's state.
const (
	MaxWindows = 16      // distinct windows of a group
	MaxTiles   = 1 << 15 // tiles that an entity with events at all times would keep
)

// maxTime bounds event times (about ±4459 years), so that no sum of a time, a window and a lateness can overflow.
const maxTime = int64(1) << 47

// level is one rung of the ladder: tiles of one width that cover the most recent span of an entity's history. Older
// tiles are merged into the next level's, so that no two tiles of an entity ever hold events of the same time. All
// lengths are milliseconds.
type level struct {
	width int64 // a multiple of the previous level's
	keep  int64 // span before the newest event that must not be coarser than this level
	align int64 // width of the next level's tiles, which this level is cut to; the own width on the last level
}

// rung is what a window asks of the ladder: tiles no wider than width for all that is no older than reach.
type rung struct{ reach, width int64 }

// newLadder is the ladder for rungs, and for each rung the index of its level. Of the shortest rung the width is
// rounded down to a round number.
func newLadder(rungs []rung, lateness int64) (levels []level, of []int) {
	order := make([]int, len(rungs))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(i, j int) int { return cmp.Compare(rungs[i].reach, rungs[j].reach) })
	widths := make([]int64, len(rungs)) // what is needed at this reach, and so at every shorter one
	least := maxTime
	for k := len(order) - 1; k >= 0; k-- {
		least = min(least, rungs[order[k]].width)
		widths[k] = least
	}
	of = make([]int, len(rungs))
	for k, i := range order {
		keep := rungs[i].reach + lateness
		width := roundWidth(widths[k])
		if n := len(levels); n > 0 {
			previous := levels[n-1].width
			width = widths[k] / previous * previous
			if width <= previous || keep == levels[n-1].keep {
				levels[n-1].keep = keep
				of[i] = n - 1
				continue
			}
			levels[n-1].align = width
		}
		levels = append(levels, level{width: width, keep: keep, align: width})
		of[i] = len(levels) - 1
	}
	return levels, of
}

// roundWidth is the width of the finest tile: rounded down to a round number unless it is one of whole seconds already,
// and at least 1 ms.
func roundWidth(width int64) int64 {
	width = max(width, 1)
	if width%1000 == 0 {
		return width
	}
	round := int64(1)
	for step := int64(1); step <= width; step *= 10 {
		for _, m := range []int64{1, 2, 5} {
			if m*step <= width {
				round = m * step
			}
		}
	}
	return round
}

// withExact puts tiles of one millisecond, which are the events' own times, in front of a ladder, for all that is no
// older than keep. They are cut to the tiles of the level that holds what is older still.
func withExact(levels []level, keep int64) []level {
	first := level{width: 1, keep: keep, align: levels[len(levels)-1].width}
	for _, l := range levels {
		if l.keep >= keep {
			first.align = l.width
			break
		}
	}
	return append([]level{first}, levels...)
}

// tileCount is how many tiles an entity with events at all times keeps.
func tileCount(levels []level) int64 {
	var tiles, covered int64
	for _, l := range levels {
		tiles += max(l.keep-covered, 0)/l.width + l.align/l.width + 1
		covered = max(covered, l.keep)
	}
	return tiles
}

// cut is where the level ends: its tiles start at or after it, older ones are the next level's. It depends on the
// newest event's tile alone, so that tiles move only when a new tile begins.
func (l *level) cut(newestTile int64) int64 {
	t := newestTile - l.keep
	return t - floorMod(t, l.align)
}

// milliseconds converts a declared span, which must be whole milliseconds.
func milliseconds(what string, d time.Duration) (int64, error) {
	switch {
	case d < 0:
		return 0, fmt.Errorf("%s %s is negative", what, d)
	case d%time.Millisecond != 0:
		return 0, fmt.Errorf("%s %s is not a whole number of milliseconds", what, d)
	}
	return d.Milliseconds(), nil
}
