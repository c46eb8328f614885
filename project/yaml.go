package project

import (
	"bytes"
	"errors"
	"fmt"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
)

// shape is what a value looks like.
type shape uint8

const (
	absent shape = iota
	null
	text
	number
	boolean
	list
	mapping
	broken // its fault is recorded already
)

var shapeNames = [...]string{"nothing", "nothing", "text", "a number", "true or false", "a list", "a mapping", "nothing"}

// value is a part of the file with its place.
type value struct {
	shape   shape
	text    string // of a scalar
	line    int
	col     int
	items   []value
	entries []entry
	partial bool // a mapping that lacks what could not be read: that something is missing is no further fault
}

// entry is one key of a mapping.
type entry struct {
	key       string
	line, col int // of the key
	value     value
}

// byteOrderMark is what some editors begin a UTF-8 file with.
var byteOrderMark = []byte("\ufeff")

// Bounds on a project file.
const (
	MaxFileBytes = 1 << 20
	MaxDepth     = 16 // of lists and mappings in each other
)

// parseYAML reads one YAML document. A fault keeps the rest from being read only where the syntax itself is broken.
func (l *loader) parseYAML(src []byte) (v value) {
	if len(src) > MaxFileBytes {
		l.fault(0, 0, "", "the file has more than %d bytes", MaxFileBytes)
		return value{}
	}
	defer func() {
		if r := recover(); r != nil { // the YAML library on bytes nobody meant as YAML
			l.fault(1, 1, "", "it is not YAML: %v", r)
			v = value{}
		}
	}()
	src = bytes.TrimPrefix(src, byteOrderMark)
	file, err := parser.ParseBytes(src, 0, parser.AllowDuplicateMapKey())
	if err != nil {
		l.syntaxFault(err)
		return value{}
	}
	var bodies []ast.Node
	for _, d := range file.Docs {
		if d.Body != nil {
			bodies = append(bodies, d.Body)
		}
	}
	if len(bodies) == 0 {
		return value{}
	}
	if len(bodies) > 1 {
		at := bodies[1].GetToken().Position
		l.fault(at.Line, 1, "", "a second document begins here: a project is one")
	}
	return l.convert(bodies[0], 0)
}

func (l *loader) syntaxFault(err error) {
	var syntax *yaml.SyntaxError
	if !errors.As(err, &syntax) || syntax.GetToken() == nil {
		l.fault(1, 1, "", "it is not YAML: %v", err)
		return
	}
	at := syntax.GetToken().Position
	hint := ""
	if strings.Contains(syntax.GetMessage(), "'\t'") {
		hint = "indent with spaces: YAML allows no tabs there"
	}
	l.fault(at.Line, at.Column, hint, "it is not YAML: %s", syntax.GetMessage())
}

func (l *loader) convert(n ast.Node, depth int) value {
	at := n.GetToken().Position
	v := value{line: at.Line, col: at.Column}
	if depth > MaxDepth {
		l.fault(v.line, v.col, "", "lists and mappings are nested more than %d deep", MaxDepth)
		v.shape = broken
		return v
	}
	switch t := n.(type) {
	case *ast.NullNode:
		v.shape = null
	case *ast.BoolNode:
		v.shape, v.text = boolean, fmt.Sprint(t.Value)
	case *ast.IntegerNode, *ast.FloatNode:
		v.shape, v.text = number, n.GetToken().Value
	case *ast.StringNode:
		v.shape, v.text = text, t.Value
	case *ast.LiteralNode:
		v.shape, v.text = text, t.Value.Value
	case *ast.SequenceNode:
		v.shape = list
		for _, item := range t.Values {
			v.items = append(v.items, l.convert(item, depth+1))
		}
	case *ast.MappingNode:
		return l.convertMapping(v, t.Values, depth)
	case *ast.MappingValueNode:
		return l.convertMapping(v, []*ast.MappingValueNode{t}, depth)
	case *ast.TagNode:
		v.shape = broken
		l.fault(v.line, v.col, "put the text in quotes", "a value that begins with ! is a YAML tag, which a project file has no use for")
	case *ast.AnchorNode, *ast.AliasNode:
		v.shape = broken
		l.fault(v.line, v.col, "write the value out", "YAML anchors and aliases are not supported")
	default:
		v.shape = broken
		l.fault(v.line, v.col, "", "%q is not supported", n.GetToken().Value)
	}
	return v
}

func (l *loader) convertMapping(v value, pairs []*ast.MappingValueNode, depth int) value {
	v.shape = mapping
	seen := map[string]bool{}
	for i, pair := range pairs {
		at := pair.Key.GetToken().Position
		if i == 0 {
			v.line, v.col = at.Line, at.Column // a block's own token is the colon
		}
		var key string
		switch k := pair.Key.(type) {
		case *ast.StringNode:
			key = k.Value
		case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode, *ast.NullNode:
			key = k.GetToken().Value
		default:
			v.partial = true
			l.fault(at.Line, at.Column, "", "a key must be plain text")
			continue
		}
		e := entry{key: key, line: at.Line, col: at.Column, value: l.convert(pair.Value, depth+1)}
		if seen[key] {
			l.fault(at.Line, at.Column, "", "%q is there twice", key)
			continue
		}
		seen[key] = true
		v.partial = v.partial || e.value.shape == broken // a tag may swallow the lines that follow
		v.entries = append(v.entries, e)
	}
	return v
}
