package serving

import (
	"errors"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/valyala/fastjson"

	"github.com/millrace/millrace/project"
	"github.com/millrace/millrace/schemas"
)

// The names of a request's own fields. A schema with a column of such a name keeps it: the field is then the column's.
const (
	fieldRows      = "rows"
	fieldAt        = "at"
	fieldOverrides = "overrides"
)

// requestReader reads the body of a scoring request:
//
//	{"rows": [{<columns of the model's source>, "at": …, "overrides": {…}}, …], "at": …}    or a single such row
//
// Rows are read by the JSON decoder of the source's schema, the one that records of a JSON topic go through: unknown, missing, ill-typed
// and out-of-range fields are refused by name. "at", RFC 3339 or Unix milliseconds, is the time the features are to be as of. "overrides"
// says what inputs are that else would be fetched.
type requestReader struct {
	decoder  *schemas.ObjectDecoder
	schema   *schemas.Schema
	source   *project.Source // whose events are asked about; nil takes every row
	tables   project.Tables  // what the rows are looked up in
	columns  int
	ownsRows bool // the schema has a field "rows"
	ownsAt   bool // and one "at"
	ownsOver bool // and one "overrides"
	fetched  map[string]fetchedInput
	parsers  fastjson.ParserPool
}

func newRequestReader(s *schemas.Schema) *requestReader {
	r := &requestReader{decoder: schemas.NewObjectDecoder(s), schema: s, columns: len(s.Columns)}
	for _, c := range s.Record().Columns {
		top, _, _ := strings.Cut(c.Name, ".")
		r.ownsRows = r.ownsRows || top == fieldRows
		r.ownsAt = r.ownsAt || top == fieldAt
		r.ownsOver = r.ownsOver || top == fieldOverrides
	}
	return r
}

// read gives the rows of a body, at most limit. Their texts may be parts of it.
func (r *requestReader) read(body []byte, limit int) ([]question, *problem) {
	if row, ok := r.decoder.Plain(body, r.room()); ok {
		q, p := r.accept(row, "", noTime)
		return []question{q}, p
	}
	parser := r.parsers.Get()
	defer r.parsers.Put(parser)
	tree, err := parser.ParseBytes(body)
	if err == nil {
		err = fastjson.ValidateBytes(body) // the parser alone lets control characters, NaN and 01 pass
	}
	if err != nil {
		return nil, badRequest(codeMalformed, "", "the body is not JSON")
	}
	if tree.Type() != fastjson.TypeObject {
		return nil, badRequest(codeType, "", "the body is %s where an object must be", tree.Type())
	}
	if r.ownsRows || tree.Get(fieldRows) == nil {
		q, p := r.row(tree, "", noTime)
		return []question{q}, p
	}
	return r.rows(tree, limit)
}

func (r *requestReader) rows(tree *fastjson.Value, limit int) ([]question, *problem) {
	at, p := envelope(tree)
	if p != nil {
		return nil, p
	}
	list := tree.Get(fieldRows)
	rows, err := list.Array()
	switch {
	case err != nil:
		return nil, badRequest(codeType, fieldRows, "%s where an array must be", list.Type())
	case len(rows) == 0:
		return nil, badRequest(codeNoRows, fieldRows, "there is no row to score")
	case len(rows) > limit:
		p := badRequest(codeTooManyRows, fieldRows, "%d rows, at most %d", len(rows), limit)
		p.Status = statusTooLarge
		return nil, p
	}
	questions := make([]question, len(rows))
	for i, row := range rows {
		if questions[i], p = r.row(row, rowPath(i), at); p != nil {
			return nil, p
		}
	}
	return questions, nil
}

// envelope checks what stands beside "rows".
func envelope(tree *fastjson.Value) (at int64, p *problem) {
	at = noTime
	seen := map[string]bool{}
	tree.GetObject().Visit(func(key []byte, v *fastjson.Value) {
		name := string(key)
		switch {
		case p != nil:
		case seen[name]:
			p = badRequest(codeMalformed, name, "the field is there twice")
		case name == fieldAt:
			at, p = readAt(fieldAt, v)
		case name != fieldRows:
			p = badRequest(codeUnknown, name, "a request has no such field beside %q", fieldRows)
		}
		seen[name] = true
	})
	return at, p
}

func rowPath(i int) string { return fieldRows + "[" + strconv.Itoa(i) + "]" }

// row reads one row; path is where it stands in the body.
func (r *requestReader) row(tree *fastjson.Value, path string, at int64) (question, *problem) {
	object, err := tree.Object()
	if err != nil {
		return question{}, badRequest(codeType, path, "%s where an object must be", tree.Type())
	}
	if v := object.Get(fieldAt); v != nil && !r.ownsAt {
		var p *problem
		if at, p = readAt(within(path, fieldAt), v); p != nil {
			return question{}, p
		}
		object.Del(fieldAt)
	}
	var overrides []override
	if v := object.Get(fieldOverrides); v != nil && !r.ownsOver {
		var p *problem
		if overrides, p = r.readOverrides(within(path, fieldOverrides), v); p != nil {
			return question{}, p
		}
		object.Del(fieldOverrides)
	}
	row, err := r.decoder.Decode(tree, r.room())
	var fault *schemas.RecordError
	switch {
	case errors.As(err, &fault):
		return question{}, FaultOf(r.schema, path, fault)
	case err != nil:
		return question{}, problemOf(err)
	}
	q, p := r.accept(row, path, at)
	q.overrides = overrides
	return q, p
}

func (r *requestReader) room() schemas.Row { return make(schemas.Row, 0, r.columns) }

// accept completes a row and takes it when it is an event of the model's source.
func (r *requestReader) accept(row schemas.Row, path string, at int64) (question, *problem) {
	if r.source != nil {
		r.tables.Enrich(r.source, row, row[r.source.TimeIndex()].Int(), nil)
	}
	if r.source != nil && !r.source.Accepts(row) {
		return question{}, badRequest(codeForeign, path, "the row is no event of %s: %s does not hold of it", r.source.Name, r.source.Where.Source())
	}
	return question{row: row, at: at}, nil
}

func within(path, field string) string {
	switch {
	case path == "":
		return field
	case field == "":
		return path
	default:
		return path + "." + field
	}
}

func readAt(field string, v *fastjson.Value) (int64, *problem) {
	switch v.Type() {
	case fastjson.TypeString:
		text, _ := v.StringBytes()
		return parseTime(field, string(text))
	case fastjson.TypeNumber:
		if f, err := v.Float64(); err == nil && f == math.Trunc(f) && math.Abs(f) < 1<<53 { // 5.0 and 5e0 are whole, too
			return inRange(field, int64(f))
		}
		return parseAt(field, v.String())
	default:
		return 0, badRequest(codeType, field, "%s where RFC 3339 text or Unix milliseconds must be", v.Type())
	}
}

// parseAt reads a time as a query parameter has it.
func parseAt(field, text string) (int64, *problem) {
	if ms, err := strconv.ParseInt(text, 10, 64); err == nil {
		return inRange(field, ms)
	}
	return parseTime(field, text)
}

func parseTime(field, text string) (int64, *problem) {
	t, err := time.Parse(time.RFC3339Nano, text)
	if err != nil {
		return 0, badRequest(codeType, field, "the time is neither RFC 3339 nor Unix milliseconds")
	}
	return inRange(field, t.UnixMilli())
}

func inRange(field string, ms int64) (int64, *problem) {
	if ms < schemas.MinTime || ms > schemas.MaxTime {
		return 0, badRequest(codeRange, field, "the time is outside the years 1 to 9999")
	}
	return ms, nil
}
