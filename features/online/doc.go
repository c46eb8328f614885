// Package online is the features' place in Redis: the states that readers resolve windows from, and the positions that say how far
// each partition's writer has come.
//
// Layout. Every partition of a group has a hash tag of its own, so that all it owns lies in one slot of a Redis Cluster:
//
//	mr:{<project>.<group>@<version>/<partition>}:p           the position, as Position.AppendBinary writes it
//	mr:{<project>.<group>@<version>/<partition>}:e:<entity>  one entity's state, as features.Entity.AppendBinary writes it
//	mr:{<project>.<group>@<version>/<partition>}:h:<entity>  one entity's values as of its last flush, a hash (of a materialized group)
//	mr:{<project>.<group>@<version>/<partition>}:o           rows that are due offline and not yet in a file (opaque here)
//	mr:{<project>.<group>}:active                            the version that readers read
//	mr:{<project>.<group>}:versions                          all versions: definition, partition count, partitioner; the target
//	mr:{<project>.<group>}:read:<version>                    expires when nobody reads the version any more
//	mr:{<project>.<group>}:filler:<version>                  who fills the version from its history
//
// Writing. Writer.Write runs one script that compares the stored position with the one the writer last saw, byte for byte, and only
// then writes the states, the hashes of a materialized group, the rows and the new position. Redis runs a script as a whole, so state and position cannot part: a
// replay, a second owner, or a failover that lost the last writes ends in a Conflict, and the loser loads the position again.
// There is nothing to lock and nothing to clean up.
//
// Reading. Reader.Get asks for position and entities of one partition in one MGET, so that they are of one instant, and sends the
// MGETs of a request in one pipeline: one round trip.
//
// Versions. A change of a group's definition or placement makes a new version with keys of its own, which is filled beside the old one;
// Versions.Swap moves the readers (decision 9).
//
// What it refuses: a position it cannot decode (Corrupt), a state where none can be (the group's own codec says so).
//
// Redis must not evict (maxmemory-policy noeviction): a state that went while its position stayed would be taken for an entity
// never seen. Open reports another policy when the server lets it be read.
//
// It may be imported by stages and cmd. It knows features.Group by name, version and codec only.
package online
