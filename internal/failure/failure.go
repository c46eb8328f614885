// Package failure is the closed list of ways in which something can go wrong, and the one table that says what each of
// them means outside: whether to retry, whether a record goes to the dead-letter topic, the HTTP status, the exit code.
//
// An error says what happened, where, and what to do next. Code that must act on an error asks for its Kind; everybody
// else wraps it with fmt.Errorf in the gerund ("decoding record: %w") and returns it.
package failure

import (
	"context"
	"errors"
	"fmt"
	"net/http"
)

// Kind says how a failure must be dealt with.
type Kind uint8

// The closed list. Internal is what an error without a Kind counts as.
const (
	Internal    Kind = iota // a fault of ours
	BadRecord               // a record that can never be applied: dead letter
	BadRequest              // a request that can never be answered
	BadProject              // a project file with faults
	NotFound                // the named thing does not exist
	Conflict                // somebody else got there first: reload and go on
	Unavailable             // Kafka, Redis or a disk does not answer: wait and retry
	Deadline                // the time given was not enough
	Refused                 // an answer would be a guess, or a gate did not pass
	Corrupt                 // stored bytes are not what they must be
	Overloaded              // a named limit is reached: try later
)

// meaning is a row of the table.
type meaning struct {
	name   string
	retry  bool // the same attempt may succeed later
	letter bool // a record that failed so goes to the dead-letter topic
	status int  // HTTP
	exit   int  // process
}

var table = [...]meaning{
	Internal:    {"internal", false, false, http.StatusInternalServerError, 70},
	BadRecord:   {"bad_record", false, true, http.StatusUnprocessableEntity, 65},
	BadRequest:  {"bad_request", false, false, http.StatusBadRequest, 64},
	BadProject:  {"bad_project", false, false, http.StatusBadRequest, 78},
	NotFound:    {"not_found", false, false, http.StatusNotFound, 66},
	Conflict:    {"conflict", true, false, http.StatusConflict, 75},
	Unavailable: {"unavailable", true, false, http.StatusServiceUnavailable, 69},
	Deadline:    {"deadline", true, false, http.StatusGatewayTimeout, 75},
	Refused:     {"refused", false, false, http.StatusUnprocessableEntity, 77},
	Corrupt:     {"corrupt", false, false, http.StatusInternalServerError, 74},
	Overloaded:  {"overloaded", true, false, http.StatusTooManyRequests, 75},
}

// String is the kind's name, as used in metric labels and in the "code" of a problem answer.
func (k Kind) String() string { return table[k].name }

// Retry reports whether the same attempt may succeed later.
func (k Kind) Retry() bool { return table[k].retry }

// DeadLetter reports whether a record that failed so belongs on the dead-letter topic.
func (k Kind) DeadLetter() bool { return table[k].letter }

// Status is the HTTP status of an answer that failed so.
func (k Kind) Status() int { return table[k].status }

// ExitCode is the exit status of a command that failed so (sysexits.h where it has one).
func (k Kind) ExitCode() int { return table[k].exit }

// Error is an error with a Kind. Hint, when set, tells the reader what to do next.
type Error struct {
	Kind  Kind
	Where string // the field, file, topic or key concerned; may be empty
	What  string
	Hint  string
	Err   error // the cause; may be nil
}

func (e *Error) Error() string {
	s := e.What
	if e.Where != "" {
		s = e.Where + ": " + s
	}
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	if e.Hint != "" {
		s += " (" + e.Hint + ")"
	}
	return s
}

func (e *Error) Unwrap() error { return e.Err }

// New makes an error of a kind that has no further cause; use Wrap where there is one.
func New(kind Kind, where, format string, args ...any) *Error {
	return &Error{Kind: kind, Where: where, What: fmt.Sprintf(format, args...)}
}

// Wrap gives err a kind and says what was being done.
func Wrap(kind Kind, where, doing string, err error) *Error {
	return &Error{Kind: kind, Where: where, What: doing, Err: err}
}

// WithHint returns e with what to do next.
func (e *Error) WithHint(format string, args ...any) *Error {
	e.Hint = fmt.Sprintf(format, args...)
	return e
}

// Of is the kind of err: the outermost Kind in its chain, Deadline for an expired context, Internal otherwise.
func Of(err error) Kind {
	var e *Error
	if errors.As(err, &e) {
		return e.Kind
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return Deadline
	}
	return Internal
}
