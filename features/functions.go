package features

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/expr-lang/expr/ast"

	"github.com/millrace/millrace/schemas"
)

// functions is what an expression can call: one line each. Times are read in UTC.
var functions = map[string]func(name string, args []term) (term, error){
	"hour":    calendar(func(t int64) int64 { return floorMod(t, day) / hour }),
	"minute":  calendar(func(t int64) int64 { return floorMod(t, hour) / minute }),
	"weekday": calendar(func(t int64) int64 { return floorMod(floorDiv(t, day)+3, 7) }), // 0 = Monday; 1970-01-01 was a Thursday
	"day":     calendar(func(t int64) int64 { return int64(time.UnixMilli(t).UTC().Day()) }),
	"month":   calendar(func(t int64) int64 { return int64(time.UnixMilli(t).UTC().Month()) }),

	"log":   float(math.Log),
	"log1p": float(math.Log1p),
	"exp":   float(math.Exp),
	"sqrt":  float(math.Sqrt),
	"sin":   float(math.Sin),
	"cos":   float(math.Cos),
	"floor": float(math.Floor),
	"ceil":  float(math.Ceil),
	"round": float(math.Round),

	"abs":      absolute,
	"min":      extreme(false),
	"max":      extreme(true),
	"coalesce": func(name string, args []term) (term, error) { return firstPresent(name, args) },
	"haversine": func(name string, args []term) (term, error) { // km between two points given in degrees
		if err := numbers(name, args, 4); err != nil {
			return term{}, err
		}
		return greatCircle(args), nil
	},

	"lower": onText(strings.ToLower),
	"upper": onText(strings.ToUpper),
	"len": func(name string, args []term) (term, error) {
		if len(args) != 1 || args[0].kind != schemas.String && args[0].kind != schemas.Bytes {
			return term{}, fmt.Errorf("%s takes one string", name)
		}
		return computed(schemas.Int, func(row schemas.Row) schemas.Value {
			v := args[0].eval(row)
			if v.IsNull() {
				return v
			}
			return schemas.IntValue(int64(len(v.Str())))
		}), nil
	},
}

const (
	minute = int64(time.Minute / time.Millisecond)
	hour   = int64(time.Hour / time.Millisecond)
	day    = 24 * hour
)

func (c *expressionCompiler) call(name string, args []ast.Node) (term, error) {
	compileCall, ok := functions[name]
	if !ok {
		return term{}, fmt.Errorf("%s", unknown("function", name, functions))
	}
	terms, err := c.compileAll(args)
	if err != nil {
		return term{}, err
	}
	return compileCall(name, terms)
}

// unknown words that nothing of the name exists, with the nearest that does.
func unknown[T any](what, name string, known map[string]T) string {
	names := make([]string, 0, len(known))
	for n := range known {
		names = append(names, n)
	}
	slices.Sort(names)
	if near := schemas.Nearest(name, names); near != "" {
		return fmt.Sprintf("there is no %s %q (did you mean %q?)", what, name, near)
	}
	return fmt.Sprintf("there is no %s %q, only %s", what, name, strings.Join(names, ", "))
}

// calendar is a function from a time in Unix milliseconds to an integer.
func calendar(part func(int64) int64) func(string, []term) (term, error) {
	return func(name string, args []term) (term, error) {
		if len(args) != 1 || args[0].kind != schemas.Time {
			return term{}, fmt.Errorf("%s takes one time", name)
		}
		t := args[0]
		return computed(schemas.Int, func(row schemas.Row) schemas.Value {
			v := t.eval(row)
			if v.IsNull() {
				return v
			}
			return schemas.IntValue(part(v.Int()))
		}), nil
	}
}

// float is a function from a number to a number.
func float(f func(float64) float64) func(string, []term) (term, error) {
	return func(name string, args []term) (term, error) {
		if err := numbers(name, args, 1); err != nil {
			return term{}, err
		}
		num := args[0].num
		return numeric(func(row schemas.Row) (float64, bool) {
			x, ok := num(row)
			return f(x), ok
		}), nil
	}
}

func onText(f func(string) string) func(string, []term) (term, error) {
	return func(name string, args []term) (term, error) {
		if len(args) != 1 || args[0].kind != schemas.String {
			return term{}, fmt.Errorf("%s takes one string", name)
		}
		return computed(schemas.String, func(row schemas.Row) schemas.Value {
			v := args[0].eval(row)
			if v.IsNull() {
				return v
			}
			return schemas.StringValue(f(v.Str()))
		}), nil
	}
}

func numbers(name string, args []term, n int) error {
	if len(args) != n {
		return fmt.Errorf("%s takes %d arguments, not %d", name, n, len(args))
	}
	for _, a := range args {
		if !a.kind.Numeric() {
			return fmt.Errorf("%s takes numbers, not %s", name, a.kind)
		}
	}
	return nil
}

func absolute(name string, args []term) (term, error) {
	if err := numbers(name, args, 1); err != nil {
		return term{}, err
	}
	if args[0].kind == schemas.Float {
		num := args[0].num
		return numeric(func(row schemas.Row) (float64, bool) {
			x, ok := num(row)
			return math.Abs(x), ok
		}), nil
	}
	return computed(schemas.Int, func(row schemas.Row) schemas.Value {
		v := args[0].eval(row)
		if v.IsNull() || v.Int() == math.MinInt64 {
			return schemas.NullValue()
		}
		return schemas.IntValue(max(v.Int(), -v.Int()))
	}), nil
}

// extreme is the least or greatest of its arguments, null where one of them is.
func extreme(greatest bool) func(string, []term) (term, error) {
	return func(name string, args []term) (term, error) {
		if len(args) == 0 {
			return term{}, fmt.Errorf("%s takes at least one argument", name)
		}
		if err := numbers(name, args, len(args)); err != nil {
			return term{}, err
		}
		kind, err := unify(name, args)
		if err != nil {
			return term{}, err
		}
		return computed(kind, func(row schemas.Row) schemas.Value {
			best := convert(args[0].eval(row), kind)
			for i := 1; i < len(args) && !best.IsNull(); i++ {
				v := convert(args[i].eval(row), kind)
				if v.IsNull() || less(best, v) == greatest && v != best {
					best = v
				}
			}
			return best
		}), nil
	}
}

// less compares two present numbers of one kind.
func less(a, b schemas.Value) bool {
	if a.Kind() != schemas.Float {
		return a.Int() < b.Int()
	}
	x, _ := a.Float()
	y, _ := b.Float()
	return x < y
}

// earthRadius is the mean radius in km (IUGG).
const earthRadius = 6371.0088

// greatCircle is the haversine distance in km of latitude, longitude, latitude, longitude in degrees.
func greatCircle(args []term) term {
	return numeric(func(row schemas.Row) (float64, bool) {
		var radians [4]float64
		for i := range radians {
			degrees, ok := args[i].num(row)
			if !ok {
				return 0, false
			}
			radians[i] = degrees * math.Pi / 180
		}
		north := math.Sin((radians[2] - radians[0]) / 2)
		east := math.Sin((radians[3] - radians[1]) / 2)
		h := float64(north*north) + float64(math.Cos(radians[0])*math.Cos(radians[2])*float64(east*east))
		return 2 * earthRadius * math.Asin(math.Sqrt(min(h, 1))), true
	})
}

func floorDiv(a, b int64) int64 {
	q := a / b
	if a%b < 0 {
		q--
	}
	return q
}

func floorMod(a, b int64) int64 { return a - floorDiv(a, b)*b }
