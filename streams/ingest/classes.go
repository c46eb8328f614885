package ingest

import (
	"errors"

	"github.com/millrace/millrace/schemas"
)

// The classes of dead letters that are this stage's own; those of records that cannot be decoded are schemas'.
const (
	classFuture    = "future"    // too far ahead of the clock
	classLate      = "late"      // older than everything its group keeps
	classEntity    = "entity"    // no usable entity key, or a value that an aggregate cannot take
	classMisrouted = "misrouted" // in another partition than its entity's: the producers use another partitioner than declared
	classRefused   = "refused"   // Kafka does not take it on its keyed topic: too large
	classForeign   = "foreign"   // on a keyed topic, and not re-keyed by us
)

func classOf(err error) string {
	var r *schemas.RecordError
	if errors.As(err, &r) {
		return r.Class
	}
	return classEntity
}
