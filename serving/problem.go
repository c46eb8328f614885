package serving

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"

	"github.com/millrace/millrace/internal/failure"
	"github.com/millrace/millrace/schemas"
	"github.com/millrace/millrace/serving/access"
)

// Problem is an answer that is not the one asked for (RFC 9457). Type and Code do not change between versions; the texts may. No text
// holds a value of the request, nor what is within the server: fields are named, never shown.
type Problem struct {
	Type   string `json:"type"` // TypePrefix and the code
	Title  string `json:"title"`
	Status int    `json:"status"`
	Code   string `json:"code"`
	Field  string `json:"field,omitempty"` // of the body ("rows[2].origin"), or the header or query parameter
	Detail string `json:"detail"`
	Hint   string `json:"hint,omitempty"`

	// Predictions is what is known of the rows when every one was refused.
	Predictions json.RawMessage `json:"predictions,omitempty"`
}

// TypePrefix is what the type of every problem begins with; its code follows.
const TypePrefix = "urn:millrace:problem:"

type problem = Problem

// Error is the problem as the faces that have no room for its members tell it.
func (p *Problem) Error() string {
	if p.Field == "" {
		return p.Code + ": " + p.Detail
	}
	return p.Code + ": " + p.Field + ": " + p.Detail
}

// The codes that are neither a failure.Kind nor a reason of the ladder.
const (
	codeMalformed    = "malformed"
	codeMissing      = "missing_field"
	codeType         = "wrong_type"
	codeUnknown      = "unknown_field"
	codeRange        = "out_of_range"
	codeForeign      = "no_event_of_source"
	codeNoRows       = "no_rows"
	codeTooManyRows  = "too_many_rows"
	codeBodyTooLarge = "body_too_large"
	codeBodyTimeout  = "body_timeout"
	codeEncoding     = "content_encoding"
	codeClientGone   = "client_gone"
	codeMethod       = "method_not_allowed"
	codeNotFound     = "not_found"
)

var classCodes = map[string]string{
	schemas.ClassMalformed: codeMalformed, schemas.ClassMissing: codeMissing, schemas.ClassType: codeType,
	schemas.ClassUnknown: codeUnknown, schemas.ClassRange: codeRange,
}

func badRequest(code, field, format string, args ...any) *problem {
	return &problem{Status: http.StatusBadRequest, Code: code, Field: field, Detail: fmt.Sprintf(format, args...)}
}

func absent(field, format string, args ...any) *problem {
	return &problem{Status: http.StatusNotFound, Code: codeNotFound, Field: field, Detail: fmt.Sprintf(format, args...)}
}

// ProblemOf is the problem of somebody who is not let in.
func ProblemOf(d *access.Denied) *Problem {
	return &problem{Status: d.Status, Code: d.Code, Detail: d.Detail}
}

// problemOf is the answer for an error. What Redis, Kafka or the registry said stays in the server: of what is not the request's own
// fault it tells no more than the kind.
func problemOf(err error) *problem {
	kind := failure.Of(err)
	p := &problem{Status: kind.Status(), Code: kind.String(), Detail: kindDetails[kind]}
	var e *failure.Error
	if p.Detail == "" && errors.As(err, &e) {
		p.Detail, p.Hint = e.What, e.Hint
	}
	if kind.Retry() {
		p.Hint = "try again"
	}
	return p
}

// kindDetails is what is told of errors that are not about the request.
var kindDetails = map[failure.Kind]string{
	failure.Internal:    "the server failed to answer",
	failure.Conflict:    "somebody else changed it first",
	failure.Unavailable: "what the server needs for the answer does not answer",
	failure.Deadline:    "the time that the request had is over",
	failure.Corrupt:     "what is stored is not what it must be",
	failure.Overloaded:  "the server has as much to do as it takes on",
}

// FaultOf is the problem of a row that is not as its schema says.
func FaultOf(s *schemas.Schema, path string, fault *schemas.RecordError) *problem {
	code := classCodes[fault.Class]
	if code == "" {
		code = fault.Class
	}
	c, known := s.Column(fault.Path)
	detail := fault.Reason
	switch {
	case fault.Class == schemas.ClassMalformed:
		detail = "the row is not well-formed JSON, or has a field twice"
	case !known:
	case fault.Class == schemas.ClassType:
		detail = "the value must be " + form(c)
	case fault.Class == schemas.ClassRange:
		detail = "the value is outside " + bounds(c)
	case fault.Class == schemas.ClassUnknown:
		detail = "the value is none of the symbols that the schema lists"
	}
	return badRequest(code, within(path, fault.Path), "%s", detail)
}

// rebuilding is the answer to who asks for features that lack events: their partition is being computed again, or was never begun with.
func rebuilding(group string) *problem {
	return &problem{
		Status: reasonRebuilding.kind().Status(), Code: string(reasonRebuilding), Field: group,
		Detail: "the features of this entity are being computed from their history", Hint: "try again; the stream role must be running",
	}
}

// unnamed is the problem of a value that cannot name an entity.
func unnamed(err error) *problem {
	p := badRequest(failure.BadRequest.String(), "", "the value cannot name an entity: it is empty, longer than 1,024 bytes, has the character 0x1f where there are several, or is not of its column's type")
	var e *failure.Error
	if errors.As(err, &e) {
		p.Field = e.Where
	}
	return p
}

// form says how a column's value is written in JSON.
func form(c schemas.Column) string {
	var text string
	switch c.Kind {
	case schemas.Bool:
		text = "true or false"
	case schemas.Int:
		text = "an integer"
	case schemas.Float:
		text = "a number"
	case schemas.Time:
		text = "a time, RFC 3339 text or Unix milliseconds"
	case schemas.Bytes:
		text = "standard base64 text"
	default:
		text = "text"
	}
	if c.Nullable {
		text += ", or null"
	}
	return text
}

// bounds is the range that a column's values must be in.
func bounds(c schemas.Column) string {
	switch {
	case c.Min != nil && c.Max != nil:
		return fmt.Sprintf("%g to %g", *c.Min, *c.Max)
	case c.Min != nil:
		return fmt.Sprintf("its range: at least %g", *c.Min)
	case c.Max != nil:
		return fmt.Sprintf("its range: at most %g", *c.Max)
	case c.Kind == schemas.Time:
		return "the years 1 to 9999"
	default:
		return "the range of its type"
	}
}

// named fills in what follows from the code and the status.
func (p *Problem) named() *Problem {
	p.Type, p.Title = TypePrefix+p.Code, http.StatusText(p.Status)
	return p
}

// Write answers with the problem.
func (p *Problem) Write(w http.ResponseWriter) {
	b, err := json.Marshal(p.named())
	if err != nil { // only Predictions could fail, and is JSON that we wrote
		w.WriteHeader(http.StatusInternalServerError)
		return
	}
	h := w.Header()
	h.Set("Content-Type", "application/problem+json")
	h.Set("Cache-Control", "no-store")
	if p.Status == http.StatusTooManyRequests {
		h.Set("Retry-After", "1") // seconds, whole ones: the least there is
	}
	w.WriteHeader(p.Status)
	_, _ = w.Write(append(b, '\n')) // a client that is gone
}
