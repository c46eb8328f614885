package schemas

import (
	"context"
	"encoding/base64"
	"math"
	"slices"
	"strconv"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/valyala/fastjson"
)

// jsonDecoder reads a JSON object whose fields are those of the Avro schema, nested records as nested objects. It refuses what it
// does not know, what is there twice, and what is absent without a declared default. A nullable field may be null; an integer must
// be integral; a time is RFC 3339 text or Unix milliseconds; bytes are standard base64.
type jsonDecoder struct {
	schema  *Schema
	root    *jsonRecord
	fast    *fastJSON // nil when the schema is not flat
	parsers fastjson.ParserPool
	pool    *sync.Pool // of *jsonState
}

// jsonRecord is the fields of one record by name.
type jsonRecord struct {
	path   string
	fields []jsonField
	byName map[string]int
}

type jsonField struct {
	path   string
	id     int         // in jsonState.seen
	record *jsonRecord // nil for a scalar
	column int         // -1 for a record
}

// jsonState is what one decoding needs.
type jsonState struct {
	seen []bool
	row  Row
	err  error
}

func newJSONDecoder(s *Schema) *jsonDecoder {
	ids := 0
	d := &jsonDecoder{schema: s, root: jsonTree(s, s.root, "", &ids), fast: newFastJSON(s)}
	d.pool = &sync.Pool{New: func() any { return &jsonState{seen: make([]bool, ids)} }}
	return d
}

func jsonTree(s *Schema, n *node, path string, ids *int) *jsonRecord {
	r := &jsonRecord{path: path, byName: map[string]int{}}
	for i, f := range n.fields {
		name := join(path, f.name)
		field := jsonField{path: name, id: *ids, column: s.Index(name)}
		*ids++
		if f.node.wire == wireRecord {
			field.record, field.column = jsonTree(s, f.node, name, ids), -1
		}
		r.byName[f.name] = i
		r.fields = append(r.fields, field)
	}
	return r
}

func (d *jsonDecoder) Decode(_ context.Context, record []byte, row Row) (Row, error) {
	if d.fast != nil {
		row = d.widen(row)
		if d.fast.decode(record, string(record), row) {
			return row, nil
		}
	}
	return d.full(record, row)
}

func (d *jsonDecoder) Borrow(_ context.Context, record []byte, row Row) (Row, error) {
	if d.fast != nil {
		row = d.widen(row)
		if d.fast.decode(record, shared(record), row) {
			return row, nil
		}
	}
	return d.full(record, row)
}

func (d *jsonDecoder) widen(row Row) Row {
	return slices.Grow(row[:0], len(d.schema.Columns))[:len(d.schema.Columns)]
}

// full reads whatever is allowed, and says what is not.
func (d *jsonDecoder) full(record []byte, row Row) (Row, error) {
	parser := d.parsers.Get()
	defer d.parsers.Put(parser)
	tree, err := parser.ParseBytes(record)
	if err == nil {
		err = fastjson.ValidateBytes(record) // the parser alone lets control characters, NaN and 01 pass
	}
	if err != nil {
		return row[:0], recordError(ClassMalformed, "", "it is not JSON: %v", err)
	}
	return d.tree(tree, row)
}

// tree reads what is parsed.
func (d *jsonDecoder) tree(tree *fastjson.Value, row Row) (Row, error) {
	st := d.pool.Get().(*jsonState)
	defer d.pool.Put(st)
	clear(st.seen)
	st.row, st.err = d.widen(row), nil
	d.record(st, d.root, tree)
	row, st.row = st.row, nil
	if st.err != nil {
		return row[:0], st.err
	}
	return row, nil
}

// record reads one object. The first error stays in st.err.
func (d *jsonDecoder) record(st *jsonState, r *jsonRecord, tree *fastjson.Value) {
	o, err := tree.Object()
	if err != nil {
		st.err = recordError(ClassType, r.path, "%s where an object must be", tree.Type())
		return
	}
	o.Visit(func(key []byte, v *fastjson.Value) {
		if st.err == nil {
			d.field(st, r, key, v)
		}
	})
	for _, f := range r.fields {
		if st.err != nil {
			return
		}
		if !st.seen[f.id] {
			d.absent(st, f)
		}
	}
}

func (d *jsonDecoder) field(st *jsonState, r *jsonRecord, key []byte, tree *fastjson.Value) {
	i, known := r.byName[string(key)]
	if !known {
		st.err = unknownField(r, string(key))
		return
	}
	f := &r.fields[i]
	if st.seen[f.id] {
		st.err = recordError(ClassMalformed, f.path, "the field is there twice")
		return
	}
	st.seen[f.id] = true
	if f.record != nil {
		d.record(st, f.record, tree)
		return
	}
	v, err := jsonValue(d.schema, f.column, tree)
	if err != nil {
		st.err = err
		return
	}
	st.row[f.column] = v
}

func (d *jsonDecoder) absent(st *jsonState, f jsonField) {
	preset, ok := d.schema.fallbacks[f.path]
	if !ok {
		st.err = recordError(ClassMissing, f.path, "the field is absent")
		return
	}
	for _, c := range preset {
		st.row[c.column] = c.value
	}
}

func unknownField(r *jsonRecord, key string) error {
	names := make([]string, len(r.fields))
	for i, f := range r.fields {
		names[i] = f.path
	}
	path := join(r.path, key)
	if near := Nearest(path, names); near != "" {
		return recordError(ClassUnknown, path, "the schema has no such field; did you mean %s?", near)
	}
	return recordError(ClassUnknown, path, "the schema has no such field")
}

// jsonValue reads one scalar as the column's type.
func jsonValue(s *Schema, column int, tree *fastjson.Value) (Value, error) {
	c, n := &s.Columns[column], s.slots[column].node
	if tree.Type() == fastjson.TypeNull {
		return Value{}, s.checkColumn(column, Value{})
	}
	var v Value
	var err error
	switch c.Kind {
	case Bool:
		v, err = jsonBool(c, tree)
	case Int:
		v, err = jsonInt(c, tree)
	case Float:
		v, err = jsonFloat(c, n, tree)
	case Time:
		v, err = jsonTime(c, tree)
	default:
		v, err = jsonText(c, tree)
	}
	if err != nil {
		return Value{}, err
	}
	return v, s.checkColumn(column, v)
}

func wrongType(c *Column, tree *fastjson.Value, must string) error {
	return recordError(ClassType, c.Name, "%s where %s must be", tree.Type(), must)
}

func jsonBool(c *Column, tree *fastjson.Value) (Value, error) {
	b, err := tree.Bool()
	if err != nil {
		return Value{}, wrongType(c, tree, "true or false")
	}
	return BoolValue(b), nil
}

func jsonInt(c *Column, tree *fastjson.Value) (Value, error) {
	if tree.Type() != fastjson.TypeNumber {
		return Value{}, wrongType(c, tree, "an integer")
	}
	i, err := integral(c, tree)
	return IntValue(i), err
}

// integral accepts 5, 5.0 and 5e0.
func integral(c *Column, tree *fastjson.Value) (int64, error) {
	if i, err := tree.Int64(); err == nil {
		return i, nil
	}
	text := tree.String()
	f, err := strconv.ParseFloat(text, 64)
	if err != nil || math.Abs(f) >= 1<<63 {
		return 0, recordError(ClassRange, c.Name, "%s does not fit 64 bits", clip(text))
	}
	if f != math.Trunc(f) {
		return 0, recordError(ClassType, c.Name, "%s is not an integer", clip(text))
	}
	if math.Abs(f) >= 1<<53 {
		return 0, recordError(ClassType, c.Name, "%s cannot be read as an integer without loss", clip(text))
	}
	return int64(f), nil
}

func jsonFloat(c *Column, n *node, tree *fastjson.Value) (Value, error) {
	if tree.Type() != fastjson.TypeNumber {
		return Value{}, wrongType(c, tree, "a number")
	}
	bits := 64
	if n.wire == wireFloat {
		bits = 32
	}
	text := tree.String()
	f, err := strconv.ParseFloat(text, bits)
	if err != nil {
		return Value{}, recordError(ClassRange, c.Name, "%s does not fit %d bits", clip(text), bits)
	}
	return FloatValue(f), nil
}

func jsonTime(c *Column, tree *fastjson.Value) (Value, error) {
	switch tree.Type() {
	case fastjson.TypeNumber:
		i, err := integral(c, tree)
		return TimeValue(i), err
	case fastjson.TypeString:
		text := string(tree.GetStringBytes())
		t, err := time.Parse(time.RFC3339Nano, text)
		if err != nil {
			return Value{}, recordError(ClassType, c.Name, "%q is not a time: write RFC 3339 text or Unix milliseconds", clip(text))
		}
		return TimeValue(t.UnixMilli()), nil
	default:
		return Value{}, wrongType(c, tree, "a time, as RFC 3339 text or Unix milliseconds,")
	}
}

func jsonText(c *Column, tree *fastjson.Value) (Value, error) {
	raw, err := tree.StringBytes()
	if err != nil {
		return Value{}, wrongType(c, tree, "text")
	}
	if c.Kind == String {
		if !utf8.Valid(raw) {
			return Value{}, recordError(ClassMalformed, c.Name, "the text is not UTF-8")
		}
		return StringValue(string(raw)), nil
	}
	b, err := base64.StdEncoding.Strict().DecodeString(string(raw))
	if err != nil {
		return Value{}, recordError(ClassType, c.Name, "the text is not standard base64")
	}
	return BytesValue(string(b)), nil
}

// clip keeps a message short, whatever the record holds.
func clip(s string) string {
	if len(s) > 64 {
		return s[:64] + "…"
	}
	return s
}
