package features

import "github.com/millrace/millrace/schemas"

// Derive is the schema with one more column, computed by an expression over those it has. Errors say what is wrong and what may be meant.
func Derive(s *schemas.Schema, name, src string) (*schemas.Schema, error) {
	x, err := compileAny(src, s)
	if err != nil {
		return nil, err
	}
	return s.Derive(schemas.Computed{Name: name, Kind: x.Kind(), Reads: x.columns, Eval: x.value, Definition: x.canonical})
}

// CompileValue compiles an expression of any kind but null.
func CompileValue(src string, s *schemas.Schema) (*Expression, error) { return compileAny(src, s) }

// True reports whether a condition holds for a row: null is not true.
func (x *Expression) True(row schemas.Row) bool { return x.isTrue(row) }

// MaxConcatenation is the longest text in bytes that "+" makes; a longer one is null. Derived columns could double it again and again.
const MaxConcatenation = 1 << 16

func concatenation(l, r term) term {
	return computed(schemas.String, func(row schemas.Row) schemas.Value {
		a, b := l.eval(row), r.eval(row)
		if a.IsNull() || b.IsNull() || len(a.Str())+len(b.Str()) > MaxConcatenation {
			return schemas.NullValue()
		}
		return schemas.StringValue(a.Str() + b.Str())
	})
}
