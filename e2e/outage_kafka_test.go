package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace/millrace/examples/flights"
	"github.com/millrace/millrace/features/online"
	"github.com/millrace/millrace/schemas"
	"github.com/millrace/millrace/serving"
	"github.com/millrace/millrace/streams"
)

// redisForTest is the address of the environment's Redis, of an embedded one without it.
func redisForTest(t *testing.T) string {
	t.Helper()
	if redis := os.Getenv("MILLRACE_TEST_REDIS"); redis != "" {
		return redis
	}
	r, err := online.StartEmbedded("")
	must(t, err)
	t.Cleanup(func() { must(t, r.Close()) })
	return r.Addr()
}

// TestKafkaOutage kills Kafka in the middle of scoring a topic, under steady load over HTTP. Answers go on; their log waits, within its limit,
// what is beyond it is dropped and counted, and what waited arrives when Kafka is back. Of each record of the topic there is one prediction.
func TestKafkaOutage(t *testing.T) {
	t.Parallel()
	k := startFrailKafka(t)
	s := newStandOn(t, k.addr, redisForTest(t))
	s.amend(exampleServe, `serve: {timeout: 5s, fallback: [{default: 0.5}]}`)
	events := sample(t, firstDay, 12*time.Hour)
	third := len(events) / 3
	s.ensureTopics()
	s.promote(firstDay)
	s.start("stream")
	serve := s.start("serve")
	s.produce(events[:third])
	eventually(t, 2*time.Minute, func() (bool, string) {
		n := serve.metric("millrace_serving_predictions_total", `source="stream"`)
		return n > 0, fmt.Sprintf("%v departures are scored", n)
	})
	s.produce(events[third : 2*third])

	var questions []question
	for i, origin := range airports[:4] {
		distance := float64(300 * (i + 1))
		questions = append(questions, question{body: flightAsked(origin, airports[i+1], distance, endOf(events)), score: scoreOf(distance)})
	}
	load := askEvery(t, serve.endpoint, questions, 4, 50*time.Millisecond)
	began := time.Now()
	byChampion := func(a *answered) bool {
		return a.status == http.StatusOK && a.prediction.Rung == schemas.RungPrimary && math.Abs(*a.prediction.Score-load.questions[a.of].score) < 1e-12
	}
	load.awaitEach(t, "answers", 2, byChampion)
	k.kill()
	load.awaitEach(t, "answers without Kafka", 10, byChampion)
	const batches, rows = 20, 512
	asked := rows * batches // more than the queue and the client's buffer hold
	for range batches {
		s.askMany(serve, rows, endOf(events))
	}
	limit := float64(serving.Default().LogQueue)
	if queued, dropped := serve.metric("millrace_serving_log_queue"), serve.metric("millrace_serving_log_dropped_total", `reason="queue_full"`); queued > limit || dropped == 0 || dropped > float64(asked)-limit {
		t.Errorf("%v answers wait, at most %v; %v are dropped of more than %d", queued, limit, dropped, asked)
	}
	load.awaitEach(t, "answers while the log is full", 3, byChampion)
	k.revive()
	s.produce(events[2*third:])
	load.awaitEach(t, "answers with Kafka", 3, byChampion)
	load.stop()
	for _, a := range load.since(began) {
		if !byChampion(&a) || a.took > 5*time.Second+answerSlack {
			t.Fatalf("not answered as it must be: %s", &a)
		}
	}
	total := float64(asked + len(load.since(began)))
	var written, dropped float64
	eventually(t, 2*time.Minute, func() (bool, string) {
		written, dropped = serve.metric("millrace_serving_log_written_total"), serve.metric("millrace_serving_log_dropped_total")
		return written+dropped == total, fmt.Sprintf("%v written, %v dropped of %v", written, dropped, total)
	})
	s.awaitTopicScored(serve, len(events))
	s.compareOutageLog(events, written, load.since(began))
	t.Logf("%v answers over HTTP: %v logged, %v dropped and counted", total, written, dropped)
}

// askMany asks about many rows at once; all must be the champion's to answer.
func (s *stand) askMany(serve *proc, rows int, at int64) {
	s.t.Helper()
	var b bytes.Buffer
	b.WriteString(`{"rows":[`)
	for i := range rows {
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, `{"flight_id":"m%d","scheduled":%d,"origin":"ATL","destination":"ORD","distance":%d}`, i, at, i)
	}
	fmt.Fprintf(&b, `],"at":%d}`, at)
	resp, err := http.Post(serve.endpoint+"/v1/models/late:score", "application/json", &b)
	must(s.t, err)
	defer resp.Body.Close()
	var answer struct{ Predictions []struct{ Rung string } }
	must(s.t, json.NewDecoder(resp.Body).Decode(&answer))
	if resp.StatusCode != http.StatusOK || len(answer.Predictions) != rows {
		s.t.Fatalf("%d with %d predictions for %d rows", resp.StatusCode, len(answer.Predictions), rows)
	}
	for _, p := range answer.Predictions {
		if p.Rung != schemas.RungPrimary {
			s.t.Fatalf("a row is answered by %s", p.Rung)
		}
	}
}

// awaitTopicScored waits until all records of the departures' topic are scored and committed.
func (s *stand) awaitTopicScored(serve *proc, events int) {
	s.t.Helper()
	s.awaitScoredBy("late", func() string { return fmt.Sprintf("%d events; %s", events, last(serve.text())) })
}

// awaitScoredBy waits until all records of the departures' topic are scored by a model and committed; state is told when they never are.
func (s *stand) awaitScoredBy(model string, state func() string) {
	s.t.Helper()
	client, err := streams.NewClient(s.brokers())
	must(s.t, err)
	defer client.Close()
	topic := s.project.Source(flights.Departures).Topic
	eventually(s.t, 3*time.Minute, func() (bool, string) {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		left, err := unread(ctx, client, s.project.Name+".score."+model, topic)
		return err == nil && left == 0, fmt.Sprintf("%d records are not scored by %s, %v; %s", left, model, err, state())
	})
}

func last(text string) string { return text[max(0, len(text)-2000):] }

// compareOutageLog compares the topic of predictions with what was produced, and with what was answered over HTTP.
func (s *stand) compareOutageLog(events []flights.Event, written float64, answers []answered) {
	s.t.Helper()
	departures := map[string]float64{} // the score of each
	for _, e := range events {
		if e.Topic == flights.Departures {
			departures[e.Flight.ID] = scoreOf(float64(e.Flight.Distance))
		}
	}
	produced, overHTTP, places := len(departures), 0, map[string]bool{}
	known := map[string]bool{}
	for _, a := range answers {
		known[a.prediction.ID] = true
	}
	for id, p := range s.predictions() {
		if p.Source == "http" {
			if overHTTP++; !known[id] && !strings.HasPrefix(p.JoinKey, "m") {
				s.t.Errorf("%s is logged, which nobody was given", id)
			}
			continue
		}
		want, ok := departures[p.JoinKey]
		if !ok || places[p.Source] || p.Rung != schemas.RungPrimary || math.Abs(p.Score-want) > 1e-12 {
			s.t.Fatalf("scored twice, or not as it must be: %+v", p)
		}
		places[p.Source] = true
		delete(departures, p.JoinKey)
	}
	if len(departures) > 0 || len(places) != produced {
		s.t.Errorf("%d of %d departures have no prediction", len(departures), produced)
	}
	if float64(overHTTP) != written {
		s.t.Errorf("%d answers are on the topic, %v are counted as written", overHTTP, written)
	}
	ends := 0
	_, err := streams.Read(context.Background(), s.brokers(), streams.ReadOptions{Topic: s.project.Source(flights.Departures).Topic}, func(r *kgo.Record) error {
		if ends++; !places[schemas.RecordSource(r.Topic, r.Partition, r.Offset)] {
			s.t.Errorf("record %d of %s/%d has no prediction", r.Offset, r.Topic, r.Partition)
		}
		return nil
	})
	must(s.t, err)
	if ends != produced {
		s.t.Errorf("%d records for %d departures", ends, produced)
	}
}
