package ingest

import (
	"encoding/json"
	"fmt"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace/millrace/features/online"
	"github.com/millrace/millrace/streams"
)

// TestTransactionalProducers has events come in transactions, some of which are aborted. What is committed is applied and nothing else; and a partition
// that ends with an aborted transaction is done, though there is no record to say so: else its lag would never be 0, and no version of a group
// would ever have caught up.
func TestTransactionalProducers(t *testing.T) {
	r := newRig(t)
	topic := r.project.Sources[0].Topic
	producer, err := streams.NewClient(r.kafkaConfig(), kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.TransactionalID(topic))
	if err != nil {
		t.Fatal(err)
	}
	defer producer.Close()
	home := online.Partition(online.Murmur2, "trip", sourcePartitions)
	transaction := func(n int, end kgo.TransactionEndTry) {
		if err := producer.BeginTransaction(); err != nil {
			t.Fatal(err)
		}
		for i := range n {
			value, err := json.Marshal(map[string]any{"id": "trip", "city": fmt.Sprint("city-", i), "rider": "r", "delay": 1, "fare": 1.5, "cancelled": false, "at": start})
			if err != nil {
				t.Fatal(err)
			}
			if err := producer.ProduceSync(t.Context(), &kgo.Record{Topic: topic, Partition: home, Value: value}).FirstErr(); err != nil {
				t.Fatal(err)
			}
		}
		if err := producer.EndTransaction(t.Context(), end); err != nil {
			t.Fatal(err)
		}
	}
	atEnd := func() bool {
		end, err := streams.EndOffset(t.Context(), r.client, topic, home)
		if err != nil {
			return false
		}
		at, _ := r.handedOn(home)
		position, _, err := r.position(r.project.Groups[2], home)
		return err == nil && at == end && position.Next == end
	}
	transaction(10, kgo.TryCommit)
	transaction(7, kgo.TryAbort)
	stage := r.run(r.stage())
	r.await("an aborted transaction to be done", atEnd)
	transaction(5, kgo.TryCommit)
	r.await("a committed one to be done", atEnd)
	transaction(3, kgo.TryAbort)
	r.await("another aborted one to be done", atEnd)
	stage.stop(t)
	stage = r.run(r.stage())
	r.await("a stage that begins there to be done", atEnd)
	stage.stop(t)
	letters, _ := r.letters()
	if n := r.counted(stage, r.project.Groups[2]); n != 15 || len(r.events()) != 15 || len(letters) != 0 {
		t.Errorf("%d events are applied and %d kept, want 15; dead letters: %v", n, len(r.events()), letters)
	}
}
