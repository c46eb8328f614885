package features

import "math"

// rowStep merges one fixed state of a tile's row into another row's. The commonest states are merged where they lie and not through an interface.
type rowStep struct {
	op    rowOp
	at    int // of the state in the row
	words int
	fixed fixedState
}

type rowOp uint8

const (
	rowFixed rowOp = iota
	rowCount
	rowSum
	rowMoments
	rowGreatest
	rowLeast
)

func rowStepOf(a *accumulator) rowStep {
	step := rowStep{at: a.offset, words: a.words, fixed: a.fixed}
	switch state := a.fixed.(type) {
	case countState:
		step.op = rowCount
	case sumState:
		step.op = rowSum
	case momentState:
		step.op = rowMoments
	case extremeState:
		step.op = rowLeast
		if state.greatest {
			step.op = rowGreatest
		}
	}
	return step
}

// mergeRow merges states of a row into another's.
func mergeRow(steps []rowStep, dst, src []uint64) {
	for i := range steps {
		step := &steps[i]
		d, s := dst[step.at:step.at+step.words], src[step.at:step.at+step.words]
		switch step.op {
		case rowCount:
			d[0] += s[0]
		case rowSum:
			d[0] += s[0]
			d[1] = math.Float64bits(math.Float64frombits(d[1]) + math.Float64frombits(s[1]))
		case rowMoments:
			momentState{}.merge(d, s)
		case rowGreatest:
			d[0] = max(d[0], s[0])
		case rowLeast:
			d[0] = min(d[0]-1, s[0]-1) + 1 // "none", which is 0, is the greatest of all
		default:
			step.fixed.merge(d, s)
		}
	}
}
