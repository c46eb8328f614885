package monitor

import (
	"math"
	"time"
)

// never is before every event time.
const never = math.MinInt64

// position is how far one partition was read.
type position struct {
	next, end int64     // the offset to read next, and the one after the last record known
	newest    int64     // newest event time read
	heard     time.Time // when a record came last
}

// progress is how far a topic was read.
type progress struct {
	partitions map[int32]*position
	idleAfter  time.Duration
}

func (p *progress) behind() bool {
	for _, at := range p.partitions {
		if at.next < at.end {
			return true
		}
	}
	return false
}

// reading is how far the records of one model have come in event time, per partition.
type reading struct {
	newest    map[int32]int64
	heard     map[int32]time.Time
	watermark int64
}

func newReading() *reading {
	return &reading{newest: map[int32]int64{}, heard: map[int32]time.Time{}, watermark: never}
}

func (r *reading) observe(partition int32, at int64, now time.Time) {
	r.heard[partition] = now
	if newest, ok := r.newest[partition]; !ok || at > newest {
		r.newest[partition] = at
	}
}

// advance is the event time that has passed: the oldest of the partitions that are still being read, where one that is read to its
// end and has been silent for idleAfter is not waited for. A partition that is behind and has told nothing of this model yet stands
// where its other records stand. The watermark never goes back.
func (r *reading) advance(p *progress, now time.Time) int64 {
	oldest, newest := int64(math.MaxInt64), int64(never)
	for partition, at := range p.partitions {
		mine, known := r.newest[partition]
		newest = max(newest, r.newestOr(partition, never))
		behind := at.next < at.end
		switch {
		case known && (behind || now.Sub(r.heard[partition]) < p.idleAfter):
			oldest = min(oldest, mine)
		case !known && behind:
			oldest = min(oldest, at.newest)
		}
	}
	if oldest == math.MaxInt64 {
		oldest = newest
	}
	r.watermark = max(r.watermark, min(oldest, newest))
	return r.watermark
}

func (r *reading) newestOr(partition int32, otherwise int64) int64 {
	if at, ok := r.newest[partition]; ok {
		return at
	}
	return otherwise
}
