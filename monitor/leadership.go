package monitor

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace/millrace/internal/failure"
	"github.com/millrace/millrace/schemas"
	"github.com/millrace/millrace/streams"
)

// leaderPartition is the partition of the predictions topic whose owner in the consumer group leads. A verdict needs all
// partitions at once, so the others are not shared out: the group is only asked who is alive.
const leaderPartition = 0

// group is the consumer group that elects the leader and keeps how far it came.
func (s *Stage) group() string { return ConsumerGroup(s.project.Name) }

// ConsumerGroup is the Kafka consumer group of a project's monitors. Its lag is that of the oldest window that is not finished, not of what
// was read.
func ConsumerGroup(project string) string { return project + ".monitor" }

// Run watches all models of the project until ctx ends, as the leader or waiting to become it. Its error is nil then.
func (s *Stage) Run(ctx context.Context) error {
	if len(s.project.Models) == 0 {
		<-ctx.Done()
		return nil
	}
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	lead := &leadership{run: func(ctx context.Context, group *kgo.Client) {
		if err := s.lead(ctx, group); err != nil {
			stop(err)
		}
	}}
	released := func(_ context.Context, _ *kgo.Client, lost map[string][]int32) {
		if leads(lost, s.predictions()) {
			lead.release()
		}
	}
	group, err := streams.NewClient(s.kafka,
		kgo.ConsumerGroup(s.group()), kgo.ConsumeTopics(s.predictions()), kgo.DisableAutoCommit(), kgo.SessionTimeout(s.cfg.SessionFor),
		kgo.OnPartitionsAssigned(func(_ context.Context, group *kgo.Client, got map[string][]int32) {
			if leads(got, s.predictions()) {
				lead.take(ctx, group)
			}
		}),
		kgo.OnPartitionsRevoked(released), kgo.OnPartitionsLost(released))
	if err != nil {
		return err
	}
	defer lead.release()
	defer group.Close()
	if err := streams.EnsureTopics(ctx, group, s.topics()); err != nil && ctx.Err() == nil {
		return fmt.Errorf("ensuring topics: %w", err)
	}
	group.PauseFetchTopics(s.predictions()) // the leader reads with a client of its own, which nobody rebalances
	for ctx.Err() == nil {
		if fetches := group.PollFetches(ctx); ctx.Err() == nil {
			fetches.EachError(func(topic string, _ int32, err error) { s.log.Warn("electing a monitor", "topic", topic, "error", err) })
		}
	}
	if cause := context.Cause(ctx); !errors.Is(cause, ctx.Err()) {
		return cause
	}
	return nil
}

func leads(partitions map[string][]int32, topic string) bool {
	for _, p := range partitions[topic] {
		if p == leaderPartition {
			return true
		}
	}
	return false
}

// topics are those that the stage reads and writes, to be made where they are missing.
func (s *Stage) topics() []schemas.Topic {
	own := s.project.Own()
	topics := []schemas.Topic{own.Predictions, own.Drift, own.Retrain}
	seen := map[string]bool{}
	for _, m := range s.project.Models {
		source := m.Label.Source
		if !seen[source.Topic] {
			seen[source.Topic] = true
			topics = append(topics, schemas.Topic{Name: source.Topic, Partitions: max(source.Partitions, 1)})
		}
	}
	return topics
}

// lead runs one session after another for as long as this replica leads.
func (s *Stage) lead(ctx context.Context, group *kgo.Client) error {
	s.metrics.leader.Set(1)
	defer s.resign()
	for {
		err := s.runSession(ctx, group)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil && failure.Of(err) == failure.BadProject {
			return err
		}
		s.metrics.sessionErrors.Inc()
		s.log.Warn("the monitor starts over from what it has published", "error", err)
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(s.cfg.Backoff):
		}
	}
}

// leadership runs a function while this replica leads.
type leadership struct {
	run func(ctx context.Context, group *kgo.Client)

	lock   sync.Mutex
	cancel context.CancelFunc
	done   chan struct{}
}

func (l *leadership) take(ctx context.Context, group *kgo.Client) {
	l.lock.Lock()
	defer l.lock.Unlock()
	if l.cancel != nil {
		return
	}
	ctx, l.cancel = context.WithCancel(ctx)
	done := make(chan struct{})
	l.done = done
	go func() {
		defer close(done)
		l.run(ctx, group)
	}()
}

// release returns when the function has: only then may another replica lead.
func (l *leadership) release() {
	l.lock.Lock()
	defer l.lock.Unlock()
	if l.cancel == nil {
		return
	}
	l.cancel()
	<-l.done
	l.cancel = nil
}
