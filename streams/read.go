package streams

import (
	"context"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace/millrace/internal/failure"
)

// ReadOptions choose what of a topic is read.
type ReadOptions struct {
	Topic  string
	From   map[int32]int64 // by partition, the first offset wanted; a partition that is not named is read from its start
	Follow bool            // go on with what comes, until ctx ends
}

// Read hands a topic's committed records to fn, those of a partition in their order, up to the end that each partition has when it is
// called. next is the offset after what was read of each partition: From of the call that goes on. An error of fn ends the reading and
// is returned; that ctx ended is no error.
func Read(ctx context.Context, c Config, opts ReadOptions, fn func(*kgo.Record) error) (next map[int32]int64, err error) {
	finder, err := NewClient(c)
	if err != nil {
		return nil, err
	}
	defer finder.Close()
	from, left, err := bounds(ctx, finder, opts)
	if err != nil {
		return nil, err
	}
	next = map[int32]int64{}
	places := map[int32]kgo.Offset{}
	for partition, first := range from {
		next[partition] = first
		places[partition] = kgo.NewOffset().At(first)
	}
	// The end of a partition may be the marker of a transaction, which is no record but must be seen to know that the end is reached.
	client, err := NewClient(c, kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{opts.Topic: places}),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.KeepControlRecords())
	if err != nil {
		return nil, err
	}
	defer client.Close()
	for opts.Follow || len(left) > 0 {
		fetches := client.PollFetches(ctx)
		if ctx.Err() != nil {
			return next, nil
		}
		for _, e := range fetches.Errors() {
			return next, failure.Wrap(failure.Unavailable, opts.Topic, "reading the topic", e.Err)
		}
		for it := fetches.RecordIter(); !it.Done(); {
			r := it.Next()
			end, ok := left[r.Partition]
			if (opts.Follow || ok && r.Offset < end) && !r.Attrs.IsControl() {
				if err := fn(r); err != nil {
					return next, err
				}
			}
			switch {
			case opts.Follow:
				next[r.Partition] = r.Offset + 1
			case ok:
				next[r.Partition] = min(r.Offset+1, end)
			}
			if r.Offset >= end-1 {
				delete(left, r.Partition)
			}
		}
	}
	return next, nil
}

// bounds gives the first offset to read of every partition, and the ends of those that have something to be read.
func bounds(ctx context.Context, client *kgo.Client, opts ReadOptions) (from, left map[int32]int64, err error) {
	admin := kadm.NewClient(client)
	ends, err := admin.ListCommittedOffsets(ctx, opts.Topic)
	if err == nil {
		err = ends.Error()
	}
	if err != nil {
		return nil, nil, failure.Wrap(failure.Unavailable, opts.Topic, "asking for the topic's end", err)
	}
	starts, err := admin.ListStartOffsets(ctx, opts.Topic)
	if err != nil {
		return nil, nil, failure.Wrap(failure.Unavailable, opts.Topic, "asking for the topic's start", err)
	}
	from, left = map[int32]int64{}, map[int32]int64{}
	ends.Each(func(end kadm.ListedOffset) {
		start, _ := starts.Lookup(end.Topic, end.Partition)
		first := min(max(start.Offset, opts.From[end.Partition]), end.Offset)
		from[end.Partition] = first
		if first < end.Offset {
			left[end.Partition] = end.Offset
		}
	})
	return from, left, nil
}
