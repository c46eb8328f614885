package online

import "strconv"

// Owner is a version of a group as it stands in keys: "<project>.<group>@<version>". Projects that share a Redis do not meet.
func Owner(project, group, version string) string { return project + "." + group + "@" + version }

// slot is what the keys of one partition start with, up to and including the colon.
func slot(owner string, partition int32) string {
	return "mr:{" + owner + "/" + strconv.Itoa(int(partition)) + "}:"
}

// What an entity's keys have between the slot and the entity.
const (
	kindState = "e:"
	kindHash  = "h:"
)

func positionKey(slot string) string       { return slot + "p" }
func rowsKey(slot string) string           { return slot + "o" }
func entityKey(slot, entity string) string { return slot + kindState + entity }
func hashKey(slot, entity string) string   { return slot + kindHash + entity }

// KeyPatterns are the keys of a group's states and positions with <partition> and <entity> for what differs.
func KeyPatterns(project, group, version string) (state, position string) {
	s := "mr:{" + Owner(project, group, version) + "/<partition>}:"
	return entityKey(s, "<entity>"), positionKey(s)
}

// HashKey is the key of an entity's hash in a version of a materialized group.
func HashKey(project, group, version string, partition int32, entity string) string {
	return hashKey(slot(Owner(project, group, version), partition), entity)
}

// The keys of a group whatever its version lie in one slot, so that one script can look at all of them.
func groupSlot(project, group string) string { return "mr:{" + project + "." + group + "}:" }

func activeKey(groupSlot string) string     { return groupSlot + "active" }
func versionsKey(groupSlot string) string   { return groupSlot + "versions" }
func readKey(groupSlot, id string) string   { return groupSlot + "read:" + id }
func fillerKey(groupSlot, id string) string { return groupSlot + "filler:" + id }
func versionGlob(owner string) string       { return "mr:{" + owner + "/*" }
func retiredField(id string) (field string) { return "retired:" + id }
