package ingest

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace/millrace/features"
	"github.com/millrace/millrace/features/offline"
	"github.com/millrace/millrace/features/online"
	"github.com/millrace/millrace/internal/clock"
	"github.com/millrace/millrace/project"
	"github.com/millrace/millrace/schemas"
	"github.com/millrace/millrace/streams"
	"github.com/millrace/millrace/streams/broker"
)

const tripSchema = `{"type": "record", "name": "Trip", "fields": [
  {"name": "id", "type": "string"},
  {"name": "city", "type": "string"},
  {"name": "rider", "type": "string"},
  {"name": "delay", "type": "int", "minimum": -1000, "maximum": 1000},
  {"name": "fare", "type": ["null", "double"]},
  {"name": "cancelled", "type": "boolean"},
  {"name": "at", "type": {"type": "long", "logicalType": "timestamp-millis"}}
]}`

const (
	sourcePartitions = 3
	start            = int64(1_700_000_000_000)
)

// rig is a Kafka and a Redis, a project on them, and what has been produced.
type rig struct {
	t       *testing.T
	kafka   string
	redis   redis.UniversalClient
	admin   *kadm.Client
	client  *kgo.Client
	project *project.Project
	dir     string

	produced [sourcePartitions][]produced
}

type produced struct {
	value []byte
	trip  *trip // nil: a record that cannot be decoded
}

type trip struct {
	id, city, rider string
	delay           int
	fare            *float64
	cancelled       bool
	at              int64
}

func newRig(t *testing.T) *rig {
	t.Helper()
	r := &rig{t: t, kafka: os.Getenv("MILLRACE_TEST_KAFKA"), dir: t.TempDir()}
	if r.kafka == "" {
		b, err := broker.Start("", 0)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(b.Close)
		r.kafka = b.Addr()
	}
	return r.on(r.kafka)
}

// on sets up everything but Kafka.
func (r *rig) on(kafka string) *rig {
	t := r.t
	t.Helper()
	r.kafka = kafka
	addr := os.Getenv("MILLRACE_TEST_REDIS")
	if addr == "" {
		e, err := online.StartEmbedded("")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { e.Close() })
		addr = e.Addr()
	}
	r.redis = r.connect(addr)
	if err := r.redis.FlushAll(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
	client, err := streams.NewClient(r.kafkaConfig(), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	r.client, r.admin = client, kadm.NewClient(client)
	r.project = testProject(t, fmt.Sprintf("t%d-", rand.Uint32()))
	if err := streams.EnsureTopics(t.Context(), client, r.project.Topology()[:1]); err != nil {
		t.Fatal(err)
	}
	return r
}

func (r *rig) connect(addr string) redis.UniversalClient {
	client, err := online.Open(r.t.Context(), online.Config{Addrs: []string{addr}})
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { client.Close() })
	return client
}

func (r *rig) kafkaConfig() streams.Config {
	return streams.Config{Brokers: []string{r.kafka}, Compression: "none"}
}

// testProject has a group per city (re-keyed, lifetime output, so that nothing is too late), one per rider (re-keyed, filtered, short), and one
// per trip, which reads the source directly.
func testProject(t *testing.T, prefix string) *project.Project {
	t.Helper()
	schema, err := schemas.Parse("trip", []byte(tripSchema))
	if err != nil {
		t.Fatal(err)
	}
	src := &project.Source{
		Name: "trips", Topic: prefix + "trips", Schema: schema, Format: schemas.JSON, Key: "id", Time: "at",
		Partitioner: project.PartitionerMurmur2, Future: time.Hour, Partitions: sourcePartitions,
	}
	p := &project.Project{Name: prefix + "project", TopicPrefix: prefix, Partitions: 4, Clock: project.ClockWall, Sources: []*project.Source{src}}
	aggregates := []features.FeatureDefinition{
		{Name: "n", Aggregate: "count()"}, {Name: "mean", Aggregate: "mean(delay)"}, {Name: "fares", Aggregate: "sum(fare)"},
		{Name: "std", Aggregate: "stddev(fare)"}, {Name: "p90", Aggregate: "quantile(fare, 0.9)"}, {Name: "last", Aggregate: "last(delay)"},
	}
	for _, d := range []features.Definition{
		{Name: "cities", Entity: []string{"city"}, Windows: []string{"10m", "2h", "lifetime"}, Features: aggregates},
		{Name: "riders", Entity: []string{"rider", "city"}, Where: "!cancelled", Windows: []string{"10m", "1h"}, Lateness: 10 * time.Minute, Features: aggregates[:4]},
		{Name: "trips_by_id", Entity: []string{"id"}, Windows: []string{"1h", "lifetime"}, Features: aggregates[:2]},
	} {
		d.Source, d.Materialize = src.Name, d.Name == "cities"
		compiled, faults := features.Compile(d, schema)
		if faults != nil {
			t.Fatal(faults)
		}
		g := &project.Group{Group: compiled, Source: src, KeyedTopic: prefix + d.Name + ".keyed", Flush: 2 * time.Millisecond}
		g.Offline.Every = 10 * time.Minute
		switch d.Name {
		case "riders":
			g.Offline = project.OfflineSettings{EveryEvent: true}
		case "trips_by_id":
			g.KeyedTopic, g.Direct = src.Topic, true
		}
		p.Groups = append(p.Groups, g)
	}
	return p
}

// trips makes events whose cities belong to one source partition each, so that every entity's events have one order; one in fifty
// cannot be used, in each of the ways there are.
func (r *rig) trips(seed uint64, n int) [sourcePartitions][]produced {
	random := rand.New(rand.NewPCG(seed, 7))
	var all [sourcePartitions][]produced
	for i := range n {
		id := fmt.Sprintf("trip-%d", random.IntN(60))
		p := online.Partition(online.Murmur2, id, sourcePartitions)
		at := start + int64(i)*4000 + random.Int64N(60_000) - 30_000
		tr := &trip{
			id: id, city: fmt.Sprintf("city-%d-%d", p, random.IntN(7)), rider: fmt.Sprintf("rider-%d", random.IntN(3)),
			delay: random.IntN(200) - 50, cancelled: random.IntN(6) == 0, at: at,
		}
		if random.IntN(5) > 0 {
			fare := random.NormFloat64()*10 + 30
			tr.fare = &fare
		}
		switch random.IntN(50) {
		case 0:
			all[p] = append(all[p], produced{value: []byte("{no json")})
			continue
		case 1:
			tr.delay = 5000 // out of range
		case 2:
			tr.at = start + 90*24*3_600_000 // in the future
		case 3:
			tr.at -= 7 * 3_600_000 // too late for riders
		case 4:
			tr.city = "" // no entity for cities and riders
		}
		b, err := json.Marshal(map[string]any{"id": tr.id, "city": tr.city, "rider": tr.rider, "delay": tr.delay, "fare": tr.fare, "cancelled": tr.cancelled, "at": tr.at})
		if err != nil {
			r.t.Fatal(err)
		}
		all[p] = append(all[p], produced{value: b, trip: tr})
	}
	return all
}

func (r *rig) produce(trips [sourcePartitions][]produced) {
	r.t.Helper()
	for p, records := range trips {
		var batch []*kgo.Record
		for _, each := range records {
			rec := &kgo.Record{Topic: r.project.Sources[0].Topic, Partition: int32(p), Value: each.value, Timestamp: time.UnixMilli(start)}
			if each.trip != nil {
				rec.Key, rec.Timestamp = []byte(each.trip.id), time.UnixMilli(each.trip.at)
			}
			batch = append(batch, rec)
		}
		if err := r.client.ProduceSync(r.t.Context(), batch...).FirstErr(); err != nil {
			r.t.Fatal(err)
		}
		r.produced[p] = append(r.produced[p], records...)
	}
}

func testConfig() Config {
	c := Default()
	c.FlushEvents, c.MaxUnflushed, c.CacheBytes, c.PollRecords, c.QueueRecords = 50, 200, 20_000, 100, 300
	c.OfflineEvery, c.OfflineRows, c.CommitEvery, c.FetchMaxWait = 10*time.Millisecond, 100, 10*time.Millisecond, 20*time.Millisecond
	c.BackoffMin, c.BackoffMax, c.SessionTimeout = 5*time.Millisecond, 50*time.Millisecond, 6*time.Second
	c.RebuildEntities = 5
	c.ProducerLinger, c.VerifyEvery, c.VersionsEvery = 0, 50*time.Millisecond, 20*time.Millisecond
	return c
}

// now is half a day after the last event in time.
var now = clock.Fixed(time.UnixMilli(start).Add(12 * time.Hour))

// stage makes a stage of the rig; opts change what it is made of.
func (r *rig) stage(opts ...func(*Config, *Deps)) *Stage {
	r.t.Helper()
	cfg := testConfig()
	deps := Deps{
		Project: r.project, Kafka: r.kafkaConfig(), Redis: r.redis, OfflineDir: r.dir, Clock: now,
		Log: slog.New(slog.DiscardHandler), Registerer: prometheus.NewRegistry(),
	}
	if os.Getenv("MILLRACE_TEST_LOG") != "" {
		deps.Log = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	for _, o := range opts {
		o(&cfg, &deps)
	}
	s, err := New(cfg, deps)
	if err != nil {
		r.t.Fatal(err)
	}
	return s
}

// running is a stage that runs.
type running struct {
	*Stage
	cancel context.CancelFunc
	ended  chan struct{}
	err    error
}

func (r *rig) run(s *Stage) *running {
	ctx, cancel := context.WithCancel(context.Background())
	g := &running{Stage: s, cancel: cancel, ended: make(chan struct{})}
	go func() {
		g.err = s.Run(ctx)
		close(g.ended)
	}()
	r.t.Cleanup(func() { cancel(); <-g.ended })
	return g
}

// stop ends it gently.
func (g *running) stop(t *testing.T) {
	t.Helper()
	g.cancel()
	<-g.ended
	if g.err != nil {
		t.Fatal(g.err)
	}
}

// dead reports whether it has ended.
func (g *running) dead() bool {
	select {
	case <-g.ended:
		return true
	default:
		return false
	}
}

const patience = time.Minute

// await waits until ok.
func (r *rig) await(what string, ok func() bool) {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), patience)
	defer cancel()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			r.t.Fatalf("waited in vain for %s", what)
		}
	}
}

// caughtUp waits until everything that was produced has been re-keyed and is in Redis.
func (r *rig) caughtUp() {
	r.t.Helper()
	r.await("the source to be re-keyed", func() bool { return r.rekeyed() >= r.total() })
	r.await("Redis to be at the end", r.atEnd)
}

// finish has an undisturbed stage do what is left, and checks.
func (r *rig) finish() {
	r.t.Helper()
	g := r.run(r.stage())
	r.await("it to have all partitions", func() bool { return len(g.Status()) == 4*sourcePartitions })
	r.await("it to have read the source", func() bool {
		ends := r.ends(r.project.Sources[0].Topic)
		for _, s := range g.Status() {
			if s.Kind == kindSource && s.Next < ends[s.Partition] {
				return false
			}
		}
		return true
	})
	r.caughtUp()
	g.stop(r.t)
	r.check()
}

func (r *rig) atEnd() bool {
	for _, g := range r.project.Groups {
		for p, end := range r.ends(g.KeyedTopic) {
			if at, _, err := r.position(g, p); err != nil || at.Next < end {
				return false
			}
		}
	}
	return true
}

func (r *rig) position(g *project.Group, p int32) (online.Position, []byte, error) {
	return online.NewWriter(r.redis, r.project.Name, g.Name, g.Version).Load(r.t.Context(), p)
}

func (r *rig) total() (n int64) {
	for _, p := range r.produced {
		n += int64(len(p))
	}
	return n
}

// rekeyed is the number of source records that the rekeyer committed.
func (r *rig) rekeyed() (n int64) {
	offsets, err := r.admin.FetchOffsets(r.t.Context(), SourceGroup(r.project, r.project.Sources[0]))
	if err != nil {
		return 0
	}
	offsets.Each(func(o kadm.OffsetResponse) { n += max(o.At, 0) })
	return n
}

func (r *rig) ends(topic string) map[int32]int64 {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), patience)
	defer cancel()
	listed, err := r.admin.ListEndOffsets(ctx, topic)
	for err == nil && listed.Error() != nil { // of a new topic the client may not know the partitions yet
		listed, err = r.admin.ListEndOffsets(ctx, topic)
	}
	if err != nil {
		r.t.Fatal(err)
	}
	ends := map[int32]int64{}
	listed.Each(func(o kadm.ListedOffset) { ends[o.Partition] = o.Offset })
	return ends
}

// letter is what must hold of a dead letter, however often it was written.
type letter struct {
	partition int32
	offset    int64
	class     string
	stage     string
	value     string
}

// expectation is what must be there in the end, worked out without Kafka and Redis: the engine, on each partition's records in their order.
type expectation struct {
	states  map[string][]byte // by Redis key
	letters []letter
	events  map[string]int64 // accepted: partition/offset to event time
	rows    []featureRow
}

type featureRow struct {
	group  string
	time   int64
	values string
}

func (r *rig) expected() expectation {
	r.t.Helper()
	src := r.project.Sources[0]
	decoder, err := schemas.NewDecoder(src.Schema, src.Format, nil)
	if err != nil {
		r.t.Fatal(err)
	}
	x := expectation{states: map[string][]byte{}, events: map[string]int64{}}
	entities := map[*project.Group]map[string]*features.Entity{}
	for _, g := range r.project.Groups {
		entities[g] = map[string]*features.Entity{}
	}
	for p, records := range r.produced {
		for offset, each := range records {
			dead := func(class, stage string) {
				x.letters = append(x.letters, letter{int32(p), int64(offset), class, stage, string(each.value)})
			}
			row, err := decoder.Decode(r.t.Context(), each.value, nil)
			switch {
			case each.trip == nil:
				dead("malformed", "ingest/trips")
				continue
			case each.trip.delay > 1000:
				dead("range", "ingest/trips")
				continue
			case each.trip.at > now().Add(time.Hour).UnixMilli():
				dead("future", "ingest/trips")
				continue
			case err != nil:
				r.t.Fatal(err)
			}
			at := each.trip.at
			x.events[fmt.Sprintf("%d/%d", p, offset)] = at
			for _, g := range r.project.Groups {
				if each.trip.city == "" && !g.Direct {
					dead("entity", "ingest/"+g.Name)
					continue
				}
				key, err := g.Key(row)
				if err != nil {
					r.t.Fatal(err)
				}
				e := entities[g][key]
				if e == nil {
					e = g.NewEntity()
					entities[g][key] = e
				}
				due := rowsDue(g, key, e, at)
				outcome, err := g.Add(e, row, at, features.Sequence(int32(p), int64(offset)))
				switch {
				case err != nil:
					r.t.Fatal(err)
				case outcome == features.TooLate:
					dead("late", "ingest/"+g.Name)
				case outcome == features.Applied && g.Offline.EveryEvent:
					x.rows = append(x.rows, rowOf(g, at+1, offline.FeatureRow(g.Group, key, g.Read(e, at+1, nil), nil)))
				case outcome == features.Applied:
					x.rows = append(x.rows, due...)
				}
			}
		}
	}
	for _, g := range r.project.Groups {
		const n = sourcePartitions // keyed topics have as many as their source
		for key, e := range entities[g] {
			if e.Newest() > 0 {
				x.states[fmt.Sprintf("mr:{%s.%s@%s/%d}:e:%s", r.project.Name, g.Name, g.Version, online.Partition(online.Murmur2, key, n), key)] = e.AppendBinary(nil)
			}
		}
	}
	slices.SortFunc(x.letters, compareLetters)
	slices.SortFunc(x.rows, compareRows)
	return x
}

// rowsDue is the rows of the boundaries that event time passes by the lateness with an event at this time.
func rowsDue(g *project.Group, key string, e *features.Entity, at int64) (due []featureRow) {
	newest := e.Newest()
	if every, late := g.Offline.Every.Milliseconds(), g.Lateness.Milliseconds(); every > 0 && newest > 0 {
		for b := (newest - late) / every * every; b <= newest+every && b+late <= at; b += every {
			if b+late > newest && b-every <= newest {
				due = append(due, rowOf(g, b, offline.FeatureRow(g.Group, key, g.Read(e, b, nil), nil)))
			}
		}
	}
	return due
}

func rowOf(g *project.Group, at int64, row schemas.Row) featureRow {
	texts := make([]string, len(row))
	for i, v := range row {
		texts[i] = v.Text()
	}
	return featureRow{g.Name, at, strings.Join(texts, "|")}
}

func compareLetters(a, b letter) int {
	return cmp.Or(cmp.Compare(a.partition, b.partition), cmp.Compare(a.offset, b.offset), cmp.Compare(a.class, b.class), cmp.Compare(a.stage, b.stage))
}

func compareRows(a, b featureRow) int {
	return cmp.Or(cmp.Compare(a.group, b.group), cmp.Compare(a.time, b.time), cmp.Compare(a.values, b.values))
}

// states is every entity's state in Redis.
func (r *rig) states() map[string][]byte {
	r.t.Helper()
	all := map[string][]byte{}
	keys, err := r.redis.Keys(r.t.Context(), "mr:*:e:*").Result()
	if err != nil {
		r.t.Fatal(err)
	}
	for _, k := range keys {
		b, err := r.redis.Get(r.t.Context(), k).Bytes()
		if err != nil {
			r.t.Fatal(err)
		}
		all[k] = b
	}
	return all
}

// letters is what is on the dead-letter topic, copies left out.
func (r *rig) letters() (all []letter, copies int) {
	r.t.Helper()
	topic := r.project.Own().DeadLetters.Name
	consumer, err := streams.NewClient(r.kafkaConfig(), kgo.ConsumeTopics(topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.FetchMaxWait(20*time.Millisecond))
	if err != nil {
		r.t.Fatal(err)
	}
	defer consumer.Close()
	var left int64
	for _, end := range r.ends(topic) {
		left += end
	}
	seen := map[letter]bool{}
	ctx, cancel := context.WithTimeout(r.t.Context(), patience)
	defer cancel()
	for left > 0 {
		fetches := consumer.PollFetches(ctx)
		if ctx.Err() != nil {
			r.t.Fatal("waited in vain for dead letters")
		}
		fetches.EachRecord(func(rec *kgo.Record) {
			left--
			d, err := streams.ParseDeadLetter(rec)
			if err != nil {
				r.t.Fatal(err)
			}
			if d.Topic != r.project.Sources[0].Topic || d.Reason == "" {
				r.t.Errorf("dead letter %+v", d)
			}
			l := letter{d.Partition, d.Offset, d.Class, d.Stage, string(d.Value)}
			if seen[l] {
				copies++
				return
			}
			seen[l] = true
			all = append(all, l)
		})
	}
	slices.SortFunc(all, compareLetters)
	return all, copies
}

// events is what the offline table of the source has.
func (r *rig) events() map[string]int64 {
	r.t.Helper()
	src := r.project.Sources[0]
	table, err := offline.EventsTable(r.dir, src.Name, src.Schema)
	if err != nil {
		r.t.Fatal(err)
	}
	all := map[string]int64{}
	err = table.Scan(r.t.Context(), offline.ScanOptions{}, func(b *offline.Batch) error {
		for i := range b.Len() {
			at := fmt.Sprintf("%d/%d", b.Partition(), b.Offset(i))
			if _, twice := all[at]; twice {
				r.t.Errorf("event %s is kept twice", at)
			}
			all[at] = b.Time(i)
		}
		return nil
	})
	if err != nil {
		r.t.Fatal(err)
	}
	return all
}

// rows is what the offline tables of the groups have.
func (r *rig) rows() (all []featureRow) {
	r.t.Helper()
	for _, g := range r.project.Groups {
		table, err := offline.FeaturesTable(r.dir, g.Group)
		if err != nil {
			r.t.Fatal(err)
		}
		err = table.Scan(r.t.Context(), offline.ScanOptions{}, func(b *offline.Batch) error {
			for i := range b.Len() {
				all = append(all, rowOf(g, b.Time(i), b.Row(i, nil)))
			}
			return nil
		})
		if err != nil {
			r.t.Fatal(err)
		}
	}
	slices.SortFunc(all, compareRows)
	return all
}

// check compares everything with what must be there. The stage must have been stopped, for the files to be complete.
func (r *rig) check() {
	r.t.Helper()
	x := r.expected()
	got := r.states()
	for key, want := range x.states {
		if string(got[key]) != string(want) {
			r.t.Errorf("state of %s is not what it must be (%d bytes, want %d)", key, len(got[key]), len(want))
		}
	}
	for key := range got {
		if _, ok := x.states[key]; !ok {
			r.t.Errorf("there is a state %s", key)
		}
	}
	r.checkHashes(got)
	letters, _ := r.letters()
	compareLists(r.t, "dead letter", letters, x.letters)
	events := r.events()
	for at, when := range x.events {
		if events[at] != when {
			r.t.Errorf("event %s is kept with time %d, want %d", at, events[at], when)
		}
	}
	if len(events) != len(x.events) {
		r.t.Errorf("%d events are kept, want %d", len(events), len(x.events))
	}
	compareLists(r.t, "feature row", r.rows(), x.rows)
}

func compareLists[T comparable](t *testing.T, what string, got, want []T) {
	t.Helper()
	count := map[T]int{}
	for _, g := range got {
		count[g]++
	}
	for _, w := range want {
		count[w]--
	}
	bad := 0
	for each, n := range count {
		if n != 0 {
			if bad++; bad <= 5 {
				t.Errorf("%s %+v: %+d times", what, each, n)
			}
		}
	}
	if bad > 5 {
		t.Errorf("%d %ss differ (%d there, want %d)", bad, what, len(got), len(want))
	}
}

// once gives a crash hook that fails the n-th time a step is reached.
func once(step string, n int, err error) func(string) error {
	var mu sync.Mutex
	return func(at string) error {
		mu.Lock()
		defer mu.Unlock()
		if at == step {
			if n--; n == 0 {
				return err
			}
		}
		return nil
	}
}
