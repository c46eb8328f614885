package streams

import (
	"context"
	"sync"

	"github.com/twmb/franz-go/pkg/kgo"
)

// LargestRecord is the most bytes, before compression, of a record that is sent at all. What a topic takes is counted after compression, by its
// max.message.bytes.
const LargestRecord = 64 << 20

// LoneProducer sends one record at a time, of up to LargestRecord. The usual client refuses those that are larger than its batches, without asking a
// broker that may take them; and larger batches of many records would be refused by the broker.
type LoneProducer struct {
	client *kgo.Client
	mu     sync.Mutex
}

// NewLoneProducer makes one. It does not connect yet.
func NewLoneProducer(c Config, opts ...kgo.Opt) (*LoneProducer, error) {
	client, err := NewClient(c, append([]kgo.Opt{kgo.ProducerBatchMaxBytes(LargestRecord), kgo.ProducerLinger(0)}, opts...)...)
	if err != nil {
		return nil, err
	}
	return &LoneProducer{client: client}, nil
}

// Produce returns when the record is on its topic, or the broker has said that it will not be.
func (p *LoneProducer) Produce(ctx context.Context, r *kgo.Record) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.client.ProduceSync(ctx, r).FirstErr()
}

// Close ends it; nothing may be sent any more.
func (p *LoneProducer) Close() { p.client.Close() }
