package streams

import (
	"context"
	"errors"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace/millrace/internal/failure"
	"github.com/millrace/millrace/schemas"
)

// DeadLetters writes the dead-letter topic. It is safe for concurrent use.
//
// Delivery is at least once: a crash between the letter and the position that says it was written writes it again. Topic, partition
// and offset in its headers tell the copies.
type DeadLetters struct {
	client *kgo.Client
	lone   *LoneProducer
	topic  string
}

// NewDeadLetters writes to the topic through the client, and what is too large for that through lone, which may be nil. They are not closed with it.
func NewDeadLetters(client *kgo.Client, lone *LoneProducer, topic string) *DeadLetters {
	return &DeadLetters{client: client, lone: lone, topic: topic}
}

// Record is the letter as it stands on the topic.
func (d *DeadLetters) Record(l schemas.DeadLetter) *kgo.Record {
	headers := l.Headers()
	r := &kgo.Record{Topic: d.topic, Key: l.Key, Value: l.Value, Headers: make([]kgo.RecordHeader, len(headers))}
	for i, h := range headers {
		r.Headers[i] = kgo.RecordHeader(h)
	}
	return r
}

// Write returns when every letter is on the topic. Until then the records they tell of must not count as done.
func (d *DeadLetters) Write(ctx context.Context, letters ...schemas.DeadLetter) error {
	records := make([]*kgo.Record, len(letters))
	for i, l := range letters {
		records[i] = d.Record(l)
	}
	for _, result := range d.client.ProduceSync(ctx, records...) {
		err := result.Err
		if errors.Is(err, kerr.MessageTooLarge) && d.lone != nil {
			err = d.lone.Produce(ctx, result.Record)
		}
		if err != nil {
			return failure.Wrap(failure.Unavailable, d.topic, "writing dead letters", err)
		}
	}
	return nil
}

// ParseDeadLetter reads a record of the dead-letter topic; BadRecord when it is none.
func ParseDeadLetter(r *kgo.Record) (schemas.DeadLetter, error) {
	headers := make([]schemas.Header, len(r.Headers))
	for i, h := range r.Headers {
		headers[i] = schemas.Header(h)
	}
	return schemas.ParseDeadLetter(r.Key, r.Value, headers)
}
