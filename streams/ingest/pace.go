package ingest

import (
	"context"
	"math"
	"sync"
	"sync/atomic"
	"time"
)

// pace keeps the partitions of a source together in event time. While a backlog is read, Kafka gives one partition's days before another's
// hours; re-keyed as they come, an entity's events would be out of order by more than the lateness that its windows are exact
// for. So a worker waits when its next event is too far ahead of the slowest partition that still has records. Flink calls this watermark
// alignment; Kafka Streams chooses the partition with the earliest record for the same reason.
//
// It holds for a backlog, and for the partitions of one process. Partitions that were empty when days of events arrive within a second, and
// several processes that work off a backlog, can be apart: what is read online is right all the same once they are done, but offline
// feature rows made meanwhile say what was known then.
type pace struct {
	bound int64 // milliseconds of event time; 0: no waiting

	mu     sync.Mutex
	newest map[int32]int64 // event time that each partition has come to, paceIdle without a backlog
	floor  atomic.Int64    // the lowest of all
	futile atomic.Int64    // the floor that did not move for paceLongest: it is not waited for again
}

const (
	paceIdle    = math.MaxInt64
	paceLongest = 15 * time.Second // longer than any write is tried for before a worker starts over
)

func newPace(lateness time.Duration) *pace {
	p := &pace{bound: lateness.Milliseconds() / 2, newest: map[int32]int64{}}
	p.floor.Store(paceIdle)
	return p
}

// at says that a partition has come to an event time, or that it has no backlog (paceIdle).
func (p *pace) at(partition int32, newest int64) {
	if p.bound == 0 {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.newest[partition] = newest
	p.lower()
}

// began says that a partition is to be worked on; it holds the others back until it is known what it has.
func (p *pace) began(partition int32) { p.at(partition, math.MinInt64+p.bound) }

// left says that a partition is not this process's any more.
func (p *pace) left(partition int32) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.newest, partition)
	p.lower()
}

// lower computes the floor; p.mu is held.
func (p *pace) lower() {
	floor := int64(paceIdle)
	for _, t := range p.newest {
		floor = min(floor, t)
	}
	p.floor.Store(floor)
}

// ahead reports whether an event is too far ahead of the slowest partition.
func (p *pace) ahead(at int64) bool {
	floor := p.floor.Load()
	return p.bound > 0 && floor != paceIdle && at > floor+p.bound && floor != p.futile.Load()
}

// wait blocks until an event is not too far ahead any more, or the slowest has not moved for long. It is false when stop was readable
// before.
func (p *pace) wait(ctx context.Context, at int64, stop <-chan struct{}) bool {
	longest := time.NewTimer(paceLongest)
	defer longest.Stop()
	look := time.NewTicker(time.Millisecond)
	defer look.Stop()
	for floor := p.floor.Load(); p.ahead(at); {
		if now := p.floor.Load(); now != floor {
			floor = now
			longest.Reset(paceLongest)
		}
		select {
		case <-ctx.Done():
			return false
		case <-stop:
			return false
		case <-longest.C:
			p.futile.Store(floor)
		case <-look.C:
		}
	}
	return true
}
