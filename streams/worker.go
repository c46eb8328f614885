package streams

import (
	"context"
	"sync"
	"sync/atomic"

	"github.com/twmb/franz-go/pkg/kgo"
)

// Worker has one partition to itself while its Consumer owns it. Its methods are called by one goroutine at a time.
type Worker interface {
	// Start says at which offset to begin: it drops what it holds in memory and loads its position. committed is the group's committed
	// offset, -1 when there is none. It is called again after Run failed with a Kind that may be tried again.
	Start(ctx context.Context, committed int64) (offset int64, err error)

	// Run processes records until in ends, then writes what is pending and returns nil. When ctx ends it returns at once with nothing
	// written: another may own the partition already. Any other error means that the worker must start over.
	Run(ctx context.Context, in *Input) error
}

// Input is the records of one partition on their way from the poll to the worker, in order and without holes other than those of
// the topic itself.
type Input struct {
	limit  int
	pause  func()
	resume func()

	ready chan struct{} // holds one token when there may be something to take
	ended chan struct{} // closed by end

	next   atomic.Int64 // first offset not yet done; -1 before anything is
	edge   atomic.Int64 // end of the partition when it was last fetched from
	mu     sync.Mutex
	queue  []*kgo.Record
	paused bool
	closed bool // the worker starts over: what arrives is from before the seek
	expect int64
	over   bool
}

func newInput(limit int, pause, resume func()) *Input {
	in := &Input{limit: limit, pause: pause, resume: resume, ready: make(chan struct{}, 1), ended: make(chan struct{}), closed: true}
	in.next.Store(-1)
	return in
}

// Ready is readable when there may be records to take, or when the input has ended.
func (in *Input) Ready() <-chan struct{} { return in.ready }

// Take gives all records that have arrived. ended means that no more will come. It does not block. A worker that is done with records may
// Recycle them.
func (in *Input) Take() (records []*kgo.Record, ended bool) {
	in.mu.Lock()
	defer in.mu.Unlock()
	records, in.queue = in.queue, nil
	if in.paused && !in.over {
		in.paused = false
		in.resume()
	}
	if in.over {
		in.signal() // whoever takes again must see the end again
	}
	return records, in.over
}

// Ended is closed when no more records will come, for a worker that waits for something else meanwhile.
func (in *Input) Ended() <-chan struct{} { return in.ended }

// Done says that all records below next are where they belong, so that next may be committed to Kafka.
func (in *Input) Done(next int64) { in.next.Store(next) }

// End is the partition's end when it was last fetched from; 0 before that.
func (in *Input) End() int64 { return in.edge.Load() }

func (in *Input) signal() {
	select {
	case in.ready <- struct{}{}:
	default:
	}
}

// put hands over what a poll brought. It gives the offsets [from, to) that were skipped before the records, and whether they start below
// what was asked for, which happens only when the position is beyond the partition's end.
func (in *Input) put(records []*kgo.Record, end int64) (from, to int64, beyond bool) {
	in.edge.Store(end)
	if len(records) == 0 {
		return 0, 0, false
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.closed || in.over {
		return 0, 0, false
	}
	from, to = in.expect, records[0].Offset
	if to < from {
		return from, to, true
	}
	in.expect = records[len(records)-1].Offset + 1
	if in.queue == nil {
		in.queue = records
	} else {
		in.queue = append(in.queue, records...)
	}
	if len(in.queue) >= in.limit && !in.paused {
		in.paused = true
		in.pause()
	}
	in.signal()
	return from, to, false
}

// open begins to accept records, from the offset on.
func (in *Input) open(offset int64) {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.closed, in.expect = false, offset
	in.paused = false
	in.resume()
}

// close drops what is queued and refuses what arrives until open.
func (in *Input) close() {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.closed, in.queue = true, nil
	in.paused = true
	in.pause()
}

// end says that no more records will come.
func (in *Input) end() {
	in.mu.Lock()
	defer in.mu.Unlock()
	if !in.over {
		in.over = true
		in.resume() // a paused partition would stay paused if it came back
		close(in.ended)
	}
	in.signal()
}
