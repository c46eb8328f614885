package online

import "strconv"

// Owner is a group's name and version as they stand in keys: "<group>@<version>".
func Owner(group, version string) string { return group + "@" + version }

// MetaKey is where partition count and partitioner of a group are kept.
func MetaKey(owner string) string { return "mr:" + owner + ":meta" }

// slot is what the keys of one partition start with, up to and including the colon.
func slot(owner string, partition int32) string {
	return "mr:{" + owner + "/" + strconv.Itoa(int(partition)) + "}:"
}

func positionKey(slot string) string       { return slot + "p" }
func rowsKey(slot string) string           { return slot + "o" }
func entityKey(slot, entity string) string { return slot + "e:" + entity }
