package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"syscall"
	"time"
)

// backfill has the program compute the workload's topic and keep its events, prints "first <epoch ms>", has it compute the group anew from
// the kept events, and runs it until the driver ends it, so that readers are moved to what was computed.
func backfill(ctx context.Context) error {
	dir, p, at, err := follow()
	if err != nil {
		return err
	}
	defer at.admin.Close()
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
	readers := stream(ctx, dir)
	readers.Stdout = io.Discard
	if err := readers.Run(); ctx.Err() == nil {
		return err
	}
	return nil
}
