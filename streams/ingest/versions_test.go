package ingest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace/millrace/features"
	"github.com/millrace/millrace/features/online"
	"github.com/millrace/millrace/internal/failure"
	"github.com/millrace/millrace/project"
	"github.com/millrace/millrace/schemas"
	"github.com/millrace/millrace/streams"
)

// orders is a project folder with one source and, for each test, its own way of keying.
const orderSchema = `{"type": "record", "name": "Order", "fields": [
  {"name": "customer", "type": "string"}, {"name": "shop", "type": "string"}, {"name": "amount", "type": "double"},
  {"name": "number", "type": "int"}, {"name": "big", "type": "long"}, {"name": "paid", "type": "boolean"},
  {"name": "kind", "type": {"type": "enum", "name": "Kind", "symbols": ["NEW", "OLD"]}},
  {"name": "at", "type": {"type": "long", "logicalType": "timestamp-millis"}}
]}`

func orders(t *testing.T, prefix, source, groups string) *project.Project {
	t.Helper()
	dir := t.TempDir()
	yaml := fmt.Sprintf("project: p%s\ntopic_prefix: %s-\npartitions: 4\nsources:\n  orders: {topic: %s-orders, schema: order.avsc, format: json, key: customer, time: at%s}\nfeatures:\n%s", prefix, prefix, prefix, source, groups)
	for name, text := range map[string]string{project.FileName: yaml, "order.avsc": orderSchema} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	p, err := project.Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

type order struct {
	Customer string  `json:"customer"`
	Shop     string  `json:"shop"`
	Amount   float64 `json:"amount"`
	Number   int32   `json:"number"`
	Big      int64   `json:"big"`
	Paid     bool    `json:"paid"`
	Kind     string  `json:"kind"`
	At       int64   `json:"at"`
}

// ordersRig is a rig on a project of orders.
func ordersRig(t *testing.T, source, groups string) (*rig, string) {
	t.Helper()
	r := newRig(t)
	prefix := fmt.Sprintf("o%d", rand.Uint32())
	r.project = orders(t, prefix, source, groups)
	if err := streams.EnsureTopics(t.Context(), r.client, r.project.Topology()[:1]); err != nil {
		t.Fatal(err)
	}
	return r, prefix
}

// put produces orders to where a partitioner has them.
func (r *rig) put(by online.Partitioner, partitions int32, all ...order) {
	r.t.Helper()
	var records []*kgo.Record
	for _, o := range all {
		value, err := json.Marshal(o)
		if err != nil {
			r.t.Fatal(err)
		}
		records = append(records, &kgo.Record{Topic: r.project.Sources[0].Topic, Partition: online.Partition(by, o.Customer, partitions), Key: []byte(o.Customer), Value: value})
	}
	if err := r.client.ProduceSync(r.t.Context(), records...).FirstErr(); err != nil {
		r.t.Fatal(err)
	}
}

func makeOrders(seed uint64, n int) []order {
	random := rand.New(rand.NewPCG(seed, 1))
	all := make([]order, n)
	for i := range all {
		all[i] = order{Customer: fmt.Sprintf("c-%d", random.IntN(40)), Shop: fmt.Sprintf("s-%d", random.IntN(5)), Amount: random.NormFloat64(), Kind: "NEW", At: start + int64(i)*1000}
	}
	return all
}

// read gives an output of an entity in the version that readers read, as a float; nil when there is none.
func (r *rig) read(group, key, output string) *float64 {
	r.t.Helper()
	known, err := online.NewVersions(r.redis, r.project.Name).Load(r.t.Context(), group)
	if err != nil {
		r.t.Fatal(err)
	}
	return r.readVersion(group, known[0].All[known[0].Active], key, output)
}

func (r *rig) readVersion(group string, v online.Version, key, output string) *float64 {
	r.t.Helper()
	if v.ID == "" {
		return nil
	}
	p, err := project.LoadFiles(v.Project)
	if err != nil {
		r.t.Fatal(err)
	}
	g := p.Group(group)
	reader := online.NewReader(r.redis, r.project.Name, online.GroupRef{Group: g.Group, Version: v.ID, Partitions: v.Partitions, Partitioner: v.Partitioner})
	entries, err := reader.Get(r.t.Context(), []online.Ref{{Key: key}})
	if err != nil || entries[0].State == nil {
		return nil
	}
	e, err := g.Decode(entries[0].State)
	if err != nil {
		r.t.Fatal(err)
	}
	i := g.Output(output)
	if i < 0 {
		return nil
	}
	f, ok := g.Read(e, now().UnixMilli(), nil)[i].Value.Float()
	if !ok {
		return nil
	}
	return &f
}

// awaitCounts waits until every customer has the count that the orders make.
func (r *rig) awaitCounts(group string, all []order) {
	r.t.Helper()
	counts := map[string]float64{}
	for _, o := range all {
		counts[o.Customer]++
	}
	r.await("the counts of "+group, func() bool {
		for customer, want := range counts {
			if got := r.read(group, customer, "n"); got == nil || *got != want {
				return false
			}
		}
		return true
	})
}

// TestSwappedWhenCaughtUp changes a definition under readers: they have the old version, which goes on being right, until the new one has
// everything, and never a state in between. The old one is deleted when nobody holds it and its grace is over.
func TestSwappedWhenCaughtUp(t *testing.T) {
	r, prefix := ordersRig(t, "", "  spending:\n    source: orders\n    entity: customer\n    windows: [lifetime]\n    flush: 2ms\n    features: {n: count()}\n")
	first := makeOrders(1, 600)
	r.put(online.CRC32, 4, first...) // undeclared: re-keyed, whatever they use
	g := r.run(r.stage())
	r.awaitCounts("spending", first)
	g.stop(t)
	before := r.project.Group("spending").Version

	r.project = orders(t, prefix, "", "  spending:\n    source: orders\n    entity: customer\n    windows: [lifetime]\n    flush: 2ms\n    features: {n: count(), total: sum(amount)}\n")
	after := r.project.Group("spending").Version
	if before == after {
		t.Fatal("the definition has the same version")
	}
	began := time.Now()
	clock := func() time.Time { return now().Add(time.Since(began)) }
	s := r.stage(func(c *Config, d *Deps) { c.Grace, d.Clock = time.Millisecond, clock })
	versions := online.NewVersions(r.redis, r.project.Name)
	if err := versions.Hold(t.Context(), "spending", before, time.Hour); err != nil {
		t.Fatal(err)
	}
	g = r.run(s)
	second := makeOrders(2, 300)
	r.put(online.CRC32, 4, second...)
	r.await("the swap", func() bool {
		known, err := versions.Load(t.Context(), "spending")
		if err != nil {
			t.Fatal(err)
		}
		if known[0].Active == before { // whoever reads now has a whole version
			if got := r.read("spending", first[0].Customer, "n"); got == nil || *got < countOf(first, first[0].Customer) {
				t.Fatalf("the old version has %v of %v orders", got, countOf(first, first[0].Customer))
			}
		}
		return known[0].Active == after
	})
	if got := r.read("spending", first[0].Customer, "n"); got == nil || *got < countOf(first, first[0].Customer) {
		t.Errorf("after the swap readers have %v", got)
	}
	all := append(first, second...)
	r.awaitCounts("spending", all)
	known, err := versions.Load(t.Context(), "spending")
	if err != nil {
		t.Fatal(err)
	}
	old := known[0].All[before]
	r.await("the old version, which is held, to be right too", func() bool {
		got := r.readVersion("spending", old, all[0].Customer, "n")
		return got != nil && *got == countOf(all, all[0].Customer)
	})
	if err := r.redis.Del(t.Context(), "mr:{"+r.project.Name+".spending}:read:"+before).Err(); err != nil {
		t.Fatal(err)
	}
	r.await("the old version to be deleted", func() bool {
		left, err := r.redis.Keys(t.Context(), "*spending@"+before+"/*").Result()
		return err == nil && len(left) == 0
	})
	known, err = versions.Load(t.Context(), "spending")
	if err != nil || len(known[0].All) != 1 {
		t.Errorf("versions left: %v, %v", known[0].All, err)
	}
	g.stop(t)
}

func countOf(all []order, customer string) (n float64) {
	for _, o := range all {
		if o.Customer == customer {
			n++
		}
	}
	return n
}

const direct = "  spending:\n    source: orders\n    entity: customer\n    windows: [lifetime]\n    flush: 2ms\n    features: {n: count()}\n"

// TestPartitioners reads a source directly that was keyed by each of the partitioners in use.
func TestPartitioners(t *testing.T) {
	for _, by := range []online.Partitioner{online.Murmur2, online.CRC32} {
		t.Run(string(by), func(t *testing.T) {
			r, _ := ordersRig(t, ", partitions: 6, partitioner: "+string(by), direct)
			if !r.project.Group("spending").Direct {
				t.Fatal("the group is re-keyed")
			}
			all := makeOrders(3, 400)
			r.put(by, 6, all...)
			g := r.run(r.stage())
			r.awaitCounts("spending", all)
			g.stop(t)
			if letters, _ := r.letters(); len(letters) != 0 {
				t.Errorf("%d dead letters", len(letters))
			}
		})
	}
}

// TestAnotherPartitioner has producers use another partitioner than declared: each entity is served whole or not at all, and the dead
// letters name the one they use.
func TestAnotherPartitioner(t *testing.T) {
	r, _ := ordersRig(t, ", partitions: 6, partitioner: murmur2", direct)
	all := makeOrders(4, 300)
	r.put(online.CRC32, 6, all...)
	wrong := 0
	for _, o := range all {
		if online.Partition(online.CRC32, o.Customer, 6) != online.Partition(online.Murmur2, o.Customer, 6) {
			wrong++
		}
	}
	var told bytes.Buffer
	g := r.run(r.stage(func(_ *Config, d *Deps) { d.Log = slog.New(slog.NewTextHandler(&told, nil)) }))
	r.await("dead letters", func() bool { letters, _ := r.letters(); return len(letters) == wrong })
	for _, o := range all {
		lost := online.Partition(online.CRC32, o.Customer, 6) != online.Partition(online.Murmur2, o.Customer, 6)
		got := r.read("spending", o.Customer, "n")
		if lost && got != nil || !lost && (got == nil || *got != countOf(all, o.Customer)) {
			t.Errorf("%s has %v of %v orders", o.Customer, got, countOf(all, o.Customer))
		}
	}
	letters, _ := r.letters()
	if letters[0].class != classMisrouted || !strings.Contains(strings.Join(r.reasons(), "\n"), "declare partitioner crc32") {
		t.Errorf("the dead letters say %v", r.reasons()[0])
	}
	g.stop(t)
	if n := strings.Count(told.String(), "class=misrouted"); n != 1 {
		t.Errorf("the log tells of them %d times:\n%s", n, told.String())
	}
}

// reasons is what the dead letters say.
func (r *rig) reasons() (all []string) {
	r.t.Helper()
	topic := r.project.Own().DeadLetters.Name
	s := r.stage()
	for p, end := range r.ends(topic) {
		err := s.records(r.t.Context(), topic, p, 0, end, func(record *kgo.Record) error {
			headers := make([]schemas.Header, len(record.Headers))
			for i, h := range record.Headers {
				headers[i] = schemas.Header(h)
			}
			l, err := schemas.ParseDeadLetter(record.Key, record.Value, headers)
			all = append(all, l.Reason)
			return err
		})
		if err != nil {
			r.t.Fatal(err)
		}
	}
	return all
}

// TestMorePartitions gives a directly read topic more partitions while the stage runs: it stops and says what to do, at the next start too,
// with nothing served wrongly; the command that it names, and the next start, have everything right again.
func TestMorePartitions(t *testing.T) {
	r, _ := ordersRig(t, ", partitions: 3, partitioner: murmur2", direct)
	first := makeOrders(5, 300)
	r.put(online.Murmur2, 3, first...)
	g := r.run(r.stage())
	r.awaitCounts("spending", first)
	topic := r.project.Sources[0].Topic
	if _, err := r.admin.UpdatePartitions(t.Context(), 5, topic); err != nil {
		t.Fatal(err)
	}
	refused := func(g *running) {
		t.Helper()
		r.await("it to notice", g.dead)
		if failure.Of(g.err) != failure.BadProject || !strings.Contains(g.err.Error(), "millrace backfill spending") {
			t.Fatalf("ended with %v", g.err)
		}
	}
	refused(g)
	second := makeOrders(6, 300)
	client, err := streams.NewClient(r.kafkaConfig(), kgo.RecordPartitioner(kgo.ManualPartitioner())) // that knows of the new partitions
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	r.client = client
	r.put(online.Murmur2, 5, second...)
	refused(r.run(r.stage()))
	for _, o := range first {
		if got := r.read("spending", o.Customer, "n"); got == nil || *got != countOf(first, o.Customer) {
			t.Fatalf("%s is served with %v of %v", o.Customer, got, countOf(first, o.Customer))
		}
	}
	if letters, _ := r.letters(); len(letters) != 0 {
		t.Errorf("%d records became dead letters", len(letters))
	}
	if _, err := r.stage().Backfill(t.Context(), "spending", time.Time{}, nil); err != nil {
		t.Fatal(err)
	}
	var out lines
	g = r.run(r.stage(told(&out)))
	r.awaitCounts("spending", append(first, second...))
	third := makeOrders(7, 100)
	r.put(online.Murmur2, 5, third...)
	r.awaitCounts("spending", append(append(first, second...), third...))
	g.stop(t)
	if said := out.with("an earlier version stays as it is"); len(said) != 1 || !strings.Contains(said[0], "takes its place") || strings.Contains(said[0], "millrace backfill") {
		t.Errorf("of the earlier version it says %q", said)
	}
}

// TestBackfill computes a group anew while a stage runs: killed at several writes and taken up again, the state ends the same to the bit,
// and readers are moved to it.
func TestBackfill(t *testing.T) {
	r := newRig(t)
	r.produce(r.trips(90, 1200))
	g := r.run(r.stage())
	r.caughtUp()
	before := r.states()
	if _, err := r.stage().Backfill(t.Context(), "cities", now().Add(time.Second), nil); failure.Of(err) != failure.BadRequest {
		t.Fatalf("a backfill from a time to come: %v", err)
	}
	var tries int
	for {
		tries++
		s := r.stage()
		s.crash = once("group: rebuilding", 1, errKilled)
		_, err := s.Backfill(t.Context(), "cities", time.Time{}, nil)
		if err == nil {
			break
		}
		if !errors.Is(err, errKilled) {
			t.Fatal(err)
		}
	}
	if tries < 2 { // once killed, the running stage may fill the rest
		t.Fatal("it was not killed")
	}
	cities := r.project.Groups[0]
	versions := online.NewVersions(r.redis, r.project.Name)
	r.await("the swap", func() bool {
		known, err := versions.Load(t.Context(), cities.Name)
		return err == nil && known[0].Active == cities.Version+".2"
	})
	g.stop(t)
	compared := 0
	for key, state := range before {
		if strings.Contains(key, ".cities@") {
			anew, err := r.redis.Get(t.Context(), strings.Replace(key, "@"+cities.Version, "@"+cities.Version+".2", 1)).Bytes()
			if err != nil || !bytes.Equal(anew, state) {
				t.Errorf("%s is another: %v", key, err)
			}
			compared++
		}
	}
	if compared == 0 {
		t.Error("nothing was compared")
	}
}

// TestAddedLater adds a group to a project whose source was re-keyed before: it has the events of before, too.
func TestAddedLater(t *testing.T) {
	const shops = "  shops:\n    source: orders\n    entity: shop\n    windows: [lifetime]\n    flush: 2ms\n    features: {n: count()}\n"
	r, prefix := ordersRig(t, "", direct)
	first := makeOrders(8, 300)
	r.put(online.CRC32, 4, first...)
	g := r.run(r.stage())
	r.awaitCounts("spending", first)
	g.stop(t)
	r.project = orders(t, prefix, "", direct+shops)
	g = r.run(r.stage())
	second := makeOrders(9, 100)
	r.put(online.CRC32, 4, second...)
	counts := map[string]float64{}
	for _, o := range append(first, second...) {
		counts[o.Shop]++
	}
	r.await("the shops' counts", func() bool {
		for shop, want := range counts {
			if got := r.read("shops", shop, "n"); got == nil || *got != want {
				return false
			}
		}
		return true
	})
	g.stop(t)
}

// TestKeys takes keys of every kind through the whole: produced, re-keyed, read online by the request's spelling, and kept offline.
func TestKeys(t *testing.T) {
	long := strings.Repeat("k", features.MaxKey)
	all := []order{
		{Customer: "żółw 日本 🐢", Shop: "a|b:c/d{e}", Number: -7, Big: 1 << 60, Paid: true, Kind: "OLD", At: start},
		{Customer: "*?[x]\\", Shop: " ", Number: 0, Big: -1 << 60, Kind: "NEW", At: start + 1},
		{Customer: long, Shop: "s", Number: 1 << 30, Kind: "NEW", At: start + 2},
		{Customer: "\x00\n", Shop: "\x1e", Number: 3, Kind: "NEW", At: start + 3},
	}
	bad := []order{ // each is no entity of some groups
		{Customer: "", Shop: "s", Kind: "NEW", At: start + 4},                // by customer, pair
		{Customer: long + "k", Shop: "s", Kind: "NEW", At: start + 5},        // by customer, pair
		{Customer: "a\x1fb", Shop: "s", Kind: "NEW", At: start + 6},          // pair: which parts are meant?
		{Customer: long[:600], Shop: long[:600], Kind: "NEW", At: start + 7}, // pair: too long together
	}
	entities := map[string]string{
		"customers": "customer", "pairs": "[customer, shop]", "numbers": "number", "bigs": "big", "payments": "paid", "kinds": "kind", "times": "at",
	}
	groups := ""
	for name, entity := range entities {
		groups += fmt.Sprintf("  %s:\n    source: orders\n    entity: %s\n    windows: [lifetime]\n    flush: 2ms\n    offline: every_event\n    features: {n: count()}\n", name, entity)
	}
	r, _ := ordersRig(t, "", groups)
	r.put(online.Murmur2, 4, append(append([]order(nil), all...), bad...)...)
	g := r.run(r.stage())
	r.await("dead letters", func() bool { letters, _ := r.letters(); return len(letters) >= 7 })
	r.await("all to be applied", func() bool {
		n := r.read("payments", "false", "n")
		return n != nil && *n == 7
	})
	r.settled() // so are those of the other groups
	g.stop(t)
	letters, _ := r.letters()
	for _, l := range letters {
		if l.class != schemas.ClassEntity {
			t.Errorf("a dead letter of class %s", l.class)
		}
	}
	if len(letters) != 7 {
		t.Errorf("%d dead letters, want 7: %v", len(letters), r.reasons())
	}
	texts := func(o order) map[string]map[string]string {
		at := time.UnixMilli(o.At).UTC().Format(time.RFC3339Nano)
		return map[string]map[string]string{
			"customers": {"customer": o.Customer}, "pairs": {"customer": o.Customer, "shop": o.Shop}, "numbers": {"number": fmt.Sprintf("%+d", o.Number)},
			"bigs": {"big": fmt.Sprint(o.Big)}, "kinds": {"kind": o.Kind}, "times": {"at": at}, "payments": {"paid": strings.ToUpper(fmt.Sprint(o.Paid))},
		}
	}
	for _, o := range all {
		for name, values := range texts(o) {
			if name == "pairs" && o.Customer == long {
				continue // too long with anything more
			}
			key, err := r.project.Group(name).KeyOf(values)
			if err != nil {
				t.Errorf("%s of %v: %v", name, values, err)
				continue
			}
			if got := r.read(name, key, "n"); got == nil || *got < 1 {
				t.Errorf("%s has nothing of %q", name, key)
			}
		}
	}
	want := map[string]int{"customers": len(all) + 2, "pairs": len(all) - 1, "numbers": 8, "bigs": 8, "payments": 8, "kinds": 8, "times": 8}
	got := map[string]int{}
	for _, row := range r.rows() {
		got[row.group]++
	}
	if !maps.Equal(got, want) {
		t.Errorf("offline rows by group: %v, want %v", got, want)
	}
}

// evicting has a client believe that its Redis evicts keys.
type evicting struct{ on atomic.Bool }

func (e *evicting) DialHook(next redis.DialHook) redis.DialHook { return next }

func (e *evicting) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}

func (e *evicting) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		if asked, ok := cmd.(*redis.MapStringStringCmd); ok && e.on.Load() && asked.Name() == "config" {
			asked.SetVal(map[string]string{"maxmemory-policy": "allkeys-lru"})
			return nil
		}
		return next(ctx, cmd)
	}
}

// TestRedisBeginsToEvict has the policy switched under a stage that runs: it ends, as no stage would start.
func TestRedisBeginsToEvict(t *testing.T) {
	r := newRig(t)
	policy := &evicting{}
	client := r.connect(r.redis.(*redis.Client).Options().Addr)
	client.AddHook(policy)
	r.produce(r.trips(58, 100))
	g := r.run(r.stage(func(_ *Config, d *Deps) { d.Redis = client }))
	r.caughtUp()
	if g.dead() {
		t.Fatal(g.err)
	}
	policy.on.Store(true)
	if message := r.refused(g); !strings.Contains(message, "maxmemory-policy is allkeys-lru") {
		t.Error(message)
	}
}
