package features

import (
	"hash/crc32"
	"sync"
	"time"

	"github.com/millrace/millrace/schemas"
)

// Output is one readable value of a group: a feature over one window.
type Output struct {
	Name      string        // "delay_mean_1h"; a lifetime output has the feature's name alone
	Feature   string        // name of the declared feature
	Window    time.Duration // 0 = lifetime
	Kind      schemas.Kind  // of the values
	TailError time.Duration // width of the tile that the window's start is aligned down to; 0 for lifetime
}

// Group is a compiled Definition. It does not change once compiled and may be shared by goroutines.
type Group struct {
	Definition
	Version string // 12 hex digits over all that the state and its meaning depend on
	Outputs []Output

	columns      int // of a row
	entity       []entityColumn
	where        *Expression
	inputs       []input
	texts        []int // inputs whose text last keeps
	accumulators []accumulator
	windows      []window // ascending, lifetime last
	levels       []level
	lifetime     bool  // some output has no window, so that nothing is ever dropped
	ttl          int64 // ms
	stride       int   // words of a tile's row: start, newest event time, fixed states
	growing      int   // growing states of a tile
	slots        []growingState
	fingerprint  uint32
	checksum     *crc32.Table
	scratches    sync.Pool // of *Scratch
}

// window is a span that outputs are read over.
type window struct {
	length   int64 // ms; of a lifetime window, nothing
	level    int   // whose tiles the start is aligned to
	lifetime bool
}

// input is a value that is taken from a row once, for all states that gather it.
type input struct {
	where        *Expression // nil takes all rows
	value        *Expression // nil counts rows
	accumulators []int
}

// accumulator is one state kept in every tile.
type accumulator struct {
	name    string
	fixed   fixedState // or
	growing growingState
	offset  int // of a fixed state in the row
	slot    int // of a growing state
	words   int
	window  int // index of the longest window that reads it: tiles beyond do not keep it
	deepest int // index of the last level that keeps it; len(levels) with the remainder
	reads   []read
}

// read is one output made of an accumulator.
type read struct {
	window  int
	output  int
	fixed   func(state []uint64) schemas.Value
	growing func(folder) schemas.Value
	empty   schemas.Value // instead of null
}

// Output is the index of the named output, -1 when there is none.
func (g *Group) Output(name string) int {
	for i := range g.Outputs {
		if g.Outputs[i].Name == name {
			return i
		}
	}
	return -1
}

// NewEntity is the state of an entity without events.
func (g *Group) NewEntity() *Entity {
	return &Entity{group: g, newest: noTime, levels: make([]tiles, len(g.levels))}
}

// Outcome says what Add did with a row.
type Outcome uint8

// What Add can do with a row.
const (
	Applied  Outcome = iota
	Filtered         // the group's where is not true of the row
	TooLate          // the row is older than everything that is kept
)

func (o Outcome) String() string { return [...]string{"applied", "filtered", "too_late"}[o] }

// Status says what a Result's value means.
type Status uint8

// The states of a result.
const (
	Present  Status = iota
	Null            // the entity is known, the window holds nothing to aggregate
	NotFound        // nothing is known of the entity before the time of reading
	Expired         // the entity's newest event is older than the group's TTL
)

func (s Status) String() string { return [...]string{"present", "null", "not_found", "expired"}[s] }

// Result is the value of one Output.
type Result struct {
	Value  schemas.Value // null unless Present
	Status Status
}
