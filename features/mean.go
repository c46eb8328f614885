package features

import (
	"math"

	"github.com/millrace/millrace/schemas"
)

// mean(x) is the arithmetic mean of the values, null when there are none. It reads the state of sum.
var meanAggregate = aggregate{
	argument: numberArgument,
	kind:     kindFloat,
	state:    sumAggregate.state,
	fixedValue: func(valueOf) fixedReader {
		return func(s []uint64, _ int64) schemas.Value {
			if s[0] == 0 {
				return schemas.NullValue()
			}
			return number(math.Float64frombits(s[1]) / float64(s[0]))
		}
	},
}
