// Package enrich loads the tables that events are looked up in, and keeps them up to date: files, compacted topics, and the answers of
// PostgreSQL queries. It fills features.Table, which knows the row of a key as of a time; stages only look up.
//
// A table is loaded whole before the first event, and held in memory, within its max_rows. Past that it is Refused: an event must not be
// told that a key has no row when it has one. A file or query that can later not be read leaves the table as it was, and is told by the log
// and by millrace_table_age_seconds. What it cannot do is to look into the past of a table that keeps none: without valid_from an event is
// given the row that is known when it is processed, and what it was given is kept with it (streams/ingest).
//
// Only cmd imports it; it imports project, streams, features/offline and what is below.
package enrich
