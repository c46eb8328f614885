// Command serving measures a request for a score, from outside: Millrace, MLServer and Feast one after the other, each on one core, with
// the same rows, the same forest and the same Redis. docs/bench/serving.md has what it prints.
//
// It needs taskset, wrk, redis-server, and a Kafka for Millrace to log its predictions to (--kafka); the peers are in virtual
// environments below --venv, which make bench-serving fills.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/millrace/millrace/features/online"
	"github.com/millrace/millrace/project"
	"github.com/millrace/millrace/registry"
)

// connections of the client.
const connections = 8

type bench struct {
	millrace, dir, venv, kafka string
	servers                    []string
	rate                       float64
	span                       time.Duration
	events                     int

	work   string
	redis  string // address
	answer []byte // of Millrace, to a score
}

func main() {
	b := bench{}
	flag.StringVar(&b.millrace, "millrace", "bin/millrace", "the program")
	flag.StringVar(&b.dir, "dir", "bench/serving", "the folder with millrace.yaml")
	flag.StringVar(&b.venv, "venv", "bin/serving-peers", "folder of the peers' virtual environments, mlserver and feast")
	flag.StringVar(&b.kafka, "kafka", os.Getenv("MILLRACE_TEST_KAFKA"), "Kafka")
	flag.Float64Var(&b.rate, "rate", 2000, "requests per second of the paced run; a server that cannot do so many gets half of what it can")
	flag.DurationVar(&b.span, "span", 10*time.Second, "length of each run")
	flag.IntVar(&b.events, "events", 200_000, "records of each run of in-stream scoring; 0 for none")
	servers := flag.String("servers", "millrace,limit,mlserver,feast", "which of them")
	limit := flag.String("limit", "", "serve the standard input to every request on this address, and nothing else")
	flag.Parse()
	if *limit != "" {
		if err := serveLimit(*limit, os.Stdin); err != nil {
			fmt.Fprintln(os.Stderr, "bench:", err)
			os.Exit(1)
		}
		return
	}
	b.servers = strings.Split(*servers, ",")
	if err := b.run(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func (b *bench) data() string { return filepath.Join(b.work, "data") }

func (b *bench) run(ctx context.Context) (err error) {
	for _, path := range []*string{&b.millrace, &b.dir, &b.venv} {
		if *path, err = filepath.Abs(*path); err != nil {
			return err
		}
	}
	if b.kafka == "" {
		return errors.New("no Kafka: set --kafka or MILLRACE_TEST_KAFKA")
	}
	if b.work, err = os.MkdirTemp("", "millrace-serving-"); err != nil {
		return err
	}
	defer os.RemoveAll(b.work)
	p, err := project.Load(b.dir)
	if err != nil {
		return err
	}
	redis, err := b.startRedis(ctx)
	if err != nil {
		return err
	}
	defer redis.stop()
	forest, err := b.prepare(ctx, p)
	if err != nil {
		return err
	}
	asked := rows()
	var scores []float64 // of the rows, by the first server that is asked
	for _, server := range b.servers {
		switch server {
		case "millrace":
			err = b.benchMillrace(ctx, p, asked, &scores)
		case "limit":
			err = b.benchLimit(ctx, asked)
		case "mlserver":
			err = b.benchMLServer(ctx, asked, &scores, forest)
		case "feast":
			err = b.benchFeast(ctx)
		default:
			err = fmt.Errorf("no such server")
		}
		if err != nil {
			return fmt.Errorf("%s: %w", server, err)
		}
	}
	return nil
}

// prepare fills Redis and the registry, and gives the forest of the score case as LightGBM's text.
func (b *bench) prepare(ctx context.Context, p *project.Project) ([]byte, error) {
	client, err := online.Open(ctx, online.Config{Addrs: []string{b.redis}})
	if err != nil {
		return nil, err
	}
	defer func() { _ = client.Close() }()
	if err := seed(ctx, p, client); err != nil {
		return nil, err
	}
	r, err := registry.Open(filepath.Join(b.data(), "registry"))
	if err != nil {
		return nil, err
	}
	var text []byte
	for _, m := range slices.Backward(p.Models) { // "score" last
		forest, err := trainForest(ctx, inputNames(m), 1)
		if err != nil {
			return nil, err
		}
		if err := promote(ctx, r, m, forest); err != nil {
			return nil, fmt.Errorf("promoting %s: %w", m.Name, err)
		}
		text = forest.LightGBM()
	}
	return text, nil
}

func (b *bench) benchMillrace(ctx context.Context, p *project.Project, asked [][]float64, scores *[]float64) error {
	addr, _, err := freeAddr()
	if err != nil {
		return err
	}
	server, err := b.startMillrace(addr)
	if err != nil {
		return err
	}
	defer server.stop()
	score := &target{addr: addr, path: "/v1/models/score:score"}
	if score.bodies, err = scoreBodies(asked); err != nil {
		return err
	}
	if err := server.ready(ctx, score); err != nil {
		return err
	}
	fetch := &target{addr: addr, path: "/v1/models/fetch:score"}
	if fetch.bodies, err = fetchBodies(); err != nil {
		return err
	}
	tensor := &target{addr: addr, path: "/v2/models/score/infer"}
	if tensor.bodies, err = v2Bodies(asked); err != nil {
		return err
	}
	if b.answer, err = score.ask(ctx, 0); err != nil {
		return err
	}
	var answer struct {
		Predictions []struct {
			Score    *float64
			Rung     string
			Features []struct{ Status string }
		}
	}
	if err := sameScores(ctx, score, scores, func(body []byte) (float64, error) {
		err := json.Unmarshal(body, &answer)
		return *answer.Predictions[0].Score, err
	}); err != nil {
		return err
	}
	body, err := fetch.ask(ctx, 0)
	if err := errors.Join(err, json.Unmarshal(body, &answer)); err != nil {
		return err
	}
	if p := answer.Predictions[0]; p.Rung != "primary" || len(p.Features) != inputs || p.Features[0].Status != "present" {
		return fmt.Errorf("the features were not found: %s", body)
	}
	if err := sameScores(ctx, tensor, scores, scoreOfTensor); err != nil {
		return err
	}
	for _, c := range []struct {
		target *target
		kind   string
	}{{score, "score"}, {tensor, "score v2"}, {fetch, "fetch+score"}} {
		if err := b.measure(ctx, server, c.target, "millrace", c.kind); err != nil {
			return err
		}
	}
	if err := b.benchShadow(ctx, p.Model("score"), server, score); err != nil {
		return err
	}
	if b.events == 0 {
		return nil
	}
	return b.benchStream(ctx, p, server, asked)
}

func (b *bench) benchMLServer(ctx context.Context, asked [][]float64, scores *[]float64, forest []byte) error {
	addr, port, err := freeAddr()
	if err != nil {
		return err
	}
	server, err := b.startMLServer(addr, port, forest)
	if err != nil {
		return err
	}
	defer server.stop()
	score := &target{addr: addr, path: "/v2/models/score/infer"}
	if score.bodies, err = v2Bodies(asked); err != nil {
		return err
	}
	if err := server.ready(ctx, score); err != nil {
		return err
	}
	if err := sameScores(ctx, score, scores, scoreOfTensor); err != nil {
		return err
	}
	return b.measure(ctx, server, score, "mlserver", "score v2")
}

// scoreOfTensor reads the first tensor of an answer.
func scoreOfTensor(body []byte) (float64, error) {
	var answer struct {
		Outputs []struct{ Data json.RawMessage }
	}
	if err := json.Unmarshal(body, &answer); err != nil {
		return 0, err
	}
	if len(answer.Outputs) == 0 {
		return 0, fmt.Errorf("no tensor in %s", body)
	}
	var scores [1]float64
	err := json.Unmarshal(answer.Outputs[0].Data, &scores)
	return scores[0], err
}

func (b *bench) benchFeast(ctx context.Context) error {
	addr, port, err := freeAddr()
	if err != nil {
		return err
	}
	server, err := b.startFeast(ctx, port)
	if err != nil {
		return err
	}
	defer server.stop()
	fetch := &target{addr: addr, path: "/get-online-features"}
	if fetch.bodies, err = feastBodies(); err != nil {
		return err
	}
	if err := server.ready(ctx, fetch); err != nil {
		return err
	}
	body, err := fetch.ask(ctx, 0)
	if err != nil {
		return err
	}
	if n := strings.Count(string(body), `"PRESENT"`); n < inputs {
		return fmt.Errorf("%d of %d features are there: %s", n, inputs, body)
	}
	return b.measure(ctx, server, fetch, "feast", "fetch")
}

// sameScores asks for some of the rows and compares what comes with what another server said.
func sameScores(ctx context.Context, t *target, scores *[]float64, scoreOf func(body []byte) (float64, error)) error {
	const compared = 50
	var own []float64
	for i := range compared {
		body, err := t.ask(ctx, i)
		if err != nil {
			return err
		}
		score, err := scoreOf(body)
		if err != nil {
			return err
		}
		own = append(own, score)
	}
	for i := range *scores {
		if math.Abs(own[i]-(*scores)[i]) > 1e-9 {
			return fmt.Errorf("row %d has the score %v, another server says %v", i, own[i], (*scores)[i])
		}
	}
	*scores = own
	return nil
}

// measure prints the line of one server and case: throughput and CPU time at saturation, latency (and CPU time) when paced.
func (b *bench) measure(ctx context.Context, server *process, t *target, name, kind string) error {
	if _, _, err := t.saturate(ctx, b.work, connections, b.span/5); err != nil { // warms up
		return err
	}
	before, began := server.cpu(), time.Now()
	requests, failed, err := t.saturate(ctx, b.work, connections, b.span)
	if err != nil {
		return err
	}
	cpu, perSecond := server.cpu()-before, requests/time.Since(began).Seconds()
	rate := b.rate
	if perSecond < rate {
		rate = perSecond / 2
	}
	before = server.cpu()
	loop, err := t.pace(ctx, connections, rate, b.span)
	if err != nil {
		return err
	}
	pacedCPU := server.cpu() - before
	return json.NewEncoder(os.Stdout).Encode(map[string]any{
		"server": name, "case": kind, "requests_per_s": round(perSecond), "cpu_us_per_request": round(float64(cpu.Microseconds()) / requests),
		"rate": round(rate), "p50_ms": round(loop.quantile(0.5)), "p99_ms": round(loop.quantile(0.99)),
		"cpu_us_per_request_at_rate": round(float64(pacedCPU.Microseconds()) / float64(max(1, len(loop.latencies)))),
		"rss_mib":                    round(server.rss()), "errors": failed + float64(loop.failed), "go": runtime.Version(),
	})
}

// round keeps three significant digits.
func round(x float64) float64 {
	rounded, _ := strconv.ParseFloat(strconv.FormatFloat(x, 'g', 3, 64), 64)
	return rounded
}
