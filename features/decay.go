package features

import (
	"math"

	"github.com/millrace/millrace/schemas"
)

// decayed_count(h), decayed_sum(x, h) and decayed_mean(x, h) weight every row by 2^-(age/h), its age being the time of
// reading less its event time and h the half-life ("30m", "7d"): the sum of weights, the weighted sum, and the second by
// the first. Exact up to rounding (about 1e-9 relative for any order of events). Without rows the count is 0, the others
// are null.
//
// Values go on decaying while a key is quiet, because the weights are brought to the time of reading when read.
var (
	decayedCountAggregate = decayAggregate(optionalArgument, func(weight, _ float64) float64 { return weight })
	decayedSumAggregate   = decayAggregate(numberArgument, func(_, sum float64) float64 { return sum })
	decayedMeanAggregate  = decayAggregate(numberArgument, nil)
)

func decayAggregate(takes argument, of func(weight, sum float64) float64) aggregate {
	return aggregate{
		argument:      takes,
		parameters:    []parameter{spanParameter("half-life")},
		kind:          kindFloat,
		zeroWhenEmpty: takes == optionalArgument,
		state: func(s stateOf) (string, fixedState, growingState) {
			d := decayState{halfLife: int64(s.parameters[0])}
			return fixed("decayed by "+schemas.IntValue(d.halfLife).Text(), d)
		},
		fixedValue: func(v valueOf) fixedReader {
			d := decayState{halfLife: int64(v.parameters[0])}
			return func(s []uint64, at int64) schemas.Value {
				weight, sum := math.Float64frombits(s[1]), math.Float64frombits(s[2])
				switch {
				case s[0] == 0 && takes == optionalArgument:
					return schemas.FloatValue(0)
				case s[0] == 0:
					return schemas.NullValue()
				case of == nil: // both decay alike
					return number(sum / weight)
				}
				return number(float64(of(weight, sum) * d.after(at+maxTime-int64(s[0]))))
			}
		},
	}
}

// decayState is {newest event time + maxTime, weight, weighted sum}, the last two as of the first; a time of 0 is none.
type decayState struct{ halfLife int64 } // ms

func (decayState) words() int { return 3 }

func (d decayState) add(s []uint64, v sample) {
	d.gather(s, uint64(v.t+maxTime), 1, v.x)
}

func (d decayState) merge(dst, src []uint64) { d.fold(dst, src[:3], 3) }

func (d decayState) fold(dst, rows []uint64, stride int) {
	for i := 2; i < len(rows); i += stride {
		if rows[i-2] != 0 {
			d.gather(dst, rows[i-2], math.Float64frombits(rows[i-1]), math.Float64frombits(rows[i]))
		}
	}
}

// gather adds a weight and a weighted sum as of t. The older of the two sides decays to the time of the newer.
func (d decayState) gather(s []uint64, t uint64, weight, sum float64) {
	hadWeight, hadSum := math.Float64frombits(s[1]), math.Float64frombits(s[2])
	switch {
	case s[0] == 0:
		s[0] = t
	case t > s[0]:
		factor := d.after(int64(t - s[0]))
		hadWeight, hadSum = float64(hadWeight*factor), float64(hadSum*factor)
		s[0] = t
	case t < s[0]:
		factor := d.after(int64(s[0] - t))
		weight, sum = float64(weight*factor), float64(sum*factor)
	}
	s[1], s[2] = math.Float64bits(hadWeight+weight), math.Float64bits(hadSum+sum)
}

// decayTerms is enough of the series of the exponential for arguments up to ln(2)/2.
const decayTerms = 14

// after is 2^-(age/half-life). It is reckoned here by sums and products alone, because math.Exp2 differs in its last bit
// between processors and stored states are compared by bits.
func (d decayState) after(age int64) float64 {
	if age <= 0 {
		return 1
	}
	whole := age / d.halfLife
	part := float64(age%d.halfLife) / float64(d.halfLife)
	if part > 0.5 {
		whole++
		part--
	}
	if whole > 1100 {
		return 0
	}
	x, factor := float64(-part*math.Ln2), 1.0
	for n := decayTerms; n > 0; n-- {
		factor = 1 + float64(float64(x*factor)/float64(n))
	}
	return math.Ldexp(factor, -int(whole))
}
