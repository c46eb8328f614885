package training

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace/millrace/internal/failure"
	"github.com/millrace/millrace/schemas"
	"github.com/millrace/millrace/streams"
)

// ConsumerGroup is the Kafka consumer group that answers a project's retrain requests.
func ConsumerGroup(project string) string { return project + ".train" }

// answerRequests consumes the retrain topic. A request is committed when its outcome is on the models topic; before that
// a crash has it delivered again, and it is answered from the registry if it was concluded.
func (s *Stage) answerRequests(ctx context.Context) error {
	own := s.project.Own()
	client, err := streams.NewClient(s.kafka,
		kgo.ConsumerGroup(ConsumerGroup(s.project.Name)), kgo.ConsumeTopics(own.Retrain.Name), kgo.DisableAutoCommit(),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	if err != nil {
		return fmt.Errorf("making the consumer: %w", err)
	}
	defer client.Close()
	letters := streams.NewDeadLetters(s.producer, nil, own.DeadLetters.Name)
	for {
		fetches := client.PollRecords(ctx, 1)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		fetches.EachError(func(topic string, partition int32, err error) {
			s.log.Warn("fetching retrain requests", "topic", topic, "partition", partition, "err", err)
		})
		for _, r := range fetches.Records() {
			if err := s.answer(ctx, letters, r); err != nil {
				return fmt.Errorf("answering retrain request %s/%d/%d: %w", r.Topic, r.Partition, r.Offset, err)
			}
			// A partition that has gone to another replica meanwhile cannot be committed here; that replica will.
			if err := client.CommitRecords(ctx, r); err != nil && ctx.Err() == nil {
				s.log.Warn("committing retrain request", "offset", r.Offset, "err", err)
			}
		}
	}
}

func (s *Stage) answer(ctx context.Context, letters *streams.DeadLetters, r *kgo.Record) error {
	q, err := s.request(r)
	if err != nil {
		s.metrics.deadLetters.Inc()
		s.log.Warn("a retrain request cannot be read", "topic", r.Topic, "partition", r.Partition, "offset", r.Offset, "err", err)
		return letters.Write(ctx, deadLetter(r, err))
	}
	s.metrics.requests.WithLabelValues(q.Model).Inc()
	event, err := s.insist(ctx, q)
	if err != nil {
		return err
	}
	return s.publish(ctx, q.Run, event)
}

// request reads a record of the retrain topic. Its errors are of kind BadRecord.
func (s *Stage) request(r *kgo.Record) (Request, error) {
	if len(r.Value) > s.cfg.MaxRequest {
		return Request{}, failure.New(failure.BadRecord, "retrain", "the request has %d bytes, MaxRequest is %d", len(r.Value), s.cfg.MaxRequest)
	}
	e, err := schemas.UnmarshalRetrain(r.Value)
	if err != nil {
		return Request{}, failure.Wrap(failure.BadRecord, "retrain", "decoding", err)
	}
	if e.ID == "" || s.project.Model(e.Model) == nil {
		return Request{}, failure.New(failure.BadRecord, "retrain", "id %q asks for model %q", e.ID, e.Model).
			WithHint("the project must have the model, and the id must not be empty")
	}
	return Request{
		Run: "retrain/" + e.ID, Model: e.Model, Until: e.Until, Reason: e.Reason, Replaces: e.Digest, RetrainID: e.ID,
	}, nil
}

func deadLetter(r *kgo.Record, err error) schemas.DeadLetter {
	class := schemas.ClassMalformed
	if bad := (*schemas.RecordError)(nil); errors.As(err, &bad) {
		class = bad.Class
	}
	return schemas.DeadLetter{
		Topic: r.Topic, Partition: r.Partition, Offset: r.Offset, Timestamp: r.Timestamp.UnixMilli(), Stage: "training",
		Class: class, Reason: err.Error(), Key: r.Key, Value: r.Value,
	}
}

// insist trains, trying again where that may help. What cannot be done is refused with the reason rather than asked of
// every replica for ever; only a registry that does not take even the refusal is an error.
func (s *Stage) insist(ctx context.Context, q Request) (schemas.ModelEvent, error) {
	for attempt := 1; ; attempt++ {
		event, err := s.train(ctx, q)
		if err == nil || ctx.Err() != nil {
			return event, err
		}
		s.log.Error("training failed", "model", q.Model, "run", q.Run, "attempt", attempt, "err", err)
		if !failure.Of(err).Retry() || attempt >= s.cfg.Attempts {
			return s.refuse(ctx, q, "training failed: "+err.Error())
		}
		select {
		case <-ctx.Done():
			return event, ctx.Err()
		case <-time.After(s.cfg.Backoff << min(attempt-1, 6)):
		}
	}
}
