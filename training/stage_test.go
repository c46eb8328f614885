package training

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace/millrace/project"
	"github.com/millrace/millrace/registry"
	"github.com/millrace/millrace/schemas"
	"github.com/millrace/millrace/streams"
)

// kafka is a broker of the test's own, with somebody who listens to the models topic.
type kafka struct {
	config streams.Config
	client *kgo.Client
	own    schemas.OwnSet
	events []schemas.ModelEvent
}

func newKafka(t *testing.T, p *project.Project) *kafka {
	t.Helper()
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cluster.Close)
	k := &kafka{config: streams.Config{Brokers: cluster.ListenAddrs(), Compression: "none"}, own: p.Own()}
	if k.client, err = streams.NewClient(k.config, kgo.ConsumeTopics(k.own.Models.Name), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart())); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(k.client.Close)
	if err := streams.EnsureTopics(t.Context(), k.client, k.own.All()); err != nil {
		t.Fatal(err)
	}
	return k
}

// patience is how long a test waits for what must come: a minute or two on a crowded machine with the race detector.
const patience = 3 * time.Minute

func (k *kafka) ask(t *testing.T, value []byte) {
	t.Helper()
	if err := k.client.ProduceSync(t.Context(), &kgo.Record{Topic: k.own.Retrain.Name, Value: value}).FirstErr(); err != nil {
		t.Fatal(err)
	}
}

func (k *kafka) retrain(t *testing.T, r schemas.Retrain) {
	t.Helper()
	b, err := r.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	k.ask(t, b)
}

// await reads the models topic until an event is there that ok.
func (k *kafka) await(t *testing.T, what string, ok func(schemas.ModelEvent) bool) schemas.ModelEvent {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for {
		fetches := k.client.PollFetches(ctx)
		if ctx.Err() != nil {
			t.Fatalf("no model event for %s; there were %+v", what, k.events)
		}
		var found *schemas.ModelEvent
		fetches.EachRecord(func(r *kgo.Record) {
			e, err := schemas.UnmarshalModelEvent(r.Value)
			if err != nil || string(r.Key) != e.Model {
				t.Errorf("model event %q of key %q: %v", r.Value, r.Key, err)
			}
			k.events = append(k.events, e)
			if found == nil && ok(e) {
				found = &e
			}
		})
		if found != nil {
			return *found
		}
	}
}

func forRetrain(id string) func(schemas.ModelEvent) bool {
	return func(e schemas.ModelEvent) bool { return e.RetrainID == id }
}

// start runs a stage until the test ends, or stop is called.
func (s *Stage) start(t *testing.T) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-done; err != nil {
			t.Errorf("run ended with %v", err)
		}
	}
	t.Cleanup(stop)
	return stop
}

func on(k *kafka) func(*Config, *Deps) { return func(_ *Config, d *Deps) { d.Kafka = k.config } }

func with(r *registry.Registry) func(*Config, *Deps) {
	return func(_ *Config, d *Deps) { d.Registry = r }
}

func runs(t *testing.T, r *registry.Registry) []string {
	t.Helper()
	h, err := r.History("late")
	if err != nil {
		t.Fatal(err)
	}
	var list []string
	for _, e := range h {
		if e.Run != "" && e.Kind != registry.EntryPublished {
			list = append(list, e.Run)
		}
	}
	return list
}

func TestTheRoleMakesTheFirstModelAndAnswersRequestsOnce(t *testing.T) {
	w := newWorld(t, 12, 480)
	k := newKafka(t, w.project)
	s, r := w.stage(t, on(k))
	stop := s.start(t)
	first := k.await(t, "the first model", func(e schemas.ModelEvent) bool { return e.Kind == schemas.ModelPromoted })
	// The log spans almost 12 days, so the cutoff is after 8 and one step of 2.
	if from := w.flights[0].scheduled; first.DataUntil != from+10*day || first.RetrainID != "" {
		t.Errorf("the first model is of data until %s", instant(first.DataUntil))
	}

	k.ask(t, []byte("no retrain request"))
	request := schemas.Retrain{ID: "q1", Model: "late", Digest: first.Digest, Reason: "drift", Until: w.until() - day}
	k.retrain(t, request)
	second := k.await(t, "q1", forRetrain("q1"))
	if second.Previous != first.Digest || second.DataUntil != request.Until {
		t.Errorf("event %+v", second)
	}
	k.retrain(t, request) // delivered again: answered from the registry, and it does not count as outdated
	if again := k.await(t, "q1 again", forRetrain("q1")); again.ID != second.ID || again.Kind != second.Kind || again.Digest != second.Digest {
		t.Errorf("%+v, then %+v", second, again)
	}
	k.retrain(t, schemas.Retrain{ID: "q2", Model: "late", Digest: "sha256:gone", Until: w.until()})
	if e := k.await(t, "q2", forRetrain("q2")); e.Kind != schemas.ModelRefused {
		t.Errorf("event %+v", e)
	}
	k.awaitCommitted(t, w.project.Name, 4)
	stop()
	if got := runs(t, r); !slices.Equal(got, []string{"first/" + instant(first.DataUntil), "retrain/q1", "retrain/q2"}) {
		t.Errorf("runs %v", got)
	}
	k.checkDeadLetter(t)
}

// awaitCommitted waits until the stage's consumer group is done with so many requests.
func (k *kafka) awaitCommitted(t *testing.T, project string, want int64) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for {
		lags, err := streams.Lag(ctx, k.client, ConsumerGroup(project))
		if err != nil {
			t.Fatalf("%v; want %d requests committed", err, want)
		}
		if p := lags[0].Partitions; len(p) == 1 && p[0].Next == want && p[0].Lag == 0 {
			return
		}
	}
}

func (k *kafka) checkDeadLetter(t *testing.T) {
	t.Helper()
	reader, err := streams.NewClient(k.config, kgo.ConsumeTopics(k.own.DeadLetters.Name), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	records := reader.PollFetches(ctx).Records()
	if len(records) != 1 {
		t.Fatalf("%d dead letters", len(records))
	}
	l, err := streams.ParseDeadLetter(records[0])
	if err != nil || l.Stage != "training" || l.Topic != k.own.Retrain.Name || string(l.Value) != "no retrain request" || l.Reason == "" {
		t.Errorf("dead letter %+v, %v", l, err)
	}
}

func TestOfSeveralReplicasOneMakesTheFirstModel(t *testing.T) {
	w := newWorld(t, 12, 480)
	k := newKafka(t, w.project)
	one, r := w.stage(t, on(k))
	two, _ := w.stage(t, on(k), with(r))
	stops := []func(){one.start(t), two.start(t)}
	first := k.await(t, "the first model", func(e schemas.ModelEvent) bool { return e.Kind == schemas.ModelPromoted })
	k.retrain(t, schemas.Retrain{ID: "q1", Model: "late", Digest: first.Digest, Until: w.until()})
	k.await(t, "q1", forRetrain("q1"))
	for _, stop := range stops {
		stop()
	}
	if got := runs(t, r); len(got) != 2 {
		t.Errorf("runs %v", got)
	}
	if vs, err := r.Versions("late"); err != nil || len(vs) != 2 {
		t.Errorf("versions %+v, %v", vs, err)
	}
}

// A process that dies between keeping the outcome and publishing it leaves it to the next.
func TestAnOutcomeThatWasNotPublishedIsPublishedByTheNextProcess(t *testing.T) {
	w := newWorld(t, 12, 480)
	dead, r := w.stage(t)
	q := w.request("retrain/q1")
	q.RetrainID = "q1"
	event := mustTrain(t, dead, q, schemas.ModelPromoted)
	k := newKafka(t, w.project)
	s, _ := w.stage(t, on(k), with(r))
	stop := s.start(t)
	if got := k.await(t, "q1", forRetrain("q1")); got.ID != event.ID || got.Digest != event.Digest {
		t.Errorf("published %+v, kept %+v", got, event)
	}
	stop()
	if open, err := r.Unpublished("late"); err != nil || len(open) != 0 {
		t.Errorf("unpublished %+v, %v", open, err)
	}
}

// Retrain requests come before the offline log has been flushed as far: the run waits for it.
func TestARunWaitsForTheLogToCatchUp(t *testing.T) {
	w := newWorld(t, 12, 480)
	whole := w.dir
	s, _ := w.stage(t)
	want, err := s.cutoff(t.Context(), w.model, w.until()-day)
	if err != nil || want != w.until()-day {
		t.Fatalf("the log is there, the cutoff %d, %v", want, err)
	}
	// Of a log that ends before and does not grow, the end is the cutoff.
	if got, err := s.cutoff(t.Context(), w.model, w.until()+30*day); err != nil || got >= w.until()+2*day || got < w.until()-hour {
		t.Errorf("the cutoff is %s, the log ends at %s, %v", instant(got), instant(w.until()), err)
	}
	if got, err := s.cutoff(t.Context(), w.model, 0); err != nil || got > w.until() || got < w.until()-day {
		t.Errorf("the cutoff of all is %s, the log ends at %s, %v", instant(got), instant(w.until()), err)
	}
	// Of a log that grows, it is waited for.
	w.dir = t.TempDir()
	s, _ = w.stage(t, func(c *Config, _ *Deps) { c.Patience = time.Minute })
	got := make(chan int64, 1)
	go func() {
		until, err := s.cutoff(t.Context(), w.model, w.until()-day)
		if err != nil {
			t.Error(err)
		}
		got <- until
	}()
	w.arrivals = nil
	w.write(t)
	if until := <-got; until != w.until()-day {
		t.Errorf("the cutoff is %s", instant(until))
	}
	w.dir = whole
}
