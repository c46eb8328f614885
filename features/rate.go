package features

import "github.com/millrace/millrace/schemas"

// rate() is the number of rows per second of the window, rate(x) of rows where x is not null. It reads the state of
// count and divides by the window's declared length, so its relative error is that of the window's tail.
var rateAggregate = aggregate{
	argument:      optionalArgument,
	kind:          kindFloat,
	zeroWhenEmpty: true,
	noLifetime:    true,
	state:         countAggregate.state,
	fixedValue: func(v valueOf) fixedReader {
		seconds := float64(v.window) / 1000
		return func(s []uint64, _ int64) schemas.Value { return number(float64(s[0]) / seconds) }
	},
}
