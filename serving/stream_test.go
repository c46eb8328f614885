package serving

import (
	"errors"
	"fmt"
	"math"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace/millrace/registry"
	"github.com/millrace/millrace/schemas"
)

// exactlyOnce checks that the predictions are those of departures from to until, one each, under their ids.
func exactlyOnce(t *testing.T, predictions []schemas.Prediction, from, until int) {
	t.Helper()
	seen := map[string]int{}
	for _, p := range predictions {
		seen[p.JoinKey]++
		if p.ID != "late/"+p.Source || !strings.HasPrefix(p.Source, "departures/") {
			t.Errorf("id %q of source %q", p.ID, p.Source)
		}
	}
	for i := from; i < until; i++ {
		if seen[flightID(i)] != 1 {
			t.Errorf("%s has %d predictions", flightID(i), seen[flightID(i)])
		}
		delete(seen, flightID(i))
	}
	if len(seen) > 0 {
		t.Errorf("%d predictions of others: %v", len(seen), seen)
	}
}

func (w *world) scored() float64 {
	return w.metric("millrace_serving_predictions_total", "source", "stream")
}

// caughtUp waits until the scorer's group has committed the end of the topic.
func (w *world) caughtUp() {
	w.t.Helper()
	admin := kadm.NewClient(w.client())
	eventually(w.t, "the group has come to the end", func() bool {
		lag, err := admin.Lag(w.t.Context(), "flights.score.late")
		if err != nil || lag.Error() != nil {
			return false
		}
		committed := must[kadm.OffsetResponses](w.t)(admin.FetchOffsetsForTopics(w.t.Context(), "flights.score.late", "departures"))
		ends := must[kadm.ListedOffsets](w.t)(admin.ListEndOffsets(w.t.Context(), "departures"))
		reached := true
		ends.Each(func(o kadm.ListedOffset) {
			c, _ := committed.Lookup(o.Topic, o.Partition)
			reached = reached && c.At == o.Offset
		})
		return reached
	})
}

func TestStreamScores(t *testing.T) {
	w := newWorld(t, withKafka, byEvents)
	w.cfg.FeatureWait = 10 * time.Second
	w.apply(arrival{"ATL", noon.Add(-30 * time.Minute), 10}, arrival{"ATL", noon.Add(-20 * time.Minute), 50}, arrival{"ATL", noon.Add(48 * time.Hour), 300})
	w.depart(0, 100, noon, "ATL")
	digest := w.promote(byDelay(0.1)) // its manifest does not say what it was trained on: it starts at the end
	w.start()
	w.caughtUp()
	bad := &kgo.Record{Topic: "departures", Partition: 1, Value: []byte{0xff}, Timestamp: noon}
	if err := w.client().ProduceSync(t.Context(), bad).FirstErr(); err != nil {
		t.Fatal(err)
	}
	w.depart(100, 20, noon, "ATL")
	eventually(t, "all from then on are scored", func() bool { return w.scored() == 20 })

	predictions := w.predictions()
	exactlyOnce(t, predictions, 100, 120)
	if n := w.metric("millrace_serving_stream_bad_records_total"); n != 1 {
		t.Errorf("%v bad records counted, want 1", n)
	}
	if n := w.metric("millrace_serving_stream_lag_records"); n != 0 {
		t.Errorf("lag %v at the end", n)
	}
	for _, p := range predictions {
		if p.At != noon.UnixMilli()+int64(indexOf(p.JoinKey))*60_000 || p.Digest != digest || p.Rung != "primary" || p.Refused {
			t.Fatalf("%+v", p)
		}
		if textOf(p.Request, "origin") != "ATL" || textOf(p.Entities, "origin") != "ATL" || len(p.Inputs) != 6 || len(p.Positions) != 1 || p.Positions[0].Group != "origin_delays" {
			t.Fatalf("%+v", p)
		}
	}
	var named predictionBody
	eventually(t, "the last is to be had by name", func() bool {
		return w.get("/v1/models/late/predictions/"+flightID(119), &named) == 200
	})
	if named.Source == "http" || named.JoinKey != flightID(119) {
		t.Errorf("%+v", named)
	}
}

func textOf(texts schemas.Texts, name string) string {
	text, _ := texts.Get(name)
	return text
}

func indexOf(id string) int {
	return int(id[1]-'A')*26*26 + int(id[2]-'A')*26 + int(id[3]-'A')
}

// The features of a stream-scored event are those as of its own time, by hand.
func TestStreamReadsAsOfTheEvent(t *testing.T) {
	w := newWorld(t, withKafka, byEvents)
	w.apply(arrival{"ATL", noon.Add(10 * time.Minute), 10}, arrival{"ATL", noon.Add(20 * time.Minute), 50}, arrival{neighbour("ATL"), noon.Add(time.Hour), 300})
	w.promote(trained{intercept: -1, weights: map[string]float64{"origin_delays.delay_mean_1h": 0.1, "distance": 0.001}, dataUntil: noon})
	w.depart(0, 60, noon, "ATL")
	w.start()
	eventually(t, "all are scored", func() bool { return w.scored() == 60 })
	for _, p := range w.predictions() {
		minute := indexOf(p.JoinKey)
		margin := -1.0 + 1
		switch { // an event at exactly the time of reading is not before it
		case minute > 20:
			margin += 3
		case minute > 10:
			margin++
		}
		if math.Abs(p.Score-sigmoid(margin)) > 1e-12 {
			t.Errorf("minute %d: score %v, want %v", minute, p.Score, sigmoid(margin))
		}
	}
	if n := w.metric("millrace_serving_stream_waits_given_up_total"); n != 0 {
		t.Errorf("%v waits given up", n)
	}
}

func TestStreamStartsWhereTrainingEnded(t *testing.T) {
	w := newWorld(t, withKafka, byEvents)
	w.apply(arrival{"ATL", noon.Add(48 * time.Hour), 10})
	w.depart(0, 100, noon, "ATL")
	stop := w.start()
	// Without a champion nothing is consumed: the group does not even exist.
	for range 3 {
		w.stage.lookAll(t.Context())
	}
	admin := kadm.NewClient(w.client())
	groups := must[kadm.ListedGroups](t)(admin.ListGroups(t.Context()))
	if len(groups) > 0 {
		t.Errorf("groups %v without a champion", groups.Groups())
	}
	m := byDelay(0.1)
	m.dataUntil = noon.Add(40 * time.Minute)
	w.promote(m)
	eventually(t, "all from then on are scored", func() bool { return w.scored() == 60 })
	exactlyOnce(t, w.predictions(), 40, 100)
	stop()

	// The second time it goes on where it was, whatever the champion of then was trained on.
	m.dataUntil = noon.Add(115 * time.Minute)
	m.intercept = 7
	w.promote(m)
	w.depart(100, 20, noon, "ATL")
	w.start()
	w.caughtUp()
	exactlyOnce(t, w.predictions(), 40, 120)
}

// Kafka lists offsets by time in two steps: where no record is found, the end is asked for. Departures that come in between are scored.
func TestStreamStartsWhileEventsArrive(t *testing.T) {
	w := newWorld(t, withKafka, byEvents)
	w.apply(arrival{"ATL", noon.Add(48 * time.Hour), 10})
	m := byDelay(0.1)
	m.dataUntil = noon
	w.promote(m)
	byTime, came := false, false
	w.kafka.ControlKey(int16(kmsg.ListOffsets), func(r kmsg.Request) (kmsg.Response, error, bool) {
		w.kafka.KeepControl()
		at := r.(*kmsg.ListOffsetsRequest).Topics[0].Partitions[0].Timestamp
		if byTime && at < 0 && !came {
			came = true
			w.kafka.SleepControl(func() { w.depart(0, 20, noon, "ATL") })
		}
		byTime = byTime || at >= 0
		return nil, nil, false
	})
	w.start()
	eventually(t, "all are scored", func() bool { return w.scored() == 20 })
	exactlyOnce(t, w.predictions(), 0, 20)
}

// The process dies after it has produced predictions and before the transaction commits. Those predictions are never seen; the next
// process makes them again, under the same ids.
func TestStreamExactlyOnceAcrossACrash(t *testing.T) {
	for _, c := range []struct {
		name     string
		dies     kmsg.Key
		instance string // of the successor
	}{
		{"before the offsets, successor of the same name", kmsg.TxnOffsetCommit, "a"},
		{"before the commit, successor of the same name", kmsg.EndTxn, "a"},
		{"before the commit, successor of another name", kmsg.EndTxn, "b"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t, withKafka, byEvents)
			w.cfg.Instance, w.cfg.TransactionFor, w.cfg.Poll = "a", time.Second, 50
			w.apply(arrival{"ATL", noon.Add(480 * time.Hour), 10})
			m := byDelay(0.1)
			m.dataUntil = noon
			w.promote(m)
			w.depart(0, 200, noon, "ATL")

			// The process is cut off from Kafka at its third transaction's end: no request of it is answered any more.
			var reached, dead atomic.Bool
			var ends atomic.Int32
			w.kafka.Control(func(r kmsg.Request) (kmsg.Response, error, bool) {
				w.kafka.KeepControl()
				if r.Key() == int16(c.dies) && !dead.Load() && ends.Add(1) == 3 {
					dead.Store(true)
					reached.Store(true)
				}
				return nil, errors.New("the process is dead"), reached.Load() && dead.Load()
			})
			stop := w.start()
			eventually(t, "it is cut off", reached.Load)
			stopped := make(chan struct{})
			go func() { stop(); close(stopped) }()
			select {
			case <-stopped:
			case <-time.After(time.Minute):
				t.Fatal("a process without Kafka does not end")
			}
			dead.Store(false)
			if n := len(w.predictions()); n >= 200 {
				t.Fatalf("%d predictions before the second process", n)
			}

			w.cfg.Instance = c.instance
			w.start()
			w.caughtUp()
			exactlyOnce(t, w.predictions(), 0, 200)
			if all := w.uncommitted(); all <= 200 {
				t.Errorf("%d predictions were produced in all: none was lost in the crash", all)
			}
		})
	}
}

// uncommitted counts what is on the predictions topic, aborted transactions included.
func (w *world) uncommitted() int {
	c := w.client(kgo.ConsumeTopics("predictions"), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.KeepControlRecords())
	ends, err := kadm.NewClient(c).ListEndOffsets(w.t.Context(), "predictions")
	if err != nil {
		w.t.Fatal(err)
	}
	left := map[int32]int64{}
	ends.Each(func(o kadm.ListedOffset) {
		if o.Offset > 0 {
			left[o.Partition] = o.Offset
		}
	})
	ctx, cancel := timeoutContext(w.t, time.Minute)
	defer cancel()
	n := 0
	for len(left) > 0 {
		fetches := c.PollFetches(ctx)
		if err := fetches.Err0(); err != nil {
			w.t.Fatalf("reading what is uncommitted, %v left: %v", left, err)
		}
		fetches.EachRecord(func(r *kgo.Record) {
			if !r.Attrs.IsControl() {
				n++
			}
			if r.Offset+1 >= left[r.Partition] {
				delete(left, r.Partition)
			}
		})
	}
	return n
}

// Two processes share the partitions; one leaves in the middle. Nothing is lost or doubled.
func TestStreamExactlyOnceAcrossARebalance(t *testing.T) {
	w := newWorld(t, withKafka, byEvents)
	w.cfg.Poll = 20
	w.apply(arrival{"ATL", noon.Add(480 * time.Hour), 10})
	m := byDelay(0.1)
	m.dataUntil = noon
	w.promote(m)
	w.depart(0, 300, noon, "ATL")
	stopFirst := w.start()
	eventually(t, "the first has begun", func() bool { return w.scored() > 0 })
	w.start()
	w.depart(300, 300, noon, "ATL")
	eventually(t, "the second has begun", func() bool { return w.scored() > 0 || w.lagNow() == 0 })
	stopFirst()
	w.depart(600, 100, noon, "ATL")
	w.caughtUp()
	exactlyOnce(t, w.predictions(), 0, 700)
}

func (w *world) lagNow() int64 {
	lag, err := kadm.NewClient(w.client()).Lag(w.t.Context(), "flights.score.late")
	if err != nil || lag.Error() != nil {
		return -1
	}
	sum := int64(0)
	for _, g := range lag {
		sum += g.Lag.Total()
	}
	return sum
}

// The group has not come as far as the departures: they are scored when it has, by what it then knows.
func TestStreamWaitsForLateGroup(t *testing.T) {
	w := newWorld(t, withKafka, byEvents)
	w.cfg.FeatureWait = 10 * time.Second
	w.apply(arrival{"ATL", noon.Add(-10 * time.Minute), 10})
	w.pending("origin_delays.keyed", "ATL", 3) // of which it has applied one
	m := byDelay(0.1)
	m.dataUntil = noon
	w.promote(m)
	w.depart(0, 1, noon, "ATL")
	w.start()
	eventually(t, "the scorer looks at the positions", func() bool { return w.looks() > 5 })
	if n := w.scored(); n != 0 {
		t.Fatalf("%v scored too early", n)
	}
	w.apply(arrival{"ATL", noon.Add(-5 * time.Minute), 50}, arrival{"ATL", noon, 70})
	eventually(t, "it is scored", func() bool { return w.scored() == 1 })
	p := w.predictions()[0]
	if want := sigmoid(-1 + 3 + 1); p.Score != want || p.Positions[0].Newest != noon.UnixMilli() {
		t.Errorf("score %v at %+v, want %v", p.Score, p.Positions, want)
	}
	if given := w.metric("millrace_serving_stream_waits_given_up_total"); given != 0 || w.metric("millrace_serving_stream_wait_seconds") != 1 {
		t.Errorf("%v waits given up", given)
	}
}

// pending puts n records on a group's keyed topic, in the partition of an entity.
func (w *world) pending(topic, entity string, n int) {
	w.t.Helper()
	c := w.client()
	for range n {
		r := &kgo.Record{Topic: topic, Partition: partitionOf(entity), Value: []byte("x"), Timestamp: noon}
		if err := c.ProduceSync(w.t.Context(), r).FirstErr(); err != nil {
			w.t.Fatal(err)
		}
	}
}

// A group that has applied all there is will not come further: nobody waits for it.
func TestStreamDoesNotWaitForFinishedGroup(t *testing.T) {
	w := newWorld(t, withKafka, byEvents)
	w.cfg.FeatureWait = 10 * time.Second
	w.apply(arrival{"ATL", noon.Add(-10 * time.Minute), 10})
	w.pending("origin_delays.keyed", "ATL", 1) // which is the one applied
	m := byDelay(0.1)
	m.dataUntil = noon
	w.promote(m)
	w.depart(0, 10, noon, "ATL")
	w.start()
	eventually(t, "all are scored", func() bool { return w.scored() == 10 })
	if n := w.metric("millrace_serving_stream_waits_given_up_total"); n != 0 {
		t.Errorf("%v waits given up", n)
	}
}

// Its keyed topic is applied, but the source's records are not all on it yet.
func TestStreamWaitsForRekeying(t *testing.T) {
	w := newWorld(t, withKafka, byEvents)
	w.cfg.FeatureWait = 10 * time.Second
	w.apply(arrival{"ATL", noon.Add(-10 * time.Minute), 10})
	w.pending("origin_delays.keyed", "ATL", 1)
	w.pending("arrivals", "ATL", 3)
	m := byDelay(0.1)
	m.dataUntil = noon
	w.promote(m)
	w.depart(0, 10, noon, "ATL")
	w.start()
	eventually(t, "the scorer looks at the positions", func() bool { return w.looks() > 5 })
	if n := w.scored(); n != 0 {
		t.Fatalf("%v scored too early", n)
	}
	offsets := kadm.Offsets{}
	offsets.AddOffset("arrivals", partitionOf("ATL"), 3, -1)
	answer, err := kadm.NewClient(w.client()).CommitOffsets(t.Context(), "flights.source.arrivals", offsets)
	if err != nil || answer.Error() != nil {
		t.Fatal(err, answer.Error())
	}
	eventually(t, "all are scored", func() bool { return w.scored() == 10 })
}

func TestStreamGivesUpWaiting(t *testing.T) {
	w := newWorld(t, withKafka, byEvents)
	w.cfg.FeatureWait = 50 * time.Millisecond
	w.apply(arrival{"ATL", noon.Add(-10 * time.Minute), 10})
	w.pending("origin_delays.keyed", "ATL", 5)
	m := byDelay(0.1)
	m.dataUntil = noon
	w.promote(m)
	w.depart(0, 1, noon, "ATL")
	w.start()
	eventually(t, "it is scored", func() bool { return w.scored() == 1 })
	if n := w.metric("millrace_serving_stream_waits_given_up_total", "model", "late"); n != 1 {
		t.Errorf("%v waits given up, want 1", n)
	}
}

// By the machine's clock features are as of now, and nobody waits.
func TestStreamByWallClock(t *testing.T) {
	w := newWorld(t, withKafka)
	w.apply(arrival{"ATL", noon.Add(-10 * time.Minute), 10})
	w.pending("origin_delays.keyed", "ATL", 5)
	m := byDelay(0.1)
	m.dataUntil = noon
	w.promote(m)
	w.depart(0, 10, noon, "ATL")
	w.start()
	eventually(t, "all are scored", func() bool { return w.scored() == 10 })
	for _, p := range w.predictions() {
		if p.At != noon.UnixMilli() || p.Score != sigmoid(1) {
			t.Errorf("%+v", p)
		}
	}
	if n := w.metric("millrace_serving_stream_wait_seconds"); n != 0 {
		t.Errorf("waited %v times", n)
	}
}

// While Redis is away nothing is scored and nothing refused; when it is back, everything is scored.
func TestStreamOutlivesRedis(t *testing.T) {
	w := newWorld(t, withKafka)
	w.cfg.Backoff = 10 * time.Millisecond
	w.apply(arrival{"ATL", noon.Add(-10 * time.Minute), 10})
	m := byDelay(0.1)
	m.dataUntil = noon
	w.promote(m)
	w.start()
	w.awaitReady()
	w.redis.Close()
	w.depart(0, 40, noon, "ATL")
	eventually(t, "batches are aborted", func() bool { return w.metric("millrace_serving_stream_aborted_batches_total") > 1 })
	if err := w.redis.Restart(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "all are scored", func() bool { return w.scored() == 40 })
	predictions := w.predictions()
	exactlyOnce(t, predictions, 0, 40)
	for _, p := range predictions {
		if p.Refused {
			t.Errorf("%+v", p)
		}
	}
}

// The models topic tells of a promotion at once, however seldom the registry is looked at.
func TestModelsTopicIsFollowed(t *testing.T) {
	w := newWorld(t, withKafka)
	w.cfg.FollowEvery = time.Hour
	w.start()
	digest := ""
	// Events from before the follower reads are not for it: it has looked at the registry itself.
	eventually(t, "the promotion is live", func() bool {
		if digest == "" {
			digest = w.promote(byDelay(0.1))
		}
		event := schemas.ModelEvent{ID: "e", Model: "late", Kind: schemas.ModelPromoted, Digest: digest}
		value := must[[]byte](t)(event.Marshal())
		if err := w.client().ProduceSync(t.Context(), &kgo.Record{Topic: "models", Key: []byte("late"), Value: value}).FirstErr(); err != nil {
			t.Fatal(err)
		}
		return w.stage.Ready() == nil
	})
	if got, _, _ := w.registry.Alias("late", registry.Champion); got != digest {
		t.Errorf("%s is champion", got)
	}
}

func TestAnswersAreLogged(t *testing.T) {
	w := newWorld(t, withKafka)
	w.apply(arrival{"ATL", noon.Add(-10 * time.Minute), 10})
	w.promote(byDelay(0.1))
	stop := w.start()
	w.awaitReady()
	ids := map[string]float64{}
	for i := range 20 {
		_, a := w.post(strings.Replace(flight, "f1", fmt.Sprint("f", i), 1))
		ids[a.Predictions[0].ID] = *a.Predictions[0].Score
	}
	w.redis.Close()
	_, a := w.post(flight) // a refusal is an answer too
	ids[a.Predictions[0].ID] = 0
	stop() // which drains the queue
	for _, p := range w.predictions() {
		if want, ok := ids[p.ID]; !ok || p.Score != want || p.Source != "http" || p.Refused != (want == 0) {
			t.Errorf("%+v", p)
		}
		delete(ids, p.ID)
	}
	if len(ids) > 0 {
		t.Errorf("not on the topic: %v", ids)
	}
}
