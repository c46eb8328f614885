package monitor_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace/millrace/features"
	"github.com/millrace/millrace/features/profile"
	"github.com/millrace/millrace/internal/clock"
	"github.com/millrace/millrace/internal/failure"
	"github.com/millrace/millrace/monitor"
	"github.com/millrace/millrace/project"
	"github.com/millrace/millrace/registry/model"
	"github.com/millrace/millrace/schemas"
	"github.com/millrace/millrace/streams"
)

const (
	dayMillis = int64(24 * time.Hour / time.Millisecond)
	perDay    = 400
	patience  = time.Minute
)

// world is a broker, a project with one model, and what is scored there.
type world struct {
	t       *testing.T
	cluster *kfake.Cluster
	kafka   streams.Config
	project *project.Project
	client  *kgo.Client
	random  *rand.Rand
	base    map[string]*profile.Baseline
}

func newWorld(t *testing.T) *world {
	t.Helper()
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.BrokerConfigs(map[string]string{"log.retention.ms": "-1", "group.initial.rebalance.delay.ms": "0"}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cluster.Close)
	w := &world{t: t, cluster: cluster, kafka: streams.Config{Brokers: cluster.ListenAddrs(), Compression: "none"}, random: rand.New(rand.NewPCG(1, 2))}
	w.project = testProject(t)
	if w.client, err = streams.NewClient(w.kafka); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.client.Close)
	own := w.project.Own()
	topics := []schemas.Topic{own.Predictions, own.Drift, own.Retrain, {Name: "arrivals", Partitions: 2}}
	if err := streams.EnsureTopics(t.Context(), w.client, topics); err != nil {
		t.Fatal(err)
	}
	w.base = map[string]*profile.Baseline{"one": w.baseline(0), "two": w.baseline(1.5)}
	return w
}

func testProject(t *testing.T) *project.Project {
	t.Helper()
	arrival, err := schemas.Parse("arrival", []byte(`{"type":"record","name":"arrival","fields":[
		{"name":"flight","type":"string"},
		{"name":"arrived","type":{"type":"long","logicalType":"timestamp-millis"}},
		{"name":"delay","type":["null","double"]}]}`))
	if err != nil {
		t.Fatal(err)
	}
	late, err := features.CompileExpression("delay > 15", arrival, schemas.Bool)
	if err != nil {
		t.Fatal(err)
	}
	source := &project.Source{Name: "arrivals", Topic: "arrivals", Schema: arrival, Format: schemas.JSON, Key: "flight", Time: "arrived", Partitions: 2}
	return &project.Project{
		Name: "test", Partitions: 2, Sources: []*project.Source{source},
		Models: []*project.Model{{
			Name: "late", On: source, Task: model.TaskBinary, Label: project.Label{Source: source, Join: "flight", Value: late, Within: 6 * time.Hour},
			Monitor: project.Monitor{Window: 24 * time.Hour, MinRows: 100, After: 2, Of: 3, MinColumns: 1, Cooldown: 10 * 24 * time.Hour},
		}},
	}
}

// inputs are a value that decides, one that does not, and one that is often null.
func (w *world) inputs(shift float64) []float64 {
	x := []float64{w.random.NormFloat64() + shift, w.random.NormFloat64(), w.random.NormFloat64()}
	if w.random.Float64() < 0.1 {
		x[2] = math.NaN()
	}
	return x
}

func (w *world) outcome(x []float64) (score float64, late bool) {
	score = 1 / (1 + math.Exp(-x[0]))
	return score, w.random.Float64() < score
}

var inputNames = []string{"decides", "idles", "gaps"}

func (w *world) baseline(shift float64) *profile.Baseline {
	var columns [3][]float64
	var scores, labels []float64
	var chunk []int
	for i := range 20 * perDay {
		x := w.inputs(shift)
		for c, v := range x {
			columns[c] = append(columns[c], v)
		}
		score, late := w.outcome(x)
		label := 0.0
		if late {
			label = 1
		}
		scores, labels, chunk = append(scores, score), append(labels, label), append(chunk, i/perDay)
	}
	b := profile.Build(inputNames, columns[:], chunk)
	b.HoldOut(scores, labels, chunk)
	return b
}

// Baseline gives the model versions "one" and "two" theirs.
func (w *world) Baseline(digest string) (*profile.Baseline, error) {
	if b, ok := w.base[digest]; ok {
		return b, nil
	}
	return nil, failure.New(failure.NotFound, digest, "no such model")
}

// day makes the predictions of a day and the labels of nine tenths of them, an hour later. from and to are shares of the day.
func (w *world) day(number int, digest string, shift, from, to float64) (predictions, labels []*kgo.Record) {
	for i := int(from * perDay); i < int(to*perDay); i++ {
		at := int64(number)*dayMillis + int64(i)*dayMillis/perDay
		key := fmt.Sprintf("%d-%d", number, i)
		x := w.inputs(shift)
		score, late := w.outcome(x)
		p := schemas.Prediction{
			ID: "late/departures/" + key, Model: "late", Digest: digest, Version: 1, At: at, ScoredAt: at, JoinKey: key,
			Score: score, Rung: schemas.RungPrimary, Source: "departures/0/1",
		}
		for c, v := range x {
			in := schemas.PredictionInput{Name: inputNames[c], Status: "present"}
			if math.IsNaN(v) {
				in.Status = "null"
			} else {
				in.Value = &v
			}
			p.Inputs = append(p.Inputs, in)
		}
		value, err := p.Marshal()
		if err != nil {
			w.t.Fatal(err)
		}
		predictions = append(predictions, &kgo.Record{Topic: "predictions", Key: []byte(key), Value: value, Timestamp: time.UnixMilli(at)})
		if i%10 == 0 {
			continue
		}
		delay := 0
		if late {
			delay = 30
		}
		text := fmt.Sprintf(`{"flight":%q,"arrived":%d,"delay":%d}`, key, at+3_600_000, delay)
		labels = append(labels, &kgo.Record{Topic: "arrivals", Key: []byte(key), Value: []byte(text), Timestamp: time.UnixMilli(at + 3_600_000)})
	}
	return predictions, labels
}

func (w *world) produce(records ...[]*kgo.Record) {
	w.t.Helper()
	for _, r := range records {
		if err := w.client.ProduceSync(w.t.Context(), r...).FirstErr(); err != nil {
			w.t.Fatal(err)
		}
	}
}

func (w *world) days(first, last int, digest string, shift float64) {
	for d := first; d <= last; d++ {
		predictions, labels := w.day(d, digest, shift, 0, 1)
		w.produce(predictions, labels)
	}
}

type replica struct {
	*monitor.Stage
	registry *prometheus.Registry
	stop     func()
}

// start runs a replica until it is stopped, or the test ends.
func (w *world) start(change func(*monitor.Config)) *replica {
	w.t.Helper()
	c := monitor.Default()
	c.IdleAfter, c.CommitEvery, c.Backoff = 300*time.Millisecond, 20*time.Millisecond, 20*time.Millisecond
	if change != nil {
		change(&c)
	}
	r := &replica{registry: prometheus.NewRegistry()}
	stage, err := monitor.New(c, monitor.Deps{
		Project: w.project, Kafka: w.kafka, Baselines: w, Clock: clock.System, Log: slog.New(slog.NewTextHandler(io.Discard, nil)), Registerer: r.registry,
	})
	if err != nil {
		w.t.Fatal(err)
	}
	r.Stage = stage
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- stage.Run(ctx) }()
	r.stop = sync.OnceFunc(func() {
		cancel()
		select {
		case err := <-done:
			if err != nil {
				w.t.Errorf("Run: %v", err)
			}
		case <-time.After(patience):
			w.t.Error("Run did not return")
		}
	})
	w.t.Cleanup(r.stop)
	return r
}

// events reads everything that is committed on the drift and retrain topics.
func (w *world) events() (drift []schemas.Drift, requests []schemas.Retrain) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	ends, err := kadm.NewClient(w.client).ListCommittedOffsets(ctx, "drift", "retrain")
	if err != nil {
		w.t.Fatal(err)
	}
	client, err := streams.NewClient(w.kafka, kgo.ConsumeTopics("drift", "retrain"), kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.KeepControlRecords(), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	if err != nil {
		w.t.Fatal(err)
	}
	defer client.Close()
	left := map[string]int64{}
	ends.Each(func(o kadm.ListedOffset) {
		if o.Offset > 0 {
			left[o.Topic] = o.Offset
		}
	})
	for len(left) > 0 {
		fetches := client.PollFetches(ctx)
		if fetches.Err0() != nil {
			w.t.Fatal(fetches.Err0())
		}
		fetches.EachRecord(func(r *kgo.Record) {
			if r.Offset+1 >= left[r.Topic] {
				delete(left, r.Topic)
			}
			if r.Attrs.IsControl() {
				return
			}
			if r.Topic == "drift" {
				e, err := schemas.UnmarshalDrift(r.Value)
				if err != nil {
					w.t.Fatal(err)
				}
				drift = append(drift, e)
				return
			}
			e, err := schemas.UnmarshalRetrain(r.Value)
			if err != nil {
				w.t.Fatal(err)
			}
			requests = append(requests, e)
		})
	}
	return drift, requests
}

// until waits for a number of events of a kind.
func (w *world) until(kind string, n int) (drift []schemas.Drift, requests []schemas.Retrain) {
	w.t.Helper()
	w.eventually(fmt.Sprintf("%d events of kind %s", n, kind), func() bool {
		drift, requests = w.events()
		return len(of(drift, kind)) >= n
	})
	return drift, requests
}

func (w *world) eventually(what string, ok func() bool) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), patience)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			drift, _ := w.events()
			w.t.Fatalf("never: %s; there are %v", what, summary(drift))
		}
	}
}

func of(drift []schemas.Drift, kind string) (out []schemas.Drift) {
	for _, e := range drift {
		if e.Kind == kind {
			out = append(out, e)
		}
	}
	return out
}

func summary(drift []schemas.Drift) (out []string) {
	for _, e := range drift {
		out = append(out, fmt.Sprintf("%s day %d %s %s rows %d labels %d: %s", e.Digest, e.WindowStart/dayMillis, e.Kind, e.State, e.Rows, e.Labels, e.Reason))
	}
	return out
}

// checkOnce fails when anything was said twice.
func (w *world) checkOnce(drift []schemas.Drift, requests []schemas.Retrain) {
	w.t.Helper()
	seen := map[string]bool{}
	for _, e := range drift {
		if seen[e.ID] {
			w.t.Errorf("%s was published twice", e.ID)
		}
		seen[e.ID] = true
	}
	for _, e := range requests {
		if seen[e.ID] {
			w.t.Errorf("%s was published twice", e.ID)
		}
		if !seen[e.DriftID] {
			w.t.Errorf("request %s is about %s, which was not published", e.ID, e.DriftID)
		}
		seen[e.ID] = true
	}
}

// TestDriftIsFoundAndANewModelAskedForOnce follows six days, of which the last three are shifted.
func TestDriftIsFoundAndANewModelAskedForOnce(t *testing.T) {
	w := newWorld(t)
	w.days(100, 102, "one", 0)
	w.days(103, 105, "one", 1.5)
	again, _ := w.day(105, "one", 1.5, 0, 0.5) // delivered again
	w.produce(again)
	w.days(106, 106, "one", 1.5)
	r := w.start(nil)
	drift, requests := w.until(schemas.DriftPerformance, 6)
	w.checkOnce(drift, requests)
	for i, e := range of(drift, schemas.DriftWindowClosed) {
		if e.WindowStart != int64(100+i)*dayMillis || e.Rows != perDay || e.Digest != "one" || e.EmittedAt == 0 {
			t.Errorf("window %d: %s", i, summary([]schemas.Drift{e}))
		}
	}
	for _, e := range of(drift, schemas.DriftPerformance) {
		if e.Labels != perDay*9/10 || e.LabelCoverage != 0.9 || e.AUC == nil || e.BaselineAUC == nil || *e.AUC < 0.6 {
			t.Errorf("performance: %s", summary([]schemas.Drift{e}))
		}
	}
	confirmed := of(drift, schemas.DriftConfirmed)
	if len(of(drift, schemas.DriftSuspected)) != 1 || len(confirmed) != 1 || confirmed[0].WindowStart != 104*dayMillis {
		t.Errorf("transitions: %v", summary(drift))
	}
	if len(requests) != 1 || requests[0].Until != 105*dayMillis || requests[0].Model != "late" || requests[0].Digest != "one" {
		t.Errorf("requests: %+v", requests)
	}
	evidence := confirmed[0].Columns[0]
	if evidence.Column != "decides" || evidence.State != monitor.StateConfirmed || evidence.Value <= evidence.Threshold || evidence.Distance <= 0 || len(evidence.Live) < 5 || len(evidence.Live) != len(evidence.Baseline) {
		t.Errorf("evidence: %+v", evidence)
	}
	if confirmed[0].PredictionPSI <= confirmed[0].PredictionThreshold {
		t.Errorf("scores: %g of %g", confirmed[0].PredictionPSI, confirmed[0].PredictionThreshold)
	}

	status := r.Status()
	m := status.Models[0]
	if !status.Leader || m.State != monitor.StateConfirmed || m.Digest != "one" || m.Last == nil || m.Performance == nil || m.RetrainAt != 105*dayMillis {
		t.Errorf("status: %+v", status)
	}
	for _, c := range m.Last.Columns {
		if len(c.Live) == 0 || len(c.Baseline) == 0 {
			t.Errorf("status without the bins of %s", c.Column)
		}
	}
	names, err := r.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	values := map[string]float64{}
	for _, family := range names {
		for _, metric := range family.GetMetric() {
			key := family.GetName()
			for _, l := range metric.GetLabel() {
				key += "," + l.GetValue()
			}
			values[key] = metric.GetGauge().GetValue() + metric.GetCounter().GetValue()
		}
	}
	for key, want := range map[string]float64{
		"millrace_drift_state,late": 2, "millrace_retrain_requests_total,late": 1, "millrace_monitor_leader": 1,
		"millrace_monitor_predictions_total,again": perDay / 2, "millrace_drift_events_total,confirmed,late": 1,
	} {
		if values[key] != want {
			t.Errorf("%s = %g, want %g", key, values[key], want)
		}
	}
	if values["millrace_drift_statistic,decides,late"] <= values["millrace_drift_threshold,decides,late"] || values["millrace_model_auc,late"] < 0.6 {
		t.Errorf("metrics: %v", values)
	}
	if problems, err := testutil.GatherAndLint(r.registry); err != nil || len(problems) > 0 {
		t.Errorf("lint: %v, %v", problems, err)
	}
}

// TestRestartsSayNothingTwice stops the monitor at many points of one stream; what is published is the same as without.
func TestRestartsSayNothingTwice(t *testing.T) {
	build := func() *world {
		w := newWorld(t)
		w.days(100, 101, "one", 0)
		w.days(102, 106, "one", 1.5)
		return w
	}
	outcome := func(w *world) map[string]string {
		drift, requests := w.until(schemas.DriftPerformance, 6)
		w.checkOnce(drift, requests)
		out := map[string]string{}
		for _, e := range drift {
			e.EmittedAt = 0
			out[e.ID] = fmt.Sprintf("%+v", summary([]schemas.Drift{e}))
		}
		for _, e := range requests {
			out[e.ID] = fmt.Sprint(e.Until)
		}
		return out
	}
	calm := build()
	calm.start(nil)
	want := outcome(calm)

	shaken := build()
	for i := range 8 {
		r := shaken.start(func(c *monitor.Config) { c.Poll = 50 })
		if i < 7 {
			closed := i
			shaken.eventually(fmt.Sprintf("%d windows closed", closed), func() bool {
				drift, _ := shaken.events()
				return len(of(drift, schemas.DriftWindowClosed)) >= min(closed, 6)
			})
			r.stop()
		}
	}
	if got := outcome(shaken); !maps.Equal(got, want) {
		t.Errorf("with restarts:\n%v\nwithout:\n%v", got, want)
	}
}

// TestAStandbyTakesOver runs two replicas and stops the one that leads.
func TestAStandbyTakesOver(t *testing.T) {
	w := newWorld(t)
	w.days(100, 102, "one", 0)
	replicas := []*replica{w.start(nil), w.start(nil)}
	w.until(schemas.DriftWindowClosed, 2)
	leaders := func() (n int) {
		for _, r := range replicas {
			if r.Status().Leader {
				n++
			}
		}
		return n
	}
	w.eventually("one leader", func() bool { return leaders() == 1 })
	first := slices.IndexFunc(replicas, func(r *replica) bool { return r.Status().Leader })
	replicas[first].stop()
	other := replicas[1-first]
	w.eventually("the other leads", func() bool { return other.Status().Leader })
	w.days(103, 106, "one", 1.5)
	drift, requests := w.until(schemas.DriftConfirmed, 1)
	w.checkOnce(drift, requests)
	if last := other.Status().Models[0].Last; last == nil {
		t.Error("the successor does not show what its predecessor found")
	}
}

// TestAPromotionStartsAnew changes the model in the middle of a day, after drift was confirmed.
func TestAPromotionStartsAnew(t *testing.T) {
	w := newWorld(t)
	w.start(nil)
	w.days(100, 101, "one", 0)
	w.days(102, 103, "one", 1.5)
	before, labels := w.day(104, "one", 1.5, 0, 0.5)
	w.produce(before, labels)
	after, labels := w.day(104, "two", 1.5, 0.5, 1)
	w.produce(after, labels)
	w.days(105, 107, "two", 1.5)
	drift, requests := w.until(schemas.DriftPerformance, 8)
	w.checkOnce(drift, requests)
	if len(requests) != 1 || requests[0].Digest != "one" {
		t.Errorf("requests %+v", requests)
	}
	closed := 0
	for _, e := range of(drift, schemas.DriftWindowClosed) {
		want := monitor.StateOK
		switch day := e.WindowStart / dayMillis; {
		case day == 104:
			want = monitor.StateInsufficient
		case e.Digest == "one" && day == 102:
			want = monitor.StateSuspected
		case e.Digest == "one" && day == 103:
			want = monitor.StateConfirmed
		}
		closed++
		if e.State != want {
			t.Errorf("want %s: %v", want, summary([]schemas.Drift{e}))
		}
	}
	if closed < 8 {
		t.Errorf("%d windows: %v", closed, summary(drift))
	}
}

// TestWhatCannotBeCounted sends the monitor broken, foreign, unjudgeable and late records.
func TestWhatCannotBeCounted(t *testing.T) {
	w := newWorld(t)
	r := w.start(nil)
	stranger, _ := w.day(100, "stranger", 0, 0, 1)
	w.produce(stranger, []*kgo.Record{
		{Topic: "predictions", Value: []byte("nonsense")},
		{Topic: "arrivals", Value: []byte("nonsense")},
		{Topic: "arrivals", Value: []byte(`{"flight":"x","arrived":8640000000,"delay":null}`)},
	})
	w.days(101, 102, "one", 0)
	w.until(schemas.DriftWindowClosed, 1)
	beside, _ := w.day(102, "one", 5, 0, 0.01)
	for i := range beside {
		beside[i].Headers = []kgo.RecordHeader{{Key: schemas.HeaderUnsampled}}
	}
	w.produce(beside)
	late, _ := w.day(101, "one", 5, 0, 0.01)
	for i := range late {
		p, err := schemas.UnmarshalPrediction(late[i].Value)
		if err != nil {
			t.Fatal(err)
		}
		p.ID += "-late"
		late[i].Value, _ = p.Marshal()
	}
	w.produce(late)
	count := func(name, outcome string) float64 {
		families, _ := r.registry.Gather()
		for _, f := range families {
			for _, m := range f.GetMetric() {
				if f.GetName() == name && m.GetLabel()[0].GetValue() == outcome {
					return m.GetCounter().GetValue()
				}
			}
		}
		return 0
	}
	w.eventually("counts", func() bool {
		return count("millrace_monitor_predictions_total", "late") == float64(len(late)) &&
			count("millrace_monitor_predictions_total", "malformed") == 1 && count("millrace_monitor_predictions_total", "unsampled") == float64(len(beside)) &&
			count("millrace_monitor_labels_total", "malformed") == 1 && count("millrace_monitor_labels_total", "null") == 1
	})
	drift, _ := w.events()
	for _, e := range drift {
		if e.Digest != "one" {
			t.Errorf("%v", summary([]schemas.Drift{e}))
		}
	}
}
