package ingest

import (
	"encoding/json"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace/millrace/features/online"
	"github.com/millrace/millrace/project"
	"github.com/millrace/millrace/streams"
)

// visit produces trips of one rider to cities of a partition of the source, a minute apart up to a time.
func (r *rig) visit(partition int32, n int, last int64) {
	r.t.Helper()
	for i := range n {
		at := last - int64(n-1-i)*60_000
		value, err := json.Marshal(map[string]any{"id": "trip", "city": fmt.Sprint("city-", i), "rider": "r", "delay": 1, "fare": 1.5, "cancelled": false, "at": at})
		if err != nil {
			r.t.Fatal(err)
		}
		record := &kgo.Record{Topic: r.project.Sources[0].Topic, Partition: partition, Value: value, Timestamp: time.UnixMilli(start)}
		if err := r.client.ProduceSync(r.t.Context(), record).FirstErr(); err != nil {
			r.t.Fatal(err)
		}
		r.produced[partition] = append(r.produced[partition], produced{value: value})
	}
}

// handedOn is what the source's workers have committed of a partition: the offset, and how far they say that they have handed it on.
func (r *rig) handedOn(partition int32) (at int64, p streams.Progress) {
	r.t.Helper()
	committed, err := r.admin.FetchOffsets(r.t.Context(), SourceGroup(r.project, r.project.Sources[0]))
	if err != nil && !errors.Is(err, kerr.GroupIDNotFound) {
		r.t.Fatal(err)
	}
	c, _ := committed.Lookup(r.project.Sources[0].Topic, partition)
	p, _ = streams.ParseProgress(c.Metadata)
	return c.At, p
}

// newestBy is the newest time of any of a group's positions by partition of the source.
func (r *rig) newestBy(g *project.Group) map[int32]int64 {
	r.t.Helper()
	newest := map[int32]int64{}
	for p := range r.ends(g.KeyedTopic) {
		at, _, err := r.position(g, p)
		if err != nil {
			r.t.Fatal(err)
		}
		for from, t := range at.SourceTimes {
			newest[from.Partition] = max(newest[from.Partition], t)
		}
	}
	return newest
}

// Under clock: event positions and committed offsets tell how far each partition of the source has come, after a restart as before.
func TestHowFarSourcePartitionsHaveCome(t *testing.T) {
	r := newRig(t)
	r.project.Clock = project.ClockEvent
	r.project.Sources[0].Future = 0
	r.project.Groups = r.project.Groups[:2] // the re-keyed ones: who reads directly has one partition's records only
	lasts := []int64{start + 3_600_000, start + 7_200_000, start}
	expect := func(when string) {
		t.Helper()
		for p, last := range lasts {
			for _, g := range r.project.Groups {
				if got := r.newestBy(g)[int32(p)]; got != last {
					t.Errorf("%s: %s has come to %d in partition %d, want %d", when, g.Name, got, p, last)
				}
			}
		}
	}
	for p, last := range lasts {
		r.visit(int32(p), 10, last)
	}
	stage := r.run(r.stage())
	for p, last := range lasts {
		r.await("what was handed on to be told", func() bool {
			at, told := r.handedOn(int32(p))
			return at == 10 && told == streams.Progress{Next: 10, Newest: last}
		})
	}
	r.await("Redis to be at the end", r.atEnd)
	expect("at first")
	stage.stop(t)

	r.visit(1, 10, lasts[1]+600_000)
	lasts[1] += 600_000
	stage = r.run(r.stage())
	r.await("what was handed on to be told", func() bool {
		_, told := r.handedOn(1)
		return told == streams.Progress{Next: 20, Newest: lasts[1]}
	})
	r.await("Redis to be at the end", r.atEnd)
	expect("after a restart")
	if _, told := r.handedOn(0); told != (streams.Progress{Next: 10, Newest: lasts[0]}) {
		t.Errorf("a worker that had nothing to do tells %+v of partition 0", told)
	}
	stage.stop(t)
}

// By the machine's clock nobody asks for the times: positions are as they were.
func TestNoSourceTimesByWallClock(t *testing.T) {
	r := newRig(t)
	r.visit(0, 10, start)
	stage := r.run(r.stage())
	r.caughtUp()
	stage.stop(t)
	if newest := r.newestBy(r.project.Groups[0]); len(newest) > 0 {
		t.Errorf("positions have times: %v", newest)
	}
}

// What Kafka has not acknowledged has not been handed on, though it has been read.
func TestHandedOnIsWhatKafkaHas(t *testing.T) {
	cluster, r := onFaulty(t)
	r.project.Clock = project.ClockEvent
	r.project.Sources[0].Future = 0
	r.visit(0, 10, start)
	stage := r.run(r.stage())
	r.await("the first to be handed on", func() bool { _, told := r.handedOn(0); return told.Next == 10 })
	r.caughtUp()
	fault := cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Topic: r.project.Groups[0].KeyedTopic, Err: kerr.NotEnoughReplicas, Count: -1})
	r.visit(0, 10, start+3_600_000)
	direct := r.project.Groups[2]
	r.await("the group that reads the source directly to have it", func() bool {
		at, _, err := r.position(direct, 0)
		return err == nil && at.Next == 20
	})
	if _, told := r.handedOn(0); told != (streams.Progress{Next: 10, Newest: start}) {
		t.Errorf("%+v is told to be handed on, which Kafka did not take", told)
	}
	fault.Remove()
	r.await("the rest to be handed on", func() bool {
		_, told := r.handedOn(0)
		return told == streams.Progress{Next: 20, Newest: start + 3_600_000}
	})
	stage.stop(t)
}

// Positions that were stored without times are gone on from: what is applied since has them.
func TestPositionsWithoutTimes(t *testing.T) {
	r := newRig(t)
	r.project.Groups = r.project.Groups[:1]
	r.visit(0, 5, start)
	r.visit(1, 5, start)
	stage := r.run(r.stage())
	r.caughtUp()
	stage.stop(t)
	r.project.Clock = project.ClockEvent
	r.project.Sources[0].Future = 0
	r.visit(1, 5, start+600_000)
	stage = r.run(r.stage())
	r.caughtUp()
	stage.stop(t)
	newest := r.newestBy(r.project.Groups[0])
	if _, known := newest[0]; known || newest[1] != start+600_000 {
		t.Errorf("%v, want partition 1 alone", newest)
	}
	var sources map[online.SourcePartition]int64
	for p := range r.ends(r.project.Groups[0].KeyedTopic) {
		at, _, err := r.position(r.project.Groups[0], p)
		if err != nil {
			t.Fatal(err)
		}
		for from, offset := range at.Sources {
			if sources == nil {
				sources = map[online.SourcePartition]int64{}
			}
			sources[from] = max(sources[from], offset)
		}
	}
	if sources[online.SourcePartition{Source: "trips", Partition: 0}] != 4 || sources[online.SourcePartition{Source: "trips", Partition: 1}] != 9 {
		t.Errorf("offsets are %v", sources)
	}
}
