// Package ingest is the first stage: from the user's topics to features that can be read.
//
// For every source a consumer group <project>.source.<source>, whose workers (source.go) decode and check each record, keep what is good
// in the offline events table, and write it to the keyed topic of every feature group that cannot read the source directly. A record
// that cannot be used goes to the dead-letter topic with its original bytes and the reason.
//
// For every feature group a consumer group <project>.group.<group>@<version>, whose workers (group.go) add each record to its entity and
// write states and position to Redis, both or neither (features/online). That is what makes it exactly once: see docs/decisions/0002-rekeying.md.
// A worker that finds another position in Redis than it left there drops what it holds and goes on from that position.
//
// What holds:
//   - A record is applied once, in the order of its keyed topic, whatever dies when. What a rekeyer wrote twice is told by the source
//     offset that each keyed record carries, against the highest one applied, which is part of the position.
//   - A failed write pauses its partition. Nothing is skipped.
//   - Feature rows due offline are written to Redis with the states they were read from, and deleted there once they are in a file: a
//     crash between the two loses none (rows.go).
//   - Dead letters are on their topic before the position passes their record: at least once.
//
// What it refuses: records that cannot be decoded or lie out of their declared range, events too far ahead of the clock or older than
// anything kept, keyed records that carry another entity than the group's, topics with another partition count than declared.
//
// It may be imported by cmd. It meets the other stages at topics and stores only.
package ingest
