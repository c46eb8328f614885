// Package pit is the point-in-time join: it fills the rows of a spine (a time and entities) with the values that features
// had at each row's time. Training and the command dataset both make their rows with it.
//
// Events are replayed in the order in which they became known, through the engine that the stream runs, and each row is
// read when every event that was known before its time has been folded in, and no other. An event that became known at the
// row's time or later does not count, by a millisecond if it comes to that.
//
// There is one row out for each row in. A row that names no entity, and an entity without events before the row, read as
// they do at serving: every value null, the status not_found.
//
// # How it works
//
// The rows' times and entities are collected first (Spine.Add): this tells which entities matter, and the events of all
// others are passed over. Rows are sorted by time, in runs on disk beyond Config.MaxRowBytes. Then rows and events are
// merged by time and cut into slices; within a slice entities are independent, so that all processors take entities in
// turn, and each takes an entity's events and rows together while its state is in the processor's cache. A slice filled is
// a Block, handed out in the order of time.
//
// Memory is the slices on their way, the rows up to MaxRowBytes, the states of entities up to Config.MaxStateBytes (beyond
// it, states that were not needed for longest are encoded to a file), and about 100 bytes and the key for each entity of
// the spine. It does not grow with the number of events.
//
// The outcome depends on spine and events alone, not on the number of processors or on what goes to disk. Between slices of other lengths sums of
// floats may differ in their last bits (features.SequentialReader).
package pit
