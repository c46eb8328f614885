package features

import (
	"math"
	"slices"
)

// noTime is the newest event time of an entity without events.
const noTime = math.MinInt64

// Entity is the state of one entity: tiles of its history, fine ones for what is recent, coarser ones before, and with a
// lifetime output one remainder for all that is older. It belongs to one Group and one goroutine at a time.
type Entity struct {
	group  *Group
	newest int64
	oldest int64 // event time ever applied; of an entity without events, nothing
	// exactFrom is where exact tiles begin when there were more event times than are kept; noTime when there never were.
	exactFrom int64
	// Tiles lie from the oldest to the newest: the remainder, then those of each level from coarse to fine. A tile is a row
	// of the group's stride in words, and as many growing states as the group has.
	tiles   int
	words   []uint64
	growing []extent // of arena
	arena   []uint64 // the growing states, and what those that were moved left behind
	seen    *seen    // nil until there is something to remember
	counts  [maxLevels + 1]uint16
}

// maxLevels is the longest ladder: a level for each window, and one of exact tiles. The count behind a ladder's last
// level is the remainder's.
const maxLevels = MaxWindows + 1

// Reset makes e, whatever it was, the state of an entity without events. Its memory is used again.
func (g *Group) Reset(e *Entity) {
	*e = Entity{group: g, newest: noTime, exactFrom: noTime, words: e.words[:0], growing: e.growing[:0], arena: e.arena[:0]}
}

// Newest is the newest event time applied, math.MinInt64 when there is none.
func (e *Entity) Newest() int64 { return e.newest }

// entityBytes is about the size of an Entity by itself.
const entityBytes = 176

// Bytes is about how much memory the entity holds, for caches to bound.
func (e *Entity) Bytes() int {
	n := entityBytes + 8*cap(e.words) + extentBytes*cap(e.growing) + 8*cap(e.arena)
	if e.seen != nil {
		n += 48 + 8*cap(e.seen.times) + 8*cap(e.seen.hashes)
	}
	return n
}

// A tile's row starts with its own start and its newest event time, in Unix milliseconds.
const (
	rowStart  = 0
	rowNewest = 1
	rowHeader = 2
)

func (e *Entity) row(i int) []uint64 {
	n := e.group.stride
	return e.words[i*n : (i+1)*n : (i+1)*n]
}

// states is where the growing states of tile i lie.
func (e *Entity) states(i int) []extent {
	n := e.group.growing
	return e.growing[i*n : (i+1)*n]
}

func (e *Entity) start(i int) int64 { return int64(e.words[i*e.group.stride+rowStart]) }

func (e *Entity) newestOf(i int) int64 { return int64(e.words[i*e.group.stride+rowNewest]) }

// span is where a level's tiles lie. Behind the last level it is the remainder's.
func (e *Entity) span(level int) (from, until int) {
	until = e.tiles
	for l := range level {
		until -= int(e.counts[l])
	}
	return until - int(e.counts[level]), until
}

// newestTile is the start of the newest event's tile.
func (e *Entity) newestTile() int64 {
	if e.newest == noTime {
		return 0
	}
	return e.newest - floorMod(e.newest, e.group.levels[0].width)
}

// cut is where a level ends now.
func (e *Entity) cut(level int) int64 {
	cut := e.group.levels[level].cut(e.newestTile())
	if level == 0 {
		cut = max(cut, e.exactFrom)
	}
	return cut
}

// firstFrom is the index of the first of the tiles from..until that starts at or after time.
func (e *Entity) firstFrom(from, until int, time int64) int {
	for from < until {
		middle := int(uint(from+until) >> 1)
		if e.start(middle) < time {
			from = middle + 1
		} else {
			until = middle
		}
	}
	return from
}

// insert makes room for an empty tile of a level at index i. Room grows by a quarter: most entities have few tiles, and
// there are many entities.
func (e *Entity) insert(level, i int, start int64) {
	g := e.group
	if need := len(e.words) + g.stride; need > cap(e.words) {
		e.words = append(make([]uint64, 0, need+e.tiles/4*g.stride), e.words...)
	}
	e.words = e.words[:len(e.words)+g.stride]
	copy(e.words[(i+1)*g.stride:], e.words[i*g.stride:])
	if g.growing > 0 {
		if need := len(e.growing) + g.growing; need > cap(e.growing) {
			e.growing = append(make([]extent, 0, need+e.tiles/4*g.growing), e.growing...)
		}
		e.growing = e.growing[:len(e.growing)+g.growing]
		copy(e.growing[(i+1)*g.growing:], e.growing[i*g.growing:])
		clear(e.states(i))
	}
	e.tiles++
	e.counts[level]++
	row := e.row(i)
	clear(row)
	row[rowStart], row[rowNewest] = uint64(start), uint64(start)
}

// remove gives up the tiles from..until, which no level counts any more.
func (e *Entity) remove(from, until int) {
	g := e.group
	e.words = slices.Delete(e.words, from*g.stride, until*g.stride)
	e.growing = slices.Delete(e.growing, from*g.growing, until*g.growing)
	e.tiles -= until - from
}

// move puts tile from in the place of tile to, which is given up.
func (e *Entity) move(to, from int) {
	if to != from {
		copy(e.row(to), e.row(from))
		copy(e.states(to), e.states(from))
	}
}
