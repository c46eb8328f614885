package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace/millrace/project"
	"github.com/millrace/millrace/streams/ingest"
)

// backfill has the program compute the workload's topic and keep its events, prints "first <epoch ms>", has it compute the group anew from
// the kept events, and runs it until the driver ends it, so that readers are moved to what was computed.
func backfill(ctx context.Context) error {
	dir, err := prepare()
	if err != nil {
		return err
	}
	p, err := project.Load(dir)
	if err != nil {
		return err
	}
	client, err := kgo.NewClient(kgo.SeedBrokers(os.Getenv("BOOTSTRAP")))
	if err != nil {
		return err
	}
	defer client.Close()
	at := follower{admin: kadm.NewClient(client), topic: os.Getenv("TOPIC"), group: ingest.SourceGroup(p, p.Sources[0])}
	if _, err := together(ctx, dir, 1, at.await); err != nil {
		return err
	}
	fmt.Println("first", time.Now().UnixMilli())
	fill := program(ctx, dir, "backfill", p.Groups[0].Name)
	fill.Stdout = os.Stderr
	if err := fill.Run(); err != nil {
		return err
	}
	fmt.Fprintf(os.Stderr, "filled in %s CPU, %d KiB\n", fill.ProcessState.UserTime()+fill.ProcessState.SystemTime(),
		fill.ProcessState.SysUsage().(*syscall.Rusage).Maxrss)
	follow := stream(ctx, dir)
	follow.Stdout = io.Discard
	if err := follow.Run(); ctx.Err() == nil {
		return err
	}
	return nil
}
