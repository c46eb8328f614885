package features

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/expr-lang/expr/ast"

	"github.com/millrace/millrace/schemas"
)

func (c *expressionCompiler) comparison(n *ast.BinaryNode, l, r term) (term, error) {
	if l.kind == schemas.Null || r.kind == schemas.Null {
		return nullTest(n.Operator, l, r)
	}
	order, err := c.ordering(n, l, r)
	if err != nil {
		return term{}, err
	}
	accept, ok := acceptOrder(n.Operator)
	if !ok {
		return term{}, fmt.Errorf("operator %q is not supported", n.Operator)
	}
	if l.num != nil && r.num != nil && (l.kind == schemas.Float || r.kind == schemas.Float || r.fixed != nil && small(*r.fixed)) {
		return numericComparison(accept, l.num, r.num), nil
	}
	return computed(schemas.Bool, func(row schemas.Row) schemas.Value {
		a, b := l.eval(row), r.eval(row)
		if a.IsNull() || b.IsNull() {
			return schemas.NullValue()
		}
		return schemas.BoolValue(accept[order(a, b)+1])
	}), nil
}

// acceptOrder says for each of less, equal, greater whether the operator holds.
func acceptOrder(op string) ([3]bool, bool) {
	switch op {
	case "==":
		return [3]bool{false, true, false}, true
	case "!=":
		return [3]bool{true, false, true}, true
	case "<":
		return [3]bool{true, false, false}, true
	case "<=":
		return [3]bool{true, true, false}, true
	case ">":
		return [3]bool{false, false, true}, true
	case ">=":
		return [3]bool{false, true, true}, true
	}
	return [3]bool{}, false
}

// small reports that rounding another integer to float64 cannot change how it compares to v.
func small(v schemas.Value) bool {
	f, _ := v.Float()
	return f > -maxExactInt && f < maxExactInt
}

func numericComparison(accept [3]bool, a, b func(schemas.Row) (float64, bool)) term {
	return computed(schemas.Bool, func(row schemas.Row) schemas.Value {
		x, ok := a(row)
		y, also := b(row)
		if !ok || !also {
			return schemas.NullValue()
		}
		return schemas.BoolValue(accept[cmp.Compare(x, y)+1])
	})
}

func nullTest(op string, l, r term) (term, error) {
	tested := l
	if l.kind == schemas.Null {
		tested = r
	}
	if op != "==" && op != "!=" {
		return term{}, fmt.Errorf("nil can only be compared by == and !=")
	}
	return computed(schemas.Bool, func(row schemas.Row) schemas.Value {
		return schemas.BoolValue(tested.eval(row).IsNull() == (op == "=="))
	}), nil
}

// ordering is how present values of the two terms compare.
func (c *expressionCompiler) ordering(n ast.Node, l, r term) (func(a, b schemas.Value) int, error) {
	switch {
	case l.kind == schemas.Float && r.kind.Numeric() || r.kind == schemas.Float && l.kind.Numeric():
		return func(a, b schemas.Value) int {
			x, _ := a.Float()
			y, _ := b.Float()
			return cmp.Compare(x, y)
		}, nil
	case l.kind.Numeric() && r.kind.Numeric(), l.kind == schemas.Time && r.kind == schemas.Time:
		return func(a, b schemas.Value) int { return cmp.Compare(a.Int(), b.Int()) }, nil
	case l.kind == r.kind:
		if err := c.checkSymbols(l, r); err != nil {
			return nil, err
		}
		return func(a, b schemas.Value) int { return cmp.Compare(a.Str(), b.Str()) }, nil
	}
	return nil, fmt.Errorf("%s compares %s with %s", n, l.kind, r.kind)
}

// checkSymbols refuses to compare an enum with a text that is none of its symbols: it would never match.
func (c *expressionCompiler) checkSymbols(l, r term) error {
	if l.column < 0 {
		l, r = r, l
	}
	if l.column < 0 || r.fixed == nil {
		return nil
	}
	column := c.schema.Columns[l.column]
	if len(column.Symbols) == 0 || slices.Contains(column.Symbols, r.fixed.Str()) {
		return nil
	}
	if near := schemas.Nearest(r.fixed.Str(), column.Symbols); near != "" {
		return fmt.Errorf("%s is never %q (did you mean %q?)", column.Name, r.fixed.Str(), near)
	}
	return fmt.Errorf("%s is never %q, only %s", column.Name, r.fixed.Str(), strings.Join(column.Symbols, ", "))
}

// membership is "x in [a, b, …]".
func (c *expressionCompiler) membership(n *ast.BinaryNode) (term, error) {
	list, ok := n.Right.(*ast.ArrayNode)
	if !ok {
		return term{}, fmt.Errorf("%q needs a list such as [1, 2] on its right", n.Operator)
	}
	x, err := c.compile(n.Left)
	if err != nil {
		return term{}, err
	}
	members, err := c.compileAll(list.Nodes)
	if err != nil {
		return term{}, err
	}
	orders := make([]func(a, b schemas.Value) int, len(members))
	for i, m := range members {
		if m.kind == schemas.Null {
			return term{}, fmt.Errorf("nil in a list matches nothing")
		}
		if orders[i], err = c.ordering(n, x, m); err != nil {
			return term{}, err
		}
	}
	return computed(schemas.Bool, func(row schemas.Row) schemas.Value {
		v := x.eval(row)
		if v.IsNull() {
			return v
		}
		open := false
		for i := range members {
			w := members[i].eval(row)
			if w.IsNull() {
				open = true
			} else if orders[i](v, w) == 0 {
				return schemas.BoolValue(true)
			}
		}
		if open {
			return schemas.NullValue()
		}
		return schemas.BoolValue(false)
	}), nil
}

// text compiles the operators on strings. A pattern of "matches" is a literal, in Go's syntax (linear time).
func text(op string, l, r term) (term, error) {
	if l.kind != schemas.String || r.kind != schemas.String {
		return term{}, fmt.Errorf("%q needs strings, not %s and %s", op, l.kind, r.kind)
	}
	var holds func(a, b string) bool
	switch op {
	case "contains":
		holds = strings.Contains
	case "startsWith":
		holds = strings.HasPrefix
	case "endsWith":
		holds = strings.HasSuffix
	default:
		if r.fixed == nil {
			return term{}, fmt.Errorf("the pattern of \"matches\" must be written out")
		}
		pattern, err := regexp.Compile(r.fixed.Str())
		if err != nil {
			return term{}, fmt.Errorf("compiling the pattern of \"matches\": %w", err)
		}
		holds = func(a, _ string) bool { return pattern.MatchString(a) }
	}
	return computed(schemas.Bool, func(row schemas.Row) schemas.Value {
		a, b := l.eval(row), r.eval(row)
		if a.IsNull() || b.IsNull() {
			return schemas.NullValue()
		}
		return schemas.BoolValue(holds(a.Str(), b.Str()))
	}), nil
}
