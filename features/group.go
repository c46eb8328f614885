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
	Delay     time.Duration // between the window's end and its edge
	Kind      schemas.Kind  // of the values
	TailError time.Duration // width of the tile that the window's ends are aligned down to, except an end without delay; 0 for exact and lifetime
}

// Group is a compiled Definition. It does not change once compiled and may be shared by goroutines.
type Group struct {
	Definition
	Version string // 12 hex digits over all that the state and its meaning depend on
	Outputs []Output

	columns      int // of a row
	entity       []entityColumn
	where        *Expression
	dedup        *dedup // nil applies every record
	inputs       []input
	texts        []int // inputs whose text a state keeps
	accumulators []accumulator
	ratios       []ratio
	windows      []window // in the order of compareWindows
	levels       []level
	exactMost    int   // exact tiles that are kept, which are those of level 0; 0 when no window is exact
	lifetime     bool  // some output has no window, so that nothing is ever dropped
	ttl          int64 // ms
	stride       int   // words of a tile's row: start, newest event time, fixed states
	growing      int   // growing states of a tile
	slots        []growingState
	fingerprint  uint32
	checksum     *crc32.Table
	scratches    sync.Pool // of *Scratch
	packers      sync.Pool // of *packer
	decoders     sync.Pool // of *decoder
	arenas       sync.Pool // of *[]uint64
}

// input is a value that is taken from a row once, for all states that gather it.
type input struct {
	where  *Expression // nil takes all rows
	value  *Expression // nil counts rows
	by     *Expression // nil unless the states are kept by its values
	column int         // of the row, when the value is a plain one; else -1
	steps  []step
}

// step is what an input does to one state.
type step struct {
	op          op
	accumulator int
	deepest     int // as the accumulator's
	offset      int
	words       int
	slot        int
	fixed       fixedState
	growing     growingState
}

// op says how a step adds. The commonest states are called by name and not through an interface.
type op uint8

const (
	opFixed op = iota
	opGrowing
	opCount
	opSum
	opMoments
	opMax // of floats
)

// accumulator is one state kept in every tile.
type accumulator struct {
	name    string
	op      op
	fixed   fixedState // or
	growing growingState
	offset  int // of a fixed state in the row
	slot    int // of a growing state
	words   int
	deepest int // index of the last level that keeps it; len(levels) with the remainder
	reads   []read
	folds   []bool // by window: some output needs the window's tiles
}

// read is one value made of an accumulator.
type read struct {
	window     int
	output     int // index of the output, behind them of a part of a ratio
	readsClock bool
	fixed      fixedReader
	growing    growingReader
	empty      schemas.Value // instead of null
}

// ratio is one output made of two values.
type ratio struct {
	output, window         int
	numerator, denominator int // as read.output
	empty                  schemas.Value
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
	return &Entity{group: g, newest: noTime, exactFrom: noTime}
}

// Outcome says what Add did with a row.
type Outcome uint8

// What Add can do with a row.
const (
	Applied   Outcome = iota
	Filtered          // the group's where is not true of the row
	TooLate           // the row is older than everything that is kept
	Duplicate         // the row's record was applied before, by the group's dedup
)

func (o Outcome) String() string {
	return [...]string{"applied", "filtered", "too_late", "duplicate"}[o]
}

// Status says what a Result's value means.
type Status uint8

// The states of a result.
const (
	Present  Status = iota
	Null            // the entity is known, the window holds nothing to aggregate
	NotFound        // nothing is known of the entity before the time of reading
	Expired         // the entity's newest event is older than the group's TTL
	Overflow        // the exact window had more event times than are kept, so that its value is not known
)

func (s Status) String() string {
	return [...]string{"present", "null", "not_found", "expired", "overflow"}[s]
}

// Result is the value of one Output.
type Result struct {
	Value  schemas.Value // null unless Present
	Status Status
}
