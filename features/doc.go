// Package features is the pure engine of windowed features: it folds the events of an entity into a small state, and
// reads every declared window from that state at any moment. It does no I/O, starts no goroutine and never asks for the
// time: event time and the time of reading are arguments.
//
// Place on the event's way: a group worker decodes a record into a schemas.Row, finds the entity (Group.Key), folds the
// row into the entity's state (Group.Add) and stores the state (Entity.AppendBinary). Serving, training, tests and
// explanations take a state and resolve all windows as of a time, of an Entity (Group.Decode, Group.Read) or where the
// bytes lie (Group.ReadState). It is one engine for all.
//
// # What is promised
//
// A window output of length W read at time t covers the events with s <= event time < t, where s is t-W aligned down to
// the output's tile (Output.TailError, at most W/60 unless the definition says otherwise, a millisecond for an exact
// window). The head is exact as long as t is later than the entity's newest event; so is every value after a key has gone
// quiet, because windows are resolved when read. Reading an earlier t is exact to the tile width of the group's smallest
// window: a tile that holds events at t or later is left out whole, the future is never used. The tail is as declared for
// t down to the group's lateness before the newest event; before that, windows widen to the coarser tiles that remain.
//
// A window that ends a delay D before t has both its ends, t-D-W and t-D, aligned down to its tile. With EdgeEvent t is
// just after the entity's newest event, for all but the time since an event. An exact window whose events have more
// distinct times than the group keeps is read as Overflow: its value is not known.
//
// State depends on the sequence of events alone, to the bit, however often it is encoded and decoded between them.
//
// # What is refused
//
// Rows without an entity, event times outside ±2^47 ms and texts beyond MaxText are bad records. An event older than
// every tile that is kept is TooLate, unless the group has a lifetime output, which takes events of any age. A future
// guard is the stage's business: it knows the clock.
//
// # Numbers
//
// Numbers are float64. A value that is not finite counts as null, on the way in and on the way out. Sums depend on the
// order of events: equal orders give equal bits, other orders agree to about 1e-9 relative.
//
// Any package above schemas may import this one; it imports schemas and internal leaves only.
package features
