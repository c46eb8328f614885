package features

// MaxOffset is the highest offset that Sequence tells apart from those of the next partition.
const MaxOffset = 1<<sequenceOffsetBits - 1

const sequenceOffsetBits = 44

// Sequence is what Add orders events of equal time by: the partition of the source's topic, then the offset there, as a sorted scan of the
// offline events has them. It depends on the event alone and no two events share it. The offset by itself would not do: an entity's
// events may come from several partitions of its source, in which the same offset is there twice, and the one that a worker happened
// to see last would be the last value.
func Sequence(partition int32, offset int64) int64 {
	return int64(partition)<<sequenceOffsetBits | offset&MaxOffset
}
