// Package schemas says what a record is: the columns of users' records, read from an Avro schema and decoded from Avro or JSON into
// typed rows; the events that Millrace itself writes; the topics they lie on; and how a record that nobody can read is put away.
//
// It is the first thing every event meets (decode, validate) and the last thing every answer passes (Prediction, Drift, Retrain,
// ModelEvent). It refuses schemas whose fields are not scalars, and records that are malformed, incomplete, of another type, out of
// range or not known to the schema; such a refusal is a *RecordError with its class and the field's path. Floats that are not finite
// and times outside the years 1 to 9999 are out of range whatever the schema says, so that nothing behind has to reckon with them.
//
// It does no input or output, except that the Confluent format asks a schema registry for the schemas of writers. Every package but
// the internal leaves may import it; it imports those leaves alone.
package schemas
