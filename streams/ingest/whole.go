package ingest

import (
	"context"
	"errors"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace/millrace/features/offline"
	"github.com/millrace/millrace/features/online"
	"github.com/millrace/millrace/internal/failure"
	"github.com/millrace/millrace/streams"
)

// whole reports whether the topic that the group reads holds, as far as its partitions begin with their first record, all events that there
// ever were of the group. Then reading it gives the very order that was, and the rows due offline on the way.
//
// A source's topic does, unless it was given more partitions since. A keyed topic does when it was re-keyed to from the beginning of the
// source, and not when the group was added later: then the first event of a source partition is not among its records. A version that is
// computed anew by command is filled from the history in any case.
func (f *filler) whole(ctx context.Context) (bool, error) {
	if f.anew() {
		return false, nil
	}
	if f.group.Direct {
		return true, nil
	}
	for p := range f.sources {
		if f.sources[p].end == 0 {
			continue
		}
		there, err := f.firstIsKeyed(ctx, &f.sources[p])
		if err != nil || !there {
			return false, err
		}
	}
	return true, nil
}

// anew reports whether the version is one that was asked for by command.
func (f *filler) anew() bool {
	return f.group.version.ID != f.group.version.Definition || f.group.version.From != 0
}

// firstIsKeyed reports whether the first event of a source partition is the first of that partition on the keyed topic.
func (f *filler) firstIsKeyed(ctx context.Context, h *past) (bool, error) {
	first, ok, err := f.first(ctx, h)
	if err != nil || !ok {
		return err == nil, err
	}
	k := online.Partition(f.group.version.Partitioner, first.key, f.group.version.Partitions)
	if f.begins[k] > 0 {
		return false, nil
	}
	ends, err := streams.EndOffsets(ctx, f.producer, f.group.KeyedTopic)
	if err != nil || ends[k] == 0 {
		return false, err
	}
	found := false
	err = f.records(ctx, f.group.KeyedTopic, k, 0, ends[k], func(r *kgo.Record) error {
		root, o, err := f.originOf(r, f.group.roots)
		if err != nil || root != h.root || o.partition != h.partition {
			return nil //nolint:nilerr // a foreign record is its worker's business
		}
		found = o.offset <= first.offset
		return errEnough
	})
	return found, err
}

// errEnough ends a reading early.
var errEnough = errors.New("enough")

// first is the first event of a source partition that names an entity, if there is any.
func (f *filler) first(ctx context.Context, h *past) (first event, ok bool, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	batches := make(chan []event, 1)
	ended := make(chan error, 1)
	whole := *h
	whole.next = 0
	go func() {
		ended <- f.read(ctx, &whole, batches)
		close(batches)
	}()
	if batch := <-batches; len(batch) > 0 {
		cancel()
		<-ended
		return batch[0], true, nil
	}
	return event{}, false, <-ended
}

// records reads the records of a partition with offsets in [from, end). errEnough of fn ends it early.
func (s *Stage) records(ctx context.Context, topic string, partition int32, from, end int64, fn func(*kgo.Record) error) error {
	client, err := streams.NewClient(s.deps.Kafka, streams.Logger(s.log), kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.KeepControlRecords(),
		kgo.FetchMaxWait(s.cfg.FetchMaxWait), kgo.FetchMaxPartitionBytes(s.cfg.FetchPartBytes),
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: {partition: kgo.NewOffset().At(from)}}))
	if err != nil {
		return err
	}
	defer client.Close()
	for next := from; next < end; {
		fetches := client.PollRecords(ctx, s.cfg.PollRecords)
		if err := ctx.Err(); err != nil {
			return err
		}
		for _, e := range fetches.Errors() {
			return failure.Wrap(failure.Unavailable, topic, "reading the history", e.Err)
		}
		for it := fetches.RecordIter(); !it.Done() && next < end; {
			r := it.Next()
			next = r.Offset + 1
			if r.Attrs.IsControl() || r.Offset >= end {
				continue
			}
			if err := fn(r); err != nil {
				if errors.Is(err, errEnough) {
					return nil
				}
				return err
			}
		}
	}
	return nil
}

// offlineRows reads the offline events of a partition with offsets in [from, end), in their order.
func (s *source) offlineRows(ctx context.Context, partition int32, from, end int64, fn func(*offline.Batch, int) error) error {
	err := s.events.InOrder(ctx, partition, from, func(b *offline.Batch, i int) error {
		if b.Offset(i) >= end {
			return errEnough
		}
		return fn(b, i)
	})
	if errors.Is(err, errEnough) {
		return nil
	}
	return err
}
