package schemas

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/linkedin/goavro/v2"
)

// wire is how a type lies in Avro binary.
type wire uint8

const (
	wireNull wire = iota
	wireBoolean
	wireInt
	wireLong
	wireFloat
	wireDouble
	wireBytes
	wireString
	wireEnum
	wireFixed
	wireRecord
	wireArray
	wireMap
	wireUnion
)

var wireNames = [...]string{"null", "boolean", "int", "long", "float", "double", "bytes", "string", "enum", "fixed", "record", "array", "map", "union"}

func (w wire) String() string { return wireNames[w] }

// node is one type of a schema. Named types may refer to themselves, so nodes can form cycles.
type node struct {
	wire     wire
	name     string // full name of a record, enum or fixed
	logical  string
	size     int // of a fixed, in bytes
	symbols  []string
	fields   []field // of a record
	items    *node   // of an array or map
	branches []*node // of a union
}

// field is one field of a record.
type field struct {
	name       string
	aliases    []string
	node       *node
	fallback   any // the declared default
	hasDefault bool
	min, max   *float64
	doc        string
}

const (
	timestampMillis = "timestamp-millis"
	timestampMicros = "timestamp-micros"
)

// Parse reads an Avro schema (.avsc) as the type of a source's records: a record of scalars, of nullable scalars (a union with null),
// and of nested records of these, whose fields become columns named by their path. Anything else is an error that names the path.
// A field of a number or a time may declare its range with the properties "minimum" and "maximum".
func Parse(name string, avsc []byte) (*Schema, error) {
	text, root, err := parseNodes(avsc)
	if err != nil {
		return nil, fmt.Errorf("reading schema %s: %w", name, err)
	}
	if root.wire != wireRecord {
		return nil, fmt.Errorf("reading schema %s: the top must be a record, not %s", name, root.wire)
	}
	s := &Schema{Name: name, source: string(avsc), canonical: text, root: root, index: map[string]int{}, fallbacks: map[string][]constant{}}
	if err := s.flatten(root, "", nil); err != nil {
		return nil, fmt.Errorf("reading schema %s: %w", name, err)
	}
	if len(s.Columns) == 0 {
		return nil, fmt.Errorf("reading schema %s: the record has no fields", name)
	}
	own, err := resolve(root, s)
	if err != nil {
		return nil, fmt.Errorf("reading schema %s: %w", name, err)
	}
	s.own = own
	return s, nil
}

// parseNodes checks a schema with goavro, which knows Avro's rules for names and defaults, and then reads it into nodes.
func parseNodes(avsc []byte) (text string, root *node, err error) {
	var tree any
	in := json.NewDecoder(bytes.NewReader(avsc))
	in.UseNumber()
	if err := in.Decode(&tree); err != nil {
		return "", nil, fmt.Errorf("it is not JSON: %w", err)
	}
	if _, err := in.Token(); !errors.Is(err, io.EOF) {
		return "", nil, errors.New("it is not JSON: something follows the schema")
	}
	if _, err := goavro.NewCodec(string(avsc)); err != nil {
		return "", nil, fmt.Errorf("it is not an Avro schema: %w", err)
	}
	p := parser{named: map[string]*node{}}
	root, err = p.parse(tree, "", "")
	if err != nil {
		return "", nil, err
	}
	return canonical(root), root, nil
}

// parser reads the JSON of a schema into nodes, remembering the named types on the way.
type parser struct{ named map[string]*node }

func (p *parser) parse(tree any, namespace, path string) (*node, error) {
	switch t := tree.(type) {
	case string:
		return p.reference(t, namespace, path)
	case []any:
		return p.union(t, namespace, path)
	case map[string]any:
		return p.object(t, namespace, path)
	default:
		return nil, at(path, "a type must be a name, a list or an object")
	}
}

func primitive(name string) (wire, bool) {
	for w := wireNull; w <= wireString; w++ {
		if wireNames[w] == name {
			return w, true
		}
	}
	return 0, false
}

func (p *parser) reference(name, namespace, path string) (*node, error) {
	if w, ok := primitive(name); ok {
		return &node{wire: w}, nil
	}
	for _, full := range []string{fullName(name, namespace), name} {
		if n, ok := p.named[full]; ok {
			return n, nil
		}
	}
	return nil, at(path, "unknown type %q", name)
}

func (p *parser) union(branches []any, namespace, path string) (*node, error) {
	n := &node{wire: wireUnion}
	for _, b := range branches {
		branch, err := p.parse(b, namespace, path)
		if err != nil {
			return nil, err
		}
		n.branches = append(n.branches, branch)
	}
	return n, nil
}

func (p *parser) object(o map[string]any, namespace, path string) (*node, error) {
	kind, ok := o["type"].(string)
	if !ok {
		return p.parse(o["type"], namespace, path)
	}
	if w, ok := primitive(kind); ok {
		logical, _ := o["logicalType"].(string)
		return &node{wire: w, logical: logical}, nil
	}
	switch kind {
	case "array", "map":
		return p.collection(kind, o, namespace, path)
	case "record", "enum", "fixed":
		return p.define(kind, o, namespace, path)
	default:
		return p.reference(kind, namespace, path)
	}
}

func (p *parser) collection(kind string, o map[string]any, namespace, path string) (*node, error) {
	n, of := &node{wire: wireArray}, o["items"]
	if kind == "map" {
		n.wire, of = wireMap, o["values"]
	}
	items, err := p.parse(of, namespace, path)
	n.items = items
	return n, err
}

func (p *parser) define(kind string, o map[string]any, namespace, path string) (*node, error) {
	name, _ := o["name"].(string)
	if own, ok := o["namespace"].(string); ok {
		namespace = own
	}
	full := fullName(name, namespace)
	if i := strings.LastIndexByte(full, '.'); i >= 0 {
		namespace = full[:i]
	}
	logical, _ := o["logicalType"].(string)
	n := &node{name: full, logical: logical}
	p.named[full] = n // before the fields: they may refer to it
	switch kind {
	case "enum":
		n.wire, n.symbols = wireEnum, texts(o["symbols"])
		return n, nil
	case "fixed":
		size, err := number(o["size"])
		if err != nil || size == nil || *size < 0 || *size > maxFixed {
			return nil, at(path, "a fixed needs a size of 0 to %d bytes", maxFixed)
		}
		n.wire, n.size = wireFixed, int(*size)
		return n, nil
	}
	n.wire = wireRecord
	fields, _ := o["fields"].([]any)
	for _, f := range fields {
		parsed, err := p.field(f, namespace, path)
		if err != nil {
			return nil, err
		}
		n.fields = append(n.fields, parsed)
	}
	return n, nil
}

// maxFixed bounds the size of a fixed type, in bytes.
const maxFixed = 1 << 20

func (p *parser) field(tree any, namespace, path string) (field, error) {
	o, _ := tree.(map[string]any)
	name, _ := o["name"].(string)
	path = join(path, name)
	n, err := p.parse(o["type"], namespace, path)
	if err != nil {
		return field{}, err
	}
	f := field{name: name, aliases: texts(o["aliases"]), node: n}
	f.fallback, f.hasDefault = o["default"]
	f.doc, _ = o["doc"].(string)
	if f.min, err = number(o["minimum"]); err != nil {
		return field{}, at(path, "minimum: %w", err)
	}
	if f.max, err = number(o["maximum"]); err != nil {
		return field{}, at(path, "maximum: %w", err)
	}
	return f, nil
}

// number reads an optional JSON number.
func number(tree any) (*float64, error) {
	if tree == nil {
		return nil, nil
	}
	text, ok := tree.(json.Number)
	if !ok {
		return nil, errors.New("must be a number")
	}
	f, err := strconv.ParseFloat(text.String(), 64)
	if err != nil {
		return nil, fmt.Errorf("must be a number: %w", err)
	}
	return &f, nil
}

func texts(tree any) []string {
	list, _ := tree.([]any)
	var out []string
	for _, e := range list {
		if s, ok := e.(string); ok {
			out = append(out, s)
		}
	}
	return out
}

func fullName(name, namespace string) string {
	if namespace == "" || strings.ContainsRune(name, '.') {
		return name
	}
	return namespace + "." + name
}

func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}

func at(path, format string, args ...any) error {
	if path == "" {
		return fmt.Errorf(format, args...)
	}
	return fmt.Errorf(path+": "+format, args...)
}
