package serving

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace/millrace/features"
	"github.com/millrace/millrace/features/online"
	"github.com/millrace/millrace/internal/clock"
	"github.com/millrace/millrace/project"
	"github.com/millrace/millrace/registry"
	"github.com/millrace/millrace/registry/model"
	"github.com/millrace/millrace/schemas"
	"github.com/millrace/millrace/streams"
)

// noon is when the tests' world is.
var noon = time.Date(2001, 5, 20, 12, 0, 0, 0, time.UTC)

const partitions = 4

const departureSchema = `{"type":"record","name":"Departure","fields":[
	{"name":"flight_id","type":"string"},
	{"name":"scheduled","type":{"type":"long","logicalType":"timestamp-millis"}},
	{"name":"origin","type":["null","string"]},
	{"name":"distance","type":"long","minimum":0,"maximum":20000}]}`

const arrivalSchema = `{"type":"record","name":"Arrival","fields":[
	{"name":"flight_id","type":"string"},
	{"name":"arrived","type":{"type":"long","logicalType":"timestamp-millis"}},
	{"name":"origin","type":"string"},
	{"name":"delay","type":"long"}]}`

// world is a project with one group and one model, an empty registry, and servers of its own.
type world struct {
	t        *testing.T
	cfg      Config
	project  *project.Project
	registry *registry.Registry
	redis    *miniredis.Miniredis
	kafka    *kfake.Cluster
	fetched  atomic.Int64 // requests for committed offsets
	addr     string       // of Redis, as the stage is told
	heedless bool         // the Redis client does not heed its context
	now      time.Time
	metrics  *prometheus.Registry
	stage    *Stage
	server   *httptest.Server
}

func newWorld(t *testing.T, change ...func(*world)) *world {
	t.Helper()
	w := &world{t: t, cfg: Default(), now: noon, redis: miniredis.RunT(t)}
	w.cfg.FollowEvery, w.cfg.SessionTimeout = 5*time.Millisecond, time.Second
	w.addr = w.redis.Addr()
	w.project = flightsProject(t)
	var err error
	if w.registry, err = registry.Open(t.TempDir()); err != nil {
		t.Fatal(err)
	}
	for _, c := range change {
		c(w)
	}
	w.begin(w.group().Version)
	return w
}

// begin gives the partitions of a version of the group their first position, as the stream role does before any event.
func (w *world) begin(version string) {
	w.t.Helper()
	writer := online.NewWriter(w.writer(), w.project.Name, w.group().Name, version)
	for p := range int32(partitions) {
		if _, err := writer.Write(w.t.Context(), p, online.Batch{}); err != nil {
			w.t.Fatal(err)
		}
	}
}

func flightsProject(t testing.TB) *project.Project {
	departure, arrival := must[*schemas.Schema](t)(schemas.Parse("departure", []byte(departureSchema))), must[*schemas.Schema](t)(schemas.Parse("arrival", []byte(arrivalSchema)))
	departures := &project.Source{Name: "departures", Topic: "departures", Schema: departure, Format: schemas.Avro, Key: "flight_id", Time: "scheduled", Partitions: partitions}
	arrivals := &project.Source{Name: "arrivals", Topic: "arrivals", Schema: arrival, Format: schemas.Avro, Key: "flight_id", Time: "arrived", Partitions: partitions}
	compiled, faults := features.Compile(features.Definition{
		Name: "origin_delays", Source: "arrivals", Entity: []string{"origin"}, Windows: []string{"1h", "24h"}, TTL: 30 * 24 * time.Hour,
		Features: []features.FeatureDefinition{{Name: "flights", Aggregate: "count()"}, {Name: "delay_mean", Aggregate: "mean(delay)"}},
	}, arrival)
	if len(faults) > 0 {
		t.Fatal(faults)
	}
	group := &project.Group{Group: compiled, Source: arrivals, KeyedTopic: "origin_delays.keyed"}
	m := &project.Model{
		Name: "late", On: departures, Task: model.TaskBinary,
		Label: project.Label{Source: arrivals, Join: "flight_id"},
		Serve: project.Serve{Timeout: 500 * time.Millisecond, Fallback: []project.Rung{{Kind: project.RungPrevious}}, MissingAllowed: 1},
	}
	for i, o := range compiled.Outputs {
		m.Inputs = append(m.Inputs, project.Input{Name: "origin_delays." + o.Name, Group: group, Output: i, Entity: []int{departure.Index("origin")}, Column: -1})
	}
	hour := must[*features.Expression](t)(features.CompileExpression("hour(scheduled)", departure, schemas.Null))
	m.Inputs = append(m.Inputs,
		project.Input{Name: "distance", Output: -1, Column: departure.Index("distance")},
		project.Input{Name: "hour", Output: -1, Column: -1, Expr: hour})
	return &project.Project{
		Name: "flights", Partitions: partitions, Clock: project.ClockWall, Sources: []*project.Source{departures, arrivals},
		Groups: []*project.Group{group}, Models: []*project.Model{m},
	}
}

func must[T any](t testing.TB) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func (w *world) model() *project.Model { return w.project.Models[0] }
func (w *world) group() *project.Group { return w.project.Groups[0] }

// fallTo declares the rungs below the champion.
func (w *world) fallTo(rungs ...project.Rung) { w.model().Serve.Fallback = rungs }

// withKafka gives the world a broker with the project's topics.
func withKafka(w *world) {
	var err error
	if w.kafka, err = kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(partitions, "departures", "arrivals", "origin_delays.keyed", "predictions", "shadows"), kfake.SeedTopics(1, "models"), kfake.GroupMinSessionTimeout(100*time.Millisecond),
		kfake.BrokerConfigs(map[string]string{"log.retention.ms": "-1", "group.initial.rebalance.delay.ms": "0"})); err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(w.kafka.Close)
	w.kafka.ControlKey(int16(kmsg.OffsetFetch), func(kmsg.Request) (kmsg.Response, error, bool) {
		w.kafka.KeepControl()
		w.fetched.Add(1)
		return nil, nil, false
	})
}

func byEvents(w *world) { w.project.Clock = project.ClockEvent }

// make makes a stage, not yet running.
func (w *world) make() *Stage {
	w.t.Helper()
	client := redis.NewClient(&redis.Options{Addr: w.addr, MaxRetries: -1, DialerRetries: 1, ContextTimeoutEnabled: !w.heedless})
	w.t.Cleanup(func() { client.Close() })
	w.metrics = prometheus.NewRegistry()
	deps := Deps{
		Project: w.project, Registry: w.registry, Redis: client,
		Clock: func() time.Time { return w.now }, Log: slog.New(slog.NewTextHandler(testLog{w.t}, nil)), Registerer: w.metrics,
	}
	if w.now.IsZero() {
		deps.Clock = clock.System
	}
	if w.kafka != nil {
		deps.Kafka = streams.Config{Brokers: w.kafka.ListenAddrs()}
	}
	w.stage = must[*Stage](w.t)(New(w.cfg, deps))
	return w.stage
}

// registerer is for what a test makes by itself.
func (w *world) registerer() prometheus.Registerer { return prometheus.NewRegistry() }

// start runs a stage and its server until stop, or the end of the test.
func (w *world) start() (stop func()) {
	w.t.Helper()
	s := w.make()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	w.server = httptest.NewServer(s.Handler())
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		w.server.Close()
		cancel()
		select {
		case err := <-done:
			if err != nil {
				w.t.Errorf("Run: %v", err)
			}
		case <-time.After(time.Minute):
			w.t.Error("Run does not end")
		}
	}
	w.t.Cleanup(stop)
	return stop
}

// testLog writes what the stage logs beside the test's own.
type testLog struct{ t *testing.T }

func (l testLog) Write(b []byte) (int, error) {
	if l.t.Context().Err() == nil {
		l.t.Log(strings.TrimSpace(string(b)))
	}
	return len(b), nil
}

// eventually waits for a condition.
func eventually(t testing.TB, what string, holds func() bool) {
	t.Helper()
	deadline := time.NewTimer(time.Minute)
	defer deadline.Stop()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !holds() {
		select {
		case <-tick.C:
		case <-deadline.C:
			t.Fatalf("still not: %s", what)
		}
	}
}

// arrival is an event of the group's source.
type arrival struct {
	origin string
	at     time.Time
	delay  int64
}

// apply puts events of one partition's entities into Redis as the group's worker would.
func (w *world) apply(events ...arrival) {
	w.t.Helper()
	g, writer := w.group(), online.NewWriter(w.writer(), w.project.Name, w.group().Name, w.group().Version)
	byPartition := map[int32][]arrival{}
	for _, e := range events {
		p := online.Partition(online.Murmur2, e.origin, partitions)
		byPartition[p] = append(byPartition[p], e)
	}
	for p, events := range byPartition {
		position, raw, err := writer.Load(w.t.Context(), p)
		if err != nil {
			w.t.Fatal(err)
		}
		entities, keys := map[string]*features.Entity{}, []string{}
		for _, e := range events {
			if entities[e.origin] == nil {
				state := must[[][]byte](w.t)(writer.States(w.t.Context(), p, []string{e.origin}))[0]
				entities[e.origin] = g.NewEntity()
				if state != nil {
					entities[e.origin] = must[*features.Entity](w.t)(g.Decode(state))
				}
				keys = append(keys, e.origin)
			}
			row := schemas.Row{schemas.StringValue("f"), schemas.TimeValue(e.at.UnixMilli()), schemas.StringValue(e.origin), schemas.IntValue(e.delay)}
			if _, err := g.Add(entities[e.origin], row, e.at.UnixMilli(), position.Next); err != nil {
				w.t.Fatal(err)
			}
			position.Next++
			position.Newest = max(position.Newest, e.at.UnixMilli())
		}
		states := make([][]byte, len(keys))
		for i, k := range keys {
			states[i] = entities[k].AppendBinary(nil)
		}
		if _, err := writer.Commit(w.t.Context(), p, raw, position, keys, states, 0); err != nil {
			w.t.Fatal(err)
		}
	}
}

// writer is a client that goes around whatever stands between the stage and Redis.
func (w *world) writer() redis.UniversalClient {
	c := redis.NewClient(&redis.Options{Addr: w.redis.Addr()})
	w.t.Cleanup(func() { c.Close() })
	return c
}

// trained is a logistic model over some of the project's inputs: margin = intercept + sum of weight*input, missing adds nothing.
type trained struct {
	intercept float64
	weights   map[string]float64
	dataUntil time.Time
	spoil     func(*model.Bundle)
}

// register adds a version and gives its digest.
func (w *world) register(m trained) string {
	w.t.Helper()
	bundle := w.bundle(m)
	content := must[[]byte](w.t)(bundle.Encode())
	annotations := map[string]string{}
	if !m.dataUntil.IsZero() {
		annotations["data_until"] = m.dataUntil.Format(time.RFC3339)
	}
	digest := must[string](w.t)(w.registry.Put(w.t.Context(), registry.Manifest{
		Kind: registry.KindModel, Name: "late", MediaType: model.MediaBundle, Annotations: annotations,
	}, bytes.NewReader(content)))
	must[int](w.t)(w.registry.AddVersion("late", digest))
	return digest
}

// bundle packs a model.
func (w *world) bundle(m trained) model.Bundle {
	w.t.Helper()
	var inputs []model.LogisticInput
	var signature []model.SignatureInput
	for _, in := range must[*plan](w.t)(compilePlan(w.model(), w.project.Groups, nil)).inputs {
		if weight, ok := m.weights[in.name]; ok {
			inputs = append(inputs, model.LogisticInput{Name: in.name, Weight: weight, Scale: 1})
			signature = append(signature, model.SignatureInput{Name: in.name, Source: in.source})
		}
	}
	l := must[*model.Logistic](w.t)(model.NewLogistic(m.intercept, inputs))
	golden := [][]float64{make([]float64, len(inputs)), make([]float64, len(inputs))}
	for i := range inputs {
		golden[0][i], golden[1][i] = float64(i+1), math.NaN()
	}
	bundle := must[model.Bundle](w.t)(model.NewBundle(signature, l, golden))
	if m.spoil != nil {
		m.spoil(&bundle)
	}
	return bundle
}

// promote registers a version and makes it the champion.
func (w *world) promote(m trained) string {
	w.t.Helper()
	digest := w.register(m)
	w.crown(digest)
	return digest
}

// crown makes a version the champion.
func (w *world) crown(digest string) {
	w.t.Helper()
	now, _, _ := w.registry.Alias("late", registry.Champion)
	if err := w.registry.SetAlias(w.t.Context(), "late", registry.Champion, digest, now, ""); err != nil {
		w.t.Fatal(err)
	}
}

// byDelay scores by the mean delay of the last hour.
func byDelay(weight float64) trained {
	return trained{intercept: -1, weights: map[string]float64{"origin_delays.delay_mean_1h": weight, "distance": 0.001}}
}

func sigmoid(x float64) float64 { return 1 / (1 + math.Exp(-x)) }

func (w *world) awaitReady() {
	w.t.Helper()
	eventually(w.t, "ready", func() bool { return w.stage.Ready() == nil })
}

// answerBody is what a client sees.
type answerBody struct {
	Predictions []predictionBody
	Code        string
	Field       string
	Detail      string
	Status      int
}

type predictionBody struct {
	ID           string
	Score        *float64
	Model        string
	Version      int
	Digest       string
	Arm          string
	Rung         string
	Reason       string
	JoinKey      string `json:"join_key"`
	At           time.Time
	Source       string
	ReasonMethod string `json:"reason_method"`
	Features     []struct {
		Name      string
		Value     *float64
		Status    string
		EventTime *time.Time `json:"event_time"`
	}
	Reasons []struct {
		Input        string
		Contribution float64
	}
}

const flight = `{"flight_id":"f1","scheduled":"2001-05-20T12:30:00Z","origin":"ATL","distance":1000}`

func (w *world) post(body string, headers ...string) (int, answerBody) {
	w.t.Helper()
	r := must[*http.Request](w.t)(http.NewRequest(http.MethodPost, w.server.URL+"/v1/models/late:score", strings.NewReader(body)))
	for i := 0; i+1 < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	resp := must[*http.Response](w.t)(w.server.Client().Do(r))
	var a answerBody
	w.decode(resp, &a)
	return resp.StatusCode, a
}

func (w *world) get(path string, into any) int {
	w.t.Helper()
	resp := must[*http.Response](w.t)(w.server.Client().Get(w.server.URL + path))
	w.decode(resp, into)
	return resp.StatusCode
}

func (w *world) decode(resp *http.Response, into any) {
	w.t.Helper()
	defer resp.Body.Close()
	b := must[[]byte](w.t)(io.ReadAll(resp.Body))
	want := "application/json"
	if resp.StatusCode >= 400 {
		want = "application/problem+json"
	}
	if got := resp.Header.Get("Content-Type"); got != want {
		w.t.Errorf("%d with content type %q, want %q", resp.StatusCode, got, want)
	}
	if into == nil {
		return
	}
	if err := json.Unmarshal(b, into); err != nil {
		w.t.Fatalf("%v in %s", err, b)
	}
}

// client is a Kafka client of the test's own.
func (w *world) client(opts ...kgo.Opt) *kgo.Client {
	w.t.Helper()
	c := must[*kgo.Client](w.t)(kgo.NewClient(append([]kgo.Opt{kgo.SeedBrokers(w.kafka.ListenAddrs()...), kgo.RecordPartitioner(kgo.ManualPartitioner())}, opts...)...))
	w.t.Cleanup(c.Close)
	return c
}

// predictions reads what committed readers see on the topic now.
func (w *world) predictions() []schemas.Prediction {
	w.t.Helper()
	c := w.client(kgo.ConsumeTopics("predictions"), kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.KeepControlRecords())
	ends := must[kadm.ListedOffsets](w.t)(kadm.NewClient(c).ListCommittedOffsets(w.t.Context(), "predictions"))
	left := map[int32]int64{}
	ends.Each(func(o kadm.ListedOffset) {
		if o.Offset > 0 {
			left[o.Partition] = o.Offset
		}
	})
	ctx, cancel := timeoutContext(w.t, time.Minute)
	defer cancel()
	var out []schemas.Prediction
	for len(left) > 0 { // the last before the end is a record or the marker of a transaction
		fetches := c.PollFetches(ctx)
		if err := fetches.Err0(); err != nil {
			w.t.Fatalf("reading predictions, %v left: %v", left, err)
		}
		fetches.EachRecord(func(r *kgo.Record) {
			if r.Offset+1 >= left[r.Partition] {
				delete(left, r.Partition)
			}
			if r.Attrs.IsControl() {
				return
			}
			p, err := schemas.UnmarshalPrediction(r.Value)
			if err != nil {
				w.t.Fatal(err)
			}
			if string(r.Key) != p.JoinKey || r.Timestamp.UnixMilli() != p.At {
				w.t.Errorf("prediction %s at %d has key %q and timestamp %d", p.ID, p.At, r.Key, r.Timestamp.UnixMilli())
			}
			out = append(out, p)
		})
	}
	return out
}

// depart produces departures, the i-th to partition i%partitions, a minute apart from a time on.
func (w *world) depart(from, n int, start time.Time, origin string) {
	w.t.Helper()
	encoder := must[schemas.Encoder](w.t)(schemas.NewEncoder(w.model().On.Schema, schemas.Avro, nil, ""))
	c := w.client()
	var records []*kgo.Record
	for i := from; i < from+n; i++ {
		at := start.Add(time.Duration(i) * time.Minute)
		value := must[[]byte](w.t)(encoder.Encode(w.t.Context(), schemas.Row{
			schemas.StringValue(flightID(i)), schemas.TimeValue(at.UnixMilli()), schemas.StringValue(origin), schemas.IntValue(1000),
		}))
		records = append(records, &kgo.Record{Topic: "departures", Partition: int32(i % partitions), Key: []byte(flightID(i)), Value: value, Timestamp: at})
	}
	if err := c.ProduceSync(w.t.Context(), records...).FirstErr(); err != nil {
		w.t.Fatal(err)
	}
}

func flightID(i int) string {
	return "f" + string(rune('A'+i/26/26)) + string(rune('A'+i/26%26)) + string(rune('A'+i%26))
}

// metric sums the samples of a metric whose labels have the given pairs.
func (w *world) metric(name string, labels ...string) float64 {
	w.t.Helper()
	families, err := w.metrics.Gather()
	if err != nil {
		w.t.Fatal(err)
	}
	sum := 0.0
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
	samples:
		for _, m := range f.GetMetric() {
			has := map[string]string{}
			for _, l := range m.GetLabel() {
				has[l.GetName()] = l.GetValue()
			}
			for i := 0; i+1 < len(labels); i += 2 {
				if has[labels[i]] != labels[i+1] {
					continue samples
				}
			}
			sum += m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
		}
	}
	return sum
}

func partitionOf(entity string) int32 { return online.Partition(online.Murmur2, entity, partitions) }

// neighbour is an entity whose state lies in the same partition as another's.
func neighbour(of string) string {
	for i := 0; ; i++ {
		if name := fmt.Sprint("N", i); partitionOf(name) == partitionOf(of) {
			return name
		}
	}
}
