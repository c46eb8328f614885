package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace/millrace/features/online"
	"github.com/millrace/millrace/project"
	"github.com/millrace/millrace/streams/ingest"
)

const (
	produceEvery = time.Millisecond     // between two lots of a paced producer
	lookEvery    = 2 * time.Millisecond // between two looks at the positions in Redis: what is measured is so much too long at most
	warmUp       = 5 * time.Second      // of the load, not counted
)

// latency produces the workload's events again at a steady RATE a second, for SECONDS, and prints how long after each was to be sent its
// state was in Redis: seen from outside, at the positions that states are written with.
func latency(ctx context.Context) error {
	rate, err := number("RATE")
	if err != nil {
		return err
	}
	seconds, err := number("SECONDS")
	if err != nil {
		return err
	}
	client, err := kgo.NewClient(kgo.SeedBrokers(os.Getenv("BOOTSTRAP")), kgo.ProducerLinger(produceEvery), kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.ProducerBatchCompression(kgo.Lz4Compression()), kgo.MaxBufferedRecords(rate))
	if err != nil {
		return err
	}
	defer client.Close()
	load, partitions, err := read(ctx, os.Getenv("TOPIC"), rate*seconds)
	if err != nil {
		return err
	}
	admin := kadm.NewClient(client)
	p, dir, done, err := alone(ctx, admin, partitions)
	if err != nil {
		return err
	}
	defer done()
	var seen []float64
	cpu, err := together(ctx, dir, 1, func(ctx context.Context) error {
		at := follower{admin: admin, topic: os.Getenv("TOPIC"), group: ingest.SourceGroup(p, p.Sources[0])}
		if err := at.joined(ctx); err != nil {
			return err
		}
		seen, err = sendAndWatch(ctx, client, p, load, partitions, rate)
		return err
	})
	if err != nil {
		return err
	}
	slices.Sort(seen)
	quantile := func(q float64) float64 { return rounded(seen[int(q*float64(len(seen)-1))]) }
	return json.NewEncoder(os.Stdout).Encode(map[string]any{
		"bench": "event_to_readable", "workload": os.Getenv("WORKLOAD"), "events_per_s": rate, "events": len(seen), "p50_ms": quantile(0.5),
		"p90_ms": quantile(0.9), "p99_ms": quantile(0.99), "max_ms": quantile(1), "cpu_s_per_m": rounded(cpu / float64(len(load)) * 1e6),
	})
}

// alone prepares the workload's project on a topic of this run alone, which done deletes.
func alone(ctx context.Context, admin *kadm.Client, partitions int) (p *project.Project, dir string, done func(), err error) {
	topic := os.Getenv("TOPIC") + "-" + os.Getenv("GROUP")
	if _, err := admin.CreateTopic(ctx, int32(partitions), 1, nil, topic); err != nil {
		return nil, "", nil, fmt.Errorf("creating topic %s: %w", topic, err)
	}
	done = func() { _, _ = admin.DeleteTopics(context.WithoutCancel(ctx), topic) }
	if err = os.Setenv("TOPIC", topic); err == nil {
		if dir, err = prepare(); err == nil {
			p, err = project.Load(dir)
		}
	}
	if err != nil {
		done()
	}
	return p, dir, done, err
}

func number(variable string) (int, error) {
	n, err := strconv.Atoi(os.Getenv(variable))
	if err != nil || n < 1 {
		return 0, fmt.Errorf("%s is %q: say a number above 0", variable, os.Getenv(variable))
	}
	return n, nil
}

// read takes a topic's first n records in the order of their timestamps, as records of no topic yet.
func read(ctx context.Context, topic string, n int) (load []*kgo.Record, partitions int, err error) {
	client, err := kgo.NewClient(kgo.SeedBrokers(os.Getenv("BOOTSTRAP")), kgo.ConsumeTopics(topic))
	if err != nil {
		return nil, 0, err
	}
	defer client.Close()
	ends, err := kadm.NewClient(client).ListEndOffsets(ctx, topic)
	if err != nil {
		return nil, 0, err
	}
	left := 0
	ends.Each(func(o kadm.ListedOffset) { left += int(o.Offset); partitions++ })
	for left > 0 {
		fetched := client.PollFetches(ctx)
		if err := fetched.Err0(); err != nil {
			return nil, 0, err
		}
		fetched.EachRecord(func(r *kgo.Record) {
			load = append(load, &kgo.Record{Key: r.Key, Value: r.Value, Timestamp: r.Timestamp, Partition: r.Partition})
			left--
		})
	}
	slices.SortStableFunc(load, func(a, b *kgo.Record) int { return a.Timestamp.Compare(b.Timestamp) })
	return slices.Clone(load[:min(n, len(load))]), partitions, nil
}

// sendAndWatch sends the load at a steady rate and gives for each event after the warm-up the milliseconds from when it was to be sent
// until Redis had its state.
func sendAndWatch(ctx context.Context, client *kgo.Client, p *project.Project, load []*kgo.Record, partitions, rate int) ([]float64, error) {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	due := make([][]time.Time, partitions) // by partition and offset: its records are sent in order, into an empty topic
	began := time.Now().Add(100 * time.Millisecond)
	for i, r := range load {
		r.Topic = os.Getenv("TOPIC")
		due[r.Partition] = append(due[r.Partition], began.Add(time.Duration(float64(i)/float64(rate)*float64(time.Second))))
	}
	runtime.GC()
	defer debug.SetGCPercent(debug.SetGCPercent(-1)) // the load lives on all the time: to mark it again and again would take the processors from who is measured
	go func() {
		for i := 0; i < len(load) && ctx.Err() == nil; {
			for ready := int(time.Since(began).Seconds() * float64(rate)); i < min(ready, len(load)); i++ {
				client.Produce(ctx, load[i], func(_ *kgo.Record, err error) {
					if err != nil {
						stop(err)
					}
				})
			}
			time.Sleep(produceEvery)
		}
	}()

	redisClient := redis.NewClient(&redis.Options{Addr: os.Getenv("REDIS_ADDR")})
	defer func() { _ = redisClient.Close() }()
	g := p.Groups[0]
	versions := online.NewVersions(redisClient, p.Name)
	var reader *online.Reader
	next := make([]int, partitions)
	seen := make([]float64, 0, len(load))
	for done := 0; done < len(load); {
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-time.After(lookEvery):
		}
		if reader == nil {
			known, err := versions.Load(ctx, g.Name)
			if err != nil || known[0].Active == "" {
				continue // the role has not said yet what it writes
			}
			v := known[0].All[known[0].Active]
			reader = online.NewReader(redisClient, p.Name, online.GroupRef{Group: g.Group, Version: v.ID, Partitions: v.Partitions, Partitioner: v.Partitioner})
		}
		positions, err := reader.Positions(ctx, 0)
		if err != nil {
			return nil, err
		}
		now := time.Now()
		for i, at := range positions {
			for ; next[i] < int(at.Next); next[i]++ {
				done++
				if d := due[i][next[i]]; d.Sub(began) >= warmUp {
					seen = append(seen, float64(now.Sub(d).Microseconds())/1000)
				}
			}
		}
	}
	return seen, nil
}
