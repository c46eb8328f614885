package serving

import (
	"context"
	"errors"
	"os"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/millrace/millrace/features/online"
	"github.com/millrace/millrace/internal/clock"
	"github.com/millrace/millrace/internal/failure"
	"github.com/millrace/millrace/project"
)

// fetcher reads entity states and keeps the deadline whatever Redis does: a read that does not come back is left behind. Those left
// behind are bounded by slots; with none free, a request waits for one until its deadline.
type fetcher struct {
	catalog *catalog
	slots   chan struct{}
	breaker *breaker
	clock   clock.Clock
	metrics *metrics
	fresh   map[string]prometheus.Observer // by group; nil under clock: event
	reads   chan *read                     // for the goroutines that wait for one
	spare   sync.Pool                      // of *read, answered
}

// read is what one goroutine asks another to read.
type read struct {
	ctx      context.Context
	by       *online.Reader
	refs     []online.Ref
	answered chan struct{}

	entries []online.Entry
	err     error
	took    time.Duration
}

// idleReader is how long a goroutine that reads waits for more. One that is new has to grow its stack first, which takes as long as it
// takes to ask Redis.
const idleReader = 10 * time.Second

func newFetcher(versions *catalog, cfg Config, c clock.Clock, m *metrics, p *project.Project) *fetcher {
	f := &fetcher{
		reads: make(chan *read), spare: sync.Pool{New: func() any { return &read{answered: make(chan struct{}, 1)} }},
		catalog: versions, slots: make(chan struct{}, cfg.MaxReads), clock: c, metrics: m, breaker: newBreaker(clock.System, m, cfg.ReadTimeout),
	}
	if p.Clock != project.ClockEvent {
		f.fresh = map[string]prometheus.Observer{}
		for _, g := range p.Groups {
			f.fresh[g.Name] = m.freshness.WithLabelValues(g.Name)
		}
	}
	return f
}

// aged notes how old what was read is.
func (f *fetcher) aged(refs []online.Ref, entries []online.Entry) {
	if f.fresh == nil {
		return
	}
	now, numbers := f.clock().UnixMilli(), f.catalog.now.Load().numbers
	for i := range entries {
		if newest := entries[i].Position.Newest; newest > 0 {
			f.fresh[numbers[refs[i].Group].group.Name].Observe(float64(now-newest) / 1000)
		}
	}
}

// get reads refs in one round trip, or says why not by the end of ctx. The refs must not be changed afterwards unless err is nil:
// a read left behind may still be looking at them.
func (f *fetcher) get(ctx context.Context, refs []online.Ref) ([]online.Entry, error) {
	if len(refs) == 0 {
		return []online.Entry{}, nil
	}
	if f.catalog.client == nil {
		return nil, failure.New(failure.Unavailable, "features", "there is no Redis to read them from").WithHint("override the inputs in the row")
	}
	if f.breaker.open.Load() {
		return nil, failure.New(failure.Unavailable, "features", "Redis has not answered for a while and is not asked")
	}
	began := clock.System()
	select {
	case f.slots <- struct{}{}:
	case <-ctx.Done():
		return nil, failure.New(failure.Overloaded, "features", "%d reads are on their way already", cap(f.slots))
	}
	r := f.spare.Get().(*read)
	r.ctx, r.by, r.refs = ctx, f.catalog.now.Load().reader, refs
	select {
	case f.reads <- r:
	default:
		go f.work(r)
	}
	select {
	case <-r.answered:
		entries, err := r.entries, r.err
		f.metrics.readSeconds.Observe(r.took.Seconds())
		*r = read{answered: r.answered}
		f.spare.Put(r)
		f.aged(refs, entries)
		f.judge(refs, err, began)
		if errors.Is(err, os.ErrDeadlineExceeded) { // the connection's, which it has from ctx
			return nil, failure.Wrap(failure.Deadline, "redis", "reading features", err)
		}
		return entries, err
	case <-ctx.Done():
		if !gone(ctx) {
			f.breaker.failedOn(refs, clock.System().Sub(began))
		}
		return nil, failure.Wrap(failure.Deadline, "redis", "reading features", context.Cause(ctx))
	}
}

// work does a read, and others until there has been none for a while.
func (f *fetcher) work(r *read) {
	idle := time.NewTimer(idleReader)
	defer idle.Stop()
	for {
		start := f.clock()
		r.entries, r.err = r.by.Get(r.ctx, r.refs)
		r.took = f.clock().Sub(start)
		<-f.slots
		r.answered <- struct{}{}
		idle.Reset(idleReader)
		select {
		case r = <-f.reads:
		case <-idle.C:
			return
		}
	}
}

// judge tells the breaker how a read ended. A state that cannot be decoded was answered.
func (f *fetcher) judge(refs []online.Ref, err error, began time.Time) {
	if err == nil || failure.Of(err) == failure.Corrupt {
		f.breaker.succeeded()
		return
	}
	f.breaker.failedOn(refs, max(clock.System().Sub(began), breakFloor)) // an error says something however soon it comes
}

// probe runs the breaker.
func (f *fetcher) probe(ctx context.Context) error {
	return f.breaker.run(ctx, func(ctx context.Context, refs []online.Ref) error {
		_, err := f.catalog.now.Load().reader.Get(ctx, refs)
		return err
	})
}

// reasonOf says in the ladder's words why a read failed.
func reasonOf(err error) reason {
	switch failure.Of(err) {
	case failure.Deadline:
		return reasonDeadline
	case failure.Overloaded:
		return reasonOverloaded
	case failure.Corrupt:
		return reasonCorrupt
	default:
		return reasonUnavailable
	}
}
