package streams_test

import (
	"context"
	"fmt"
	"maps"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace/millrace/schemas"
	"github.com/millrace/millrace/streams"
	"github.com/millrace/millrace/streams/broker"
)

// TestRead reads to the end, goes on from there, and sees nothing of an aborted transaction.
func TestRead(t *testing.T) {
	b, err := broker.Start("", 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Close)
	cfg := streams.Config{Brokers: []string{b.Addr()}, Compression: "none"}
	client, err := streams.NewClient(cfg, kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.TransactionalID("t"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	if err := streams.EnsureTopics(t.Context(), client, []schemas.Topic{{Name: "read", Partitions: 3}}); err != nil {
		t.Fatal(err)
	}
	transact := func(end kgo.TransactionEndTry, from, to int) {
		t.Helper()
		if err := client.BeginTransaction(); err != nil {
			t.Fatal(err)
		}
		for i := from; i < to; i++ { // nothing goes to partition 2
			if err := client.ProduceSync(t.Context(), &kgo.Record{Topic: "read", Partition: int32(i % 2), Value: fmt.Append(nil, i)}).FirstErr(); err != nil {
				t.Fatal(err)
			}
		}
		if err := client.EndTransaction(t.Context(), end); err != nil {
			t.Fatal(err)
		}
	}
	read := func(from map[int32]int64) (seen map[string]bool, next map[int32]int64) {
		t.Helper()
		seen = map[string]bool{}
		next, err := streams.Read(t.Context(), cfg, streams.ReadOptions{Topic: "read", From: from}, func(r *kgo.Record) error {
			if seen[string(r.Value)] {
				t.Errorf("%s is there twice", r.Value)
			}
			seen[string(r.Value)] = true
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		return seen, next
	}
	if seen, next := read(nil); len(seen) != 0 || !maps.Equal(next, map[int32]int64{0: 0, 1: 0, 2: 0}) {
		t.Errorf("an empty topic: %v up to %v", seen, next)
	}
	transact(kgo.TryCommit, 0, 10)
	transact(kgo.TryAbort, 10, 20)
	seen, next := read(nil)
	if len(seen) != 10 || !seen["0"] || !seen["9"] || !maps.Equal(next, map[int32]int64{0: 12, 1: 12, 2: 0}) {
		t.Errorf("%v up to %v", seen, next)
	}
	transact(kgo.TryCommit, 20, 23)
	if seen, _ = read(next); !maps.Equal(seen, map[string]bool{"20": true, "21": true, "22": true}) {
		t.Errorf("after %v came %v", next, seen)
	}
	ctx, cancel := context.WithCancel(t.Context())
	count := 0
	if _, err := streams.Read(ctx, cfg, streams.ReadOptions{Topic: "read", Follow: true}, func(*kgo.Record) error {
		if count++; count == 13 {
			cancel()
		}
		return nil
	}); err != nil || count != 13 {
		t.Errorf("following: %d records, %v", count, err)
	}
}
