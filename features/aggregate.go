package features

import (
	"github.com/millrace/millrace/schemas"
)

// aggregates is what a feature can compute: one line each, one file each.
var aggregates = map[string]aggregate{
	"count":    countAggregate,
	"sum":      sumAggregate,
	"mean":     meanAggregate,
	"min":      minAggregate,
	"max":      maxAggregate,
	"stddev":   stddevAggregate,
	"last":     lastAggregate,
	"distinct": distinctAggregate,
	"quantile": quantileAggregate,
}

// aggregate describes one function of the aggregate language.
type aggregate struct {
	argument argument
	// parameters are the names of the numbers that follow the argument, check refuses bad ones.
	parameters []string
	check      func(parameters []float64) error
	// kind is the kind of the value, given the argument's.
	kind func(schemas.Kind) schemas.Kind
	// zeroWhenEmpty says that an empty window has a value, so that no default is needed.
	zeroWhenEmpty bool
	// state is the state kept per tile for an argument of a kind: a fixedState or a growingState. States with the same
	// name over the same input are kept once, whatever the aggregates that read them.
	state func(schemas.Kind) (name string, fixed fixedState, growing growingState)
	// fixedValue and growingValue make what reads the value from a folded state; null when the state is empty.
	fixedValue   func(kind schemas.Kind, parameters []float64) func(state []uint64) schemas.Value
	growingValue func(parameters []float64) func(folded folder) schemas.Value
}

// argument is what an aggregate takes between its brackets.
type argument uint8

const (
	optionalArgument argument = iota // any column or expression, or nothing: rows are counted
	numberArgument                   // bool, int, float
	orderedArgument                  // a number or a time
	anyArgument
)

// sample is one value on its way into a state. x is the value as a number where it is one; bits is the value of a bool,
// int or time as int64, of a float as its IEEE 754 bits.
type sample struct {
	x      float64
	bits   uint64
	t, seq int64
}

// fixedState is a state of a fixed number of words, which lie in the tile's row. Floats are kept as their bits. The
// empty state is all zeros, on which add and merge work as on any other.
type fixedState interface {
	words() int
	add(state []uint64, s sample)
	merge(dst, src []uint64)
	// fold merges into dst the states of consecutive tiles: rows starts at the first one's state, the next ones follow
	// stride words apart.
	fold(dst, rows []uint64, stride int)
}

// growingState is a state of a varying number of words, kept beside the tile's row. The empty state is nil.
type growingState interface {
	// add and merge return the new state; they may have changed the old one in place, never src.
	add(state []uint64, v schemas.Value, s sample) []uint64
	merge(dst, src []uint64) []uint64
	// pack appends the state as words to be stored (small words take little room), unpack appends to dst the state that
	// packed words, at least one, stand for. It refuses what pack cannot have written.
	pack(packed, state []uint64) []uint64
	unpack(dst, packed []uint64) ([]uint64, error)
	newFolder() folder
}

// folder gathers states of one kind over many tiles in memory that it keeps.
type folder interface {
	reset()
	fold(state []uint64)
}

// MaxText is the longest text in bytes that last keeps.
const MaxText = 1024

func kindInt(schemas.Kind) schemas.Kind                                      { return schemas.Int }
func kindFloat(schemas.Kind) schemas.Kind                                    { return schemas.Float }
func kindSame(k schemas.Kind) schemas.Kind                                   { return k }
func growing(name string, g growingState) (string, fixedState, growingState) { return name, nil, g }
func fixed(name string, f fixedState) (string, fixedState, growingState)     { return name, f, nil }

// number makes a float value, null where it is not finite.
func number(f float64) schemas.Value {
	if !finite(f) {
		return schemas.NullValue()
	}
	return schemas.FloatValue(f)
}
