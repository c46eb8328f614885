package features

import (
	"math"

	"github.com/millrace/millrace/schemas"
)

// stddev(x) is the population standard deviation of the values and variance(x) its square: 0 for one value, null for
// none. Exact up to rounding, which does not grow with the mean.
var (
	stddevAggregate   = momentAggregate(math.Sqrt)
	varianceAggregate = momentAggregate(func(variance float64) float64 { return variance })
)

func momentAggregate(of func(variance float64) float64) aggregate {
	return aggregate{
		argument: numberArgument,
		kind:     kindFloat,
		state:    func(stateOf) (string, fixedState, growingState) { return fixed("moments", momentState{}) },
		fixedValue: func(valueOf) fixedReader {
			return func(s []uint64, _ int64) schemas.Value {
				if s[0] == 0 {
					return schemas.NullValue()
				}
				return number(of(math.Float64frombits(s[2]) / float64(s[0])))
			}
		},
	}
}

// momentState is {n, mean, sum of squared deviations from the mean}: Welford's update and the merge of Chan, Golub and
// LeVeque, "Updating Formulae and a Pairwise Algorithm for Computing Sample Variances" (1979). Products are converted
// before they are added, so that no machine fuses the two and every machine keeps the same bits.
type momentState struct{}

func (momentState) words() int { return 3 }

func (momentState) add(s []uint64, v sample) {
	mean := math.Float64frombits(s[1])
	s[0]++
	delta := v.x - mean
	mean += delta / float64(s[0])
	s[1] = math.Float64bits(mean)
	s[2] = math.Float64bits(math.Float64frombits(s[2]) + float64(delta*(v.x-mean)))
}

func (m momentState) merge(dst, src []uint64) { m.fold(dst, src[:3], 3) }

func (momentState) fold(dst, rows []uint64, stride int) {
	n, mean, squares := dst[0], math.Float64frombits(dst[1]), math.Float64frombits(dst[2])
	for i := 2; i < len(rows); i += stride {
		k := rows[i-2]
		if k == 0 {
			continue
		}
		if n == 0 {
			n, mean, squares = k, math.Float64frombits(rows[i-1]), math.Float64frombits(rows[i])
			continue
		}
		delta := math.Float64frombits(rows[i-1]) - mean
		share := float64(k) / float64(n+k)
		squares += math.Float64frombits(rows[i]) + float64(float64(delta*delta)*float64(n)*share)
		mean += float64(delta * share)
		n += k
	}
	dst[0], dst[1], dst[2] = n, math.Float64bits(mean), math.Float64bits(squares)
}
