package features

import "github.com/millrace/millrace/schemas"

// count() is the number of rows, count(x) of rows where x is not null: exact. An empty window counts 0.
var countAggregate = aggregate{
	argument:      optionalArgument,
	kind:          kindInt,
	zeroWhenEmpty: true,
	state:         func(stateOf) (string, fixedState, growingState) { return fixed("count", countState{}) },
	fixedValue: func(valueOf) fixedReader {
		return func(s []uint64, _ int64) schemas.Value { return schemas.IntValue(int64(s[0])) }
	},
}

// countState is {n}.
type countState struct{}

func (countState) words() int               { return 1 }
func (countState) add(s []uint64, _ sample) { s[0]++ }
func (countState) merge(dst, src []uint64)  { dst[0] += src[0] }

func (countState) fold(dst, rows []uint64, stride int) {
	n := dst[0]
	for i := 0; i < len(rows); i += stride {
		n += rows[i]
	}
	dst[0] = n
}
