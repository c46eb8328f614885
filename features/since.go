package features

import "github.com/millrace/millrace/schemas"

// time_since_last() is the seconds from the latest row's event time to the time of reading, time_since_last(x) from the
// latest row where x is not null; time_since_first the same from the earliest in the window. Null when there is none.
// The latest is exact; the earliest is as exact as the window's tail. It goes on growing while a key is quiet, also where
// the group's edge is the latest event.
var (
	timeSinceLastAggregate  = sinceAggregate("latest time", extremeState{greatest: true})
	timeSinceFirstAggregate = sinceAggregate("earliest time", extremeState{})
)

func sinceAggregate(name string, times extremeState) aggregate {
	return aggregate{
		argument:   optionalArgument,
		kind:       kindFloat,
		readsClock: true,
		state:      func(stateOf) (string, fixedState, growingState) { return fixed(name, eventTimeState{times}) },
		fixedValue: func(valueOf) fixedReader {
			return func(s []uint64, at int64) schemas.Value {
				if s[0] == 0 {
					return schemas.NullValue()
				}
				return schemas.FloatValue(float64(at-intOfRank(s[0])) / 1000)
			}
		},
	}
}

// eventTimeState is {rank of an event time}.
type eventTimeState struct{ extremeState }

func (e eventTimeState) add(s []uint64, v sample) {
	e.extremeState.add(s, sample{bits: uint64(v.t)})
}
