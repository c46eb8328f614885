package schemas

import (
	"math"
	"strconv"
)

// Event times outside these (years 1 to 9999) are refused: no clock says them, and arithmetic on them would overflow.
const (
	MinTime int64 = -62135596800000
	MaxTime int64 = 253402300799999
)

// limits are the bounds of a column's numbers: of its type, and those it declares.
type limits struct {
	min, max float64
	declared bool
}

func limitsOf(c Column) limits {
	l := limits{min: math.Inf(-1), max: math.Inf(1)}
	if c.Min != nil {
		l.min, l.declared = *c.Min, true
	}
	if c.Max != nil {
		l.max, l.declared = *c.Max, true
	}
	return l
}

// check is the one place where a column's number is found to be out of range; every codec calls it.
func (l limits) check(path string, v Value) error {
	switch v.kind {
	case Time:
		if t := v.Int(); t < MinTime || t > MaxTime {
			return recordError(ClassRange, path, "the time %d ms is outside the years 1 to 9999", t)
		}
	case Float:
		if f := math.Float64frombits(v.bits); math.IsNaN(f) || math.IsInf(f, 0) {
			return recordError(ClassRange, path, "%v is not a finite number", f)
		}
	}
	if !l.declared || v.kind == Null {
		return nil
	}
	f, _ := v.Float()
	if f < l.min {
		return recordError(ClassRange, path, "%s is below the minimum %s", v.Text(), shortest(l.min))
	}
	if f > l.max {
		return recordError(ClassRange, path, "%s is above the maximum %s", v.Text(), shortest(l.max))
	}
	return nil
}

func shortest(f float64) string { return strconv.FormatFloat(f, 'g', -1, 64) }
