package serving

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"math"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace/millrace/features"
	"github.com/millrace/millrace/features/online"
	"github.com/millrace/millrace/internal/clock"
	"github.com/millrace/millrace/project"
	"github.com/millrace/millrace/registry"
	"github.com/millrace/millrace/registry/model"
	"github.com/millrace/millrace/schemas"
	"github.com/millrace/millrace/streams"
)

// The benchmarks' world is as large as the flights': two groups of four windows, 60 inputs, a forest of 200 trees with 31 leaves, a week
// of arrivals at 300 airports.
const (
	benchAirports = 300
	benchEvents   = 115_000
)

func benchProject(b *testing.B) *project.Project {
	p := flightsProject(b)
	departure := must[*schemas.Schema](b)(schemas.Parse("departure", []byte(strings.Replace(departureSchema, `{"name":"distance"`, `{"name":"destination","type":"string"},{"name":"distance"`, 1))))
	p.Sources[0].Schema = departure
	m := p.Models[0]
	m.Inputs, p.Groups = nil, nil
	for _, entity := range []string{"origin", "destination"} {
		schema := must[*schemas.Schema](b)(schemas.Parse("arrival", []byte(strings.Replace(arrivalSchema, `{"name":"delay"`, `{"name":"destination","type":"string"},{"name":"delay"`, 1))))
		other := map[string]string{"origin": "destination", "destination": "origin"}[entity]
		compiled, faults := features.Compile(features.Definition{
			Name: entity + "_delays", Source: "arrivals", Entity: []string{entity}, Windows: []string{"1h", "3h", "24h", "7d"}, Lateness: 6 * time.Hour,
			Features: []features.FeatureDefinition{
				{Name: "flights", Aggregate: "count()"}, {Name: "delay_mean", Aggregate: "mean(delay)"}, {Name: "delay_std", Aggregate: "stddev(delay)"},
				{Name: "delay_p95", Aggregate: "quantile(delay, 0.95)"}, {Name: "late_rate", Aggregate: "mean(delay > 15)"}, {Name: "delay_max", Aggregate: "max(delay)"},
				{Name: "places", Aggregate: "distinct(" + other + ")"}, {Name: "last_delay", Aggregate: "last(delay)", Windows: []string{"lifetime"}},
			},
		}, schema)
		if len(faults) > 0 {
			b.Fatal(faults)
		}
		g := &project.Group{Group: compiled, Source: p.Sources[1], KeyedTopic: entity + "_delays.keyed"}
		p.Groups = append(p.Groups, g)
		for i, o := range compiled.Outputs {
			m.Inputs = append(m.Inputs, project.Input{Name: g.Name + "." + o.Name, Group: g, Output: i, Entity: []int{departure.Index(entity)}, Column: -1})
		}
	}
	for name, source := range map[string]string{"hour": "hour(scheduled)", "distance": "distance"} {
		m.Inputs = append(m.Inputs, project.Input{Name: name, Output: -1, Column: -1, Expr: must[*features.Expression](b)(features.CompileExpression(source, departure, schemas.Null))})
	}
	return p
}

func airport(i int) string { return fmt.Sprintf("A%02d", i) }

// benchStage is a stage with a champion and with states in Redis.
func benchStage(b *testing.B) *Stage {
	p := benchProject(b)
	server := miniredis.RunT(b)
	client := redis.NewClient(&redis.Options{Addr: server.Addr()})
	b.Cleanup(func() { client.Close() })
	r := must[*registry.Registry](b)(registry.Open(b.TempDir()))
	s := must[*Stage](b)(New(Default(), Deps{
		Project: p, Registry: r, Redis: client, Clock: clock.System, Log: slog.New(slog.DiscardHandler), Registerer: prometheus.NewRegistry(),
		Kafka: streams.Config{Brokers: []string{"127.0.0.1:1"}},
	}))
	seedStates(b, p, client)
	promoteForest(b, s, r)
	return s
}

func seedStates(b *testing.B, p *project.Project, client redis.UniversalClient) {
	random := rand.New(rand.NewPCG(1, 2))
	now := time.Now().UnixMilli()
	states := make([]map[string]*features.Entity, len(p.Groups))
	for i := range states {
		states[i] = map[string]*features.Entity{}
	}
	for n := range int64(benchEvents) {
		t := now - (benchEvents-n)*7*24*3600*1000/benchEvents
		u, v := random.Float64(), random.Float64()
		names := []string{airport(int(u * u * u * benchAirports)), airport(int(v * v * v * benchAirports))}
		row := schemas.Row{schemas.StringValue("f"), schemas.TimeValue(t), schemas.StringValue(names[0]), schemas.StringValue(names[1]), schemas.IntValue(int64(random.ExpFloat64()*30) - 10)}
		for i, g := range p.Groups {
			e := states[i][names[i]]
			if e == nil {
				e = g.NewEntity()
				states[i][names[i]] = e
			}
			if _, err := g.Add(e, row, t, n); err != nil {
				b.Fatal(err)
			}
		}
	}
	size := 0
	for i, g := range p.Groups {
		w := online.NewWriter(client, p.Name, g.Name, g.Version)
		keys, bytes := map[int32][]string{}, map[int32][][]byte{}
		for name, e := range states[i] {
			k := partitionOf(name)
			keys[k], bytes[k] = append(keys[k], name), append(bytes[k], e.AppendBinary(nil))
			size += len(bytes[k][len(bytes[k])-1])
		}
		for k := range keys {
			if _, err := w.Commit(b.Context(), k, nil, online.Position{Next: 1, Newest: now + 86_400_000}, keys[k], bytes[k], 0); err != nil {
				b.Fatal(err)
			}
		}
	}
	b.Logf("%d bytes of state for each airport", size/2/benchAirports)
}

func promoteForest(b *testing.B, s *Stage, r *registry.Registry) {
	random := rand.New(rand.NewPCG(3, 4))
	m := s.deps.Project.Models[0]
	var names []string
	var signature []model.SignatureInput
	for _, in := range s.models["late"].plan.inputs {
		names = append(names, in.name)
		signature = append(signature, model.SignatureInput{Name: in.name, Source: in.source})
	}
	spec := model.ForestSpec{Inputs: names, Objective: model.Binary}
	for range 200 {
		spec.Trees = append(spec.Trees, randomTree(random, 31, len(names)))
	}
	forest := must[*model.Forest](b)(model.NewForest(spec))
	golden := make([][]float64, 50)
	for i := range golden {
		for range names {
			golden[i] = append(golden[i], random.NormFloat64()*30)
		}
	}
	bundle := must[model.Bundle](b)(model.NewBundle(signature, forest, golden))
	digest := must[string](b)(r.Put(b.Context(), registry.Manifest{Kind: registry.KindModel, Name: m.Name, MediaType: model.MediaBundle}, bytes.NewReader(must[[]byte](b)(bundle.Encode()))))
	must[int](b)(r.AddVersion(m.Name, digest))
	if err := r.SetAlias(b.Context(), m.Name, registry.Champion, digest, "", ""); err != nil {
		b.Fatal(err)
	}
	if err := s.models[m.Name].look(b.Context()); err != nil {
		b.Fatal(err)
	}
}

// randomTree splits a random leaf until there are enough, as a leaf-wise learner would.
func randomTree(random *rand.Rand, leaves, inputs int) model.Tree {
	t := model.Tree{Leaves: []model.Leaf{{Value: random.NormFloat64() / 50, Rows: 10}}}
	type place struct {
		split int
		left  bool
	}
	parent := []place{{-1, false}}
	for len(t.Leaves) < leaves {
		leaf, split := random.IntN(len(t.Leaves)), len(t.Splits)
		added := len(t.Leaves)
		t.Leaves = append(t.Leaves, model.Leaf{Value: random.NormFloat64() / 50, Rows: 10})
		t.Splits = append(t.Splits, model.Split{Input: random.IntN(inputs), Threshold: random.NormFloat64() * 30, Missing: model.MissingNaN, Left: ^leaf, Right: ^added})
		if p := parent[leaf]; p.split >= 0 {
			if p.left {
				t.Splits[p.split].Left = split
			} else {
				t.Splits[p.split].Right = split
			}
		}
		parent[leaf] = place{split, true}
		parent = append(parent, place{split, false})
	}
	return t
}

func benchRecords(b *testing.B, s *Stage, n int) kgo.Fetches {
	random := rand.New(rand.NewPCG(5, 6))
	encoder := must[schemas.Encoder](b)(schemas.NewEncoder(s.deps.Project.Models[0].On.Schema, schemas.Avro, nil, ""))
	now := time.Now()
	var records []*kgo.Record
	for i := range n {
		u, v := random.Float64(), random.Float64()
		value := must[[]byte](b)(encoder.Encode(b.Context(), schemas.Row{
			schemas.StringValue(fmt.Sprint("f", i)), schemas.TimeValue(now.UnixMilli() - 1800_000 + int64(i)*1800), schemas.StringValue(airport(int(u * u * u * benchAirports))),
			schemas.StringValue(airport(int(v * v * v * benchAirports))), schemas.IntValue(1000),
		}))
		records = append(records, &kgo.Record{Topic: "departures", Offset: int64(i), Value: value, Timestamp: now})
	}
	return kgo.Fetches{{Topics: []kgo.FetchTopic{{Topic: "departures", Partitions: []kgo.FetchPartition{{Records: records}}}}}}
}

// BenchmarkStream scores batches of 1000 departures as the stream scorer does, without Kafka: decode, one read from Redis (miniredis,
// in this process), fill, score, explain, encode the prediction. Under clock: wall the batch has one time; under clock: event each
// departure has its own.
func BenchmarkStream(b *testing.B) {
	for _, c := range []string{project.ClockWall, project.ClockEvent} {
		b.Run(c, func(b *testing.B) {
			s := benchStage(b)
			s.deps.Project.Clock = c
			scorer := must[*streamScorer](b)(newStreamScorer(s, s.models["late"]))
			frontier := newFrontier(scorer, nil)
			fetches := benchRecords(b, s, 1000)
			b.ReportAllocs()
			scored, start := 0, cpuTime(b)
			for b.Loop() {
				batch, err := scorer.score(context.Background(), frontier, fetches, time.Now())
				if err != nil {
					b.Fatal(err)
				}
				for i := range batch.verdicts {
					if batch.verdicts[i].rung != schemas.RungPrimary {
						b.Fatalf("%+v", batch.verdicts[i])
					}
				}
				scored += len(batch.predictions)
			}
			b.ReportMetric(float64(scored)/b.Elapsed().Seconds(), "departures/s")
			b.ReportMetric(float64(scored)/(cpuTime(b)-start).Seconds(), "departures/cpu-s") // what a busy machine does not change
			b.ReportMetric(0, "ns/op")
		})
	}
}

// cpuTime is the processor time that the process has had, garbage collection and the embedded Redis included.
func cpuTime(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkRequest answers one HTTP request of one row, without a network.
func BenchmarkRequest(b *testing.B) {
	s := benchStage(b)
	h := s.Handler()
	body := `{"flight_id":"f1","scheduled":"2001-05-20T12:30:00Z","origin":"A00","destination":"A07","distance":1000}`
	b.ReportAllocs()
	worst := 0.0
	for b.Loop() {
		w := httptest.NewRecorder()
		start := time.Now()
		h.ServeHTTP(w, httptest.NewRequest(http.MethodPost, "/v1/models/late:score", strings.NewReader(body)))
		worst = math.Max(worst, time.Since(start).Seconds())
		if w.Code != http.StatusOK {
			b.Fatal(w.Body)
		}
	}
}
