package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace/millrace/features/online"
	"github.com/millrace/millrace/streams/ingest"
)

// restart has the program compute ENTITIES cards of one event each, ends it, gives every partition one event more, and prints how long after
// the program's start, and after it was assigned the partitions, each has applied it.
func restart(ctx context.Context) error {
	entities, err := number("ENTITIES")
	if err != nil {
		return err
	}
	one, partitions, err := read(ctx, os.Getenv("TOPIC"), 1)
	if err != nil {
		return err
	}
	client, err := kgo.NewClient(kgo.SeedBrokers(os.Getenv("BOOTSTRAP")), kgo.RecordPartitioner(kgo.StickyKeyPartitioner(nil)))
	if err != nil {
		return err
	}
	defer client.Close()
	admin := kadm.NewClient(client)
	p, dir, done, err := alone(ctx, admin, partitions)
	if err != nil {
		return err
	}
	defer done()
	cards := func(from, n int) error {
		card := regexp.MustCompile(`"card":"[^"]*"`)
		for i := from; i < from+n; i++ {
			key := fmt.Sprintf("card-%07d", i)
			client.Produce(ctx, &kgo.Record{Topic: os.Getenv("TOPIC"), Key: []byte(key), Value: card.ReplaceAll(one[0].Value, []byte(`"card":"`+key+`"`))}, nil)
		}
		return client.Flush(ctx)
	}
	if err := cards(0, entities); err != nil {
		return err
	}
	at := follower{admin: admin, topic: os.Getenv("TOPIC"), group: ingest.SourceGroup(p, p.Sources[0])}
	if _, err := together(ctx, dir, 1, at.await); err != nil {
		return err
	}
	if err := cards(entities, 100*partitions); err != nil { // so many that each partition has some
		return err
	}
	redisClient := redis.NewClient(&redis.Options{Addr: os.Getenv("REDIS_ADDR")})
	defer func() { _ = redisClient.Close() }()
	g := p.Groups[0]
	known, err := online.NewVersions(redisClient, p.Name).Load(ctx, g.Name)
	if err != nil {
		return err
	}
	v := known[0].All[known[0].Active]
	reader := online.NewReader(redisClient, p.Name, online.GroupRef{Group: g.Group, Version: v.ID, Partitions: v.Partitions, Partitioner: v.Partitioner})
	before, err := reader.Positions(ctx, 0)
	if err != nil {
		return err
	}
	began := time.Now()
	var assigned, applied time.Duration
	_, err = together(ctx, dir, 1, func(ctx context.Context) error {
		if err := at.joined(ctx); err != nil {
			return err
		}
		assigned = time.Since(began)
		for moved := 0; moved < partitions; {
			now, err := reader.Positions(ctx, 0)
			if err != nil {
				return err
			}
			moved = 0
			for i := range now {
				if now[i].Next > before[i].Next {
					moved++
				}
			}
		}
		applied = time.Since(began)
		return nil
	})
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(map[string]any{
		"bench": "restart", "entities": entities, "partitions": partitions, "assigned_s": rounded(assigned.Seconds()),
		"all_applied_s": rounded(applied.Seconds()), "applied_after_assignment_s": rounded((applied - assigned).Seconds()),
	})
}
