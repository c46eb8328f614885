package features

import (
	"fmt"
	"strconv"

	"github.com/millrace/millrace/internal/duration"
	"github.com/millrace/millrace/schemas"
)

// aggregates is what a feature can compute: one line each. ratio, which divides two of them, is no aggregate of its own.
var aggregates = map[string]aggregate{
	"count":            countAggregate,
	"sum":              sumAggregate,
	"mean":             meanAggregate,
	"min":              minAggregate,
	"max":              maxAggregate,
	"stddev":           stddevAggregate,
	"variance":         varianceAggregate,
	"first":            firstAggregate,
	"last":             lastAggregate,
	"first_k":          firstKAggregate,
	"last_k":           lastKAggregate,
	"distinct":         distinctAggregate,
	"quantile":         quantileAggregate,
	"top_k":            topKAggregate,
	"decayed_count":    decayedCountAggregate,
	"decayed_sum":      decayedSumAggregate,
	"decayed_mean":     decayedMeanAggregate,
	"time_since_first": timeSinceFirstAggregate,
	"time_since_last":  timeSinceLastAggregate,
	"rate":             rateAggregate,
}

// aggregate describes one function of the aggregate language.
type aggregate struct {
	argument argument
	// parameters follow the argument, check refuses bad ones.
	parameters []parameter
	check      func(parameters []float64) error
	// kind is the kind of the value, given the argument's.
	kind func(schemas.Kind) schemas.Kind
	// zeroWhenEmpty says that an empty window has a value, so that no default is needed.
	zeroWhenEmpty bool
	// noLifetime says that the value needs a window with an end.
	noLifetime bool
	// readsClock says that the value is as of the time of reading even where the window's edge is another.
	readsClock bool
	// state is the state kept per tile. States with the same name over the same input are kept once, whatever the
	// aggregates that read them.
	state func(stateOf) (name string, fixed fixedState, growing growingState)
	// fixedValue and growingValue make what reads the value from a folded state; null when the state is empty.
	fixedValue   func(valueOf) fixedReader
	growingValue func(valueOf) growingReader
}

// stateOf is what a state depends on: the kind of the argument and the parameters.
type stateOf struct {
	kind       schemas.Kind
	parameters []float64
}

// valueOf is what a value depends on beside the state.
type valueOf struct {
	kind       schemas.Kind // of the value
	argument   schemas.Kind
	parameters []float64
	window     int64 // length in ms, 0 for lifetime
}

type (
	// fixedReader makes the value of a folded state as of a time.
	fixedReader func(state []uint64, at int64) schemas.Value
	// growingReader makes the value of what a folder has gathered as of a time.
	growingReader func(f folder, at int64) schemas.Value
)

// argument is what an aggregate takes between its brackets.
type argument uint8

const (
	optionalArgument argument = iota // any column or expression, or nothing: rows are counted
	numberArgument                   // bool, int, float
	orderedArgument                  // a number or a time
	anyArgument
)

// parameter is a constant that follows an aggregate's argument.
type parameter struct {
	name  string
	parse func(string) (float64, error)
}

// numberParameter is a finite number.
func numberParameter(name string) parameter {
	return parameter{name, func(text string) (float64, error) {
		f, err := strconv.ParseFloat(text, 64)
		if err != nil || !finite(f) {
			return 0, fmt.Errorf("%s is %q, a number is needed", name, text)
		}
		return f, nil
	}}
}

// spanParameter is a span of time, in milliseconds.
func spanParameter(name string) parameter {
	return parameter{name, func(text string) (float64, error) {
		d, err := duration.Parse(text)
		if err != nil {
			return 0, fmt.Errorf("%s: %w", name, err)
		}
		span, err := milliseconds(name, d)
		if err == nil && span == 0 {
			err = fmt.Errorf("%s is 0", name)
		}
		return float64(span), err
	}}
}

// sizeParameter is a whole number from 1 to most.
func sizeParameter(name string, most int) parameter {
	return parameter{name, func(text string) (float64, error) {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 || n > most {
			return 0, fmt.Errorf("%s is %q, a whole number from 1 to %d is needed", name, text, most)
		}
		return float64(n), nil
	}}
}

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

// mergeFolder is the folder of a growing state that has nothing better than its merge.
type mergeFolder struct {
	growing growingState
	state   []uint64
}

func (f *mergeFolder) reset() { f.state = f.state[:0] }

func (f *mergeFolder) fold(state []uint64) {
	if len(state) > 0 {
		f.state = f.growing.merge(f.state, state)
	}
}

// MaxText is the longest text in bytes that a state keeps.
const MaxText = 1024

// textKeeper is a growing state that keeps the texts it is given.
type textKeeper interface{ keepsText() }

func kindInt(schemas.Kind) schemas.Kind                                      { return schemas.Int }
func kindFloat(schemas.Kind) schemas.Kind                                    { return schemas.Float }
func kindSame(k schemas.Kind) schemas.Kind                                   { return k }
func kindComposite(schemas.Kind) schemas.Kind                                { return schemas.Composite }
func growing(name string, g growingState) (string, fixedState, growingState) { return name, nil, g }
func fixed(name string, f fixedState) (string, fixedState, growingState)     { return name, f, nil }

// number makes a float value, null where it is not finite.
func number(f float64) schemas.Value {
	if !finite(f) {
		return schemas.NullValue()
	}
	return schemas.FloatValue(f)
}
