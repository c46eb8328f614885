// Command flights measures the flights stream on a real Kafka and Redis, from outside: it starts the program's roles as
// processes, produces to Kafka, watches consumer groups, Redis and the scoring endpoint, and reads CPU time from /proc.
//
// It deletes the project's topics, its consumer groups and everything in Redis: give it servers of its own. It prints one
// JSON line for each thing measured.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace/millrace/examples/flights"
	"github.com/millrace/millrace/features"
	"github.com/millrace/millrace/features/online"
	"github.com/millrace/millrace/project"
	"github.com/millrace/millrace/streams"
)

func main() {
	b := bench{}
	flag.StringVar(&b.binary, "millrace", "bin/millrace", "the program")
	flag.StringVar(&b.dir, "project", "examples/flights", "the flights project")
	flag.StringVar(&b.data, "data", "", "flights file; the committed sample by default")
	flag.StringVar(&b.kafka, "kafka", os.Getenv("MILLRACE_TEST_KAFKA"), "Kafka")
	flag.StringVar(&b.redisAddr, "redis", os.Getenv("MILLRACE_TEST_REDIS"), "Redis")
	flag.IntVar(&b.events, "events", 1_000_000, "events of the throughput run")
	flag.IntVar(&b.rate, "rate", 0, "events per second of the latency run; 0 is half of the throughput measured")
	flag.IntVar(&b.scores, "scores", 500, "requests per second of the scoring run")
	flag.DurationVar(&b.span, "span", 20*time.Second, "length of each latency run")
	flag.Parse()
	if err := b.run(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

type bench struct {
	binary, dir, data, kafka, redisAddr string
	events, rate, scores                int
	span                                time.Duration

	project  *project.Project
	client   *kgo.Client
	admin    *kadm.Client
	redis    redis.UniversalClient
	recorder *flights.Recorder
	work     string
	all      []flights.Event
}

func (b *bench) run(ctx context.Context) (err error) {
	if b.kafka == "" || b.redisAddr == "" {
		return errors.New("no servers: set MILLRACE_TEST_KAFKA and MILLRACE_TEST_REDIS")
	}
	if b.project, err = project.Load(b.dir); err != nil {
		return err
	}
	if b.data == "" {
		b.data = filepath.Join(b.dir, flights.Sample)
	}
	if b.work, err = os.MkdirTemp("", "millrace-bench-"); err != nil {
		return err
	}
	defer os.RemoveAll(b.work)
	if b.client, err = streams.NewClient(streams.Config{Brokers: []string{b.kafka}}); err != nil {
		return err
	}
	defer b.client.Close()
	b.admin = kadm.NewClient(b.client)
	if b.redis, err = online.Open(ctx, online.Config{Addrs: []string{b.redisAddr}}); err != nil {
		return err
	}
	defer func() { _ = b.redis.Close() }()
	if b.recorder, err = flights.NewRecorder(b.project.Source(flights.Departures).Schema, b.project.Source(flights.Arrivals).Schema); err != nil {
		return err
	}
	for e, err := range flights.Events(flights.Read(ctx, b.data, 0, 0)) {
		if err != nil {
			return err
		}
		if b.all = append(b.all, e); len(b.all) == b.events {
			break
		}
	}
	if err := b.clean(ctx); err != nil {
		return err
	}
	rate, err := b.throughput(ctx)
	if err != nil {
		return fmt.Errorf("throughput: %w", err)
	}
	if b.rate == 0 {
		b.rate = int(rate / 2)
	}
	if err := b.freshness(ctx); err != nil {
		return fmt.Errorf("event to readable: %w", err)
	}
	if err := b.scoring(ctx); err != nil {
		return fmt.Errorf("scoring: %w", err)
	}
	return nil
}

func printLine(v map[string]any) error {
	v["cores"], v["go"] = runtime.NumCPU(), runtime.Version()
	return json.NewEncoder(os.Stdout).Encode(v)
}

// clean removes what an earlier run has left and creates the topics.
func (b *bench) clean(ctx context.Context) error {
	var names []string
	for _, t := range b.project.Topology() {
		names = append(names, t.Name)
	}
	if _, err := b.admin.DeleteTopics(ctx, names...); err != nil {
		return err
	}
	groups, err := b.admin.ListGroups(ctx)
	if err != nil {
		return err
	}
	for _, g := range groups.Groups() {
		if strings.HasPrefix(g, b.project.Name+".") {
			if _, err := b.admin.DeleteGroups(ctx, g); err != nil {
				return err
			}
		}
	}
	if err := b.redis.FlushAll(ctx).Err(); err != nil {
		return err
	}
	return await(ctx, time.Minute, func() (bool, error) { // deleting is not done when it is acknowledged
		err := streams.EnsureTopics(ctx, b.client, b.project.Topology())
		return err == nil, nil
	})
}

// process is a role that runs.
type process struct {
	cmd      *exec.Cmd
	endpoint string
	stderr   bytes.Buffer
}

func (b *bench) start(args ...string) (*process, error) {
	p := &process{}
	args = append(args, "--project", b.dir, "--kafka", b.kafka, "--redis", b.redisAddr, "--data-dir", b.work, "--listen", "127.0.0.1:0")
	p.cmd = exec.Command(b.binary, args...)
	p.cmd.Stderr = &p.stderr
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	first := make([]byte, 4096)
	n, err := out.Read(first)
	if err != nil {
		return nil, fmt.Errorf("starting %v: %w: %s", args, err, p.stderr.String())
	}
	if _, after, ok := strings.Cut(string(first[:n]), "endpoint "); ok {
		p.endpoint, _, _ = strings.Cut(after, ",")
	}
	go func() { _, _ = io.Copy(io.Discard, out) }()
	return p, nil
}

func (p *process) stop() error {
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	if err := p.cmd.Wait(); err != nil {
		return fmt.Errorf("%w: %s", err, p.stderr.String())
	}
	return nil
}

// cpu is the seconds of user and system time, rss the resident MiB.
func (p *process) cpu() float64 {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.cmd.Process.Pid))
	if err != nil {
		return 0
	}
	fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
	user, _ := strconv.ParseFloat(fields[11], 64)
	system, _ := strconv.ParseFloat(fields[12], 64)
	return (user + system) / 100
}

func (p *process) peakMiB() float64 {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			kb, _ := strconv.ParseFloat(strings.Fields(rest)[0], 64)
			return kb / 1024
		}
	}
	return 0
}

func (b *bench) produce(ctx context.Context, events []flights.Event, eventsPerSecond int) error {
	started := time.Now()
	var failed atomic.Pointer[error]
	for i, e := range events {
		r, err := b.recorder.Record(ctx, e)
		if err != nil {
			return err
		}
		r.Topic = b.project.Source(e.Topic).Topic
		b.client.Produce(ctx, r, func(_ *kgo.Record, err error) {
			if err != nil {
				failed.Store(&err)
			}
		})
		if eventsPerSecond > 0 && i%100 == 99 {
			due := started.Add(time.Duration(float64(i+1) / float64(eventsPerSecond) * float64(time.Second)))
			time.Sleep(time.Until(due))
		}
	}
	if err := b.client.Flush(ctx); err != nil {
		return err
	}
	if err := failed.Load(); err != nil {
		return *err
	}
	return nil
}

// unread is how many records the stream role has still to do.
func (b *bench) unread(ctx context.Context) (int64, error) {
	var left int64
	count := func(group, topic string) error {
		ends, err := b.admin.ListEndOffsets(ctx, topic)
		if err != nil {
			return err
		}
		committed, err := b.admin.FetchOffsets(ctx, group)
		if err != nil {
			return err
		}
		ends.Each(func(end kadm.ListedOffset) {
			at, _ := committed.Lookup(topic, end.Partition)
			left += max(end.Offset-max(at.At, 0), 0)
		})
		return nil
	}
	for _, s := range b.project.Sources {
		if err := count(b.project.Name+".source."+s.Name, s.Topic); err != nil {
			return 0, err
		}
	}
	for _, g := range b.project.Groups {
		if err := count(b.project.Name+".group."+g.Name+"@"+g.Version, g.KeyedTopic); err != nil {
			return 0, err
		}
	}
	return left, nil
}

// throughput lets the stream role catch up with everything, produced beforehand. It returns events per second.
func (b *bench) throughput(ctx context.Context) (float64, error) {
	if err := b.produce(ctx, b.all, 0); err != nil {
		return 0, err
	}
	p, err := b.start("stream")
	if err != nil {
		return 0, err
	}
	started := time.Now()
	err = await(ctx, 10*time.Minute, func() (bool, error) {
		left, err := b.unread(ctx)
		return err == nil && left == 0, nil // a new Kafka has no coordinator at first
	})
	seconds, cpu, rss := time.Since(started).Seconds(), p.cpu(), p.peakMiB()
	if err := errors.Join(err, p.stop()); err != nil {
		return 0, err
	}
	rate := float64(len(b.all)) / seconds
	return rate, printLine(map[string]any{
		"bench": "throughput", "events": len(b.all), "seconds": round(seconds), "events_per_s": round(rate),
		"cpu_s_per_m_events": round(cpu / float64(len(b.all)) * 1e6), "rss_mib": round(rss), "entities": b.entities(ctx),
	})
}

func (b *bench) entities(ctx context.Context) int64 {
	n, err := b.redis.DBSize(ctx).Result()
	if err != nil {
		return -1
	}
	return n
}

// freshness produces at a stated rate and, beside that load, an arrival of an airport of its own now and then; it measures
// the time from its acknowledgement by Kafka until Redis has it.
func (b *bench) freshness(ctx context.Context) error {
	p, err := b.start("stream")
	if err != nil {
		return err
	}
	shift := b.all[len(b.all)-1].Time - b.all[0].Time + time.Hour.Milliseconds() // the load goes on in time
	n := min(int(b.span.Seconds()*float64(b.rate)), len(b.all))
	load := slices.Clone(b.all[:n])
	for i := range load {
		load[i].Time += shift
		load[i].Flight.Scheduled += shift
	}
	loading, stop := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- b.produce(loading, load, b.rate) }()
	latencies, err := b.probe(ctx, load[0].Time, done)
	stop()
	cpu := p.cpu()
	if err := errors.Join(err, p.stop()); err != nil {
		return err
	}
	return printLine(map[string]any{
		"bench": "event_to_readable", "events_per_s": b.rate, "probes": len(latencies), "p50_ms": quantile(latencies, 0.5),
		"p99_ms": quantile(latencies, 0.99), "max_ms": quantile(latencies, 1), "cpu_s": round(cpu),
	})
}

// probeEvery is the pause between two probes.
const probeEvery = 100 * time.Millisecond

func (b *bench) probe(ctx context.Context, from int64, done <-chan error) ([]float64, error) {
	group := b.project.Group("origin_delays")
	partitions := int32(8)
	for _, t := range b.project.Topology() {
		if t.Name == group.KeyedTopic {
			partitions = t.Partitions
		}
	}
	reader := online.NewReader(b.redis, b.project.Name, online.GroupRef{Group: group.Group, Partitions: partitions})
	var latencies []float64
	for i := 0; ; i++ {
		select {
		case err := <-done:
			return latencies, err
		case <-time.After(probeEvery):
		}
		f := flights.Flight{ID: fmt.Sprintf("probe-%d", i), Scheduled: from + int64(i)*60_000, Origin: "QQQ", Destination: "QQR", Distance: 800, Delay: 1}
		r, err := b.recorder.Record(ctx, flights.Event{Topic: flights.Arrivals, Time: f.Arrived(), Flight: f})
		if err != nil {
			return nil, err
		}
		r.Topic = b.project.Source(flights.Arrivals).Topic
		if err := b.client.ProduceSync(ctx, r).FirstErr(); err != nil {
			return nil, err
		}
		acknowledged := time.Now()
		err = await(ctx, time.Minute, func() (bool, error) {
			entries, err := reader.Get(ctx, []online.Ref{{Group: 0, Key: "QQQ"}})
			if err != nil || entries[0].State == nil {
				return false, err
			}
			var e *features.Entity
			e, err = group.Decode(entries[0].State)
			return err == nil && e.Newest() >= f.Arrived(), err
		})
		if err != nil {
			return nil, err
		}
		latencies = append(latencies, float64(time.Since(acknowledged).Microseconds())/1000)
	}
}

// scoring trains a model on what the stream role wrote, serves it, and asks at a stated rate, whether or not answers have
// come (an open loop: a slow answer does not hold back the next question).
func (b *bench) scoring(ctx context.Context) error {
	train := exec.Command(b.binary, "train", "--once", "--project", b.dir, "--kafka", b.kafka, "--redis", b.redisAddr, "--data-dir", b.work)
	train.Stderr = os.Stderr
	if err := train.Run(); err != nil {
		return fmt.Errorf("training: %w", err)
	}
	p, err := b.start("serve")
	if err != nil {
		return err
	}
	url := p.endpoint + "/v1/models/" + b.project.Models[0].Name + ":score"
	client := &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: 256}}
	if err := await(ctx, time.Minute, func() (bool, error) {
		resp, err := client.Get(p.endpoint + "/readyz")
		if err != nil {
			return false, err
		}
		defer resp.Body.Close()
		return resp.StatusCode == http.StatusOK, nil
	}); err != nil {
		return err
	}
	var departures []flights.Flight
	for _, e := range b.all[max(0, len(b.all)-20_000):] {
		if e.Topic == flights.Departures {
			departures = append(departures, e.Flight)
		}
	}
	// The serve role scores the departures topic too; its CPU is not that of the requests.
	if err := b.awaitQuiet(ctx, p); err != nil {
		return err
	}
	b.ask(ctx, client, url, departures) // warms up
	before := p.cpu()
	started := time.Now()
	latencies, failed := b.ask(ctx, client, url, departures)
	seconds, cpu := time.Since(started).Seconds(), p.cpu()-before
	rss := p.peakMiB()
	if err := p.stop(); err != nil {
		return err
	}
	return printLine(map[string]any{
		"bench": "score", "requests_per_s": round(float64(len(latencies)+failed) / seconds), "requests": len(latencies), "failed": failed,
		"p50_ms": quantile(latencies, 0.5), "p99_ms": quantile(latencies, 0.99), "max_ms": quantile(latencies, 1),
		"cpu_us_per_request": round(cpu / float64(max(len(latencies), 1)) * 1e6), "rss_mib": round(rss),
	})
}

// awaitQuiet waits until the process uses next to no CPU.
func (b *bench) awaitQuiet(ctx context.Context, p *process) error {
	last := p.cpu()
	return await(ctx, 5*time.Minute, func() (bool, error) {
		time.Sleep(2 * time.Second)
		now := p.cpu()
		quiet := now-last < 0.1
		last = now
		return quiet, nil
	})
}

func (b *bench) ask(ctx context.Context, client *http.Client, url string, departures []flights.Flight) (latencies []float64, failed int) {
	var mu sync.Mutex
	var wg sync.WaitGroup
	n := int(b.span.Seconds() * float64(b.scores))
	started := time.Now()
	for i := range n {
		due := started.Add(time.Duration(float64(i) / float64(b.scores) * float64(time.Second)))
		time.Sleep(time.Until(due))
		f := departures[i%len(departures)]
		wg.Go(func() {
			body := fmt.Sprintf(`{"flight_id":%q,"scheduled":%q,"origin":%q,"destination":%q,"distance":%d}`,
				f.ID, time.UnixMilli(f.Scheduled).UTC().Format(time.RFC3339), f.Origin, f.Destination, f.Distance)
			err := post(ctx, client, url, body)
			took := float64(time.Since(due).Microseconds()) / 1000 // from when it was due: waiting in this process counts too
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				failed++
				return
			}
			latencies = append(latencies, took)
		})
	}
	wg.Wait()
	return latencies, failed
}

func post(ctx context.Context, client *http.Client, url, body string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, strings.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return errors.New(resp.Status)
	}
	return nil
}

// await asks every millisecond, so that what it waits for is measured no coarser.
func await(ctx context.Context, within time.Duration, ok func() (bool, error)) error {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	for {
		done, err := ok()
		if done || err != nil {
			return err
		}
		select {
		case <-time.After(time.Millisecond):
		case <-ctx.Done():
			return fmt.Errorf("not within %s", within)
		}
	}
}

func quantile(values []float64, q float64) float64 {
	if len(values) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(values))
	return round(sorted[int(q*float64(len(sorted)-1))])
}

func round(v float64) float64 {
	r, _ := strconv.ParseFloat(strconv.FormatFloat(v, 'g', 4, 64), 64)
	return r
}
