package streams

import (
	"context"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace/millrace/internal/failure"
)

// ReadTopic hands out a topic's committed records, in order within each partition, from its beginning to its end as of now; with follow it goes on
// until ctx ends, which is no error then. An error of fn ends it.
func ReadTopic(ctx context.Context, cfg Config, topic string, follow bool, fn func(*kgo.Record) error) error {
	// The end of a partition may be the marker of a transaction, which is no record but must be seen to know that the end is reached.
	client, err := NewClient(cfg, kgo.ConsumeTopics(topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.KeepControlRecords())
	if err != nil {
		return err
	}
	defer client.Close()
	left, err := unread(ctx, client, topic)
	if err != nil {
		return err
	}
	for follow || len(left) > 0 {
		fetches := client.PollFetches(ctx)
		if err := ctx.Err(); err != nil {
			if follow {
				return nil
			}
			return failure.Wrap(failure.Unavailable, topic, "reading the topic", err)
		}
		for _, e := range fetches.Errors() {
			return failure.Wrap(failure.Unavailable, topic, "reading the topic", e.Err)
		}
		for it := fetches.RecordIter(); !it.Done(); {
			r := it.Next()
			end, ok := left[r.Partition]
			if (follow || ok && r.Offset < end) && !r.Attrs.IsControl() {
				if err := fn(r); err != nil {
					return err
				}
			}
			if r.Offset >= end-1 {
				delete(left, r.Partition)
			}
		}
	}
	return nil
}

// unread is the end of every partition of a topic that has anything.
func unread(ctx context.Context, client *kgo.Client, topic string) (map[int32]int64, error) {
	ends, err := kadm.NewClient(client).ListCommittedOffsets(ctx, topic)
	if err != nil {
		return nil, failure.Wrap(failure.Unavailable, topic, "asking for the topic's end", err)
	}
	starts, err := kadm.NewClient(client).ListStartOffsets(ctx, topic)
	if err != nil {
		return nil, failure.Wrap(failure.Unavailable, topic, "asking for the topic's start", err)
	}
	left := map[int32]int64{}
	ends.Each(func(o kadm.ListedOffset) {
		if start, ok := starts.Lookup(o.Topic, o.Partition); ok && start.Offset < o.Offset {
			left[o.Partition] = o.Offset
		}
	})
	return left, nil
}
