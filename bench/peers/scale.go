package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace/millrace/project"
	"github.com/millrace/millrace/streams/ingest"
)

// scale has WORKERS processes compute the workload's topic from its start to its end, and prints the CPU time of them all.
func scale(ctx context.Context) error {
	workers, err := strconv.Atoi(os.Getenv("WORKERS"))
	if err != nil || workers < 1 {
		return fmt.Errorf("WORKERS is %q: say how many processes", os.Getenv("WORKERS"))
	}
	dir, _, at, err := follow()
	if err != nil {
		return err
	}
	defer at.admin.Close()

	began := time.Now()
	cpu, err := together(ctx, dir, workers, at.await)
	if err != nil {
		return err
	}
	events, err := at.end(ctx)
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(map[string]any{
		"bench": "scale", "workload": os.Getenv("WORKLOAD"), "workers": workers, "events": events,
		"seconds": rounded(time.Since(began).Seconds()), "cpu_s_per_m": rounded(cpu / float64(events) * 1e6),
	})
}

// follow prepares the workload's project, and gives its folder and who sees how far its source has come.
func follow() (dir string, p *project.Project, at follower, err error) {
	if dir, err = prepare(); err != nil {
		return "", nil, follower{}, err
	}
	if p, err = project.Load(dir); err != nil {
		return "", nil, follower{}, err
	}
	client, err := kgo.NewClient(kgo.SeedBrokers(os.Getenv("BOOTSTRAP")))
	if err != nil {
		return "", nil, follower{}, err
	}
	return dir, p, follower{admin: kadm.NewClient(client), topic: os.Getenv("TOPIC"), group: ingest.SourceGroup(p, p.Sources[0])}, nil
}

func rounded(x float64) float64 { return float64(int(x*100+0.5)) / 100 }

// together runs so many processes until fn returns, ends them gently, and is the CPU seconds that they took in all.
func together(ctx context.Context, dir string, n int, fn func(context.Context) error) (cpu float64, err error) {
	var all []*exec.Cmd
	for range n {
		cmd := stream(ctx, dir)
		out, failed := cmd.StdoutPipe()
		if failed == nil {
			failed = cmd.Start()
		}
		if failed != nil {
			err = failed
			break
		}
		go func() { _, _ = io.Copy(io.Discard, out) }()
		all = append(all, cmd)
	}
	if err == nil {
		err = fn(ctx)
	}
	for _, cmd := range all {
		err = errors.Join(err, cmd.Process.Signal(syscall.SIGTERM), cmd.Wait())
		cpu += (cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()).Seconds()
	}
	return cpu, err
}

// follower sees how far a consumer group has come.
type follower struct {
	admin        *kadm.Client
	topic, group string
}

func (f *follower) end(ctx context.Context) (sum int64, err error) {
	ends, err := f.admin.ListEndOffsets(ctx, f.topic)
	ends.Each(func(o kadm.ListedOffset) { sum += o.Offset })
	return sum, err
}

// done reports whether what is committed is the end of every partition.
func (f *follower) done(ctx context.Context) (bool, error) {
	ends, err := f.admin.ListEndOffsets(ctx, f.topic)
	if err != nil {
		return false, err
	}
	committed, err := f.admin.FetchOffsets(ctx, f.group)
	if err != nil {
		return false, nil // there is no such group yet
	}
	done := true
	ends.Each(func(o kadm.ListedOffset) {
		c, ok := committed.Lookup(o.Topic, o.Partition)
		done = done && ok && c.At == o.Offset
	})
	return done, nil
}

// joined waits until the group has a member.
func (f *follower) joined(ctx context.Context) error {
	for tick := time.NewTicker(20 * time.Millisecond); ; {
		described, err := f.admin.DescribeGroups(ctx, f.group)
		if err == nil && described[f.group].State == "Stable" {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

func (f *follower) await(ctx context.Context) error {
	for tick := time.NewTicker(20 * time.Millisecond); ; {
		if done, err := f.done(ctx); done || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}
