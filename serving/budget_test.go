package serving

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"

	"github.com/millrace/millrace/features/online"
	"github.com/millrace/millrace/internal/clock"
	"github.com/millrace/millrace/project"
	"github.com/millrace/millrace/registry"
	"github.com/millrace/millrace/registry/model"
	"github.com/millrace/millrace/schemas"
	"github.com/millrace/millrace/streams"
)

// servedStage serves bench/serving's project: a model whose 30 inputs come with the request, and one whose 30 are read of three entities.
// Kafka is not there; answers wait in the log's queue.
func servedStage(t testing.TB) *Stage {
	p := must[*project.Project](t)(project.Load("../bench/serving"))
	server := miniredis.RunT(t)
	client := redis.NewClient(&redis.Options{Addr: server.Addr()})
	t.Cleanup(func() { client.Close() })
	seedPayments(t, p, client)
	r := must[*registry.Registry](t)(registry.Open(t.TempDir()))
	s := must[*Stage](t)(New(Default(), Deps{
		Project: p, Registry: r, Redis: client, Clock: clock.System, Log: slog.New(slog.DiscardHandler), Registerer: prometheus.NewRegistry(),
		Kafka: streams.Config{Brokers: []string{"127.0.0.1:1"}},
	}))
	random := rand.New(rand.NewPCG(3, 4))
	for _, m := range p.Models {
		promoteFullForest(t, s, r, m, random)
	}
	return s
}

func seedPayments(t testing.TB, p *project.Project, client redis.UniversalClient) {
	now := time.Now().UnixMilli()
	for _, g := range p.Groups {
		e := g.NewEntity()
		for n := range int64(50) {
			row := make(schemas.Row, len(g.Source.Schema.Columns))
			row[g.Source.Schema.Index("amount")] = schemas.FloatValue(float64(n) / 4)
			if _, err := g.Add(e, row, now-(50-n)*1_000_000, n); err != nil {
				t.Fatal(err)
			}
		}
		partition := online.Partition(online.Murmur2, "e0001", p.Partitions)
		w := online.NewWriter(client, p.Name, g.Name, g.Version)
		if _, err := w.Commit(t.Context(), partition, nil, online.Position{Next: 1, Newest: now}, []string{"e0001"}, [][]byte{e.AppendBinary(nil)}, 0); err != nil {
			t.Fatal(err)
		}
	}
}

// promoteFullForest makes 200 full trees of depth 6 the champion.
func promoteFullForest(t testing.TB, s *Stage, r *registry.Registry, m *project.Model, random *rand.Rand) {
	var names []string
	var signature []model.SignatureInput
	for _, in := range s.models[m.Name].plan.inputs {
		names, signature = append(names, in.name), append(signature, model.SignatureInput{Name: in.name, Source: in.source})
	}
	spec := model.ForestSpec{Inputs: names, Objective: model.Binary}
	for range 200 {
		spec.Trees = append(spec.Trees, fullTree(random, 6, len(names)))
	}
	forest := must[*model.Forest](t)(model.NewForest(spec))
	golden := [][]float64{make([]float64, len(names))}
	bundle := must[model.Bundle](t)(model.NewBundle(signature, forest, golden))
	digest := must[string](t)(r.Put(t.Context(), registry.Manifest{Kind: registry.KindModel, Name: m.Name, MediaType: model.MediaBundle}, bytes.NewReader(must[[]byte](t)(bundle.Encode()))))
	must[int](t)(r.AddVersion(m.Name, digest))
	if err := r.SetAlias(t.Context(), m.Name, registry.Champion, digest, "", ""); err != nil {
		t.Fatal(err)
	}
	if err := s.models[m.Name].look(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// fullTree numbers its splits as a heap: those below i are 2i+1 and 2i+2.
func fullTree(random *rand.Rand, depth, inputs int) model.Tree {
	splits := 1<<depth - 1
	var t model.Tree
	child := func(i int) int {
		if i < splits {
			return i
		}
		return ^(i - splits)
	}
	for i := range splits {
		t.Splits = append(t.Splits, model.Split{Input: random.IntN(inputs), Threshold: random.NormFloat64() * 30, Missing: model.MissingNaN, Left: child(2*i + 1), Right: child(2*i + 2)})
	}
	for range splits + 1 {
		t.Leaves = append(t.Leaves, model.Leaf{Value: random.NormFloat64() / 50, Rows: 10})
	}
	return t
}

const (
	scorePath = "/v1/models/score:score"
	fetchPath = "/v1/models/fetch:score"
)

func scoreBody() string {
	var b strings.Builder
	b.WriteString(`{"id":"r1","at":"2026-01-01T00:00:00Z"`)
	for i := range 30 {
		fmt.Fprintf(&b, `,"f%02d":%v`, i, float64(i*37%1000)/8)
	}
	return b.String() + "}"
}

const fetchBody = `{"id":"p1","at":"2026-01-01T00:00:00Z","customer":"e0001","card":"e0001","merchant":"e0001","amount":12.5}`

// reusedWriter is a response that costs nothing of its own.
type reusedWriter struct {
	header http.Header
	status int
	body   []byte
}

func (w *reusedWriter) Header() http.Header { return w.header }
func (w *reusedWriter) WriteHeader(s int)   { w.status = s }
func (w *reusedWriter) Write(b []byte) (int, error) {
	w.body = append(w.body[:0], b...)
	return len(b), nil
}

// asker sends one request again and again to a handler, without a network.
type asker struct {
	handler http.Handler
	request *http.Request
	body    *strings.Reader
	text    string
	writer  *reusedWriter
}

func newAsker(s *Stage, path, body string) *asker {
	a := &asker{handler: s.Handler(), body: strings.NewReader(body), text: body, writer: &reusedWriter{header: http.Header{}}}
	a.request = httptest.NewRequest(http.MethodPost, path, nil).WithContext(context.Background())
	a.request.ContentLength = int64(len(body))
	return a
}

func (a *asker) ask(t testing.TB) {
	a.body.Reset(a.text)
	a.request.Body = io.NopCloser(a.body)
	a.writer.status = http.StatusOK
	a.handler.ServeHTTP(a.writer, a.request)
	if a.writer.status != http.StatusOK {
		t.Fatalf("%d: %s", a.writer.status, a.writer.body)
	}
}

// complete checks that all inputs were there when the row was scored.
func (a *asker) complete(t testing.TB) {
	a.ask(t)
	var answer struct {
		Predictions []struct {
			Rung     string
			Features []struct{ Status string }
		}
	}
	if err := json.Unmarshal(a.writer.body, &answer); err != nil {
		t.Fatal(err)
	}
	p := answer.Predictions[0]
	if p.Rung != schemas.RungPrimary || len(p.Features) != 30 {
		t.Fatalf("%s", a.writer.body)
	}
	for _, f := range p.Features {
		if f.Status != "present" {
			t.Fatalf("%s", a.writer.body)
		}
	}
}

// BenchmarkServed answers a request without a network: everything but net/http's own part of it.
func BenchmarkServed(b *testing.B) {
	for _, c := range []struct{ name, path, body string }{{"score", scorePath, scoreBody()}, {"fetch", fetchPath, fetchBody}} {
		b.Run(c.name, func(b *testing.B) {
			s := servedStage(b)
			a := newAsker(s, c.path, c.body)
			a.complete(b)
			go func() { // as writeLog would, without Kafka
				for range s.log.queue {
				}
			}()
			b.ReportAllocs()
			start := cpuTime(b)
			for b.Loop() {
				a.ask(b)
			}
			b.ReportMetric(float64((cpuTime(b)-start).Microseconds())/float64(b.N), "cpu-us/op") // what a busy machine changes least
		})
	}
}
