package ingest

import (
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace/millrace/features"
	"github.com/millrace/millrace/features/offline"
	"github.com/millrace/millrace/features/online"
	"github.com/millrace/millrace/project"
	"github.com/millrace/millrace/schemas"
	"github.com/millrace/millrace/streams"
)

// variant is one way of working off the same events, none of which may be seen in what comes out.
type variant struct {
	partitions  int32
	poll        int           // records of one poll
	flushEvents int           // events after which a group is flushed
	flush       time.Duration // and the time after which it is
	cache       int           // about how many entities are kept decoded, per partition
	offline     time.Duration // between two commits of offline rows
	parts       int           // the events come in so many parts, each to a stage of its own
	killed      bool          // the stages of all parts but the last are killed at a random step, not stopped
	replicas    int           // stages at work together on the last part
	redelivered bool          // at the end Kafka forgets all offsets, and everything is delivered again
	shuffled    bool          // events are out of order by up to disorder
}

// plain is the variant that the others change.
var plain = variant{partitions: 3, poll: 10, flushEvents: 10, flush: 2 * time.Millisecond, cache: 2, offline: 10 * time.Millisecond, parts: 1, replicas: 1}

// disorder is the most that shuffled events come late: less than the lateness of the groups.
const disorder = 8 * time.Minute

// TestSameEventsSameFeatures works off random events in every variant, and some mixed at random. Online each gives the features that the engine
// alone gives, at every time asked for: to the bit where the order of an entity's events is fixed, to 1e-9 where it is not; offline the same
// events, and the same feature rows where the order is fixed.
//
// MILLRACE_TEST_SEED repeats the events and mixtures of a run. What fails is tried again with fewer events, for a smaller case.
func TestSameEventsSameFeatures(t *testing.T) {
	seed := rand.Uint64()
	if s := os.Getenv("MILLRACE_TEST_SEED"); s != "" {
		var err error
		if seed, err = strconv.ParseUint(s, 10, 64); err != nil {
			t.Fatalf("MILLRACE_TEST_SEED: %v", err)
		}
	}
	random := rand.New(rand.NewPCG(seed, 1))
	events := metamorphicTrips(random, 400)
	changed := func(change func(*variant)) variant {
		v := plain
		change(&v)
		return v
	}
	cases := map[string]variant{
		"plain":            plain,
		"one partition":    changed(func(v *variant) { v.partitions = 1 }),
		"seven partitions": changed(func(v *variant) { v.partitions = 7 }),
		"small batches":    changed(func(v *variant) { v.poll, v.flushEvents, v.cache = 3, 1, 1 }),
		"large batches":    changed(func(v *variant) { v.poll, v.flushEvents, v.cache, v.flush = 10_000, 10_000, 1000, 100*time.Millisecond }),
		"restarts":         changed(func(v *variant) { v.parts = 4 }),
		"kills":            changed(func(v *variant) { v.parts, v.killed, v.offline = 5, true, time.Hour }),
		"replicas":         changed(func(v *variant) { v.parts, v.replicas = 2, 3 }),
		"redelivered":      changed(func(v *variant) { v.redelivered = true }),
		"shuffled":         changed(func(v *variant) { v.shuffled = true }),
	}
	for i := range 3 {
		cases[fmt.Sprintf("mixed %d", i)] = mixed(random)
	}
	for name, v := range cases {
		t.Run(name, func(t *testing.T) {
			wrong := v.differences(t, events, seed)
			if len(wrong) == 0 {
				return
			}
			fewer, wrong := v.shrink(t, events, seed, wrong)
			t.Errorf("seed %d, %+v, %d of %d events: %d differences:\n%s", seed, v, len(fewer), len(events), len(wrong), strings.Join(wrong[:min(len(wrong), 10)], "\n"))
		})
	}
}

func mixed(random *rand.Rand) variant {
	pick := func(of ...int) int { return of[random.IntN(len(of))] }
	return variant{
		partitions: int32(1 + random.IntN(5)), poll: pick(1, 10, 100, 1000), flushEvents: pick(1, 20, 200), flush: time.Duration(pick(1, 5, 30)) * time.Millisecond,
		cache: pick(1, 4, 100), offline: time.Duration(pick(1, 20, 3_600_000)) * time.Millisecond, parts: pick(1, 2, 3), killed: random.IntN(2) == 0, replicas: pick(1, 2), redelivered: random.IntN(2) == 0, shuffled: random.IntN(2) == 0,
	}
}

// metamorphicTrips is trips every few seconds, no two of them at the same time. A city has one trip id, whose events have one order however many
// partitions there are; a rider's come from all over.
func metamorphicTrips(random *rand.Rand, n int) []trip {
	trips := make([]trip, n)
	for i := range trips {
		id := random.IntN(12)
		at := start + int64(i)*5000 + random.Int64N(60_000) - 30_000
		trips[i] = trip{
			id: fmt.Sprintf("trip-%d", id), city: fmt.Sprintf("city-%d", id), rider: fmt.Sprintf("rider-%d", random.IntN(3)),
			delay: random.IntN(200) - 50, cancelled: random.IntN(6) == 0, at: at - at%1000 + int64(i),
		}
		if random.IntN(5) > 0 {
			fare := random.NormFloat64()*10 + 30
			trips[i].fare = &fare
		}
	}
	return trips
}

// shrink leaves out events, half of them at a time and then less, as long as some difference remains.
func (v variant) shrink(t *testing.T, events []trip, seed uint64, wrong []string) ([]trip, []string) {
	const tries = 12
	size := len(events) / 2
	for try := 0; try < tries && size > 0; size /= 2 {
		for from := 0; from+size <= len(events) && try < tries; try++ {
			fewer := slices.Concat(events[:from], events[from+size:])
			if still := v.differences(t, fewer, seed); len(still) > 0 {
				events, wrong = fewer, still
				continue
			}
			from += size
		}
	}
	return events, wrong
}

// outcome is what came out: the entities by group and key, and offline rows as text.
type outcome struct {
	entities map[string]map[string]*features.Entity
	events   []string
	rows     []featureRow
}

// differences works the events off and compares what comes out with what the engine gives.
func (v variant) differences(t *testing.T, events []trip, seed uint64) (wrong []string) {
	t.Helper()
	if v.shuffled {
		events = shuffled(events, seed)
	}
	r := newRig(t)
	r.project = testProject(t, fmt.Sprintf("m%d-", rand.Uint32()))
	r.project.Sources[0].Partitions = v.partitions
	for _, g := range r.project.Groups {
		g.Flush = v.flush
	}
	if err := streams.EnsureTopics(t.Context(), r.client, r.project.Topology()[:1]); err != nil {
		t.Fatal(err)
	}
	want, got := r.byEngine(events), v.run(r, events, rand.New(rand.NewPCG(seed, 3)))
	for _, g := range r.project.Groups {
		if have, expected := len(got.entities[g.Name]), len(want.entities[g.Name]); have != expected {
			wrong = append(wrong, fmt.Sprintf("%s: %d entities, want %d", g.Name, have, expected))
		}
		tolerance := 0.0
		if g.Name == "riders" {
			tolerance = 1e-9
		}
		for key, e := range want.entities[g.Name] {
			wrong = append(wrong, compareEntity(g, key, got.entities[g.Name][key], e, tolerance)...)
		}
	}
	wrong = append(wrong, listDifferences("event", got.events, want.events)...)
	return append(wrong, listDifferences("feature row", got.rows, want.rows)...)
}

// compareEntity reads both at several times: at once, while windows empty themselves, and after.
func compareEntity(g *project.Group, key string, got, want *features.Entity, tolerance float64) (wrong []string) {
	for _, after := range []time.Duration{1, 3 * time.Minute, 25 * time.Minute, 3 * time.Hour} {
		at := want.Newest() + max(after.Milliseconds(), 1)
		have := g.Read(got, at, nil)
		for i, w := range g.Read(want, at, nil) {
			a, _ := have[i].Value.Float()
			b, _ := w.Value.Float()
			if have[i].Status != w.Status || math.Abs(a-b) > tolerance*max(1, math.Abs(b)) {
				wrong = append(wrong, fmt.Sprintf("%s of %s %s, %s after its newest event: %v (%s), want %v (%s)", g.Outputs[i].Name, g.Name, key, after, a, have[i].Status, b, w.Status))
			}
		}
	}
	return wrong
}

func listDifferences[T comparable](what string, got, want []T) (wrong []string) {
	count := map[T]int{}
	for _, g := range got {
		count[g]++
	}
	for _, w := range want {
		count[w]--
	}
	for each, n := range count {
		if n != 0 {
			wrong = append(wrong, fmt.Sprintf("%s %v: %+d times", what, each, n))
		}
	}
	return wrong
}

// shuffled is the events in the order of their times, each delayed by up to the disorder.
func shuffled(events []trip, seed uint64) []trip {
	random := rand.New(rand.NewPCG(seed, 2))
	arrival := map[int64]int64{}
	for _, e := range events {
		arrival[e.at] = e.at + random.Int64N(disorder.Milliseconds())
	}
	events = slices.Clone(events)
	slices.SortFunc(events, func(a, b trip) int { return int(arrival[a.at] - arrival[b.at]) })
	return events
}

func (tr trip) json(t *testing.T) []byte {
	b, err := json.Marshal(map[string]any{"id": tr.id, "city": tr.city, "rider": tr.rider, "delay": tr.delay, "fare": tr.fare, "cancelled": tr.cancelled, "at": tr.at})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// byEngine is what the engine gives for the events in their order.
func (r *rig) byEngine(events []trip) outcome {
	r.t.Helper()
	src := r.project.Sources[0]
	decoder, err := schemas.NewDecoder(src.Schema, src.Format, nil)
	if err != nil {
		r.t.Fatal(err)
	}
	o := outcome{entities: map[string]map[string]*features.Entity{}}
	for _, g := range r.project.Groups {
		o.entities[g.Name] = map[string]*features.Entity{}
	}
	for seq, tr := range events {
		row, err := decoder.Decode(r.t.Context(), tr.json(r.t), nil)
		if err != nil {
			r.t.Fatal(err)
		}
		o.events = append(o.events, eventText(row))
		for _, g := range r.project.Groups {
			key, err := g.Key(row)
			if err != nil {
				r.t.Fatal(err)
			}
			e := o.entities[g.Name][key]
			if e == nil {
				e = g.NewEntity()
			}
			due := rowsDue(g, key, e, tr.at)
			switch outcome, err := g.Add(e, row, tr.at, int64(seq)); {
			case err != nil || outcome == features.TooLate:
				r.t.Fatalf("%s: %v, %v", g.Name, outcome, err)
			case outcome == features.Applied:
				o.entities[g.Name][key] = e
				o.rows = append(o.rows, due...)
			}
		}
	}
	return o
}

// eventText is an event's row as text.
func eventText(row schemas.Row) string {
	texts := make([]string, len(row))
	for i, v := range row {
		texts[i] = v.Text()
	}
	return strings.Join(texts, "|")
}

// run works the events off and reads what came of it.
func (v variant) run(r *rig, events []trip, random *rand.Rand) outcome {
	r.t.Helper()
	var total int64
	done := func() bool { return r.rekeyed() >= total && r.atEnd() }
	for part := range v.parts {
		some := events[part*len(events)/v.parts : (part+1)*len(events)/v.parts]
		v.produce(r, some)
		total += int64(len(some))
		if part == v.parts-1 {
			break
		}
		s := v.stage(r)
		if v.killed {
			left := int64(random.IntN(60))
			var steps atomic.Int64
			s.crash = func(string) error {
				if steps.Add(1) > left {
					return errKilled
				}
				return nil
			}
		}
		g := r.run(s)
		r.await("it to be at work, or to die", func() bool { return g.dead() || r.rekeyed() >= total-int64(len(some)/2) })
		g.cancel()
		<-g.ended
	}
	v.finish(r, done)
	if v.redelivered {
		r.forgetAll()
		v.finish(r, done)
	}
	return r.outcome()
}

// finish has the replicas do what is left, and stops them.
func (v variant) finish(r *rig, done func() bool) {
	r.t.Helper()
	var replicas []*running
	for range v.replicas {
		replicas = append(replicas, r.run(v.stage(r)))
	}
	r.await("everything to be done", done)
	for _, g := range replicas {
		g.stop(r.t)
	}
}

func (v variant) stage(r *rig) *Stage {
	return r.stage(func(c *Config, d *Deps) {
		c.PollRecords, c.FlushEvents, c.OfflineEvery = v.poll, v.flushEvents, v.offline
		c.CacheBytes = int64(v.cache) * 2000 * int64(v.partitions)
		c.MaxUnflushed = max(c.MaxUnflushed, v.flushEvents)
		d.Redis = r.connect(r.redis.(*redis.Client).Options().Addr)
	})
}

// produce sends the events by their key, as a producer with Kafka's default partitioner.
func (v variant) produce(r *rig, events []trip) {
	r.t.Helper()
	var batch []*kgo.Record
	for _, tr := range events {
		batch = append(batch, &kgo.Record{
			Topic: r.project.Sources[0].Topic, Partition: online.Partition(online.Murmur2, tr.id, v.partitions), Key: []byte(tr.id), Value: tr.json(r.t), Timestamp: time.UnixMilli(tr.at),
		})
	}
	if err := r.client.ProduceSync(r.t.Context(), batch...).FirstErr(); err != nil {
		r.t.Fatal(err)
	}
}

// outcome reads what is in Redis and in the offline files.
func (r *rig) outcome() outcome {
	r.t.Helper()
	o := outcome{entities: map[string]map[string]*features.Entity{}}
	for _, g := range r.project.Groups {
		o.entities[g.Name] = map[string]*features.Entity{}
	}
	for key, state := range r.states() {
		owner, entity, _ := strings.Cut(key, "}:e:")
		for _, g := range r.project.Groups {
			if !strings.Contains(owner, r.project.Name+"."+g.Name+"@") {
				continue
			}
			e, err := g.Decode(state)
			if err != nil {
				r.t.Fatal(err)
			}
			o.entities[g.Name][entity] = e
		}
	}
	src := r.project.Sources[0]
	table, err := offline.EventsTable(r.dir, src.Name, src.Schema)
	if err != nil {
		r.t.Fatal(err)
	}
	err = table.Scan(r.t.Context(), offline.ScanOptions{}, func(b *offline.Batch) error {
		for i := range b.Len() {
			o.events = append(o.events, eventText(b.Row(i, nil)))
		}
		return nil
	})
	if err != nil {
		r.t.Fatal(err)
	}
	for _, row := range r.rows() {
		if row.group != "riders" { // whose events have no order of their own
			o.rows = append(o.rows, row)
		}
	}
	return o
}
