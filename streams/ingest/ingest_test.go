package ingest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/redis/go-redis/v9"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace/millrace/features/online"
	"github.com/millrace/millrace/internal/failure"
)

// Every test here disturbs the stage in one way while it works off the same kind of events, and ends in rig.check: states in Redis equal to the
// bit to those of the engine alone, every bad record a dead letter with its bytes, every good one and every feature row in the
// files once.

func TestUndisturbed(t *testing.T) {
	r := newRig(t)
	r.produce(r.trips(1, 3000))
	g := r.run(r.stage())
	r.caughtUp()
	var status []PartitionStatus
	r.await("the status to say so", func() bool {
		status = g.Status()
		return !slices.ContainsFunc(status, func(s PartitionStatus) bool { return s.Next != s.End })
	})
	g.stop(t)
	r.check()
	if _, copies := r.letters(); copies != 0 {
		t.Errorf("%d dead letters were written twice", copies)
	}
	if len(status) != 4*sourcePartitions {
		t.Errorf("status has %d partitions", len(status))
	}
	for _, s := range status {
		if s.Next != s.End || s.End == 0 || s.Newest == 0 {
			t.Errorf("status of what is caught up: %+v", s)
		}
	}
	if left := g.Status(); len(left) != 0 {
		t.Errorf("status of a stage that was stopped: %+v", left)
	}
}

func TestRestarts(t *testing.T) {
	r := newRig(t)
	for round := range uint64(4) {
		r.produce(r.trips(round, 400))
		g := r.run(r.stage())
		r.await("some to be re-keyed", func() bool { return r.rekeyed() >= r.total()-200 })
		g.stop(t)
	}
	r.finish()
}

// TestRekeyedTwice has the rekeyer forget how far it was, so that it writes everything again.
func TestRekeyedTwice(t *testing.T) {
	r := newRig(t)
	r.produce(r.trips(2, 1500))
	g := r.run(r.stage())
	r.caughtUp()
	g.stop(t)
	before := r.ends(r.project.Groups[0].KeyedTopic)

	r.forget(SourceGroup(r.project, r.project.Sources[0]))
	r.produce(r.trips(3, 300))
	g = r.run(r.stage())
	r.caughtUp()
	g.stop(t)
	var twice int64
	for p, end := range r.ends(r.project.Groups[0].KeyedTopic) {
		twice += end - before[p]
	}
	if twice < 1500 {
		t.Fatalf("only %d records were added to the keyed topic: nothing was written twice", twice)
	}
	r.check()
}

// forget deletes what a consumer group has committed.
func (r *rig) forget(group string) {
	r.t.Helper()
	r.await("the group to be deleted", func() bool { // a member that has just left may still count
		deleted, err := r.admin.DeleteGroups(r.t.Context(), group)
		return err == nil && deleted.Error() == nil
	})
}

// forgetAll deletes what any consumer group has committed; a direct group has none of its own.
func (r *rig) forgetAll() {
	r.t.Helper()
	for _, each := range r.project.Groups {
		if !each.Direct {
			r.forget(GroupGroup(r.project, each.Name, each.Version))
		}
	}
	r.forget(SourceGroup(r.project, r.project.Sources[0]))
}

// TestCommitsWhereItStarts has a stage end after it wrote to Redis and before it told Kafka. The next one tells, though no record comes:
// to whoever watches the lag, the group would be behind for ever.
func TestCommitsWhereItStarts(t *testing.T) {
	r := newRig(t)
	r.produce(r.trips(4, 300))
	g := r.run(r.stage())
	r.caughtUp()
	g.stop(t)
	cities := r.project.Groups[0]
	r.forget(GroupGroup(r.project, cities.Name, cities.Version))
	g = r.run(r.stage())
	r.await("Kafka to be told", func() bool {
		committed, err := r.admin.FetchOffsets(t.Context(), GroupGroup(r.project, cities.Name, cities.Version))
		for p, end := range r.ends(cities.KeyedTopic) {
			if c, ok := committed.Lookup(cities.KeyedTopic, p); err != nil || !ok || c.At != end {
				return false
			}
		}
		return true
	})
	g.stop(t)
	r.check()
}

// TestReplay has everything read again from the start of the log, by Kafka's offsets, while Redis says that it is done.
func TestReplay(t *testing.T) {
	r := newRig(t)
	r.produce(r.trips(4, 1000))
	g := r.run(r.stage())
	r.caughtUp()
	g.stop(t)
	r.forgetAll()
	r.finish()
}

// TestTwoOwners runs two stages that know nothing of each other (their consumer groups differ) on the same Redis and the same keyed
// topics: every partition has two owners, each a zombie to the other, and everything is re-keyed twice, interleaved.
func TestTwoOwners(t *testing.T) {
	r := newRig(t)
	r.produce(r.trips(5, 1500))
	zombie := r.stage()
	zombie.suffix = ".zombie"
	owner, second := r.run(r.stage()), r.run(zombie)
	r.await("the zombie to have re-keyed too", func() bool {
		for _, s := range second.Status() {
			if s.Kind == kindSource && s.Next < int64(len(r.produced[s.Partition])) {
				return false
			}
		}
		return len(second.Status()) > 0
	})
	r.caughtUp()
	second.stop(t)
	owner.stop(t)
	r.finish()
}

// TestRedisEmptied loses everything in the middle of the work, twice.
func TestRedisEmptied(t *testing.T) {
	r := newRig(t)
	r.produce(r.trips(6, 2500))
	g := r.run(r.stage())
	for _, share := range []int64{3, 2} {
		r.await("some of the work to be done", func() bool { return r.applied(r.project.Groups[0]) > 2500/share })
		if err := r.redis.FlushAll(t.Context()).Err(); err != nil {
			t.Fatal(err)
		}
	}
	r.caughtUp()
	r.produce(r.trips(7, 200)) // afterwards it goes on as ever
	r.caughtUp()
	g.stop(t)
	r.check()
	if n := counterSum(t, g.Stage, "millrace_ingest_restarts_total"); n == 0 {
		t.Error("no worker noticed")
	}
}

// applied is how many keyed records of a group are in Redis.
func (r *rig) applied(g interface{ Output(string) int }) (n int64) {
	for _, each := range r.project.Groups {
		if each != g {
			continue
		}
		for p := range int32(sourcePartitions) {
			at, _, err := r.position(each, p)
			if err != nil {
				r.t.Fatal(err)
			}
			n += at.Next
		}
	}
	return n
}

// TestRedisFailover puts Redis back to what it was some time ago, as when a replica that lags becomes the master.
func TestRedisFailover(t *testing.T) {
	r := newRig(t)
	r.produce(r.trips(8, 2500))
	g := r.run(r.stage())
	r.await("a third to be done", func() bool { return r.applied(r.project.Groups[0]) > 800 })
	old := r.dump()
	r.await("two thirds to be done", func() bool { return r.applied(r.project.Groups[0]) > 1600 })
	r.restore(old)
	r.caughtUp()
	g.stop(t)
	r.check()
}

// dump is all that Redis has of partitions, of one instant: the fields of a hash, or a string under no field.
func (r *rig) dump() map[string]map[string]string {
	r.t.Helper()
	script := redis.NewScript(`
local all = {}
for _, k in ipairs(redis.call('KEYS', 'mr:{*/*')) do
  local values = string.find(k, '}:h:', 1, true) and redis.call('HGETALL', k) or {'', redis.call('GET', k)}
  for i = 1, #values, 2 do
    all[#all+1] = k
    all[#all+1] = values[i]
    all[#all+1] = values[i+1]
  end
end
return all`)
	flat, err := script.Run(r.t.Context(), r.redis, nil).StringSlice()
	if err != nil {
		r.t.Fatal(err)
	}
	all := map[string]map[string]string{}
	for i := 0; i < len(flat); i += 3 {
		if all[flat[i]] == nil {
			all[flat[i]] = map[string]string{}
		}
		all[flat[i]][flat[i+1]] = flat[i+2]
	}
	return all
}

// restore makes the dump all there is, at once.
func (r *rig) restore(all map[string]map[string]string) {
	r.t.Helper()
	_, err := r.redis.TxPipelined(r.t.Context(), func(p redis.Pipeliner) error {
		p.FlushAll(r.t.Context())
		for k, fields := range all {
			if text, ok := fields[""]; ok {
				p.Set(r.t.Context(), k, text, 0)
				continue
			}
			p.HSet(r.t.Context(), k, fields)
		}
		return nil
	})
	if err != nil {
		r.t.Fatal(err)
	}
}

var errKilled = errors.New("killed by the test")

// TestKilledAtEveryStep lets the process die between any two things that it does, early and late, and goes on with another.
func TestKilledAtEveryStep(t *testing.T) {
	for _, step := range []string{
		"source: after produce", "source: after acknowledgement", "source: before offline commit", "source: after offline commit",
		"group: after apply", "group: before flush", "group: after dead letters", "group: after write",
		"group: before offline commit", "group: after offline commit",
	} {
		t.Run(step, func(t *testing.T) {
			r := newRig(t)
			r.produce(r.trips(9, 900))
			for _, n := range []int{1, 2, 5} {
				s := r.stage()
				s.crash = once(step, n, errKilled)
				g := r.run(s)
				r.await("the process to die, or everything to be done", func() bool { return g.dead() || r.rekeyed() >= r.total() && r.atEnd() })
				g.cancel()
				<-g.ended
				if n == 1 && !errors.Is(g.err, errKilled) {
					t.Fatalf("the process did not die: %v", g.err)
				}
			}
			r.finish()
		})
	}
}

// TestKilledOften lets it die at random steps, many times, with events coming in between.
func TestKilledOften(t *testing.T) {
	r := newRig(t)
	random := rand.New(rand.NewPCG(11, 12))
	for round := range uint64(12) {
		r.produce(r.trips(20+round, 150))
		s := r.stage()
		left := int64(random.IntN(120))
		var steps atomic.Int64
		s.crash = func(string) error {
			if steps.Add(1) > left {
				return errKilled
			}
			return nil
		}
		g := r.run(s)
		r.await("the process to die, or everything to be done", func() bool { return g.dead() || r.rekeyed() >= r.total() && r.atEnd() })
		g.cancel()
		<-g.ended
	}
	r.finish()
}

// TestRebalance has a second worker come in the middle and the first one go.
func TestRebalance(t *testing.T) {
	r := newRig(t)
	first := r.run(r.stage())
	r.produce(r.trips(30, 1000))
	r.await("the first to be at work", func() bool { return r.applied(r.project.Groups[0]) > 100 })
	second := r.run(r.stage(func(_ *Config, d *Deps) { d.Redis = r.connect(d.Redis.(*redis.Client).Options().Addr) }))
	r.await("the second to have a share", func() bool { return len(second.Status()) >= 4 })
	for round := range uint64(3) {
		r.produce(r.trips(31+round, 300))
	}
	if n := len(first.Status()); n > 2*4 {
		t.Errorf("the first kept %d of %d partitions", n, 4*sourcePartitions)
	}
	first.stop(t)
	r.produce(r.trips(40, 300))
	r.await("the second to have all", func() bool { return len(second.Status()) == 4*sourcePartitions })
	r.caughtUp()
	second.stop(t)
	r.check()
}

// broken makes Redis fail: every command, or only what writes.
type broken struct {
	on     atomic.Bool
	before bool // fail before the command gets to Redis; else after it was done
}

func (b *broken) DialHook(next redis.DialHook) redis.DialHook { return next }
func (b *broken) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		if !b.on.Load() || cmd.Name() != "evalsha" || !strings.Contains(fmt.Sprint(cmd.Args()[3]), "/") { // a partition's keys
			return next(ctx, cmd)
		}
		if !b.before {
			_ = next(ctx, cmd)
		}
		err := fmt.Errorf("the test broke %s", cmd.Name())
		cmd.SetErr(err)
		return err
	}
}
func (b *broken) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}

// TestWritesFail has writes to Redis fail for a while: before they got there, and after, when only the answer is lost.
func TestWritesFail(t *testing.T) {
	for name, before := range map[string]bool{"unsent": true, "unanswered": false} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			r.produce(r.trips(50, 800))
			fault := &broken{before: before}
			client := r.connect(r.redis.(*redis.Client).Options().Addr)
			client.AddHook(fault)
			fault.on.Store(true)
			g := r.run(r.stage(func(_ *Config, d *Deps) { d.Redis = client }))
			r.await("workers to have started over", func() bool { return counterSum(t, g.Stage, "millrace_ingest_restarts_total") > 5 })
			if before && r.applied(r.project.Groups[0]) != 0 {
				t.Error("the position moved without a write")
			}
			fault.on.Store(false)
			r.caughtUp()
			g.stop(t)
			r.check()
		})
	}
}

// onFaulty is a rig on a Kafka that can be told to refuse.
func onFaulty(t *testing.T) (*kfake.Cluster, *rig) {
	t.Helper()
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cluster.Close)
	return cluster, (&rig{t: t, dir: t.TempDir()}).on(cluster.ListenAddrs()[0])
}

// TestKafkaDoesNotAcknowledge has Kafka refuse what is re-keyed for a while: the source's offset must not be committed before the
// records are there.
func TestKafkaDoesNotAcknowledge(t *testing.T) {
	cluster, r := onFaulty(t)
	r.produce(r.trips(55, 500))
	fault := cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Topic: r.project.Groups[0].KeyedTopic, Err: kerr.NotEnoughReplicas, Count: -1})
	g := r.run(r.stage())
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := fault.Wait(ctx, 1); err != nil {
		t.Fatal(err)
	}
	r.await("the other group to be done", func() bool { return r.applied(r.project.Groups[1]) > 400 })
	const late = "{no json either"
	var bad [sourcePartitions][]produced // what comes later and is acknowledged must not overtake
	for p := range bad {
		bad[p] = []produced{{value: []byte(late)}}
	}
	r.produce(bad)
	r.await("the later ones to be acknowledged", func() bool {
		letters, _ := r.letters()
		n := 0
		for _, l := range letters {
			if l.value == late {
				n++
			}
		}
		return n == sourcePartitions
	})
	if n := r.rekeyed(); n != 0 {
		t.Errorf("%d source records are committed, and none is re-keyed for %s", n, r.project.Groups[0].Name)
	}
	fault.Remove()
	r.caughtUp()
	g.stop(t)
	r.check()
}

// TestKilledBeforeTheFiles lets the process die when everything is in Redis and committed to Kafka, and nothing is in the offline files.
func TestKilledBeforeTheFiles(t *testing.T) {
	r := newRig(t)
	r.produce(r.trips(57, 600))
	g := r.run(r.stage(func(c *Config, _ *Deps) { c.OfflineEvery, c.OfflineRows = time.Hour, 1<<20 }))
	r.caughtUp()
	for _, c := range g.members {
		c.Abandon(errKilled)
	}
	r.await("it to die", g.dead)
	if n := len(r.events()); n != 0 {
		t.Fatalf("%d events are in the files already", n)
	}
	r.finish()
}

// TestKeyedByAnotherEntity refuses a keyed topic that was filled for another entity.
func TestKeyedByAnotherEntity(t *testing.T) {
	r := newRig(t)
	r.produce(r.trips(60, 50))
	g := r.run(r.stage())
	r.caughtUp()
	g.stop(t)
	changed := *r.project
	cities, riders := *r.project.Groups[0], *r.project.Groups[1]
	riders.KeyedTopic = cities.KeyedTopic
	changed.Groups = append(changed.Groups[:0:0], &cities, &riders)
	if err := r.redis.FlushAll(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
	g = r.run(r.stage(func(_ *Config, d *Deps) { d.Project, d.OfflineDir = &changed, "" }))
	r.await("what was produced to be filled from history", func() bool { // where the topic's keys do not matter
		for _, group := range changed.Groups {
			for p := range int32(sourcePartitions) {
				if at, raw, err := r.position(group, p); err != nil || len(raw) == 0 || at.Next == online.Filling {
					return false
				}
			}
		}
		return true
	})
	r.produce(r.trips(61, 50))
	r.await("it to notice", g.dead)
	if failure.Of(g.err) != failure.BadProject || !strings.Contains(g.err.Error(), "another entity") {
		t.Errorf("ended with %v", g.err)
	}
}

// TestTopicWentBack refuses a topic that ends before the position.
func TestTopicWentBack(t *testing.T) {
	r := newRig(t)
	r.produce(r.trips(61, 50))
	cities := r.project.Groups[0]
	if _, err := online.NewWriter(r.redis, r.project.Name, cities.Name, cities.Version).Commit(t.Context(), 0, nil, online.Position{Next: 1000}, nil, nil, 0); err != nil {
		t.Fatal(err)
	}
	g := r.run(r.stage())
	r.await("it to notice", g.dead)
	if failure.Of(g.err) != failure.Corrupt {
		t.Errorf("ended with %v, want Corrupt", g.err)
	}
}

// TestRebuiltFromFiles empties Redis when Kafka has only the end of the topics left: offline files and topics together give the very bits
// that were there.
func TestRebuiltFromFiles(t *testing.T) {
	r := newRig(t)
	r.produce(r.trips(70, 1500))
	g := r.run(r.stage())
	r.caughtUp()
	g.stop(t)
	for i, group := range r.project.Groups {
		if err := r.redis.FlushAll(t.Context()).Err(); err != nil {
			t.Fatal(err)
		}
		var cut kadm.Offsets
		for p, end := range r.ends(group.KeyedTopic) {
			cut.Add(kadm.Offset{Topic: group.KeyedTopic, Partition: p, At: end - int64(10*(i+1))})
		}
		if _, err := r.admin.DeleteRecords(t.Context(), cut); err != nil {
			t.Fatal(err)
		}
	}
	r.produce(r.trips(71, 200))
	killed := r.stage() // dies once while it rebuilds, which must not count
	killed.crash = once("group: rebuilding", 2, errKilled)
	g = r.run(killed)
	r.await("it to die", g.dead)
	g = r.run(r.stage())
	r.caughtUp()
	g.stop(t)
	r.check()
}

func counterSum(t *testing.T, s *Stage, name string) (sum float64) {
	t.Helper()
	families, err := s.deps.Registerer.(interface {
		Gather() ([]*dto.MetricFamily, error)
	}).Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == name {
			for _, m := range f.GetMetric() {
				sum += m.GetCounter().GetValue()
			}
		}
	}
	return sum
}

// TestKafkaRefusesOnce has Kafka refuse one request of re-keyed records, while those behind it are taken: with an error that does not pass
// by itself, so that the client gives up all that it holds for the partition, and yet has passed a moment later. No record may be lost, and
// none is to blame.
func TestKafkaRefusesOnce(t *testing.T) {
	for _, refusal := range []*kerr.Error{kerr.TopicAuthorizationFailed, kerr.UnknownServerError, kerr.MessageTooLarge} {
		t.Run(refusal.Message, func(t *testing.T) {
			cluster, r := onFaulty(t)
			r.produce(r.trips(59, 2000))
			times := 3
			if refusal == kerr.MessageTooLarge {
				times = 1 // again, of a record that is sent alone, it would be the truth
			}
			fault := cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Topic: r.project.Groups[0].KeyedTopic, Err: refusal, Count: times})
			g := r.run(r.stage(func(c *Config, _ *Deps) { c.PollRecords, c.ProducerLinger = 20, 0 }))
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			if err := fault.Wait(ctx, times); err != nil {
				t.Fatal(err)
			}
			r.caughtUp()
			g.stop(t)
			r.check()
		})
	}
}

// TestKafkaRefusesForGood has Kafka refuse every re-keyed record of one group as too large: each is a dead letter, with its own bytes, and the
// other group has it all the same.
func TestKafkaRefusesForGood(t *testing.T) {
	cluster, r := onFaulty(t)
	trips := r.trips(61, 200)
	r.produce(trips)
	cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Topic: r.project.Groups[0].KeyedTopic, Err: kerr.MessageTooLarge, Count: -1})
	g := r.run(r.stage())
	r.caughtUp()
	g.stop(t)
	want := map[string]bool{}
	for _, partition := range trips {
		for _, p := range partition {
			if p.trip != nil {
				want[string(p.value)] = true
			}
		}
	}
	for _, l := range r.expected().letters { // these are bad for the source itself
		delete(want, l.value)
	}
	letters, _ := r.letters()
	refused := 0
	for _, l := range letters {
		if l.class != classRefused {
			continue
		}
		if refused++; !want[l.value] {
			t.Errorf("%q is refused", l.value)
		}
	}
	if refused != len(want) {
		t.Errorf("%d records are refused, want %d", refused, len(want))
	}
	if n := r.applied(r.project.Groups[0]); n != 0 {
		t.Errorf("%d records of what Kafka refused are applied", n)
	}
	if n := r.applied(r.project.Groups[1]); n < int64(len(want)) {
		t.Errorf("the other group has %d of %d records", n, len(want))
	}
}
