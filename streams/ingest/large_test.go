package ingest

import (
	"bytes"
	"encoding/json"
	"errors"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace/millrace/features/online"
	"github.com/millrace/millrace/streams"
)

// TestLargeRecords produces records that are larger than the client's batches to topics that take them: one that is re-keyed, and two that become dead
// letters, of the source and of a group. None may stop its partition.
func TestLargeRecords(t *testing.T) {
	r := newRig(t)
	const size = 2 << 20
	limit := "8388608"
	for _, topic := range r.project.Topology()[1:] {
		if _, err := r.admin.CreateTopic(t.Context(), topic.Partitions, -1, map[string]*string{"max.message.bytes": &limit}, topic.Name); err != nil {
			t.Fatal(err)
		}
	}
	source := r.project.Sources[0].Topic
	altered, err := r.admin.AlterTopicConfigs(t.Context(), []kadm.AlterConfig{{Name: "max.message.bytes", Value: &limit}}, source)
	if err != nil {
		t.Fatal(err)
	}
	if err := altered[0].Err; err != nil {
		t.Fatal(err)
	}
	producer, err := streams.NewLoneProducer(r.kafkaConfig(), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err != nil {
		t.Fatal(err)
	}
	defer producer.Close()
	home := online.Partition(online.Murmur2, "trip", sourcePartitions)
	produce := func(partition int32, value []byte) {
		record := &kgo.Record{Topic: source, Partition: partition, Value: value, Timestamp: time.UnixMilli(start)}
		r.await("the broker to go by the altered limit", func() bool {
			err := producer.Produce(t.Context(), record)
			if err != nil && !errors.Is(err, kerr.MessageTooLarge) {
				t.Fatal(err)
			}
			return err == nil
		})
	}
	good, err := json.Marshal(map[string]any{"id": "trip", "city": "city-0", "rider": "r", "delay": 1, "fare": 1.5, "cancelled": false, "at": start})
	if err != nil {
		t.Fatal(err)
	}
	padded := append(bytes.Clone(good[:len(good)-1]), bytes.Repeat([]byte(" "), size)...)
	padded = append(padded, '}')
	produce(home, padded)
	produce(home, bytes.Repeat([]byte("x"), size))     // no record of the source
	produce((home+1)%sourcePartitions, padded)         // not where the group that reads directly looks for it
	produce(home, good)                                // and what comes after
	produce((home+1)%sourcePartitions, []byte("{bad")) // likewise
	g := r.run(r.stage())
	r.await("all to be committed", func() bool {
		if g.dead() {
			t.Fatalf("the stage ended with %v", g.err)
		}
		a, _ := r.handedOn(home)
		b, _ := r.handedOn((home + 1) % sourcePartitions)
		return a == 3 && b == 2
	})
	r.await("the re-keyed records to be applied", func() bool { return r.applied(r.project.Groups[0]) >= 3 })
	g.stop(t)
	classes := map[string]int{}
	letters, _ := r.letters()
	for _, l := range letters {
		classes[l.class]++
	}
	if classes["malformed"] != 2 || classes[classMisrouted] != 1 || len(letters) != 3 {
		t.Errorf("dead letters: %v", classes)
	}
	if n := r.applied(r.project.Groups[2]); n < 2 {
		t.Errorf("the group that reads directly has %d records", n)
	}
}
