package ingest

import "github.com/millrace/millrace/schemas"

// The classes of dead letters that only this stage knows; the others are schemas'.
const (
	classFuture    = schemas.ClassFuture
	classLate      = schemas.ClassLate
	classMisrouted = "misrouted" // in another partition than its entity's: the producers use another partitioner than declared
	classRefused   = "refused"   // Kafka does not take it on its keyed topic: too large
	classForeign   = "foreign"   // on a keyed topic, and not re-keyed by us
)

func classOf(err error) string { return schemas.ClassOf(err) }
