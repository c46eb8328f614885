package ingest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace/millrace/features/offline"
	"github.com/millrace/millrace/features/online"
	"github.com/millrace/millrace/internal/failure"
)

// chain is a project in which what a card has spent so far becomes events of its merchants, and what has become of what was sent.
type chain struct {
	*rig
	cards     map[string]float64             // spent so far
	merchants map[string]map[string]float64  // features that merchants must have
	given     map[string][]map[string]string // columns of the chained events that a card must have given out, in their order
	sent      int
}

const chainProject = `
project: chain
topic_prefix: PREFIX
partitions: 3
sources:
  payments: {topic: PREFIXpayments, schema: payment.avsc, format: json, key: KEY, partitioner: PARTITIONER, time: at}
  card_spend: {of: by_card, columns: [merchant], features: [spent, n], derive: {half: spent / 2}}
features:
  by_card:
    source: payments
    entity: card
    windows: [lifetime]
    flush: 2ms
    features: {spent: sum(amount), n: count(), last: last(merchant)}
  by_merchant:
    source: card_spend
    entity: merchant
    windows: [lifetime]
    flush: 2ms
    features: {n: count(), spent: sum(spent), most: max(half), ordinals: sum(n)}
`

const paymentSchema = `{"type": "record", "name": "payment", "fields": [{"name": "id", "type": "string"}, {"name": "card", "type": "string"},
  {"name": "merchant", "type": "string"}, {"name": "amount", "type": "long"}, {"name": "at", "type": {"type": "long", "logicalType": "timestamp-millis"}}]}`

// newChain has a group that reads its source directly, or one that is re-keyed.
func newChain(r *rig, direct bool) *chain {
	c := &chain{rig: r, cards: map[string]float64{}, merchants: map[string]map[string]float64{}, given: map[string][]map[string]string{}}
	key, partitioner := "id", "unknown"
	if direct {
		key, partitioner = "card", "murmur2"
	}
	text := chainProject
	for from, to := range map[string]string{"KEY": key, "PARTITIONER": partitioner} {
		text = strings.ReplaceAll(text, from, to)
	}
	r.declare(map[string]string{"millrace.yaml": text, "payment.avsc": paymentSchema})
	if r.project.Group("by_card").Direct != direct {
		r.t.Fatalf("direct: %v", !direct)
	}
	return c
}

// pay sends n payments. A card's are in one partition, and later in time one after the other: what each gives out is certain.
func (c *chain) pay(random *rand.Rand, n int) {
	c.t.Helper()
	for range n {
		card, merchant, amount := fmt.Sprintf("card-%d", random.IntN(15)), fmt.Sprintf("merchant-%d", random.IntN(4)), random.Int64N(100)
		c.sent++
		p := online.Partition(online.Murmur2, card, 3)
		c.send("payments", p, map[string]any{"id": fmt.Sprint(c.sent), "card": card, "merchant": merchant, "amount": amount, "at": start + int64(c.sent)*1000})
		c.cards[card] += float64(amount)
		c.given[card] = append(c.given[card], map[string]string{"merchant": merchant, "spent": fmt.Sprint(c.cards[card]), "n": fmt.Sprint(len(c.given[card]) + 1)})
		m := c.merchants[merchant]
		if m == nil {
			m = map[string]float64{}
			c.merchants[merchant] = m
		}
		m["n"]++
		m["spent"] += c.cards[card]
		m["most"] = max(m["most"], c.cards[card]/2)
		m["ordinals"] += float64(len(c.given[card]))
	}
}

// done reports whether everything has come to the merchants.
func (c *chain) done() bool {
	var n float64
	for merchant := range c.merchants {
		f, _ := c.results("by_merchant", merchant, math.MaxInt32*int64(1000))["n"].Value.Float()
		n += f
	}
	return int(n) >= c.sent
}

// finish has an undisturbed stage do what is left, and compares everything.
func (c *chain) finish() {
	c.t.Helper()
	g := c.run(c.stage())
	c.await("all to come to the merchants", c.done)
	c.settled()
	g.stop(c.t)
	c.check()
}

func (c *chain) check() {
	c.t.Helper()
	for merchant, want := range c.merchants {
		c.expect("by_merchant", merchant, want)
	}
	for card, spent := range c.cards {
		c.expect("by_card", card, map[string]float64{"spent": spent, "n": float64(len(c.given[card]))})
	}
	source := c.project.Source("card_spend")
	table, err := offline.EventsTable(c.dir, source.Name, source.Schema)
	if err != nil {
		c.t.Fatal(err)
	}
	kept, names := map[string][]map[string]string{}, map[string]bool{}
	err = table.Scan(c.t.Context(), offline.ScanOptions{}, func(b *offline.Batch) error {
		for i := range b.Len() {
			if name := fmt.Sprintf("%d/%d", b.Partition(), b.Offset(i)); names[name] {
				c.t.Errorf("event %s is kept twice", name)
			} else {
				names[name] = true
			}
			row, columns := b.Row(i, nil), map[string]string{}
			for _, name := range []string{"merchant", "spent", "n"} {
				columns[name] = row[source.Schema.Index(name)].Text()
			}
			card := row[source.Schema.Index("card")].Text()
			kept[card] = append(kept[card], columns)
		}
		return nil
	})
	if err != nil {
		c.t.Fatal(err)
	}
	for card, want := range c.given {
		slices.SortFunc(kept[card], func(a, b map[string]string) int {
			return len(a["n"])*1000 - len(b["n"])*1000 + strings.Compare(a["n"], b["n"])
		})
		if !slices.EqualFunc(kept[card], want, maps.Equal) {
			c.t.Errorf("%s: %d events are kept offline, or others than the %d given out", card, len(kept[card]), len(want))
		}
	}
}

// repeated is how many records of the chained topic were there before.
func (c *chain) repeated() int64 {
	c.t.Helper()
	n := -int64(c.sent)
	for _, end := range c.ends(c.project.Source("card_spend").Topic) {
		n += end
	}
	return n
}

// TestChainKilledAtEveryStep lets the process die between any two things that it does, on the way to either group, and goes on with another.
func TestChainKilledAtEveryStep(t *testing.T) {
	for _, step := range []string{
		"group: after apply", "group: before flush", "group: after giving out", "group: after write",
		"source: after produce", "source: after acknowledgement", "source: before offline commit", "source: after offline commit",
	} {
		for _, direct := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, direct %v", step, direct), func(t *testing.T) {
				c := newChain(newRig(t), direct)
				random := rand.New(rand.NewPCG(1, 2))
				c.pay(random, 300)
				for _, n := range []int{1, 3, 6} {
					s := c.stage()
					s.crash = once(step, n, errKilled)
					g := c.run(s)
					c.await("the process to die, or everything to be done", func() bool { return g.dead() || n > 1 && c.done() })
					g.cancel()
					<-g.ended
					if n == 1 && !errors.Is(g.err, errKilled) {
						t.Fatalf("the process did not die: %v", g.err)
					}
				}
				c.pay(random, 50)
				c.finish()
				if step == "group: after giving out" && c.repeated() <= 0 {
					t.Errorf("nothing was given out twice: the test tests nothing")
				}
			})
		}
	}
}

// TestChainKilledOften lets processes die after a random number of steps.
func TestChainKilledOften(t *testing.T) {
	for _, direct := range []bool{false, true} {
		c := newChain(newRig(t), direct)
		random := rand.New(rand.NewPCG(3, 4))
		for range 10 {
			c.pay(random, 60)
			s := c.stage()
			left := int64(random.IntN(100))
			var steps atomic.Int64
			s.crash = func(string) error {
				if steps.Add(1) > left {
					return errKilled
				}
				return nil
			}
			g := c.run(s)
			c.await("the process to die, or everything to be done", func() bool { return g.dead() || c.done() })
			g.cancel()
			<-g.ended
		}
		c.finish()
	}
}

// TestChainKilledBeforeTheFiles dies when all has come to the merchants and nothing is in a file: it comes again from the chained topic.
func TestChainKilledBeforeTheFiles(t *testing.T) {
	c := newChain(newRig(t), true)
	random := rand.New(rand.NewPCG(15, 16))
	g := c.run(c.stage(func(cfg *Config, _ *Deps) { cfg.OfflineEvery, cfg.OfflineRows = time.Hour, 1<<20 }))
	for range 5 { // Kafka is told meanwhile what is done
		c.pay(random, 40)
		c.await("all to come to the merchants", c.done)
	}
	for _, member := range g.members {
		member.Abandon(errKilled)
	}
	c.await("it to die", g.dead)
	c.finish()
}

// TestChainTwoOwners has two processes that both believe they own every partition.
func TestChainTwoOwners(t *testing.T) {
	for _, direct := range []bool{false, true} {
		c := newChain(newRig(t), direct)
		c.pay(rand.New(rand.NewPCG(5, 6)), 400)
		zombie := c.stage()
		zombie.suffix = ".zombie"
		owner, second := c.run(c.stage()), c.run(zombie)
		c.await("all to come to the merchants", c.done)
		second.stop(t)
		owner.stop(t)
		c.finish()
	}
}

// TestChainRedisLosesWrites puts Redis back to an earlier instant, and then empties it, in the middle of the work.
func TestChainRedisLosesWrites(t *testing.T) {
	for _, direct := range []bool{false, true} {
		c := newChain(newRig(t), direct)
		random := rand.New(rand.NewPCG(7, 8))
		c.pay(random, 100)
		g := c.run(c.stage())
		c.await("the first to come to the merchants", c.done)
		old := c.dump()
		c.pay(random, 100)
		c.await("more to come to the merchants", c.done)
		c.restore(old)
		c.await("them to come again", c.done)
		c.pay(random, 100)
		if err := c.redis.FlushAll(t.Context()).Err(); err != nil {
			t.Fatal(err)
		}
		c.await("all to come again", c.done)
		g.stop(t)
		c.finish()
	}
}

// TestChainKafkaRefusesOnce has Kafka refuse a request of what is given out, and take those behind it.
func TestChainKafkaRefusesOnce(t *testing.T) {
	cluster, r := onFaulty(t)
	c := newChain(r, true)
	c.pay(rand.New(rand.NewPCG(9, 10)), 600)
	const times = 3
	fault := cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Topic: c.project.Source("card_spend").Topic, Err: kerr.TopicAuthorizationFailed, Count: times})
	g := c.run(c.stage(func(cfg *Config, _ *Deps) { cfg.PollRecords, cfg.ProducerLinger = 20, 0 }))
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := fault.Wait(ctx, times); err != nil {
		t.Fatal(err)
	}
	c.await("all to come to the merchants", c.done)
	g.stop(t)
	c.finish()
}

// TestChainAddedLater adds a group on a chained source whose events are past: they are read from the offline files.
func TestChainAddedLater(t *testing.T) {
	c := newChain(newRig(t), false)
	random := rand.New(rand.NewPCG(11, 12))
	c.pay(random, 200)
	c.finish()
	text := strings.ReplaceAll(c.project.Files["millrace.yaml"], "  by_merchant:\n", "  again: {source: card_spend, entity: merchant, windows: [lifetime], features: {n: count(), spent: sum(spent)}}\n  by_merchant:\n")
	dir := c.dir
	c.declareAs(c.project.TopicPrefix, map[string]string{"millrace.yaml": text, "payment.avsc": paymentSchema})
	c.dir = dir
	c.pay(random, 50)
	c.finish()
	for merchant, want := range c.merchants {
		c.expect("again", merchant, map[string]float64{"n": want["n"], "spent": want["spent"]})
	}
}

// TestChainOfAnotherWidth refuses a topic that cannot have what each partition gives out.
func TestChainOfAnotherWidth(t *testing.T) {
	r := newRig(t)
	text := strings.NewReplacer("KEY", "card", "PARTITIONER", "murmur2").Replace(chainProject)
	prefix := fmt.Sprintf("w%d-", rand.Uint32())
	if _, err := r.admin.CreateTopic(t.Context(), 5, 1, nil, prefix+"payments"); err != nil { // by others, with more than declared
		t.Fatal(err)
	}
	r.declareAs(prefix, map[string]string{"millrace.yaml": text, "payment.avsc": paymentSchema})
	if err := r.stage().Run(t.Context()); failure.Of(err) != failure.BadProject || !strings.Contains(err.Error(), "has 3 partitions") {
		t.Errorf("%v, want BadProject", err)
	}
}

// TestChainIsFixed refuses to change a group whose values are events, and to compute it anew.
func TestChainIsFixed(t *testing.T) {
	c := newChain(newRig(t), false)
	c.pay(rand.New(rand.NewPCG(13, 14)), 20)
	c.finish()
	if _, err := c.stage().Backfill(t.Context(), "by_card", now().Add(-1), nil); failure.Of(err) != failure.BadProject {
		t.Errorf("a backfill: %v, want BadProject", err)
	}
	text := strings.ReplaceAll(c.project.Files["millrace.yaml"], "last: last(merchant)", "last: first(merchant)")
	c.declareAs(c.project.TopicPrefix, map[string]string{"millrace.yaml": text, "payment.avsc": paymentSchema})
	if err := c.stage().Run(t.Context()); failure.Of(err) != failure.BadProject {
		t.Errorf("another definition: %v, want BadProject", err)
	}
}

func TestLinks(t *testing.T) {
	at := func(offset, before int64) origin { return origin{offset: offset, before: before} }
	for _, c := range []struct {
		name  string
		next  int64 // of the offline files
		found []origin
		want  []verdict
	}{
		{"one writer", 0, []origin{at(3, -1), at(5, 3), at(9, 5)}, []verdict{linkNew, linkNew, linkNew}},
		{"it starts over", 0, []origin{at(3, -1), at(5, 3), at(3, -1), at(5, 3), at(9, 5)}, []verdict{linkNew, linkNew, linkRepeated, linkRepeated, linkNew}},
		{"two writers", 0, []origin{at(3, -1), at(3, -1), at(5, 3), at(9, 5), at(5, 3), at(9, 5), at(12, 9)},
			[]verdict{linkNew, linkRepeated, linkNew, linkNew, linkRepeated, linkRepeated, linkNew}},
		{"one is refused, and those behind it are not", 0, []origin{at(3, -1), at(9, 5), at(12, 9), at(5, -1), at(9, 5), at(12, 9)},
			[]verdict{linkNew, linkEarly, linkEarly, linkNew, linkNew, linkNew}},
		{"the reader starts over behind what is kept", 10, []origin{at(5, 3), at(9, 5), at(12, 9)}, []verdict{linkNew, linkNew, linkNew}},
		{"what is kept ends at the one that is refused", 4, []origin{at(9, 5), at(5, -1), at(9, 5)}, []verdict{linkEarly, linkNew, linkNew}},
		{"nothing is known of what was before", 0, []origin{at(9, 5), at(12, 9)}, []verdict{linkNew, linkNew}},
	} {
		l := newLinks(c.next)
		var got []verdict
		for _, o := range c.found {
			v := l.judge(o)
			if got = append(got, v); v == linkNew {
				l.accept(o)
			}
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}
