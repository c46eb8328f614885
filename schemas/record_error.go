package schemas

import (
	"fmt"

	"github.com/millrace/millrace/internal/failure"
)

// The classes of RecordError.
const (
	ClassMalformed = "malformed" // not the bytes of a record at all
	ClassMissing   = "missing"   // a field that must be there is absent or null
	ClassType      = "type"      // a value of another type
	ClassUnknown   = "unknown"   // a field or symbol that the schema does not have
	ClassRange     = "range"     // a number outside its type or its declared range
	ClassSchema    = "schema"    // written with a schema that cannot be read as ours
)

// RecordError says why a record can never be decoded. failure.Of gives BadRecord.
type RecordError struct {
	Class  string
	Path   string // the field concerned, nested records joined with "."; empty for the whole record
	Reason string
}

func (e *RecordError) Error() string {
	if e.Path == "" {
		return e.Class + ": " + e.Reason
	}
	return e.Path + ": " + e.Class + ": " + e.Reason
}

// Unwrap gives the error its kind.
func (e *RecordError) Unwrap() error {
	return failure.New(failure.BadRecord, e.Path, "%s", e.Reason)
}

func recordError(class, path, format string, args ...any) *RecordError {
	return &RecordError{Class: class, Path: path, Reason: fmt.Sprintf(format, args...)}
}
