//go:build chaos

package e2e

import (
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/millrace/millrace/features/online"
)

// ordeal is one case: workers that compute features under load while something is done to them or to their servers.
type ordeal struct {
	*stand
	kafkaCluster *kafkaCluster
	chaosRedis
	redisConfig online.Config // how the test itself reaches Redis
	flags       []string      // of every role
	short       bool
	random      *rand.Rand
	load        *load
	workers     []*proc
	recovered   time.Duration // the longest of those measured
}

// chaosCase is a row of the table. set prepares Redis and gives its address as --redis takes it; strike does the damage and says what it
// was. Both may add to the ordeal.
type chaosCase struct {
	name    string
	short   bool // part of the run with -short
	workers int
	set     func(o *ordeal) (redis string)
	strike  func(o *ordeal) (what string)
}

// outcome is a line of the table.
type outcome struct {
	name, did                            string
	events, entities, wrong, lost, twice int
	took, recovered                      time.Duration
	finished                             bool
}

// TestChaos is the crash matrix: one Kafka of three brokers for all cases, a Redis for each. -short takes fewer cases and fewer blows.
func TestChaos(t *testing.T) {
	k := startKafka(t, 3)
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	var outcomes []outcome
	for _, c := range chaosCases {
		if testing.Short() && !c.short {
			continue
		}
		t.Run(c.name, func(t *testing.T) {
			out := outcome{name: c.name}
			defer func() { outcomes = append(outcomes, out) }()
			c.run(t, k, rand.New(rand.NewPCG(seed, 0)), &out)
		})
	}
	printOutcomes(outcomes)
}

func (c chaosCase) run(t *testing.T, k *kafkaCluster, random *rand.Rand, out *outcome) {
	began := time.Now()
	o := &ordeal{kafkaCluster: k, short: testing.Short(), random: random}
	o.stand = newStandOn(t, k.addrs, "")
	o.addLandings()
	o.redis = c.set(o)
	if len(o.redisConfig.Addrs) == 0 {
		o.redisConfig.Addrs = strings.Split(o.redis, ",")
	}
	serve := o.role("serve")
	for range c.workers {
		o.workers = append(o.workers, o.role("stream"))
	}
	o.load = o.startLoad(sample(t, firstDay, 31*24*time.Hour), random)
	o.awaitLoad(3 * eventRate)
	out.did = c.strike(o)
	o.awaitLoad(o.load.produced() + eventRate)
	events, err := o.load.stop()
	must(t, err)
	o.awaitApplied()
	produced := withLandings(events)
	out.events, out.recovered = len(produced), o.recovered

	entities, wrong, missing := o.compareStates(o.redisConfig, events)
	answers := newOracle(events)
	answers[originLandings] = answers["origin_delays"]
	wrongAnswers, looked := o.compareOnline(serve.endpoint, answers, endOf(events))
	for _, w := range o.workers {
		w.stop() // what is pending offline is written when a worker ends
	}
	lost, double := o.compareOfflineEvents(produced)
	wrong, lost = append(wrong, wrongAnswers...), append(lost, missing...)
	if n := o.deadLetters(); n > 0 {
		lost = append(lost, fmt.Sprintf("%d dead letters", n))
	}
	out.entities, out.wrong, out.lost, out.twice, out.took, out.finished = entities+looked, len(wrong), len(lost), len(double), time.Since(began), true
	if entities == 0 || looked == 0 {
		t.Fatal("nothing was checked")
	}
	if len(wrong)+len(lost)+len(double) > 0 {
		t.Errorf("%d wrong:\n%s\n%d lost:\n%s\n%d double:\n%s", len(wrong), firstOf(wrong), len(lost), firstOf(lost), len(double), firstOf(double))
	}
}

// role starts a role on the case's servers.
func (o *ordeal) role(name string) *proc { return o.start(append([]string{name}, o.flags...)...) }

// awaitLoad waits until so many events have been produced.
func (o *ordeal) awaitLoad(n int) {
	o.t.Helper()
	eventually(o.t, 2*time.Minute, func() (bool, string) {
		return o.load.produced() >= n, fmt.Sprintf("%d of %d events produced", o.load.produced(), n)
	})
}

// pass lets a random time go by, under load.
func (o *ordeal) pass(least, most time.Duration) {
	<-time.After(least + time.Duration(o.random.Int64N(int64(most-least))))
}

// recover waits until what has been produced by now is applied.
func (o *ordeal) recover() {
	o.t.Helper()
	o.recovered = max(o.recovered, o.awaitPresent(2*time.Minute))
}

// times is how often a blow is struck.
func (o *ordeal) times(full, short int) int {
	if o.short {
		return short
	}
	return full
}

func printOutcomes(outcomes []outcome) {
	var b strings.Builder
	b.WriteString("| case | what was done | events | checked | wrong | lost | double | seconds | recovered in s |\n|---|---|--:|--:|--:|--:|--:|--:|--:|\n")
	for _, r := range outcomes {
		if !r.finished {
			fmt.Fprintf(&b, "| %s | %s | NOT FINISHED | | | | | | |\n", r.name, r.did)
			continue
		}
		fmt.Fprintf(&b, "| %s | %s | %d | %d | %d | %d | %d | %.0f | %.1f |\n",
			r.name, r.did, r.events, r.entities, r.wrong, r.lost, r.twice, r.took.Seconds(), r.recovered.Seconds())
	}
	fmt.Fprint(os.Stdout, b.String())
}
