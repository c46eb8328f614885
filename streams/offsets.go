package streams

import (
	"context"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace/millrace/internal/failure"
)

// FirstOffset is the offset of the first record that a partition still has, or would have next when it is empty.
func FirstOffset(ctx context.Context, client *kgo.Client, topic string, partition int32) (int64, error) {
	listed, err := kadm.NewClient(client).ListStartOffsets(ctx, topic)
	if err != nil {
		return 0, failure.Wrap(failure.Unavailable, topic, "listing start offsets", err)
	}
	first, ok := listed.Lookup(topic, partition)
	if !ok {
		return 0, failure.New(failure.NotFound, topic, "there is no partition %d", partition)
	}
	if first.Err != nil {
		return 0, failure.Wrap(failure.Unavailable, topic, "listing start offsets", first.Err)
	}
	return first.Offset, nil
}

// EndOffset is the offset that a partition's next record will have.
func EndOffset(ctx context.Context, client *kgo.Client, topic string, partition int32) (int64, error) {
	listed, err := kadm.NewClient(client).ListEndOffsets(ctx, topic)
	if err != nil {
		return 0, failure.Wrap(failure.Unavailable, topic, "listing end offsets", err)
	}
	end, ok := listed.Lookup(topic, partition)
	if !ok {
		return 0, failure.New(failure.NotFound, topic, "there is no partition %d", partition)
	}
	if end.Err != nil {
		return 0, failure.Wrap(failure.Unavailable, topic, "listing end offsets", end.Err)
	}
	return end.Offset, nil
}

// FirstOffsets is FirstOffset of every partition of a topic, by partition.
func FirstOffsets(ctx context.Context, client *kgo.Client, topic string) ([]int64, error) {
	listed, err := kadm.NewClient(client).ListStartOffsets(ctx, topic)
	return byPartition(topic, "listing start offsets", listed, err)
}

// EndOffsets is EndOffset of every partition of a topic, by partition.
func EndOffsets(ctx context.Context, client *kgo.Client, topic string) ([]int64, error) {
	listed, err := kadm.NewClient(client).ListEndOffsets(ctx, topic)
	return byPartition(topic, "listing end offsets", listed, err)
}

// OffsetsSince is, by partition of a topic, the offset of the first record with a timestamp of since (Unix milliseconds) or later, or where
// there is none, the end. What is written meanwhile is never behind it: a client that finds no such record asks for the end by another
// request, so the ends are asked for before.
func OffsetsSince(ctx context.Context, client *kgo.Client, topic string, since int64) ([]int64, error) {
	offsets, err := EndOffsets(ctx, client, topic)
	if err != nil {
		return nil, err
	}
	listed, err := kadm.NewClient(client).ListOffsetsAfterMilli(ctx, since, topic)
	firsts, err := byPartition(topic, "listing offsets by time", listed, err)
	if err != nil {
		return nil, err
	}
	for p := range min(len(offsets), len(firsts)) {
		offsets[p] = min(offsets[p], firsts[p])
	}
	return offsets, nil
}

func byPartition(topic, doing string, listed kadm.ListedOffsets, err error) ([]int64, error) {
	if err == nil {
		err = listed.Error()
	}
	if err != nil {
		return nil, failure.Wrap(failure.Unavailable, topic, doing, err)
	}
	offsets := make([]int64, len(listed[topic]))
	for p, o := range listed[topic] {
		if int(p) >= len(offsets) {
			return nil, failure.New(failure.Unavailable, topic, "%s: partition %d of %d", doing, p, len(offsets))
		}
		offsets[p] = o.Offset
	}
	return offsets, nil
}
