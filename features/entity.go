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
	oldest int64    // event time ever applied; of an entity without events, nothing
	levels []tiles  // fine to coarse, as the group's
	rest   tiles    // at most one
	arena  []uint64 // where the decoded growing states lie
}

// Newest is the newest event time applied, math.MinInt64 when there is none.
func (e *Entity) Newest() int64 { return e.newest }

// Bytes is about how much memory the entity holds, for caches to bound.
func (e *Entity) Bytes() int {
	n := 128 + e.rest.bytes() // states in the arena count as theirs
	for i := range e.levels {
		n += 48 + e.levels[i].bytes()
	}
	return n
}

// A tile's row starts with its own start and its newest event time, in Unix milliseconds.
const (
	rowStart  = 0
	rowNewest = 1
	rowHeader = 2
)

// tiles are those of one level in ascending time, without gaps in memory though there may be in time. Tiles leave at
// the front and come at the end, so the front is given up by slicing and the next growth leaves it behind.
type tiles struct {
	words   []uint64   // rows of the group's stride
	growing [][]uint64 // the group's number of growing states for each row
	count   int
}

func (t *tiles) bytes() int {
	n := 8*cap(t.words) + 24*cap(t.growing)
	for _, s := range t.growing {
		n += 8 * cap(s)
	}
	return n
}

func (t *tiles) row(g *Group, i int) []uint64 {
	return t.words[i*g.stride : (i+1)*g.stride : (i+1)*g.stride]
}

func (t *tiles) states(g *Group, i int) [][]uint64 { return t.growing[i*g.growing : (i+1)*g.growing] }

func (t *tiles) start(g *Group, i int) int64 { return int64(t.words[i*g.stride+rowStart]) }

func (t *tiles) newest(g *Group, i int) int64 { return int64(t.words[i*g.stride+rowNewest]) }

// firstFrom is the index of the first tile that starts at or after time.
func (t *tiles) firstFrom(g *Group, time int64) int {
	low, high := 0, t.count
	for low < high {
		middle := int(uint(low+high) >> 1)
		if t.start(g, middle) < time {
			low = middle + 1
		} else {
			high = middle
		}
	}
	return low
}

// endBefore is the number of tiles whose events all lie before time. Tiles do not overlap, so they are the first ones.
func (t *tiles) endBefore(g *Group, time int64) int {
	low, high := 0, t.count
	for low < high {
		middle := int(uint(low+high) >> 1)
		if t.newest(g, middle) < time {
			low = middle + 1
		} else {
			high = middle
		}
	}
	return low
}

// insert makes room for an empty tile at index i.
func (t *tiles) insert(g *Group, i int, start int64) {
	t.words = slices.Grow(t.words, g.stride)[:len(t.words)+g.stride]
	copy(t.words[(i+1)*g.stride:], t.words[i*g.stride:])
	t.growing = slices.Grow(t.growing, g.growing)[:len(t.growing)+g.growing]
	copy(t.growing[(i+1)*g.growing:], t.growing[i*g.growing:])
	t.count++
	row := t.row(g, i)
	clear(row)
	clear(t.states(g, i))
	row[rowStart], row[rowNewest] = uint64(start), uint64(start)
}

// dropFront gives up the first n tiles.
func (t *tiles) dropFront(g *Group, n int) {
	clear(t.growing[:n*g.growing])
	t.words, t.growing = t.words[n*g.stride:], t.growing[n*g.growing:]
	t.count -= n
}
