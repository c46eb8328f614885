package ingest

import (
	"cmp"
	"slices"
	"sync/atomic"

	"github.com/millrace/millrace/streams"
)

// PartitionStatus is how far one partition of a source or group has come in this process.
type PartitionStatus struct {
	Kind      string `json:"kind"` // "source" or "group"
	Name      string `json:"name"` // of the source or group
	Topic     string `json:"topic"`
	Partition int32  `json:"partition"`
	Next      int64  `json:"next"`   // offset of the first record not yet done: acknowledged by Kafka, or readable in Redis
	End       int64  `json:"end"`    // end of the partition when it was last fetched from; 0 before that
	Newest    int64  `json:"newest"` // newest event time, Unix milliseconds; 0 when there is none
	Dead      int64  `json:"dead"`   // dead letters written by this process since it has the partition
	Late      int64  `json:"late"`   // of these, for being too late
}

// progress is what a worker tells of itself while it runs.
type progress struct {
	kind, name, topic        string
	partition                int32
	next, newest, dead, late atomic.Int64
	in                       atomic.Pointer[streams.Input]
}

func (p *progress) status() PartitionStatus {
	s := PartitionStatus{
		Kind: p.kind, Name: p.name, Topic: p.topic, Partition: p.partition,
		Next: p.next.Load(), Newest: p.newest.Load(), Dead: p.dead.Load(), Late: p.late.Load(),
	}
	if in := p.in.Load(); in != nil {
		s.End = in.End()
	}
	return s
}

// Status is the state of the partitions that this process works on, in order of kind (sources first), name and partition. It is cheap and
// may be called at any time.
func (s *Stage) Status() []PartitionStatus {
	s.mu.Lock()
	all := make([]PartitionStatus, 0, len(s.running))
	for p := range s.running {
		all = append(all, p.status())
	}
	s.mu.Unlock()
	slices.SortFunc(all, func(a, b PartitionStatus) int {
		return cmp.Or(-cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Name, b.Name), cmp.Compare(a.Partition, b.Partition))
	})
	return all
}

func (s *Stage) entered(p *progress, in *streams.Input) {
	p.in.Store(in)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.running[p] = struct{}{}
	if p.kind == kindGroup {
		s.cached.caches.Add(1)
	}
}

func (s *Stage) left(p *progress) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.running, p)
	if p.kind == kindGroup {
		s.cached.caches.Add(-1)
	}
}
