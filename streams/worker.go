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
// the topic itself. The control records that end transactions are among them: of those only the offset counts.
type Input struct {
	queued *queued
	pause  func()
	resume func()

	ready chan struct{} // holds one token when there may be something to take
	ended chan struct{} // closed by end

	next   atomic.Int64 // first offset not yet done; -1 before anything is
	handed atomic.Pointer[Progress]
	edge   atomic.Int64 // end of the partition when it was last fetched from
	mu     sync.Mutex
	queue  []*kgo.Record
	counts int // of the records that are queued or at hand, those that queued counts
	paused bool
	closed bool // the worker starts over: what arrives is from before the seek
	expect int64
	over   bool
}

// queued counts the records that were fetched and not yet processed, of all partitions of a Consumer that are not on hold.
type queued struct {
	records atomic.Int64
	fewer   chan struct{} // holds a token when some were processed
}

func newQueued() *queued { return &queued{fewer: make(chan struct{}, 1)} }

func (q *queued) remove(n int) {
	q.records.Add(-int64(n))
	select {
	case q.fewer <- struct{}{}:
	default:
	}
}

func newInput(queued *queued, pause, resume func()) *Input {
	in := &Input{queued: queued, pause: pause, resume: resume, ready: make(chan struct{}, 1), ended: make(chan struct{}), closed: true}
	in.next.Store(-1)
	return in
}

// Ready is readable when there may be records to take, or when the input has ended.
func (in *Input) Ready() <-chan struct{} { return in.ready }

// Take gives all records that have arrived. ended means that no more will come. It does not block. The worker says when they are Processed,
// and may Recycle those that it is done with.
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

// HandedOn says how far the records are with whoever comes after the worker. It is committed with the offset of Done, and again when only it has
// changed.
func (in *Input) HandedOn(p Progress) { in.handed.Store(&p) }

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
	if !in.paused {
		in.counts += len(records)
		in.queued.records.Add(int64(len(records)))
	}
	in.signal()
	return from, to, false
}

// Processed makes room for n records: so many of those taken were processed.
func (in *Input) Processed(n int) {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.uncount(min(n, in.counts))
}

func (in *Input) uncount(n int) {
	if n > 0 {
		in.queued.remove(n)
		in.counts -= n
	}
}

// hold has others not wait for this partition, and pauses it if more was fetched than its worker has at hand.
func (in *Input) hold() {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.uncount(in.counts)
	if len(in.queue) > 0 && !in.paused && !in.over {
		in.paused = true
		in.pause()
	}
}

// drop forgets what is queued; nobody takes any more.
func (in *Input) drop() {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.queue = nil
	in.uncount(in.counts)
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
	in.uncount(in.counts)
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
