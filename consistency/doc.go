// Package consistency computes again what was served, and says where it differs.
//
// Each prediction is on its topic with the features it was made from and the positions these were read at (schemas.ReadPosition). The events
// below a position are in the offline log. So a sample of entities, chosen by the hash of their keys, is replayed from that log by the
// same engine, up to the very position of each read, and every feature is read as of the very time it was served for. What comes out must
// be what was served: a difference is a state in Redis that is not what the events make, an event that one side has and the other has
// not, or an engine that is not the one that served. Chronon checks the same way (https://chronon.ai/Online_Offline_Consistency.html).
//
// Where the order of the events is known, which is when a group reads its source directly or its source has one partition, values must
// be equal to the bit. Otherwise the events of several source partitions met in the keyed topic in an order that only that topic knows: what
// depends on the order of addition is compared to 1e-9 relative (Config.RelativeError); counts, extremes, sketches and last values
// do not depend on it.
//
// The files, in the order of a check: served.go (the predictions topic into reads), history.go (the offline log into the events of the
// sampled entities), replay.go (one entity's reads from its events), report.go (what comes out), metrics.go. stage.go repeats it.
//
// What it does not compare, and counts instead: reads of another version of their group, reads that are ahead of the offline files (they
// are written every few seconds), and inputs that were not read at all. An event that the broker refused in its re-keyed form is in the
// offline log but in no state; it is on the dead-letter topic.
//
// It meets the stages only at the predictions topic and in the offline files, and only cmd may import it.
package consistency
