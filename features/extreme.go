package features

import (
	"math"

	"github.com/millrace/millrace/schemas"
)

// min(x) and max(x) are the least and the greatest value, of the argument's own kind and exact, null when there are none.
var (
	minAggregate = aggregate{
		argument: orderedArgument,
		kind:     kindSame,
		state: func(of stateOf) (string, fixedState, growingState) {
			return fixed("min", extremeState{float: of.kind == schemas.Float})
		},
		fixedValue: extremeValue,
	}
	maxAggregate = aggregate{
		argument: orderedArgument,
		kind:     kindSame,
		state: func(of stateOf) (string, fixedState, growingState) {
			return fixed("max", extremeState{float: of.kind == schemas.Float, greatest: true})
		},
		fixedValue: extremeValue,
	}
)

func extremeValue(v valueOf) fixedReader {
	return func(s []uint64, _ int64) schemas.Value {
		switch {
		case s[0] == 0:
			return schemas.NullValue()
		case v.kind == schemas.Float:
			return schemas.FloatValue(floatOfRank(s[0]))
		case v.kind == schemas.Time:
			return schemas.TimeValue(intOfRank(s[0]))
		case v.kind == schemas.Bool:
			return schemas.BoolValue(intOfRank(s[0]) != 0)
		default:
			return schemas.IntValue(intOfRank(s[0]))
		}
	}
}

// extremeState is {rank}: a number in the order of the values that is never 0, 0 when there are none.
type extremeState struct{ float, greatest bool }

func (extremeState) words() int { return 1 }

func (e extremeState) add(s []uint64, v sample) {
	rank := rankOfInt(int64(v.bits))
	if e.float {
		rank = rankOfFloat(v.x)
	}
	if s[0] == 0 || (rank > s[0]) == e.greatest {
		s[0] = rank
	}
}

func (e extremeState) merge(dst, src []uint64) { e.fold(dst, src[:1], 1) }

func (e extremeState) fold(dst, rows []uint64, stride int) {
	best := dst[0]
	if e.greatest {
		for i := 0; i < len(rows); i += stride {
			best = max(best, rows[i])
		}
	} else {
		best-- // so that "none" is the greatest of all
		for i := 0; i < len(rows); i += stride {
			best = min(best, rows[i]-1)
		}
		best++
	}
	dst[0] = best
}

// rankOfFloat orders finite floats as unsigned integers: positives after negatives, greater magnitudes outwards. The
// rank of a number with few significant bits ends in zeros, which takes little room when stored.
func rankOfFloat(x float64) uint64 {
	bits := math.Float64bits(x + 0) // -0 is 0
	if bits>>63 != 0 {
		return ^bits
	}
	return bits | 1<<63
}

func floatOfRank(rank uint64) float64 {
	if rank>>63 != 0 {
		return math.Float64frombits(rank &^ (1 << 63))
	}
	return math.Float64frombits(^rank)
}

// rankOfInt orders integers as unsigned ones. The least integer shares the rank of the next one: 0 is taken.
func rankOfInt(i int64) uint64 { return max(uint64(i)^1<<63, 1) }

func intOfRank(rank uint64) int64 { return int64(rank ^ 1<<63) }
