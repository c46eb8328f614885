package serving

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/millrace/millrace/features/online"
	"github.com/millrace/millrace/internal/clock"
)

// breaker keeps requests from waiting for a Redis that does not answer: when no read has succeeded for breakAfter while several failed,
// it opens, and reads are given up at once, until a read of its own, which no request waits for, is answered (M. Nygard, Release It!,
// "Circuit Breaker"). It is closed as long as nobody runs it: then there would be none to close it again.
//
// One success keeps it closed, so that in a cluster of which one node is gone the entities of the others are read on.
type breaker struct {
	clock   clock.Clock
	metrics *metrics
	timeout time.Duration // of its own reads

	open    atomic.Bool
	opened  chan struct{} // tells run
	running atomic.Bool

	mu     sync.Mutex
	good   time.Time // last success, or first failure after none
	failed int       // since
	refs   []online.Ref
}

const (
	breakAfter = 500 * time.Millisecond // without a success
	breakCount = 5                      // failures, at least
	breakFloor = 5 * time.Millisecond   // a read that was given less says nothing of Redis
	breakProbe = 100 * time.Millisecond // between two reads of its own
	breakRefs  = 8                      // entities of one
)

func newBreaker(c clock.Clock, m *metrics, timeout time.Duration) *breaker {
	return &breaker{clock: c, metrics: m, timeout: timeout, opened: make(chan struct{}, 1)}
}

// succeeded notes a read that was answered.
func (b *breaker) succeeded() {
	b.mu.Lock()
	b.failed, b.good = 0, time.Time{}
	b.mu.Unlock()
}

// failedOn notes a read that was not answered in the time that it was given, or with an error.
func (b *breaker) failedOn(refs []online.Ref, given time.Duration) {
	if given < breakFloor || !b.running.Load() || b.open.Load() {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	now := b.clock()
	if b.failed++; b.failed == 1 {
		b.good = now
	}
	if b.failed < breakCount || now.Sub(b.good) < breakAfter || b.open.Load() {
		return
	}
	b.refs = append([]online.Ref(nil), refs[:min(len(refs), breakRefs)]...)
	b.open.Store(true)
	b.metrics.readsOff.Set(1)
	select {
	case b.opened <- struct{}{}:
	default:
	}
}

// run closes the breaker when Redis answers again, until ctx ends.
func (b *breaker) run(ctx context.Context, read func(context.Context, []online.Ref) error) error {
	b.running.Store(true)
	defer b.running.Store(false)
	for {
		select {
		case <-b.opened:
		case <-ctx.Done():
			return nil
		}
		for b.open.Load() && sleep(ctx, breakProbe) {
			if b.answers(ctx, read) {
				b.succeeded()
				b.open.Store(false)
				b.metrics.readsOff.Set(0)
			}
		}
	}
}

func (b *breaker) answers(ctx context.Context, read func(context.Context, []online.Ref) error) bool {
	ctx, cancel := context.WithTimeout(ctx, b.timeout)
	defer cancel()
	return read(ctx, b.refs) == nil
}
