package streams

import (
	"context"
	"errors"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace/millrace/internal/failure"
)

// GroupLag is a consumer group and how far it is behind.
type GroupLag struct {
	Group      string         `json:"group"`
	State      string         `json:"state"` // as Kafka names it: Stable, Empty, ...
	Members    int            `json:"members"`
	Lag        int64          `json:"lag"` // records, over all partitions
	Partitions []PartitionLag `json:"partitions"`
}

// PartitionLag is how far a consumer group is behind on one partition, by the offsets it committed.
type PartitionLag struct {
	Topic     string `json:"topic"`
	Partition int32  `json:"partition"`
	Next      int64  `json:"next"` // 0 when nothing was committed
	End       int64  `json:"end"`
	Lag       int64  `json:"lag"` // records
}

// Lag is the lag of consumer groups by name, partitions in order of topic and number. A group that was never seen has no partitions, and a partition
// that has no leader now is left out.
func Lag(ctx context.Context, client *kgo.Client, groups ...string) ([]GroupLag, error) {
	described, err := kadm.NewClient(client).Lag(ctx, groups...)
	if err != nil {
		return nil, failure.Wrap(failure.Unavailable, "kafka", "reading lag", err)
	}
	var lags []GroupLag
	for _, g := range described.Sorted() {
		if err := g.Error(); err != nil {
			return nil, failure.Wrap(failure.Unavailable, g.Group, "reading lag", err)
		}
		lag := GroupLag{Group: g.Group, State: g.State, Members: len(g.Members)}
		for _, l := range g.Lag.Sorted() {
			if l.Err != nil {
				continue
			}
			lag.Partitions = append(lag.Partitions, PartitionLag{Topic: l.Topic, Partition: l.Partition, Next: max(l.Commit.At, 0), End: l.End.Offset, Lag: max(l.Lag, 0)})
			lag.Lag += max(l.Lag, 0)
		}
		lags = append(lags, lag)
	}
	return lags, nil
}

// Committed is the offsets that a consumer group has committed on a topic, by partition; partitions without one are left out.
func Committed(ctx context.Context, client *kgo.Client, group, topic string) (map[int32]int64, error) {
	fetched, err := kadm.NewClient(client).FetchOffsetsForTopics(ctx, group, topic)
	if err == nil {
		err = fetched.Error()
	}
	if errors.Is(err, kerr.GroupIDNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, failure.Wrap(failure.Unavailable, group, "reading committed offsets", err)
	}
	committed := map[int32]int64{}
	for p, o := range fetched[topic] {
		if o.At >= 0 {
			committed[p] = o.At
		}
	}
	return committed, nil
}
