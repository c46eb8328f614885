package serving

import (
	"context"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace/millrace/schemas"
	"github.com/millrace/millrace/streams"
)

// predictionLog is the queue between HTTP answers and the predictions topic. An answer never waits for Kafka: what does not fit is
// dropped and counted.
type predictionLog struct {
	queue   chan *kgo.Record
	metrics *metrics
}

// The reasons for a prediction to be dropped.
const (
	dropFull     = "queue_full"
	dropDelivery = "delivery"
	dropEncoding = "encoding"
)

func newPredictionLog(size int, m *metrics) *predictionLog {
	for _, why := range []string{dropFull, dropDelivery, dropEncoding} {
		m.logDropped.WithLabelValues(why)
	}
	return &predictionLog{queue: make(chan *kgo.Record, size), metrics: m}
}

func (l *predictionLog) put(r *kgo.Record) {
	select {
	case l.queue <- r:
		l.metrics.logQueue.Inc()
	default:
		l.metrics.logDropped.WithLabelValues(dropFull).Inc()
	}
}

// writeLog writes the queue to the topic until ctx ends, and then what is left of it, for at most LogTimeout.
//
// Without Kafka the client's buffer fills, then the queue, and then answers are dropped; what has come so far is delivered late. (A
// delivery timeout would be of no use: kgo counts it from the record's timestamp, which is the event's.)
func (s *Stage) writeLog(ctx context.Context) error {
	client, err := streams.NewClient(s.deps.Kafka, kgo.MaxBufferedRecords(s.cfg.LogQueue))
	if err != nil {
		return err
	}
	defer client.Close()
	life, end := context.WithCancel(context.WithoutCancel(ctx))
	defer end()
	defer context.AfterFunc(ctx, func() {
		if sleep(life, s.cfg.LogTimeout) {
			end()
		}
	})()
	for {
		select {
		case r := <-s.log.queue:
			s.log.write(life, client, r)
		case <-ctx.Done():
			s.log.drain(life, client)
			return nil
		}
	}
}

func (l *predictionLog) drain(ctx context.Context, client *kgo.Client) {
	for {
		select {
		case r := <-l.queue:
			l.write(ctx, client, r)
		default:
			_ = client.Flush(ctx) // what does not make it is counted by its own promise
			return
		}
	}
}

// write waits while the client's buffer is full.
func (l *predictionLog) write(ctx context.Context, client *kgo.Client, r *kgo.Record) {
	l.metrics.logQueue.Dec()
	client.Produce(ctx, r, func(_ *kgo.Record, err error) {
		if err != nil {
			l.metrics.logDropped.WithLabelValues(dropDelivery).Inc()
			return
		}
		l.metrics.logWritten.Inc()
	})
}

// predictionRecord is a prediction as it stands on the topic: by the label's join key, at the event time that it is as of.
func predictionRecord(topic string, p *schemas.Prediction) (*kgo.Record, error) {
	value, err := p.Marshal()
	if err != nil {
		return nil, err
	}
	r := &kgo.Record{Topic: topic, Value: value, Timestamp: milli(p.At)}
	if p.JoinKey != "" {
		r.Key = []byte(p.JoinKey)
	}
	return r, nil
}
