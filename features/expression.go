package features

import (
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/expr-lang/expr/ast"
	"github.com/expr-lang/expr/file"
	"github.com/expr-lang/expr/parser"

	"github.com/millrace/millrace/schemas"
)

// MaxExpression is the longest expression accepted, in bytes.
const MaxExpression = 4096

// Expression is a compiled expression over the columns of a row. The language is the scalar part of expr-lang
// (https://expr-lang.org/docs/language-definition): columns, literals, arithmetic, comparison, logic, "in", "??", "?:"
// and the functions of this package. expr-lang parses it; it is typed and evaluated here, because its machine fails on a
// null operand where a feature wants a null result, and allocates.
//
// Null spreads: an operator or function with a null operand is null, except "and"/"or" where the other operand decides,
// "== nil", "??" and coalesce. A number that is not finite is null. An Expression may be shared by goroutines.
type Expression struct {
	source    string
	canonical string
	meaning   string
	columns   []string
	term      term
}

// term is a typed node. num is set for numeric kinds and is the quicker way to the value as a number.
type term struct {
	kind   schemas.Kind
	eval   func(schemas.Row) schemas.Value
	num    func(schemas.Row) (float64, bool)
	column int            // index of a plain column, else -1
	fixed  *schemas.Value // of a literal, else nil
}

// CompileExpression compiles src against the columns of s. want is the kind the result must have: Null takes any
// numeric kind, Float takes any numeric kind, the others only themselves. Errors say what is wrong and what may be meant.
func CompileExpression(src string, s *schemas.Schema, want schemas.Kind) (*Expression, error) {
	x, err := compileAny(src, s)
	if err != nil {
		return nil, err
	}
	switch kind := x.Kind(); {
	case want == schemas.Null || want == schemas.Float:
		if !kind.Numeric() {
			return nil, fmt.Errorf("%q is %s, a number is needed", src, kind)
		}
	case kind != want:
		return nil, fmt.Errorf("%q is %s, %s is needed", src, kind, want)
	}
	return x, nil
}

// compileAny compiles an expression of any kind but null.
func compileAny(src string, s *schemas.Schema) (*Expression, error) {
	if len(src) > MaxExpression {
		return nil, fmt.Errorf("the expression is longer than %d bytes", MaxExpression)
	}
	tree, err := parser.Parse(src)
	if err != nil {
		var at *file.Error
		if errors.As(err, &at) {
			return nil, fmt.Errorf("%q at character %d: %s", src, at.Column+1, at.Message)
		}
		return nil, fmt.Errorf("parsing %q: %w", src, err)
	}
	c := &expressionCompiler{schema: s}
	t, err := c.compile(tree.Node)
	if err != nil {
		return nil, fmt.Errorf("%q: %w", src, err)
	}
	if t.kind == schemas.Null {
		return nil, fmt.Errorf("%q is always null", src)
	}
	slices.Sort(c.columns)
	x := &Expression{source: src, canonical: tree.Node.String(), meaning: src, columns: slices.Compact(c.columns), term: t}
	for _, name := range x.columns {
		if column, _ := s.Column(name); column.Definition != "" {
			x.meaning += "; " + column.Meaning()
		}
	}
	return x, nil
}

// Eval is the expression's value for a row of the schema it was compiled for. It allocates nothing but what lower and
// upper make. The error is always nil today: every failure of arithmetic is a null.
func (x *Expression) Eval(row schemas.Row) (schemas.Value, error) { return x.term.eval(row), nil }

// Columns are the columns that the expression reads, sorted.
func (x *Expression) Columns() []string { return x.columns }

// Meaning is the expression's text as it was written, with the definitions of the derived columns that it reads.
func (x *Expression) Meaning() string { return x.meaning }

// Source is the expression's text as it was written.
func (x *Expression) Source() string { return x.source }

// Kind is the kind of the expression's values, other than null.
func (x *Expression) Kind() schemas.Kind { return x.term.kind }

// value is Eval without its error and, for most columns, without a call.
func (x *Expression) value(row schemas.Row) schemas.Value {
	if c := x.term.column; c >= 0 && x.term.kind != schemas.Float {
		return row[c]
	}
	return x.term.eval(row)
}

// isTrue reports whether a condition holds: null is not true.
func (x *Expression) isTrue(row schemas.Row) bool { return x.term.eval(row).Bool() }

func finite(f float64) bool { return f-f == 0 }

// maxExactInt is the largest integer up to which float64 holds every integer.
const maxExactInt = 1 << 53

type expressionCompiler struct {
	schema  *schemas.Schema
	columns []string
}

func (c *expressionCompiler) compile(n ast.Node) (term, error) {
	switch n := n.(type) {
	case *ast.NilNode:
		return literal(schemas.NullValue()), nil
	case *ast.BoolNode:
		return literal(schemas.BoolValue(n.Value)), nil
	case *ast.IntegerNode:
		return literal(schemas.IntValue(int64(n.Value))), nil
	case *ast.FloatNode:
		if !finite(n.Value) {
			return term{}, fmt.Errorf("%s is not finite", n)
		}
		return literal(schemas.FloatValue(n.Value)), nil
	case *ast.StringNode:
		return literal(schemas.StringValue(n.Value)), nil
	case *ast.IdentifierNode, *ast.MemberNode, *ast.ChainNode:
		return c.columnOf(n)
	case *ast.UnaryNode:
		return c.unary(n)
	case *ast.BinaryNode:
		return c.binary(n)
	case *ast.ConditionalNode:
		return c.conditional(n)
	case *ast.BuiltinNode:
		return c.call(n.Name, n.Arguments)
	case *ast.CallNode:
		if callee, ok := n.Callee.(*ast.IdentifierNode); ok {
			return c.call(callee.Value, n.Arguments)
		}
	}
	return term{}, fmt.Errorf("%s is not supported here", n)
}

func (c *expressionCompiler) compileAll(nodes []ast.Node) ([]term, error) {
	terms := make([]term, len(nodes))
	for i, n := range nodes {
		t, err := c.compile(n)
		if err != nil {
			return nil, err
		}
		terms[i] = t
	}
	return terms, nil
}

// columnOf resolves a name or a dotted path to a column.
func (c *expressionCompiler) columnOf(n ast.Node) (term, error) {
	name := n.String()
	i := c.schema.Index(name)
	if i < 0 {
		if near := c.schema.Suggest(name); near != "" {
			return term{}, fmt.Errorf("%s has no column %q (did you mean %q?)", c.schema.Name, name, near)
		}
		return term{}, fmt.Errorf("%s has no column %q", c.schema.Name, name)
	}
	c.columns = append(c.columns, name)
	t := term{
		kind:   c.schema.Columns[i].Kind,
		column: i,
		eval:   func(row schemas.Row) schemas.Value { return row[i] },
	}
	switch {
	case t.kind == schemas.Float:
		t.num = func(row schemas.Row) (float64, bool) {
			f, ok := row[i].Float()
			return f, ok && finite(f)
		}
		t.eval = func(row schemas.Row) schemas.Value {
			if f, ok := row[i].Float(); !ok || !finite(f) {
				return schemas.NullValue()
			}
			return row[i]
		}
	case t.kind.Numeric():
		t.num = func(row schemas.Row) (float64, bool) { return row[i].Float() }
	}
	return t, nil
}

func literal(v schemas.Value) term {
	t := term{kind: v.Kind(), column: -1, fixed: &v, eval: func(schemas.Row) schemas.Value { return v }}
	if f, ok := v.Float(); ok {
		t.num = func(schemas.Row) (float64, bool) { return f, true }
	}
	return t
}

// computed makes a term of a kind from its evaluation.
func computed(kind schemas.Kind, eval func(schemas.Row) schemas.Value) term {
	t := term{kind: kind, column: -1, eval: eval}
	if kind.Numeric() {
		t.num = func(row schemas.Row) (float64, bool) { return eval(row).Float() }
	}
	return t
}

// numeric makes a Float term from a number that may be null.
func numeric(num func(schemas.Row) (float64, bool)) term {
	checked := func(row schemas.Row) (float64, bool) {
		f, ok := num(row)
		return f, ok && finite(f)
	}
	return term{kind: schemas.Float, column: -1, num: checked, eval: func(row schemas.Row) schemas.Value {
		f, ok := checked(row)
		if !ok {
			return schemas.NullValue()
		}
		return schemas.FloatValue(f)
	}}
}

func (c *expressionCompiler) unary(n *ast.UnaryNode) (term, error) {
	t, err := c.compile(n.Node)
	if err != nil {
		return term{}, err
	}
	switch n.Operator {
	case "!", "not":
		if t.kind != schemas.Bool {
			return term{}, fmt.Errorf("%s is %s, %q needs bool", n.Node, t.kind, n.Operator)
		}
		return computed(schemas.Bool, func(row schemas.Row) schemas.Value {
			v := t.eval(row)
			if v.IsNull() {
				return v
			}
			return schemas.BoolValue(!v.Bool())
		}), nil
	case "-", "+":
		if !t.kind.Numeric() {
			return term{}, fmt.Errorf("%s is %s, %q needs a number", n.Node, t.kind, n.Operator)
		}
		if t.fixed != nil && t.kind == schemas.Int && n.Operator == "-" {
			return literal(schemas.IntValue(-t.fixed.Int())), nil
		}
		zero := literal(schemas.IntValue(0))
		return arithmetic(n.Operator, zero, t), nil
	}
	return term{}, fmt.Errorf("operator %q is not supported", n.Operator)
}

func (c *expressionCompiler) binary(n *ast.BinaryNode) (term, error) {
	if n.Operator == "in" {
		return c.membership(n)
	}
	terms, err := c.compileAll([]ast.Node{n.Left, n.Right})
	if err != nil {
		return term{}, err
	}
	l, r := terms[0], terms[1]
	switch n.Operator {
	case "+", "-", "*", "/", "%", "**", "^":
		if t, ok := timeArithmetic(n.Operator, l, r); ok {
			return t, nil
		}
		if n.Operator == "+" && l.kind == schemas.String && r.kind == schemas.String {
			return concatenation(l, r), nil
		}
		if !l.kind.Numeric() || !r.kind.Numeric() {
			return term{}, fmt.Errorf("%q needs numbers, not %s and %s", n.Operator, l.kind, r.kind)
		}
		return arithmetic(n.Operator, l, r), nil
	case "==", "!=", "<", "<=", ">", ">=":
		return c.comparison(n, l, r)
	case "and", "&&", "or", "||":
		if l.kind != schemas.Bool || r.kind != schemas.Bool {
			return term{}, fmt.Errorf("%q needs bools, not %s and %s", n.Operator, l.kind, r.kind)
		}
		return logic(n.Operator == "or" || n.Operator == "||", l, r), nil
	case "??":
		return firstPresent("??", []term{l, r})
	case "contains", "startsWith", "endsWith", "matches":
		return text(n.Operator, l, r)
	}
	return term{}, fmt.Errorf("operator %q is not supported", n.Operator)
}

func (c *expressionCompiler) conditional(n *ast.ConditionalNode) (term, error) {
	terms, err := c.compileAll([]ast.Node{n.Cond, n.Exp1, n.Exp2})
	if err != nil {
		return term{}, err
	}
	condition, yes, no := terms[0], terms[1], terms[2]
	if condition.kind != schemas.Bool {
		return term{}, fmt.Errorf("%s is %s, a condition is bool", n.Cond, condition.kind)
	}
	kind, err := unify("?:", terms[1:])
	if err != nil {
		return term{}, err
	}
	return computed(kind, func(row schemas.Row) schemas.Value {
		v := condition.eval(row)
		switch {
		case v.IsNull():
			return v
		case v.Bool():
			return convert(yes.eval(row), kind)
		default:
			return convert(no.eval(row), kind)
		}
	}), nil
}

// unify is the kind that all terms can be given as: their own, or Float where they are different numbers.
func unify(what string, terms []term) (schemas.Kind, error) {
	kind := schemas.Null
	for _, t := range terms {
		switch {
		case t.kind == schemas.Null || t.kind == kind:
		case kind == schemas.Null:
			kind = t.kind
		case kind.Numeric() && t.kind.Numeric():
			kind = schemas.Float
		default:
			return kind, fmt.Errorf("%s mixes %s and %s", what, kind, t.kind)
		}
	}
	return kind, nil
}

// convert gives a number the kind Float where that is what unify chose.
func convert(v schemas.Value, kind schemas.Kind) schemas.Value {
	if kind != schemas.Float || v.IsNull() {
		return v
	}
	f, _ := v.Float()
	return schemas.FloatValue(f)
}

func firstPresent(what string, terms []term) (term, error) {
	kind, err := unify(what, terms)
	if err != nil {
		return term{}, err
	}
	return computed(kind, func(row schemas.Row) schemas.Value {
		for i := range terms {
			if v := terms[i].eval(row); !v.IsNull() {
				return convert(v, kind)
			}
		}
		return schemas.NullValue()
	}), nil
}

// logic is three-valued: a null operand leaves the result open unless the other one decides it.
func logic(or bool, l, r term) term {
	return computed(schemas.Bool, func(row schemas.Row) schemas.Value {
		a := l.eval(row)
		if !a.IsNull() && a.Bool() == or {
			return a
		}
		b := r.eval(row)
		if a.IsNull() && !b.IsNull() && b.Bool() != or {
			return a
		}
		return b
	})
}

func arithmetic(op string, l, r term) term {
	if l.kind != schemas.Float && r.kind != schemas.Float {
		switch op {
		case "+", "-", "*", "%":
			return integerArithmetic(op, l, r)
		}
	}
	a, b := l.num, r.num
	switch op {
	case "+":
		return numeric(func(row schemas.Row) (float64, bool) {
			x, ok := a(row)
			y, also := b(row)
			return x + y, ok && also
		})
	case "-":
		return numeric(func(row schemas.Row) (float64, bool) {
			x, ok := a(row)
			y, also := b(row)
			return x - y, ok && also
		})
	case "*":
		// The conversion keeps compilers from fusing the product into a later sum, which would differ between machines.
		return numeric(func(row schemas.Row) (float64, bool) {
			x, ok := a(row)
			y, also := b(row)
			return float64(x * y), ok && also
		})
	case "/":
		return numeric(func(row schemas.Row) (float64, bool) {
			x, ok := a(row)
			y, also := b(row)
			return x / y, ok && also
		})
	case "%":
		return numeric(func(row schemas.Row) (float64, bool) {
			x, ok := a(row)
			y, also := b(row)
			return math.Mod(x, y), ok && also
		})
	default: // ** and ^
		return numeric(func(row schemas.Row) (float64, bool) {
			x, ok := a(row)
			y, also := b(row)
			return math.Pow(x, y), ok && also
		})
	}
}

// integerArithmetic is exact; a result beyond int64, or a remainder of zero, is null.
func integerArithmetic(op string, l, r term) term {
	return computed(schemas.Int, func(row schemas.Row) schemas.Value {
		v, w := l.eval(row), r.eval(row)
		if v.IsNull() || w.IsNull() {
			return schemas.NullValue()
		}
		x, y := v.Int(), w.Int()
		var z int64
		var ok bool
		switch op {
		case "+":
			z = x + y
			ok = (z > x) == (y > 0)
		case "-":
			z = x - y
			ok = (z < x) == (y > 0)
		case "*":
			z = x * y
			ok = x == 0 || (z/x == y && !(x == -1 && y == math.MinInt64))
		default:
			if ok = y != 0; ok {
				z = x % y
			}
		}
		if !ok {
			return schemas.NullValue()
		}
		return schemas.IntValue(z)
	})
}

// timeArithmetic handles time - time (milliseconds) and time ± milliseconds.
func timeArithmetic(op string, l, r term) (term, bool) {
	sign := int64(1)
	if op == "-" {
		sign = -1
	}
	kind := schemas.Time
	switch {
	case op == "-" && l.kind == schemas.Time && r.kind == schemas.Time:
		kind = schemas.Int
	case (op == "+" || op == "-") && l.kind == schemas.Time && r.kind == schemas.Int:
	default:
		return term{}, false
	}
	return computed(kind, func(row schemas.Row) schemas.Value {
		v, w := l.eval(row), r.eval(row)
		switch {
		case v.IsNull() || w.IsNull():
			return schemas.NullValue()
		case kind == schemas.Int:
			return schemas.IntValue(v.Int() - w.Int())
		default:
			return schemas.TimeValue(v.Int() + sign*w.Int())
		}
	}), true
}
