package e2e

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace/millrace/examples/flights"
	"github.com/millrace/millrace/features/online"
	"github.com/millrace/millrace/project"
	"github.com/millrace/millrace/streams"
	"github.com/millrace/millrace/streams/broker"
)

// binary is the program under test, built once.
var binary string

func TestMain(m *testing.M) {
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "millrace-e2e-")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(dir)
		binary = filepath.Join(dir, "millrace")
		build := exec.Command("go", "build", "-o", binary, "../cmd/millrace")
		build.Stderr = os.Stderr
		if err := build.Run(); err != nil {
			fmt.Fprintln(os.Stderr, "building the program:", err)
			return 1
		}
		return m.Run()
	}())
}

// stand is one test's servers and project. Names are the test's own, so that tests share real servers without meeting.
type stand struct {
	t       *testing.T
	kafka   string
	redis   string
	dir     string // project
	data    string
	project *project.Project
	topics  map[string]string
	tls     streams.TLS  // of Kafka
	sasl    streams.SASL // of Kafka
}

func newStand(t *testing.T) *stand {
	t.Helper()
	kafka, redis := os.Getenv("MILLRACE_TEST_KAFKA"), os.Getenv("MILLRACE_TEST_REDIS")
	if kafka == "" {
		b, err := broker.Start(t.TempDir(), 0)
		must(t, err)
		t.Cleanup(b.Close)
		kafka = b.Addr()
	}
	if redis == "" {
		r, err := online.StartEmbedded("")
		must(t, err)
		t.Cleanup(func() { must(t, r.Close()) })
		redis = r.Addr()
	}
	return newStandOn(t, kafka, redis)
}

// newStandOn is a stand on given servers: addresses as --kafka and --redis take them.
func newStandOn(t *testing.T, kafka, redis string) *stand {
	t.Helper()
	s := &stand{t: t, kafka: kafka, redis: redis, dir: t.TempDir(), data: t.TempDir()}
	s.copyProject()
	return s
}

// brokers is Kafka's addresses as the client takes them.
func (s *stand) brokers() streams.Config {
	return streams.Config{Brokers: strings.Split(s.kafka, ","), TLS: s.tls, SASL: s.sasl}
}

// copyProject writes the flights example under a name of the test's own.
func (s *stand) copyProject() {
	s.t.Helper()
	name := fmt.Sprintf("%s_%d", strings.ToLower(strings.NewReplacer("/", "_", "Test", "").Replace(s.t.Name())), time.Now().UnixNano())
	err := fs.WalkDir(flights.Files, ".", func(path string, e fs.DirEntry, err error) error {
		if err != nil || strings.HasPrefix(path, "data/") {
			return err
		}
		to := filepath.Join(s.dir, path)
		if e.IsDir() {
			return os.MkdirAll(to, 0o755)
		}
		content, err := flights.Files.ReadFile(path)
		if path == "millrace.yaml" {
			content = []byte(renamed(string(content), name))
		}
		if err != nil {
			return err
		}
		return os.WriteFile(to, content, 0o644)
	})
	must(s.t, err)
	s.project, err = project.Load(s.dir)
	must(s.t, err)
	s.topics = map[string]string{
		flights.Departures: s.project.Source(flights.Departures).Topic, flights.Arrivals: s.project.Source(flights.Arrivals).Topic,
	}
}

// amend replaces text of the project's file, which must be there.
func (s *stand) amend(old, with string) {
	s.t.Helper()
	path := filepath.Join(s.dir, project.FileName)
	b, err := os.ReadFile(path)
	must(s.t, err)
	if !strings.Contains(string(b), old) {
		s.t.Fatalf("the project has no %q", old)
	}
	must(s.t, os.WriteFile(path, []byte(strings.ReplaceAll(string(b), old, with)), 0o644))
	s.project, err = project.Load(s.dir)
	must(s.t, err)
}

// metric sums the samples of a metric of a role whose labels have all the given texts, such as rung="rule".
func (p *proc) metric(name string, labels ...string) float64 {
	p.t.Helper()
	resp, err := http.Get(p.endpoint + "/metrics")
	must(p.t, err)
	defer resp.Body.Close()
	sum := 0.0
	lines := bufio.NewScanner(resp.Body)
samples:
	for lines.Scan() {
		sample, value, _ := strings.Cut(lines.Text(), " ")
		if metric, _, _ := strings.Cut(sample, "{"); metric != name {
			continue
		}
		for _, l := range labels {
			if !strings.Contains(sample, l) {
				continue samples
			}
		}
		v, err := strconv.ParseFloat(value, 64)
		must(p.t, err)
		sum += v
	}
	must(p.t, lines.Err())
	return sum
}

var topicKey = regexp.MustCompile(`\btopic: *(\w+)`)

// renamed gives the project, its own topics and its sources' topics another name.
func renamed(yaml, name string) string {
	yaml = strings.Replace(yaml, "project: flights\n", "project: "+name+"\ntopic_prefix: "+name+".\n", 1)
	return topicKey.ReplaceAllString(yaml, "topic: "+name+".$1")
}

// proc is a role in a process of its own.
type proc struct {
	t        *testing.T
	cmd      *exec.Cmd
	endpoint string
	mu       sync.Mutex
	output   strings.Builder
	ended    chan struct{}
}

// start runs the program and waits until it says where it can be reached.
func (s *stand) start(args ...string) *proc {
	s.t.Helper()
	args = append(args, "--project", s.dir, "--kafka", s.kafka, "--redis", s.redis, "--data-dir", s.data, "--listen", "127.0.0.1:0")
	return startProc(s.t, args...)
}

func startProc(t *testing.T, args ...string) *proc {
	t.Helper()
	p := &proc{t: t, cmd: exec.Command(binary, args...), ended: make(chan struct{})}
	stdout, err := p.cmd.StdoutPipe()
	must(t, err)
	p.cmd.Stderr = writer(p.log)
	must(t, p.cmd.Start())
	reached := make(chan string, 1)
	go func() {
		lines := bufio.NewScanner(stdout)
		for lines.Scan() {
			p.log(lines.Bytes())
			p.log([]byte("\n"))
			if _, after, ok := strings.Cut(lines.Text(), "endpoint "); ok {
				address, _, _ := strings.Cut(after, ",")
				select {
				case reached <- address:
				default:
				}
			}
		}
		_ = p.cmd.Wait()
		close(p.ended)
	}()
	t.Cleanup(func() {
		p.kill()
		if t.Failed() {
			t.Logf("output of millrace %s:\n%s", strings.Join(args, " "), p.text())
		}
	})
	select {
	case p.endpoint = <-reached:
	case <-p.ended:
		t.Fatalf("millrace %s ended: %s", strings.Join(args, " "), p.text())
	case <-time.After(60 * time.Second):
		t.Fatalf("millrace %s does not say where it listens: %s", strings.Join(args, " "), p.text())
	}
	return p
}

type writer func([]byte)

func (w writer) Write(b []byte) (int, error) { w(b); return len(b), nil }

func (p *proc) log(b []byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.output.Len() < 1<<20 {
		p.output.Write(b)
	}
}

func (p *proc) text() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.output.String()
}

// kill is SIGKILL: the process gets no chance to tidy up.
func (p *proc) kill() {
	_ = p.cmd.Process.Kill()
	<-p.ended
}

// stop is SIGTERM; the process must end by itself with status 0.
func (p *proc) stop() {
	p.t.Helper()
	must(p.t, p.cmd.Process.Signal(syscall.SIGTERM))
	select {
	case <-p.ended:
	case <-time.After(30 * time.Second):
		p.t.Fatalf("the process does not end on SIGTERM: %s", p.text())
	}
	if code := p.cmd.ProcessState.ExitCode(); code != 0 {
		p.t.Fatalf("the process ended with status %d: %s", code, p.text())
	}
}

// sample is the flights of the committed file that are scheduled in [from, from+span), as events in event-time order.
func sample(t *testing.T, from time.Time, span time.Duration) []flights.Event {
	t.Helper()
	path := filepath.Join("..", "examples", "flights", filepath.FromSlash(flights.Sample))
	var events []flights.Event
	for e, err := range flights.Events(flights.Read(context.Background(), path, from.UnixMilli(), from.Add(span).UnixMilli())) {
		must(t, err)
		events = append(events, e)
	}
	if len(events) == 0 {
		t.Fatal("the sample has no flights in that time")
	}
	return events
}

// produce sends events in their order and waits until they are acknowledged.
func (s *stand) produce(events []flights.Event) {
	s.t.Helper()
	ctx := context.Background()
	client, err := streams.NewClient(s.brokers())
	must(s.t, err)
	defer client.Close()
	recorder, err := flights.NewRecorder(s.project.Source(flights.Departures).Schema, s.project.Source(flights.Arrivals).Schema)
	must(s.t, err)
	var mu sync.Mutex
	var failed error
	for _, e := range events {
		r, err := recorder.Record(ctx, e)
		must(s.t, err)
		r.Topic = s.topics[e.Topic]
		client.Produce(ctx, r, func(_ *kgo.Record, err error) {
			if err != nil {
				mu.Lock()
				failed = err
				mu.Unlock()
			}
		})
	}
	must(s.t, client.Flush(ctx))
	mu.Lock()
	defer mu.Unlock()
	must(s.t, failed)
}

// eventually waits until ok holds; what it returns meanwhile is told when it never does.
func eventually(t *testing.T, within time.Duration, ok func() (bool, string)) {
	t.Helper()
	deadline := time.After(within)
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		done, state := ok()
		if done {
			return
		}
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("not within %s: %s", within, state)
		}
	}
}

// get reads a JSON answer; the status is the caller's to judge.
func get(t *testing.T, url string, into any) int {
	t.Helper()
	resp, err := http.Get(url)
	must(t, err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	must(t, err)
	if into != nil && resp.StatusCode == http.StatusOK {
		if err := json.Unmarshal(body, into); err != nil {
			t.Fatalf("%s answered %s: %v", url, body, err)
		}
	}
	return resp.StatusCode
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
