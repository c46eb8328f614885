package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/millrace/millrace/enrich"
	"github.com/millrace/millrace/features/online"
	"github.com/millrace/millrace/internal/failure"
	"github.com/millrace/millrace/project"
	"github.com/millrace/millrace/streams/ingest/ingesttest"
)

// testCommand runs feature tests.
type testCommand struct {
	servers  `embed:""`
	Embedded bool     `help:"Run them on the stream role with an embedded Kafka and Redis; --kafka with --redis: on those servers. Without, on the engine alone."`
	Files    []string `arg:"" optional:"" name:"file" help:"Tests that carry their own project, instead of those of the project." type:"path"`
}

func (c *testCommand) Run(ctx context.Context, env *environment) error {
	open, where, closed, err := c.target(ctx, env)
	if err != nil {
		return err
	}
	defer closed()
	results, err := c.results(ctx, open)
	if err != nil {
		return err
	}
	failed := 0
	for _, r := range results {
		if r.Err == nil {
			fmt.Fprintf(env.out, "ok    %s\n", r.File)
			continue
		}
		failed++
		fmt.Fprintf(env.out, "FAIL  %s\n      %s\n", r.File, strings.ReplaceAll(r.Err.Error(), "\n", "\n      "))
	}
	if failed > 0 {
		fmt.Fprintf(env.out, "%d of %d failed on %s\n", failed, len(results), where)
		return exitStatus(1)
	}
	fmt.Fprintf(env.out, "%d passed on %s\n", len(results), where)
	return nil
}

func (c *testCommand) results(ctx context.Context, open project.OpenTarget) ([]project.TestResult, error) {
	if len(c.Files) == 0 {
		p, err := c.load()
		if err != nil {
			return nil, err
		}
		return project.Test(ctx, p.Dir, open)
	}
	var results []project.TestResult
	for _, file := range c.Files {
		results = append(results, project.TestResult{File: file, Err: project.TestFile(ctx, file, open)})
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
	}
	return results, nil
}

// target is what the tests run on, and its name.
func (c *testCommand) target(ctx context.Context, env *environment) (open project.OpenTarget, where string, closed func(), err error) {
	switch {
	case c.Embedded:
		s, end, err := ingesttest.Embedded(ctx, env.log)
		if err != nil {
			return nil, "", nil, err
		}
		s.Tables = enrich.Files
		return s.Open, "an embedded Kafka and Redis", func() {
			if err := end(); err != nil {
				env.log.Error("closing", "err", err)
			}
		}, nil
	case len(c.Kafka) > 0 && len(c.Redis) > 0:
		client, err := online.Open(ctx, c.redisConfig(c.Redis))
		if err != nil {
			return nil, "", nil, err
		}
		s := &ingesttest.Servers{Kafka: c.kafkaConfig(), Redis: client, Log: env.log, Tables: enrich.Files}
		return s.Open, fmt.Sprintf("Kafka %s and Redis %s", c.Kafka[0], c.Redis[0]), func() { _ = client.Close() }, nil
	case len(c.Kafka) > 0 || len(c.Redis) > 0:
		return nil, "", nil, failure.New(failure.BadRequest, "--kafka, --redis", "tests on servers need both").
			WithHint("give both, or --embedded, or neither to test on the engine alone")
	default:
		return project.Engine(enrich.Files), "the engine", func() {}, nil
	}
}
