// Package streams is Kafka and nothing else: clients, topics, consumer groups with one worker per partition, dead letters, lag.
//
// Consumer is what the stages that keep a position of their own are built on. It owns the group membership and the polling, and
// gives each assigned partition a Worker with a goroutine to itself: a partition is processed by one goroutine, in order. Where to
// begin is the worker's to say, because the truth about a partition's position is not in Kafka but in the store that the worker
// writes (see features/online). Offsets are committed to Kafka all the same: for lag, and for what is not in that store.
//
// A worker that fails with a Kind that may be tried again starts over: its queue is dropped, it says anew where to begin, and the
// partition is read from there. Any other failure ends Run. Nothing is ever skipped.
//
// Invariants, each of which has a test:
//
//   - Records reach a worker only in the group generation they were fetched in, and only from the offset it asked for (polling blocks
//     rebalances until its records are handed over; seeks are made by the polling goroutine between two polls).
//   - A worker that is slow pauses its own partition only.
//   - After OnPartitionsRevoked returned, the worker's goroutine is gone.
//
// It may be imported by the stages and cmd. It imports schemas and internal only.
package streams
