package ingesttest

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"

	"github.com/redis/go-redis/v9"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace/millrace/features/online"
	"github.com/millrace/millrace/features/script"
	"github.com/millrace/millrace/internal/failure"
	"github.com/millrace/millrace/project"
	"github.com/millrace/millrace/streams"
	"github.com/millrace/millrace/streams/broker"
)

// Servers is what tests run on.
type Servers struct {
	Kafka streams.Config
	Redis redis.UniversalClient
	Log   *slog.Logger

	Tables project.LoadTables // nil: tables are empty before a test
}

// Embedded starts a Kafka and a Redis in this process, which keep nothing. closed ends them.
func Embedded(ctx context.Context, log *slog.Logger) (s *Servers, closed func() error, err error) {
	kafka, err := broker.Start("", 0)
	if err != nil {
		return nil, nil, err
	}
	server, err := online.StartEmbedded("")
	if err != nil {
		kafka.Close()
		return nil, nil, err
	}
	client, err := online.Open(ctx, online.Config{Addrs: []string{server.Addr()}})
	if err != nil {
		kafka.Close()
		return nil, nil, errors.Join(err, server.Close())
	}
	s = &Servers{Kafka: streams.Config{Brokers: []string{kafka.Addr()}, Compression: "none"}, Redis: client, Log: log}
	return s, func() error {
		err := errors.Join(client.Close(), server.Close())
		kafka.Close()
		return err
	}, nil
}

// Open starts the stage on the project in a folder. It is a project.OpenTarget.
func (s *Servers) Open(ctx context.Context, dir string) (_ script.Target, closed func() error, err error) {
	p, err := project.LoadIsolated(dir, fmt.Sprintf("_test_%08x", rand.Uint32()))
	if err != nil {
		return nil, nil, err
	}
	client, err := streams.NewClient(s.Kafka, kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err != nil {
		return nil, nil, err
	}
	remove := func() error { // not by ctx: what is to be removed must be so when the test was stopped, too
		err := s.remove(context.WithoutCancel(ctx), client, p)
		client.Close()
		return err
	}
	t, err := s.start(ctx, client, p)
	if err != nil {
		return nil, nil, errors.Join(err, remove())
	}
	return t, func() error { return errors.Join(t.stop(), remove()) }, nil
}

// remove deletes the project's topics, consumer groups and keys in Redis.
func (s *Servers) remove(ctx context.Context, client *kgo.Client, p *project.Project) error {
	admin := kadm.NewClient(client)
	var topics []string
	for _, t := range p.Topology() {
		topics = append(topics, t.Name)
	}
	deleted, err := admin.DeleteTopics(ctx, topics...)
	if err != nil {
		return failure.Wrap(failure.Unavailable, p.Name, "deleting the test's topics", err)
	}
	_ = deleted // a topic that is not there was never made
	listed, err := admin.ListGroups(ctx)
	if err != nil {
		return failure.Wrap(failure.Unavailable, p.Name, "listing consumer groups", err)
	}
	for _, g := range listed.Groups() {
		if len(g) > len(p.Name) && g[:len(p.Name)+1] == p.Name+"." {
			if _, err := admin.DeleteGroups(ctx, g); err != nil {
				return failure.Wrap(failure.Unavailable, g, "deleting the test's consumer group", err)
			}
		}
	}
	return s.removeKeys(ctx, p.Name)
}

// removeKeys deletes every key of a project: those of its partitions and those of its groups.
func (s *Servers) removeKeys(ctx context.Context, name string) error {
	onNode := func(ctx context.Context, node redis.UniversalClient) error {
		for _, pattern := range []string{"mr:{" + name + ".*", "mr:" + name + ".*"} {
			keys := node.Scan(ctx, 0, pattern, 1000).Iterator()
			for keys.Next(ctx) {
				if err := s.Redis.Del(ctx, keys.Val()).Err(); err != nil {
					return err
				}
			}
			if err := keys.Err(); err != nil {
				return err
			}
		}
		return nil
	}
	var err error
	if cluster, ok := s.Redis.(*redis.ClusterClient); ok {
		err = cluster.ForEachMaster(ctx, func(ctx context.Context, node *redis.Client) error { return onNode(ctx, node) })
	} else {
		err = onNode(ctx, s.Redis)
	}
	if err != nil {
		return failure.Wrap(failure.Unavailable, name, "deleting the test's keys in Redis", err)
	}
	return nil
}
