package serving

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"

	"github.com/millrace/millrace/internal/failure"
	"github.com/millrace/millrace/schemas"
)

// problem is an answer that is not the one asked for (RFC 9457). Code does not change between versions; the texts may.
type problem struct {
	Title  string `json:"title"`
	Status int    `json:"status"`
	Code   string `json:"code"`
	Field  string `json:"field,omitempty"` // of the body ("rows[2].origin"), or the header or query parameter
	Detail string `json:"detail"`
	Hint   string `json:"hint,omitempty"`

	// Predictions is what is known of the rows when every one was refused.
	Predictions json.RawMessage `json:"predictions,omitempty"`
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

// problemOf is the answer for an error. Of a fault of ours it tells no more than its kind.
func problemOf(err error) *problem {
	kind := failure.Of(err)
	p := &problem{Status: kind.Status(), Code: kind.String(), Detail: err.Error()}
	if kind == failure.Internal {
		p.Detail = "the server failed to answer"
	}
	var e *failure.Error
	if errors.As(err, &e) {
		p.Hint = e.Hint
	}
	return p
}

func (p *problem) write(w http.ResponseWriter) {
	p.Title = http.StatusText(p.Status)
	b, err := json.Marshal(p)
	if err != nil { // only Predictions could fail, and is JSON that we wrote
		w.WriteHeader(http.StatusInternalServerError)
		return
	}
	h := w.Header()
	h.Set("Content-Type", "application/problem+json")
	h.Set("Cache-Control", "no-store")
	w.WriteHeader(p.Status)
	_, _ = w.Write(append(b, '\n')) // a client that is gone
}
