package streams_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace/millrace/internal/failure"
	"github.com/millrace/millrace/schemas"
	"github.com/millrace/millrace/streams"
	"github.com/millrace/millrace/streams/broker"
)

const patience = time.Minute

// kafka is the one of the environment variable MILLRACE_TEST_KAFKA, or an embedded one.
func kafka(t *testing.T) (streams.Config, *kgo.Client) {
	t.Helper()
	addr := os.Getenv("MILLRACE_TEST_KAFKA")
	if addr == "" {
		b, err := broker.Start("", 0)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(b.Close)
		addr = b.Addr()
	}
	config := streams.Config{Brokers: []string{addr}}
	client, err := streams.NewClient(config, kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	return config, client
}

// topic creates one with a name of its own, and n records in each partition.
func topic(t *testing.T, client *kgo.Client, partitions int32, n int) string {
	t.Helper()
	name := fmt.Sprintf("t%d", rand.Uint64())
	if err := streams.EnsureTopics(t.Context(), client, []schemas.Topic{{Name: name, Partitions: partitions}}); err != nil {
		t.Fatal(err)
	}
	produce(t, client, name, partitions, n)
	return name
}

func produce(t *testing.T, client *kgo.Client, topic string, partitions int32, n int) {
	t.Helper()
	var records []*kgo.Record
	for p := range partitions {
		for i := range n {
			records = append(records, &kgo.Record{Topic: topic, Partition: p, Value: fmt.Append(nil, i)})
		}
	}
	if err := client.ProduceSync(t.Context(), records...).FirstErr(); err != nil {
		t.Fatal(err)
	}
}

func await(t *testing.T, what string, ok func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

// ledger is a store of positions, as Redis is one: a worker writes only onto the position it last saw.
type ledger struct {
	mu   sync.Mutex
	next map[int32]int64
}

func (l *ledger) at(p int32) int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.next[p]
}

func (l *ledger) total() (n int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, next := range l.next {
		n += next
	}
	return n
}

// counting is a worker that checks that records come without a hole from where it said, and writes its position to the ledger.
type counting struct {
	t         *testing.T
	ledger    *ledger
	partition int32
	next      int64
	fail      func(offset int64) error // asked before each record
}

func (w *counting) Start(context.Context, int64) (int64, error) {
	w.next = w.ledger.at(w.partition)
	return w.next, nil
}

func (w *counting) Run(ctx context.Context, in *streams.Input) error {
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-in.Ready():
		}
		records, ended := in.Take()
		from := w.next
		for _, r := range records {
			if r.Offset != w.next {
				w.t.Errorf("partition %d: offset %d came, want %d", w.partition, r.Offset, w.next)
			}
			if w.fail != nil {
				if err := w.fail(r.Offset); err != nil {
					return err
				}
			}
			w.next = r.Offset + 1
		}
		w.ledger.mu.Lock()
		moved := w.ledger.next[w.partition] != from
		if !moved {
			w.ledger.next[w.partition] = w.next
		}
		w.ledger.mu.Unlock()
		if moved {
			return failure.New(failure.Conflict, "ledger", "another owner of partition %d", w.partition)
		}
		in.Done(w.next)
		if ended {
			return nil
		}
	}
}

func config(group, topic string, worker func(partition int32) streams.Worker) streams.ConsumerConfig {
	return streams.ConsumerConfig{
		Group: group, Topics: []string{topic}, Log: slog.New(slog.DiscardHandler),
		NewWorker:    func(_ string, p int32) streams.Worker { return worker(p) },
		QueueRecords: 50, PollRecords: 20, CommitEvery: 10 * time.Millisecond, SessionTimeout: 6 * time.Second, StopTimeout: 2 * time.Second,
		BackoffMin: time.Millisecond, BackoffMax: 10 * time.Millisecond, FetchMaxWait: 20 * time.Millisecond, FetchPartitionBytes: 1 << 20,
	}
}

// run runs a consumer; stop ends it and gives what Run gave.
func run(t *testing.T, kafka streams.Config, cfg streams.ConsumerConfig) (stop func() error, ended <-chan struct{}) {
	t.Helper()
	c, err := streams.NewConsumer(kafka, cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		err = c.Run(ctx)
		close(done)
	}()
	stop = func() error { cancel(); <-done; return err }
	t.Cleanup(func() { stop() })
	return stop, done
}

func TestConsumerCommitsWhatIsDone(t *testing.T) {
	kafka, client := kafka(t)
	name := topic(t, client, 3, 500)
	book := &ledger{next: map[int32]int64{}}
	stop, _ := run(t, kafka, config(name, name, func(p int32) streams.Worker { return &counting{t: t, ledger: book, partition: p} }))
	await(t, "all records", func() bool { return book.total() == 1500 })
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	lags, err := streams.Lag(t.Context(), client, name)
	if err != nil || len(lags) != 1 || lags[0].Group != name || lags[0].Lag != 0 || len(lags[0].Partitions) != 3 {
		t.Fatalf("lags are %+v, %v", lags, err)
	}
	for p, l := range lags[0].Partitions {
		if l != (streams.PartitionLag{Topic: name, Partition: int32(p), Next: 500, End: 500}) {
			t.Errorf("lag is %+v", l)
		}
	}
}

// telling is a worker that is never done with more than the first record, and tells how far it has handed on the others.
type telling struct{ tell chan streams.Progress }

func (w *telling) Start(context.Context, int64) (int64, error) { return 0, nil }

func (w *telling) Run(ctx context.Context, in *streams.Input) error {
	in.Done(1)
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-in.Ended():
			return nil
		case p := <-w.tell:
			in.HandedOn(p)
		}
	}
}

func TestConsumerCommitsProgress(t *testing.T) {
	kafka, client := kafka(t)
	name := topic(t, client, 1, 10)
	tell := make(chan streams.Progress)
	stop, _ := run(t, kafka, config(name, name, func(int32) streams.Worker { return &telling{tell} }))
	committed := func() (int64, streams.Progress, bool) {
		all, err := kadm.NewClient(client).FetchOffsets(t.Context(), name)
		if err != nil && !errors.Is(err, kerr.GroupIDNotFound) {
			t.Fatal(err)
		}
		c, _ := all.Lookup(name, 0)
		p, told := streams.ParseProgress(c.Metadata)
		return c.At, p, told
	}
	await(t, "the first commit", func() bool { at, _, told := committed(); return at == 1 && !told })
	for _, p := range []streams.Progress{{Next: 5, Newest: 990_000_000_000}, {Next: 7, Newest: -3}} {
		tell <- p
		await(t, "the progress", func() bool { at, got, told := committed(); return at == 1 && told && got == p })
	}
	if err := stop(); err != nil {
		t.Fatal(err)
	}
}

func TestProgressIsTold(t *testing.T) {
	for _, metadata := range []string{"", "someone else's", "millrace/1 next=5", "millrace/1 next=5 newest=7 and more", "millrace/2 next=5 newest=7"} {
		if p, told := streams.ParseProgress(metadata); told {
			t.Errorf("%q is read as %+v", metadata, p)
		}
	}
}

// TestWorkerStartsOver has workers fail now and then with what may pass; they must be given the records again from where they say.
func TestWorkerStartsOver(t *testing.T) {
	kafka, client := kafka(t)
	name := topic(t, client, 3, 800)
	book := &ledger{next: map[int32]int64{}}
	var mu sync.Mutex
	random, restarts := rand.New(rand.NewPCG(3, 4)), 0
	cfg := config(name, name, func(p int32) streams.Worker {
		return &counting{t: t, ledger: book, partition: p, fail: func(int64) error {
			mu.Lock()
			defer mu.Unlock()
			if random.IntN(100) == 0 {
				return failure.New(failure.Unavailable, "store", "the test says so")
			}
			return nil
		}}
	})
	cfg.Restarted = func(string, int32, error) { mu.Lock(); restarts++; mu.Unlock() }
	stop, _ := run(t, kafka, cfg)
	await(t, "all records", func() bool { return book.total() == 2400 })
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	if restarts == 0 {
		t.Error("no worker started over")
	}
}

// startFails is a worker whose first Start fails with what may pass.
type startFails struct {
	*counting
	failed  bool
	running chan<- struct{}
}

func (w *startFails) Start(ctx context.Context, committed int64) (int64, error) {
	if !w.failed {
		w.failed = true
		return 0, failure.New(failure.Unavailable, "store", "the test says so")
	}
	return w.counting.Start(ctx, committed)
}

func (w *startFails) Run(ctx context.Context, in *streams.Input) error {
	select {
	case w.running <- struct{}{}:
	default:
	}
	return w.counting.Run(ctx, in)
}

// startWaits is a worker whose Start takes its time.
type startWaits struct {
	*counting
	until <-chan struct{}
}

func (w *startWaits) Start(ctx context.Context, committed int64) (int64, error) {
	<-w.until
	return w.counting.Start(ctx, committed)
}

// TestWorkerStartsOverBeforeAssigned has one worker fail to start, and say where to begin while another of the same assignment is still
// starting: the client does not know of its partition yet.
func TestWorkerStartsOverBeforeAssigned(t *testing.T) {
	kafka, client := kafka(t)
	name := topic(t, client, 2, 100)
	book := &ledger{next: map[int32]int64{1: 60}}
	running, until := make(chan struct{}, 1), make(chan struct{})
	stop, ended := run(t, kafka, config(name, name, func(p int32) streams.Worker {
		w := &counting{t: t, ledger: book, partition: p}
		if p == 0 {
			return &startWaits{counting: w, until: until}
		}
		return &startFails{counting: w, running: running}
	}))
	select {
	case <-running: // too early
	case <-time.After(300 * time.Millisecond):
	}
	close(until)
	await(t, "all records", func() bool {
		select {
		case <-ended:
			t.Fatal(stop())
		default:
		}
		return book.total() == 200
	})
}

func TestWorkerFailsForGood(t *testing.T) {
	kafka, client := kafka(t)
	name := topic(t, client, 2, 100)
	book := &ledger{next: map[int32]int64{}}
	broken := failure.New(failure.Corrupt, "state", "the test says so")
	_, ended := run(t, kafka, config(name, name, func(p int32) streams.Worker {
		return &counting{t: t, ledger: book, partition: p, fail: func(offset int64) error {
			if p == 1 && offset == 50 {
				return broken
			}
			return nil
		}}
	}))
	select {
	case <-ended:
	case <-time.After(patience):
		t.Fatal("it went on")
	}
	if book.at(1) > 50 {
		t.Errorf("partition 1 is at %d", book.at(1))
	}
}

// TestSlowWorkerStopsOnlyItself has the worker of one partition hang.
func TestSlowWorkerStopsOnlyItself(t *testing.T) {
	kafka, client := kafka(t)
	name := topic(t, client, 2, 600)
	book := &ledger{next: map[int32]int64{}}
	hang := make(chan struct{})
	stop, _ := run(t, kafka, config(name, name, func(p int32) streams.Worker {
		w := &counting{t: t, ledger: book, partition: p}
		if p == 0 {
			w.fail = func(int64) error { <-hang; return nil }
		}
		return w
	}))
	await(t, "partition 1", func() bool { return book.at(1) == 600 })
	produce(t, client, name, 2, 300)
	await(t, "more of partition 1", func() bool { return book.at(1) == 900 })
	close(hang)
	await(t, "partition 0", func() bool { return book.at(0) == 900 })
	if err := stop(); err != nil {
		t.Fatal(err)
	}
}

// TestMembersComeAndGo moves partitions between members while records come. Each worker checks that it gets them without a hole.
func TestMembersComeAndGo(t *testing.T) {
	kafka, client := kafka(t)
	const partitions = 6
	name := topic(t, client, partitions, 100)
	book := &ledger{next: map[int32]int64{}}
	cfg := config(name, name, func(p int32) streams.Worker { return &counting{t: t, ledger: book, partition: p} })
	first, _ := run(t, kafka, cfg)
	total := int64(100 * partitions)
	for range 4 {
		second, _ := run(t, kafka, cfg)
		produce(t, client, name, partitions, 100)
		total += 100 * partitions
		await(t, "records while a member comes", func() bool { return book.total() == total })
		if err := first(); err != nil {
			t.Fatal(err)
		}
		produce(t, client, name, partitions, 50)
		total += 50 * partitions
		await(t, "records while a member goes", func() bool { return book.total() == total })
		first = second
	}
	if err := first(); err != nil {
		t.Fatal(err)
	}
}

func TestEnsureTopics(t *testing.T) {
	_, client := kafka(t)
	prefix := fmt.Sprintf("e%d-", rand.Uint64())
	stream, clients := []string{schemas.RoleStream}, []string{schemas.RoleClients}
	topics := []schemas.Topic{
		{Name: prefix + "user", Partitions: 3, Producers: clients, Consumers: stream},
		{Name: prefix + "keyed", Partitions: 4, Retention: 48 * time.Hour, Producers: stream, Consumers: stream},
		{Name: prefix + "models", Partitions: 1, Compact: true, Producers: clients, Consumers: clients},
	}
	for range 2 {
		if err := streams.EnsureTopics(t.Context(), client, topics); err != nil {
			t.Fatal(err)
		}
	}
	for _, each := range topics {
		if n, err := streams.Partitions(t.Context(), client, each.Name); err != nil || n != each.Partitions {
			t.Errorf("%s has %d partitions, %v", each.Name, n, err)
		}
		configs, err := kadm.NewClient(client).DescribeTopicConfigs(t.Context(), each.Name)
		if err != nil {
			t.Fatal(err)
		}
		retention, policy := "-1", "delete"
		if each.Retention > 0 {
			retention = fmt.Sprint(each.Retention.Milliseconds())
		}
		if each.Compact {
			policy = "compact"
		}
		for _, c := range configs[0].Configs {
			if c.Key == "retention.ms" && c.MaybeValue() != retention || c.Key == "cleanup.policy" && c.MaybeValue() != policy {
				t.Errorf("%s has %s=%s", each.Name, c.Key, c.MaybeValue())
			}
		}
	}
	for i := range topics {
		topics[i].Partitions += 5
	}
	if err := streams.EnsureTopics(t.Context(), client, topics[:1]); err != nil {
		t.Errorf("the user's topic has another partition count: %v, want it to be adopted", err)
	}
	if err := streams.EnsureTopics(t.Context(), client, topics); failure.Of(err) != failure.BadProject {
		t.Errorf("a keyed topic has another partition count: %v, want BadProject", err)
	}
	if _, err := streams.Partitions(t.Context(), client, prefix+"none"); failure.Of(err) != failure.NotFound {
		t.Errorf("no such topic: %v, want NotFound", err)
	}
}

func TestDeadLetters(t *testing.T) {
	kafka, client := kafka(t)
	name := topic(t, client, 1, 0)
	want := schemas.DeadLetter{
		Topic: "events", Partition: 3, Offset: 99, Timestamp: 5, Class: "range", Reason: "too far", Stage: "ingest/events",
		Key: []byte("k"), Value: []byte("\x00bytes\xff"),
	}
	if err := streams.NewDeadLetters(client, nil, name).Write(t.Context(), want, want); err != nil {
		t.Fatal(err)
	}
	reader, err := streams.NewClient(kafka, kgo.ConsumeTopics(name), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	fetches := reader.PollFetches(t.Context())
	if fetches.NumRecords() == 0 {
		t.Fatal(fetches.Err())
	}
	fetches.EachRecord(func(r *kgo.Record) {
		got, err := streams.ParseDeadLetter(r)
		if err != nil || fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("letter is %+v, %v, want %+v", got, err, want)
		}
	})
	if _, err := streams.ParseDeadLetter(&kgo.Record{}); failure.Of(err) != failure.BadRecord {
		t.Errorf("a record that is no letter: %v, want BadRecord", err)
	}
}

func TestConfigFaults(t *testing.T) {
	for name, c := range map[string]streams.Config{
		"no broker":       {},
		"no port":         {Brokers: []string{"localhost"}},
		"compression":     {Brokers: []string{"a:1"}, Compression: "rar"},
		"mechanism":       {Brokers: []string{"a:1"}, SASL: streams.SASL{Mechanism: "gssapi"}},
		"half a key pair": {Brokers: []string{"a:1"}, TLS: streams.TLS{CertFile: "x"}},
	} {
		if err := c.Validate(); failure.Of(err) != failure.BadProject {
			t.Errorf("%s: %v, want BadProject", name, err)
		}
		if _, err := streams.NewClient(c); err == nil {
			t.Errorf("%s: a client was made", name)
		}
	}
	if err := (streams.Config{Brokers: []string{"a:1", "b:2"}, Compression: "zstd", SASL: streams.SASL{Mechanism: "PLAIN"}}).Validate(); err != nil {
		t.Error(err)
	}
}
