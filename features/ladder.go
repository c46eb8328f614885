package features

import (
	"fmt"
	"time"
)

// Limits of what a group may ask for. Each bounds the size of an entity's state.
const (
	TilesPerWindow = 60      // a window's tile is at most this fraction of it
	MaxWindows     = 16      // distinct windows of a group
	MaxTiles       = 1 << 15 // tiles that an entity with events at all times would keep
)

// maxTime bounds event times (about ±4459 years), so that no sum of a time, a window and a lateness can overflow.
const maxTime = int64(1) << 47

// level is one rung of the ladder: tiles of one width that cover the most recent span of an entity's history. Older
// tiles are merged into the next level's, so that no two tiles of an entity ever overlap. All lengths are milliseconds.
type level struct {
	width int64 // a multiple of the previous level's
	keep  int64 // span before the newest event that must not be coarser than this level
	align int64 // width of the next level's tiles, which this level is cut to; the own width on the last level
}

// newLadder is the ladder of ascending distinct windows, and for each window the index of its level.
func newLadder(windows []int64, lateness int64) (levels []level, of []int) {
	for _, w := range windows {
		width := firstWidth(w)
		if n := len(levels); n > 0 {
			previous := levels[n-1].width
			width = w / TilesPerWindow / previous * previous
			if width <= previous {
				levels[n-1].keep = w + lateness
				of = append(of, n-1)
				continue
			}
			levels[n-1].align = width
		}
		levels = append(levels, level{width: width, keep: w + lateness, align: width})
		of = append(of, len(levels)-1)
	}
	return levels, of
}

// firstWidth is the smallest window's tile: a sixtieth, rounded down to a round number unless it is one of whole
// seconds already, and at least 1 ms.
func firstWidth(window int64) int64 {
	width := max(window/TilesPerWindow, 1)
	if window%TilesPerWindow == 0 && width%1000 == 0 {
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

// tileCount is how many tiles an entity with events at all times keeps.
func tileCount(levels []level) int64 {
	var tiles, covered int64
	for _, l := range levels {
		tiles += (l.keep-covered)/l.width + l.align/l.width + 1
		covered = l.keep
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
