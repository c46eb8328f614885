package serving

import (
	"context"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kgo"
)

// streamLag is how many records the stream scorer is behind, over the partitions that it has.
type streamLag struct {
	gauge  prometheus.Gauge
	mu     sync.Mutex
	behind map[int32]int64 // by partition
}

func newStreamLag(gauge prometheus.Gauge) *streamLag {
	return &streamLag{gauge: gauge, behind: map[int32]int64{}}
}

// scored takes note of how far the ends of the partitions were from the last records of a committed batch.
func (l *streamLag) scored(fetches kgo.Fetches) {
	l.mu.Lock()
	defer l.mu.Unlock()
	fetches.EachPartition(func(p kgo.FetchTopicPartition) {
		if n := len(p.Records); n > 0 {
			l.behind[p.Partition] = max(0, p.HighWatermark-p.Records[n-1].Offset-1)
		}
	})
	l.show()
}

// forget drops partitions that went to another member.
func (l *streamLag) forget(_ context.Context, _ *kgo.Client, gone map[string][]int32) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, partitions := range gone {
		for _, p := range partitions {
			delete(l.behind, p)
		}
	}
	l.show()
}

func (l *streamLag) show() {
	sum := int64(0)
	for _, n := range l.behind {
		sum += n
	}
	l.gauge.Set(float64(sum))
}
