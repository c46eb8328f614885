package features

import (
	"math"

	"github.com/millrace/millrace/schemas"
)

// sum(x) is the sum of the values, null when there are none.
var sumAggregate = aggregate{
	argument: numberArgument,
	kind:     kindFloat,
	state:    func(stateOf) (string, fixedState, growingState) { return fixed("sum", sumState{}) },
	fixedValue: func(valueOf) fixedReader {
		return func(s []uint64, _ int64) schemas.Value {
			if s[0] == 0 {
				return schemas.NullValue()
			}
			return number(math.Float64frombits(s[1]))
		}
	},
}

// sumState is {n, sum}.
type sumState struct{}

func (sumState) words() int { return 2 }

func (sumState) add(s []uint64, v sample) {
	s[0]++
	s[1] = math.Float64bits(math.Float64frombits(s[1]) + v.x)
}

func (sumState) merge(dst, src []uint64) {
	dst[0] += src[0]
	dst[1] = math.Float64bits(math.Float64frombits(dst[1]) + math.Float64frombits(src[1]))
}

func (sumState) fold(dst, rows []uint64, stride int) {
	n, sum := dst[0], math.Float64frombits(dst[1])
	for i := 1; i < len(rows); i += stride {
		n += rows[i-1]
		sum += math.Float64frombits(rows[i])
	}
	dst[0], dst[1] = n, math.Float64bits(sum)
}
