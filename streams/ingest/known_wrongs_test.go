package ingest

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"

	"github.com/redis/go-redis/v9"

	"github.com/millrace/millrace/features/online"
)

// The tests here are of what other engines are known to get wrong, where it takes a fault or a second reader to show it. docs/correctness.md lists
// them all, with those that are scripts.

// TestNotFromLatest starts on a topic that has records, and again when more have come and Kafka knows no offset any more. Feast's Spark processor starts
// from the latest offset (spark_kafka_processor.py, f0bc070), and so does Chronon's streaming job after a restart (airbnb/chronon#1143, #1146):
// what came meanwhile is missing until the next batch.
func TestNotFromLatest(t *testing.T) {
	r := newRig(t)
	r.produce(r.trips(80, 300))
	g := r.run(r.stage())
	r.caughtUp()
	g.stop(t)
	r.produce(r.trips(81, 300))
	r.forgetAll()
	r.finish()
}

// failing makes one write of states fail, without it or its answer getting through.
type failing struct {
	left       atomic.Int64 // writes until then
	unanswered bool         // it gets to Redis, and the answer is lost
}

func (f *failing) DialHook(next redis.DialHook) redis.DialHook { return next }

func (f *failing) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		if cmd.Name() != "evalsha" || f.left.Add(-1) != 0 {
			return next(ctx, cmd)
		}
		if f.unanswered {
			_ = next(ctx, cmd)
		}
		err := errors.New("the test broke one write")
		cmd.SetErr(err)
		return err
	}
}

func (f *failing) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}

// TestNoWriteIsSkipped has a single write fail, each of the last there are in turn, so that no later event of the same entities could cover it up.
// Chronon's Flink job counts a write that failed or took more than a second, and goes on without it (AsyncKVStoreWriter.scala, airbnb/chronon 5edd4fc).
func TestNoWriteIsSkipped(t *testing.T) {
	for name, unanswered := range map[string]bool{"unsent": false, "unanswered": true} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			client := r.connect(r.redis.(*redis.Client).Options().Addr)
			fault := &failing{unanswered: unanswered}
			client.AddHook(fault)
			g := r.run(r.stage(func(_ *Config, d *Deps) { d.Redis = client }))
			for round := range uint64(5) {
				fault.left.Store(int64(round + 1))
				r.produce(r.trips(82+round, 60))
				r.caughtUp()
			}
			g.stop(t)
			if counterSum(t, g.Stage, "millrace_ingest_restarts_total") == 0 {
				t.Error("no write failed")
			}
			r.check()
		})
	}
}

// TestReadersSeeWholeStates reads an entity all the time while it is written: what counts for ever never becomes less, and what was found stays found.
// Zipline's Redis store removes a tile and adds it again in two round trips, so that a reader between them finds it missing; a third sets its expiry
// (sardine-ai/zipline-chronon eab4965).
func TestReadersSeeWholeStates(t *testing.T) {
	r := newRig(t)
	g := r.run(r.stage())
	cities := r.project.Groups[0]
	reader := online.NewReader(r.redis, r.project.Name, online.GroupRef{Group: cities.Group, Partitions: sourcePartitions})
	n := cities.Output("n")
	most, reads := 0.0, 0
	read := func() {
		entries, err := reader.Get(t.Context(), []online.Ref{{Key: "city-0-1"}})
		if err != nil {
			t.Fatal(err)
		}
		reads++
		if entries[0].State == nil {
			if most > 0 {
				t.Fatalf("read %d finds nothing of an entity that had %v events", reads, most)
			}
			return
		}
		e, err := cities.Decode(entries[0].State)
		if err != nil {
			t.Fatal(err)
		}
		now, _ := cities.Read(e, e.Newest()+1, nil)[n].Value.Float()
		if now < most {
			t.Fatalf("read %d has %v events, %v before", reads, now, most)
		}
		most = now
	}
	for round := uint64(0); most < 50 || reads < 100; round++ { // as many as the machine's speed needs
		r.produce(r.trips(90+round, 400))
		r.await("everything to be in Redis", func() bool {
			read()
			return r.rekeyed() >= r.total() && r.atEnd()
		})
	}
	read()
	g.stop(t)
	r.check()
}
