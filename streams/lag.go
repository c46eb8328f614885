package streams

import (
	"cmp"
	"context"
	"errors"
	"slices"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace/millrace/internal/failure"
)

// PartitionLag is how far a consumer group is behind on one partition, by the offsets it committed.
type PartitionLag struct {
	Group     string `json:"group"`
	Topic     string `json:"topic"`
	Partition int32  `json:"partition"`
	Committed int64  `json:"committed"` // -1 when nothing was committed
	End       int64  `json:"end"`
	Lag       int64  `json:"lag"`
}

// Lag is the lag of consumer groups, in order of group, topic and partition. A group that was never seen has none.
func Lag(ctx context.Context, client *kgo.Client, groups ...string) ([]PartitionLag, error) {
	described, err := kadm.NewClient(client).Lag(ctx, groups...)
	if err != nil {
		return nil, failure.Wrap(failure.Unavailable, "kafka", "reading lag", err)
	}
	var lags []PartitionLag
	for _, g := range described.Sorted() {
		if err := g.Error(); err != nil {
			return nil, failure.Wrap(failure.Unavailable, g.Group, "reading lag", err)
		}
		for _, l := range g.Lag.Sorted() {
			lags = append(lags, PartitionLag{Group: g.Group, Topic: l.Topic, Partition: l.Partition, Committed: l.Commit.At, End: l.End.Offset, Lag: l.Lag})
		}
	}
	slices.SortStableFunc(lags, func(a, b PartitionLag) int {
		return cmp.Or(cmp.Compare(a.Group, b.Group), cmp.Compare(a.Topic, b.Topic), cmp.Compare(a.Partition, b.Partition))
	})
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
