package project

import (
	"strconv"
	"strings"

	"github.com/millrace/millrace/features"
	"github.com/millrace/millrace/schemas"
)

// MaxDerived bounds the derived columns of one source.
const MaxDerived = 256

// Derived is a column that is computed from the others of its row.
type Derived struct {
	Name string
	Expr string
}

// derive reads a source's derived columns, in their order: each may use those above it. It is false when one has a fault.
func (l *loader) derive(o object, s *Source) bool {
	v := o.get("derive")
	switch v.shape {
	case absent, null, broken:
		return true
	case mapping:
	default:
		l.faultAt(v, "name: expression, like late: delay > 15", "%s: derive must be a mapping of columns, not %s", o.what, shapeNames[v.shape])
		return false
	}
	if len(v.entries) > MaxDerived {
		l.faultAt(v, "", "%s derives %d columns, more than %d", o.what, len(v.entries), MaxDerived)
		return false
	}
	var bad []string
	for _, e := range v.entries {
		at := value{line: e.line, col: e.col}
		d := Derived{Name: e.key}
		switch {
		case !namePattern.MatchString(e.key):
			l.checkName(at, "derived column", e.key)
		case s.Schema.Index(e.key) >= 0:
			l.faultAt(at, "", "%s: derive: there is a column %q already", o.what, e.key)
		case e.value.shape != text || strings.TrimSpace(e.value.text) == "":
			l.faultAt(e.value, "name: expression, like late: delay > 15", "%s: derive: %s must be an expression", o.what, e.key)
		default:
			d.Expr = e.value.text
		}
		if d.Expr == "" || !l.deriveColumn(e.value, o.what+": derive: "+e.key, s, d, bad) {
			bad = append(bad, e.key)
		}
	}
	return len(bad) == 0
}

// deriveColumn adds a column to the source's schema. What is wrong only because of a bad column is not told again.
func (l *loader) deriveColumn(at value, where string, s *Source, d Derived, bad []string) bool {
	wide, err := features.Derive(s.Schema, d.Name, d.Expr)
	if err == nil {
		s.Schema, s.Derived = wide, append(s.Derived, d)
		return true
	}
	msg, hint := splitHint(err.Error())
	for _, name := range bad {
		if strings.Contains(msg, "no column "+strconv.Quote(name)) {
			return false
		}
	}
	l.faultAt(at, hint, "%s: %s", where, msg)
	return false
}

// where reads a source's own condition.
func (l *loader) where(o object, s *Source) {
	if text := o.textOr("where", ""); text != "" {
		s.Where = l.expression(o.get("where"), o.what+": where", text, s.Schema, schemas.Bool)
	}
}

// Accepts reports whether a row is an event of the source: whether its condition holds.
func (s *Source) Accepts(row schemas.Row) bool { return s.Where == nil || s.Where.True(row) }

// both is the condition that two conditions make; either may be empty.
func both(a, b string) string {
	if a == "" || b == "" {
		return a + b
	}
	return "(" + a + ") and (" + b + ")"
}

// condition is the source's condition as it was written; empty where it has none.
func (s *Source) condition() string {
	if s.Where == nil {
		return ""
	}
	return s.Where.Source()
}
