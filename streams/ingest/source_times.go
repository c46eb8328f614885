package ingest

import (
	"slices"

	"github.com/millrace/millrace/features/online"
)

// sourceTimes is the newest event time applied of each partition of each root of a group, in Unix milliseconds; math.MinInt64 before the first.
// Nil keeps none: they are for who scores the records of a topic as of their own times (docs/in-stream.md), who must know which source
// partition is behind, and the newest of all does not tell.
type sourceTimes [][]int64

const noTime = -1 << 63

func newSourceTimes(roots []*source, p online.Position) sourceTimes {
	t := make(sourceTimes, len(roots))
	for from, at := range p.SourceTimes {
		if root := slices.IndexFunc(roots, func(s *source) bool { return s.Name == from.Source }); root >= 0 {
			t.add(root, from.Partition, at)
		}
	}
	return t
}

func (t sourceTimes) add(root int, partition int32, at int64) {
	if t == nil {
		return
	}
	for int(partition) >= len(t[root]) {
		t[root] = append(t[root], noTime)
	}
	t[root][partition] = max(t[root][partition], at)
}

// of is the times as a position has them whose newest event is at newest: that of a dead letter may be newer.
func (t sourceTimes) of(roots []*source, newest int64) map[online.SourcePartition]int64 {
	var times map[online.SourcePartition]int64
	for i := range t {
		for partition, at := range t[i] {
			if at == noTime {
				continue
			}
			if times == nil {
				times = map[online.SourcePartition]int64{}
			}
			times[online.SourcePartition{Source: roots[i].Name, Partition: int32(partition)}] = min(at, newest)
		}
	}
	return times
}
