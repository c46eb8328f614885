package ingest

import (
	"context"
	"fmt"
	"math"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
)

// pace keeps the partitions of a source together in event time. While a backlog is read, Kafka gives one partition's days before another's
// hours; re-keyed as they come, an entity's events would be out of order by more than the lateness that its windows are exact
// for. So a worker waits when its next event is too far ahead of the slowest partition that still has records. Flink calls this watermark
// alignment; Kafka Streams chooses the partition with the earliest record for the same reason.
//
// Workers of other processes are seen through a hash in Redis: partition to "event time, wall time of writing". It is a courtesy, not a
// guarantee: whoever has not been heard of for paceStale is not waited for, nor is who has not moved for paceLongest.
type pace struct {
	bound int64                 // milliseconds of event time; 0: no waiting
	redis redis.UniversalClient // nil: this process alone
	key   string

	mu     sync.Mutex
	own    map[int32]int64 // newest event time of the partitions of this process, paceIdle without a backlog
	others map[int32]int64 // of other processes, as of the last look
	floor  atomic.Int64    // the lowest of all
	futile atomic.Int64    // the floor that did not move for paceLongest: it is not waited for again
}

const (
	paceIdle    = math.MaxInt64
	paceLook    = 10 * time.Millisecond // between two looks at the other processes
	paceStale   = 3 * time.Second
	paceLongest = 2 * time.Second
)

func newPace(lateness time.Duration, client redis.UniversalClient, project, source string) *pace {
	p := &pace{bound: lateness.Milliseconds() / 2, redis: client, key: "mr:" + project + "." + source + ":pace", own: map[int32]int64{}}
	p.floor.Store(paceIdle)
	return p
}

// at says that a partition of this process has come to an event time, or that it has no backlog (paceIdle).
func (p *pace) at(partition int32, newest int64) {
	if p.bound == 0 {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.own[partition] = newest
	p.lower()
}

// left says that a partition is not this process's any more.
func (p *pace) left(partition int32) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.own, partition)
	p.lower()
}

// lower computes the floor; p.mu is held.
func (p *pace) lower() {
	floor := int64(paceIdle)
	for _, t := range p.own {
		floor = min(floor, t)
	}
	for partition, t := range p.others {
		if _, ours := p.own[partition]; !ours {
			floor = min(floor, t)
		}
	}
	p.floor.Store(floor)
}

// ahead reports whether an event is too far ahead of the slowest partition.
func (p *pace) ahead(at int64) bool {
	floor := p.floor.Load()
	return p.bound > 0 && floor != paceIdle && at > floor+p.bound && floor != p.futile.Load()
}

// wait blocks until an event is not too far ahead any more, stop is readable, or it has been long enough.
func (p *pace) wait(ctx context.Context, at int64, stop <-chan struct{}) {
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
			return
		case <-stop:
			return
		case <-longest.C:
			p.futile.Store(floor)
			return
		case <-look.C:
		}
	}
}

// exchange tells other processes where this one is and learns where they are, until ctx ends. Errors are passed over: the next look comes
// soon, and nobody's correctness hangs on it.
func (p *pace) exchange(ctx context.Context, now func() time.Time) {
	if p.bound == 0 || p.redis == nil {
		return
	}
	tick := time.NewTicker(paceLook)
	defer tick.Stop()
	told := map[int32]int64{}
	for last := now(); ; {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if !p.moved(told) && now().Sub(last) < paceStale/3 {
			continue // nothing to tell, and nobody here has a backlog to hold back
		}
		last = now()
		p.look(ctx, last, told)
	}
}

// moved reports whether a partition of this process has something new to tell, or a backlog.
func (p *pace) moved(told map[int32]int64) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for partition, t := range p.own {
		if t != paceIdle || told[partition] != t {
			return true
		}
	}
	return false
}

func (p *pace) look(ctx context.Context, now time.Time, told map[int32]int64) {
	p.mu.Lock()
	values := make([]any, 0, 2*len(p.own))
	clear(told)
	for partition, t := range p.own {
		values = append(values, strconv.Itoa(int(partition)), fmt.Sprintf("%d %d", t, now.UnixMilli()))
		told[partition] = t
	}
	p.mu.Unlock()
	pipe := p.redis.Pipeline()
	if len(values) > 0 {
		pipe.HSet(ctx, p.key, values...)
		pipe.PExpire(ctx, p.key, time.Minute)
	}
	all := pipe.HGetAll(ctx, p.key)
	if _, err := pipe.Exec(ctx); err != nil {
		return
	}
	others := map[int32]int64{}
	for field, value := range all.Val() {
		event, wall, _ := strings.Cut(value, " ")
		partition, err1 := strconv.ParseInt(field, 10, 32)
		t, err2 := strconv.ParseInt(event, 10, 64)
		written, err3 := strconv.ParseInt(wall, 10, 64)
		if err1 == nil && err2 == nil && err3 == nil && now.UnixMilli()-written < paceStale.Milliseconds() {
			others[int32(partition)] = t
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.others = others
	p.lower()
}
