// Package script runs feature scripts: transcripts of events, a clock that moves, and the features expected then. The
// same file runs on the pure engine, on the embedded pipeline and on real servers: on whatever implements Target.
//
// A script is a txtar archive. Its comment is the script, one command a line; files after it are for whoever opens the
// script: a whole project folder, for one that stands alone (project.TestFile). Empty lines and lines starting with # are skipped.
//
//	event <source> <JSON record>                  applies one record of a source
//	at <RFC 3339 time>                            moves the clock; expectations below are as of this time
//	expect <group> <entity> <output>=<value> …    compares outputs of one entity
//	dead-letters [<class>=<count> …]              compares how many records were refused so far, and why
//
// Records apply in the order of the lines. One that is refused (its bytes, its time, its entity; too late for a group) must be told of
// by a later dead-letters line, or the script fails at the record's line. Before the first at, no record is in the future.
//
// An entity is the value of the entity column (ATL), or column=value pairs joined by commas where there are several
// (origin=ATL,destination=LAX). A value is a number (equal to 1e-9 relative, or to an absolute tolerance: 8.14~0.01), a
// text in double quotes, true, false, an RFC 3339 time, a JSON list or map as it is answered, or a status: null, not_found,
// expired, overflow. Values with spaces, commas or
// equals signs are written in double quotes, as Go writes them.
//
// It refuses a script that expects nothing. Anything above features may import it; it knows no Kafka and no Redis.
package script
