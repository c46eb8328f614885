package serving

import (
	"fmt"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace/millrace/features"
	"github.com/millrace/millrace/features/online"
	"github.com/millrace/millrace/project"
)

// hand commits for a source's workers that they have handed on a partition up to an offset and an event time.
func (w *world) hand(source string, partition int32, next int64, newest time.Time) {
	w.t.Helper()
	offsets := kadm.Offsets{}
	offsets.Add(kadm.Offset{Topic: source, Partition: partition, At: next, LeaderEpoch: -1, Metadata: fmt.Sprintf("millrace/1 next=%d newest=%d", next, newest.UnixMilli())})
	answer, err := kadm.NewClient(w.client()).CommitOffsets(w.t.Context(), "flights.source."+source, offsets)
	if err != nil || answer.Error() != nil {
		w.t.Fatal(err, answer.Error())
	}
}

// put writes n records to a partition of a topic. What they are is nothing to who scores another.
func (w *world) put(topic string, partition int32, n int) {
	w.t.Helper()
	for range n {
		if err := w.client().ProduceSync(w.t.Context(), &kgo.Record{Topic: topic, Partition: partition, Value: []byte("x"), Timestamp: noon}).FirstErr(); err != nil {
			w.t.Fatal(err)
		}
	}
}

// The newest event that a partition of the group has applied came of one partition of the source, while another is behind: what that one has
// is waited for.
func TestStreamWaitsForEverySourcePartition(t *testing.T) {
	w := newWorld(t, withKafka, byEvents)
	w.cfg.FeatureWait = 20 * time.Second
	w.put("arrivals", 0, 2)
	w.put("arrivals", 1, 1)
	w.apply(arrival{"ATL", noon.Add(-10 * time.Minute), 10}, arrival{neighbour("ATL"), noon.Add(time.Hour), 300})
	w.put("origin_delays.keyed", partitionOf("ATL"), 2) // the two that are applied, both of partition 0
	w.hand("arrivals", 0, 2, noon.Add(time.Hour))
	m := byDelay(0.1)
	m.dataUntil = noon
	w.promote(m)
	w.depart(0, 1, noon, "ATL")
	w.start()
	eventually(t, "the scorer looks again and again", func() bool { return w.looks() > 5 })
	if n := w.scored(); n != 0 {
		t.Fatalf("%v scored without what a partition of the source has yet", n)
	}
	w.put("origin_delays.keyed", partitionOf("ATL"), 1)
	w.hand("arrivals", 1, 1, noon.Add(-5*time.Minute))
	before := w.looks()
	eventually(t, "the scorer looks again", func() bool { return w.looks() > before+5 })
	if n := w.scored(); n != 0 {
		t.Fatalf("%v scored without what the group has not applied", n)
	}
	w.apply(arrival{"ATL", noon.Add(-5 * time.Minute), 50})
	eventually(t, "it is scored", func() bool { return w.scored() == 1 })
	if p := w.predictions()[0]; p.Score != sigmoid(-1+3+1) {
		t.Errorf("score %v at %+v, want %v", p.Score, p.Positions, sigmoid(-1+3+1))
	}
	if given := w.metric("millrace_serving_stream_waits_given_up_total"); given != 0 {
		t.Errorf("%v waits given up", given)
	}
}

// looks is how often Kafka was asked for committed offsets.
func (w *world) looks() int64 { return w.fetched.Load() }

// frontierWorld has a second group, on what the first gives out.
func frontierWorld(t *testing.T, change func(first, second *project.Group)) (*world, *frontier) {
	t.Helper()
	w := newWorld(t, withKafka, byEvents)
	first := w.group()
	given := &project.Source{Name: "given", Topic: "given", Schema: first.Source.Schema, Of: first, Partitions: partitions}
	compiled, faults := features.Compile(features.Definition{
		Name: "second", Source: "given", Entity: []string{"origin"}, Windows: []string{"1h"},
		Features: []features.FeatureDefinition{{Name: "n", Aggregate: "count()"}},
	}, first.Source.Schema)
	if len(faults) > 0 {
		t.Fatal(faults)
	}
	second := &project.Group{Group: compiled, Source: given, KeyedTopic: "second.keyed"}
	change(first, second)
	w.project.Sources, w.project.Groups = append(w.project.Sources, given), append(w.project.Groups, second)
	admin := kadm.NewClient(w.client())
	for _, topic := range []string{"given", "second.keyed"} {
		if _, err := admin.CreateTopic(t.Context(), partitions, 1, nil, topic); err != nil {
			t.Fatal(err)
		}
	}
	s := must[*streamScorer](t)(newStreamScorer(w.make(), w.stage.models["late"]))
	return w, newFrontier(s, admin)
}

// move sets the position of a group's partition.
func (w *world) move(g *project.Group, partition int32, p online.Position) {
	w.t.Helper()
	writer := online.NewWriter(w.writer(), w.project.Name, g.Name, g.Version)
	_, raw, err := writer.Load(w.t.Context(), partition)
	if err != nil {
		w.t.Fatal(err)
	}
	if _, err := writer.Commit(w.t.Context(), partition, raw, p, nil, nil, 0); err != nil {
		w.t.Fatal(err)
	}
}

// waiting is what a batch at noon, which reads partition 2 of a group, finds at one look after the other.
type waiting struct {
	t     *testing.T
	w     *wait
	group int
}

func (f *frontier) waiting(t *testing.T, group int) waiting {
	return waiting{t, &wait{frontier: f, t: noon.UnixMilli(), ends: map[string][]int64{}}, group}
}

func (w waiting) expect(want bool, when string) {
	w.t.Helper()
	reached, err := w.w.look(w.t.Context(), map[int]map[int32]bool{w.group: {2: true}})
	if err != nil || reached != want {
		w.t.Errorf("%s: reached %v, %v, want %v", when, reached, err, want)
	}
}

func (w waiting) known(next int64, want bool, when string) {
	w.t.Helper()
	if got := w.w.reached(place{w.group, 2}, &online.Position{Next: next}, w.w.t); got != want {
		w.t.Errorf("%s: known without a look: %v, want %v", when, got, want)
	}
}

func TestFrontierOfKeyedGroup(t *testing.T) {
	w, f := frontierWorld(t, func(first, _ *project.Group) { first.Source.Lateness = time.Hour })
	first := w.group()
	for p := range int32(partitions) {
		w.put("arrivals", p, 10)
	}
	w.put(first.KeyedTopic, 2, 20)
	batch := f.waiting(t, 0)
	batch.expect(false, "nobody has told anything")
	for p := range int32(partitions) {
		w.hand("arrivals", p, 5, noon.Add(90*time.Minute))
	}
	w.hand("arrivals", 3, 5, noon.Add(30*time.Minute))
	w.move(first, 2, online.Position{Next: 20, Newest: noon.Add(2 * time.Hour).UnixMilli()})
	batch.expect(false, "a partition may have an event that is late by half an hour")
	w.hand("arrivals", 3, 10, noon.Add(30*time.Minute))
	batch.expect(true, "that one has nothing left")
	batch.known(20, false, "what the partition gets from now on may be older")

	w.put("arrivals", 3, 1)
	w.move(first, 2, online.Position{Next: 19})
	another := f.waiting(t, 0)
	another.expect(false, "it has something again")
	w.hand("arrivals", 3, 11, noon.Add(61*time.Minute))
	another.expect(false, "all are past, but not applied")
	w.put(first.KeyedTopic, 2, 5)
	w.move(first, 2, online.Position{Next: 20})
	another.expect(true, "what was there when all were past is applied")
	another.known(20, true, "it is remembered")
	another.known(19, false, "Redis went back")
	for p := range int32(partitions) {
		w.hand("arrivals", p, 11, noon.Add(5*time.Hour))
	}
	w.put(first.KeyedTopic, 2, 5)
	another.expect(true, "the same batch looks again")
	another.w.t += time.Hour.Milliseconds()
	another.known(25, false, "its end of the topic is from before the source was handed on so far")
	another.w.t -= time.Hour.Milliseconds()
	another.w.t += time.Minute.Milliseconds() + 1
	another.known(20, false, "a later batch")

	// The position itself tells, when it has seen an event of every partition of the source.
	times := online.Position{Next: 7, Newest: noon.Add(2 * time.Hour).UnixMilli(), Sources: map[online.SourcePartition]int64{}, SourceTimes: map[online.SourcePartition]int64{}}
	for p := range int32(partitions) {
		times.Sources[online.SourcePartition{Source: "arrivals", Partition: p}] = 1
		times.SourceTimes[online.SourcePartition{Source: "arrivals", Partition: p}] = noon.Add(time.Hour).UnixMilli()
	}
	if !f.reached(place{0, 2}, &times, noon.UnixMilli()) {
		t.Error("all source partitions are past the lateness, and it is not seen")
	}
	times.SourceTimes[online.SourcePartition{Source: "arrivals", Partition: 1}]--
	if f.reached(place{0, 2}, &times, noon.UnixMilli()) {
		t.Error("a source partition is not past the lateness")
	}
	times.SourceTimes[online.SourcePartition{Source: "arrivals", Partition: 1}]++
	times.Next = -1
	if f.reached(place{0, 2}, &times, noon.UnixMilli()) {
		t.Error("a partition that is being filled has reached something")
	}
}

func TestFrontierOfDirectGroup(t *testing.T) {
	w, f := frontierWorld(t, func(first, _ *project.Group) {
		first.Direct, first.KeyedTopic, first.Source.Lateness = true, "arrivals", time.Hour
	})
	first := w.group()
	w.put("arrivals", 2, 10)
	w.move(first, 2, online.Position{Next: 5, Newest: noon.Add(30 * time.Minute).UnixMilli()})
	batch := f.waiting(t, 0)
	batch.expect(false, "one that is late may come")
	w.put("arrivals", 2, 10)
	w.move(first, 2, online.Position{Next: 10, Newest: noon.Add(30 * time.Minute).UnixMilli()})
	batch.expect(true, "all that there was is applied")
	w.move(first, 2, online.Position{Next: 6, Newest: noon.Add(time.Hour).UnixMilli()})
	f.waiting(t, 0).expect(true, "all that may come is newer")
}

// The second group has applied all of its topic, and more than the time asked about; what it waits for is still to come from the first.
func TestFrontierOfChainedGroup(t *testing.T) {
	for _, direct := range []bool{false, true} {
		t.Run(fmt.Sprintf("direct %v", direct), func(t *testing.T) {
			w, f := frontierWorld(t, func(_, second *project.Group) {
				if direct {
					second.Direct, second.KeyedTopic = true, "given"
				}
			})
			first, second := w.project.Groups[0], w.project.Groups[1]
			w.put("arrivals", 1, 1)
			w.put("given", 0, 3)
			w.hand("given", 0, 3, noon.Add(time.Hour))
			w.move(second, 2, online.Position{Newest: noon.Add(time.Hour).UnixMilli()})
			batch := f.waiting(t, 1)
			batch.expect(false, "a source behind the first group has a record yet")
			w.put(first.KeyedTopic, 3, 1)
			w.hand("arrivals", 1, 1, noon.Add(-time.Hour))
			batch.expect(false, "the first group has not applied it")
			w.put("given", 2, 1)
			w.move(first, 3, online.Position{Next: 1, Newest: noon.Add(-time.Hour).UnixMilli()})
			batch.expect(false, "what it gave out is in its topic")
			if !direct {
				w.put(second.KeyedTopic, 2, 1)
				w.hand("given", 2, 1, noon.Add(-time.Hour))
				batch.expect(false, "and in that of the second")
			}
			w.move(second, 2, online.Position{Next: 1, Newest: noon.Add(time.Hour).UnixMilli()})
			batch.expect(true, "which has applied it")
		})
	}
}
