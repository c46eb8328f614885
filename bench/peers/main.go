// Command peers joins Millrace to the comparison of streaming-feature engines whose driver looks only from outside: the driver starts
// `run`, watches Redis until every entity is there and quiet, and has `export` resolve what was written for its checker.
//
//	peers run     runs the program on a workload's project and prints "first <epoch ms>" at the first event that is applied
//	peers scale   has WORKERS processes compute the whole topic, and prints the CPU time of them all
//	peers latency produces the topic's events again, RATE a second for SECONDS, and prints how long after each its state is in Redis
//	peers restart has it end with ENTITIES cards in Redis, and prints how long after a new start every partition has applied its next event
//	peers backfill has it compute the group anew from the events that it kept, which is what is timed
//	peers export  reads every entity by the path that serving reads by, as of its newest event, and writes the hashes that are checked
//
// Both take what to work on from the environment: BOOTSTRAP, TOPIC, WORKLOAD, GROUP, REDIS_ADDR, RUN_DIR; MILLRACE is the program. With
// MATERIALIZE set, the group is materialized.
package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/millrace/millrace/features/online"
	"github.com/millrace/millrace/project"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	verbs := map[string]func(context.Context) error{"run": run, "scale": scale, "latency": latency, "restart": restart, "backfill": backfill, "export": export}
	if len(os.Args) != 2 || verbs[os.Args[1]] == nil {
		fmt.Fprintln(os.Stderr, "usage: peers run|scale|latency|restart|backfill|export")
		os.Exit(2)
	}
	if err := verbs[os.Args[1]](ctx); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// prepare writes the workload's project into the run's folder, with the driver's topic and a name of this run, so that nothing is
// left of another.
func prepare() (string, error) {
	here, err := os.Executable()
	if err != nil {
		return "", err
	}
	from := filepath.Join(os.Getenv("PROJECTS"), os.Getenv("WORKLOAD"))
	if os.Getenv("PROJECTS") == "" {
		from = filepath.Join(filepath.Dir(here), "..", "bench", "peers", os.Getenv("WORKLOAD"))
	}
	to := filepath.Join(os.Getenv("RUN_DIR"), "project")
	if err := os.MkdirAll(to, 0o755); err != nil {
		return "", err
	}
	files, err := os.ReadDir(from)
	if err != nil {
		return "", err
	}
	for _, f := range files {
		text, err := os.ReadFile(filepath.Join(from, f.Name()))
		if err != nil {
			return "", err
		}
		if f.Name() == "millrace.yaml" {
			name := regexp.MustCompile(`[^a-z0-9]+`).ReplaceAllString(strings.ToLower(os.Getenv("GROUP")), "_")
			text = regexp.MustCompile(`(?m)^project: .*$`).ReplaceAll(text, []byte("project: "+name))
			text = regexp.MustCompile(`(?m)^    topic: .*$`).ReplaceAll(text, []byte("    topic: "+os.Getenv("TOPIC")))
			if os.Getenv("MATERIALIZE") != "" {
				text = regexp.MustCompile(`(?m)^    entity: .*$`).ReplaceAll(text, []byte("$0\n    materialize: true"))
			}
		}
		if err := os.WriteFile(filepath.Join(to, f.Name()), text, 0o644); err != nil {
			return "", err
		}
	}
	return to, nil
}

// stream is the program on the project in dir. It is asked to end when ctx does.
func stream(ctx context.Context, dir string) *exec.Cmd {
	return program(ctx, dir, "stream", "--listen", "127.0.0.1:0")
}

// program is a verb of the program with its arguments, on the project in dir. It is asked to end when ctx does.
func program(ctx context.Context, dir string, args ...string) *exec.Cmd {
	args = append(args, "--project", dir, "--kafka", os.Getenv("BOOTSTRAP"), "--redis", os.Getenv("REDIS_ADDR"),
		"--data-dir", filepath.Join(os.Getenv("RUN_DIR"), "data"))
	cmd := exec.CommandContext(ctx, os.Getenv("MILLRACE"), append(args, strings.Fields(os.Getenv("MILLRACE_FLAGS"))...)...)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.Stderr = os.Stderr
	return cmd
}

func run(ctx context.Context) error {
	dir, err := prepare()
	if err != nil {
		return err
	}
	cmd := stream(ctx, dir)
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	said := bufio.NewReader(out)
	for {
		line, err := said.ReadString('\n')
		if err != nil {
			return errors.Join(errors.New("the program did not say where its endpoint is"), cmd.Wait())
		}
		if _, after, ok := strings.Cut(line, "endpoint "); ok {
			endpoint, _, _ := strings.Cut(after, ",")
			awaitFirst(ctx, strings.TrimSpace(endpoint))
			break
		}
	}
	_, _ = io.Copy(io.Discard, said)
	if err := cmd.Wait(); ctx.Err() == nil {
		return err
	}
	return nil
}

var applied = regexp.MustCompile(`(?m)^millrace_ingest_records_total\{kind="group",.*outcome="applied"\} ([0-9.e+]+)$`)

// awaitFirst prints when the first event is applied, seen at the metrics page to 10 ms.
func awaitFirst(ctx context.Context, endpoint string) {
	for tick := time.NewTicker(10 * time.Millisecond); ; {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		r, err := http.Get(endpoint + "/metrics")
		if err != nil {
			continue
		}
		page, _ := io.ReadAll(r.Body)
		r.Body.Close()
		for _, m := range applied.FindAllSubmatch(page, -1) {
			if n, _ := strconv.ParseFloat(string(m[1]), 64); n > 0 {
				fmt.Println("first", time.Now().UnixMilli())
				return
			}
		}
	}
}

// exportBatch is how many entities are read at once.
const exportBatch = 1000

func export(ctx context.Context) error {
	p, err := project.Load(filepath.Join(os.Getenv("RUN_DIR"), "project"))
	if err != nil {
		return err
	}
	client := redis.NewClient(&redis.Options{Addr: os.Getenv("REDIS_ADDR")})
	defer func() { _ = client.Close() }()
	g := p.Groups[0]
	known, err := online.NewVersions(client, p.Name).Load(ctx, g.Name)
	if err != nil {
		return err
	}
	version := known[0].All[known[0].Active]
	owner := online.Owner(p.Name, g.Name, version.ID)
	reader := online.NewReader(client, p.Name, online.GroupRef{Group: g.Group, Version: version.ID, Partitions: version.Partitions, Partitioner: version.Partitioner})
	var refs []online.Ref
	flush := func() error {
		entries, err := reader.Get(ctx, refs)
		if err != nil {
			return err
		}
		pipe := client.Pipeline()
		for i, entry := range entries {
			e, err := g.Decode(entry.State)
			if err != nil {
				return fmt.Errorf("entity %q: %w", refs[i].Key, err)
			}
			var fields []any
			for o, r := range g.Read(e, e.Newest()+1, nil) {
				if v, ok := r.Value.Float(); ok {
					fields = append(fields, g.Outputs[o].Name, v)
				}
			}
			pipe.HSet(ctx, os.Getenv("WORKLOAD")+":"+refs[i].Key, fields...)
		}
		refs = refs[:0]
		_, err = pipe.Exec(ctx)
		return err
	}
	keys := client.Scan(ctx, 0, "mr:{"+owner+"*", 10_000).Iterator()
	for keys.Next(ctx) {
		if _, key, ok := strings.Cut(keys.Val(), "}:e:"); ok {
			refs = append(refs, online.Ref{Key: key})
		}
		if len(refs) == exportBatch {
			if err := flush(); err != nil {
				return err
			}
		}
	}
	if err := keys.Err(); err != nil || len(refs) == 0 {
		return err
	}
	return flush()
}
