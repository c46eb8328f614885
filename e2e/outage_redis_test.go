package e2e

import (
	"context"
	"fmt"
	"math"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace/millrace/schemas"
	"github.com/millrace/millrace/streams"
	"github.com/millrace/millrace/streams/broker"
)

// outageServe is the ladder of the tests of outages: long flights are ruled on, the others are the previous champion's, who needs no features.
const (
	outageTimeout = time.Second
	outageServe   = `serve: {timeout: 1s, fetch_timeout: 400ms, required: [origin_delays.flights_24h, destination_delays.delay_max_24h],
      fallback: [{rule: "distance > 1500 ? 0.4 : nil"}, previous]}`
	exampleServe = `serve: {timeout: 100ms, fallback: previous, otherwise: refuse}`
)

// answerSlack is the lateness of an answer that is forgiven: of the test's own machine. What is broken keeps who waits for it for longer.
const answerSlack = 1500 * time.Millisecond

// kafkaForTest is the address of the environment's Kafka, of an embedded one without it.
func kafkaForTest(t *testing.T) string {
	t.Helper()
	if kafka := os.Getenv("MILLRACE_TEST_KAFKA"); kafka != "" {
		return kafka
	}
	b, err := broker.Start(t.TempDir(), 0)
	must(t, err)
	t.Cleanup(b.Close)
	return b.Addr()
}

// redisOutage is a serving process under steady load, and what it must answer.
type redisOutage struct {
	*stand
	*asker
	redis *frailRedis
	serve *proc
	began time.Time
}

// airports are asked about in pairs: the last one has never been seen.
var airports = []string{"ATL", "ORD", "DFW", "LAX", "PHX", "DEN", "nowhere"}

// TestRedisOutages takes Redis away from a serving process under load, in every way: each request is answered in time, by a rung that the
// project declares and with that rung's score, and says why; what is the champion's to answer is answered by it again when Redis is back.
// Then the answers are compared with the metrics and with the log of predictions, one by one.
func TestRedisOutages(t *testing.T) {
	t.Parallel()
	o := newRedisOutage(t)
	o.settled("healthy")
	o.without("Redis stopped", unavailable, o.redis.stop, o.redis.wake)
	o.without("Redis killed", unavailable, o.redis.kill, o.redis.revive)
	o.without("Redis too slow", late, func() { o.redis.slow(by(500 * time.Millisecond)) }, func() { o.redis.slow(nil) })
	o.redis.slow(by(15 * time.Millisecond))
	o.settled("Redis slow, but not too slow")
	o.redis.slow(nil)
	o.deleteHalf()
	o.settled("half of the states deleted")
	o.asker.stop()
	o.compareWithMetrics()
	o.serve.stop()
	o.compareWithLog()
}

func by(delay time.Duration) func() time.Duration { return func() time.Duration { return delay } }

func newRedisOutage(t *testing.T) *redisOutage {
	o := &redisOutage{redis: startFrailRedis(t)}
	o.stand = newStandOn(t, kafkaForTest(t), o.redis.addr())
	o.amend(exampleServe, outageServe)
	o.amend("    windows: [1h, 3h, 24h, 7d]\n", "    windows: [1h, 3h, 24h, 7d]\n    ttl: 30d\n")
	events := sample(t, firstDay, 6*time.Hour)
	o.ensureTopics()
	worker := o.start("stream")
	o.produce(events)
	o.awaitApplied()
	worker.stop()
	after := time.UnixMilli(endOf(events)).Add(time.Hour) // none of the departures is scored
	o.promoteWeighted("late", map[string]float64{"distance": 0.001}, after)
	o.promoteWeighted("late", map[string]float64{"distance": 0.001, "origin_delays.flights_24h": 0.01, "destination_delays.delay_max_24h": 0.02}, after)
	o.serve = o.start("serve")
	eventually(t, time.Minute, func() (bool, string) {
		status := get(t, o.serve.endpoint+"/readyz", nil)
		return status == 200, fmt.Sprint(status)
	})
	o.began = time.Now()
	o.asker = askEvery(t, o.serve.endpoint, questionsAbout(newOracle(events), endOf(events)+1), 8, 40*time.Millisecond)
	return o
}

// questionsAbout are about flights between airports as of a time by which all arrivals are within a day, and about some as of a time when
// their airports' states have expired.
func questionsAbout(o oracle, at int64) []question {
	var questions []question
	for i, origin := range airports {
		destination, distance := airports[(i+2)%len(airports)], float64(300*(i+1))
		q := question{from: origin, to: destination}
		x := 0.001*distance - 1
		q.rungs = map[string]float64{schemas.RungPrevious: 1 / (1 + math.Exp(-x))}
		if distance > 1500 {
			q.rungs = map[string]float64{schemas.RungRule: 0.4}
		}
		from, to := o["origin_delays"][origin], o["destination_delays"][destination]
		most := math.Inf(-1)
		for _, a := range to {
			most = max(most, a.delay)
		}
		q.score = 1 / (1 + math.Exp(-(x + 0.01*float64(len(from)) + 0.02*most)))
		if len(from) == 0 || len(to) == 0 {
			q.lacks = "required_not_found"
		}
		q.body = flightAsked(origin, destination, distance, at)
		questions = append(questions, q)
		if q.lacks == "" {
			q.lacks = "required_expired"
			q.body = flightAsked(origin, destination, distance, at+(31*24*time.Hour).Milliseconds())
			questions = append(questions, q)
		}
	}
	return questions
}

func flightAsked(origin, destination string, distance float64, at int64) string {
	return fmt.Sprintf(`{"rows":[{"flight_id":"f","scheduled":%d,"origin":%q,"destination":%q,"distance":%v}],"at":%d}`, at, origin, destination, distance, at)
}

// The reasons for which a row is not the champion's while Redis is away.
func unavailable(a *answered) bool { return a.code() == "features_unavailable" }
func late(a *answered) bool {
	return unavailable(a) || a.code() == "deadline" || a.code() == "overloaded"
}

// own reports whether a question was answered as it is when its features are read.
func (o *redisOutage) own(a *answered) bool {
	q := &o.questions[a.of]
	return q.lacks == "" && a.prediction.Rung == schemas.RungPrimary || q.lacks != "" && a.code() == q.lacks
}

// settled waits until all questions are answered as they are when their features are read.
func (o *redisOutage) settled(when string) {
	o.t.Helper()
	o.check(when, o.awaitEach(o.t, when, 3, o.own))
}

// without takes Redis away until every question has been answered without it, and brings it back.
func (o *redisOutage) without(what string, why func(*answered) bool, take, back func()) {
	o.t.Helper()
	from := time.Now()
	take()
	o.awaitEach(o.t, what, 3, why)
	back()
	o.awaitEach(o.t, what+", and back", 3, o.own)
	answers := o.since(from)
	o.check(what, answers)
	rungs := map[string]int{}
	for _, a := range answers {
		rungs[a.prediction.Rung]++
	}
	o.t.Logf("%s: %d answers in %s, %v", what, len(answers), time.Since(from).Round(time.Millisecond), rungs)
}

// check holds every answer to what may be answered at all.
func (o *redisOutage) check(when string, answers []answered) {
	o.t.Helper()
	wrong := 0
	for i := range answers {
		if w := o.wrong(&answers[i]); w != "" {
			if wrong++; wrong < 5 {
				o.t.Errorf("%s: %s: %s", when, w, &answers[i])
			}
		}
	}
	if wrong > 0 {
		o.t.Fatalf("%s: %d of %d answers are wrong", when, wrong, len(answers))
	}
}

func (o *redisOutage) wrong(a *answered) string {
	q, p := &o.questions[a.of], &a.prediction
	want, declared := q.rungs[p.Rung]
	switch {
	case a.err != nil || a.status != 200 || p.Score == nil:
		return "no score"
	case a.took > outageTimeout+answerSlack:
		return "too late"
	case p.Rung == schemas.RungPrimary && q.lacks != "":
		return "the champion must not answer"
	case p.Rung == schemas.RungPrimary:
		want, declared = q.score, true
	case a.code() != q.lacks && !late(a):
		return "not by the champion, for no reason"
	}
	if !declared || math.Abs(*p.Score-want) > 1e-12 {
		return fmt.Sprintf("want %v", want)
	}
	return o.wrongInputs(a)
}

// wrongInputs holds what is said of the inputs to why the row was answered as it was: no value is told of what was not read, and what
// is gone is not called expired, or unread.
func (o *redisOutage) wrongInputs(a *answered) string {
	statuses := map[string]bool{}
	for _, f := range a.prediction.Features {
		if f.Name != "origin_delays.flights_24h" && f.Name != "destination_delays.delay_max_24h" {
			continue
		}
		statuses[f.Status] = true
		if (f.Value != nil) != (f.Status == "present") {
			return f.Name + " is " + f.Status + " with another value"
		}
	}
	for code, status := range map[string]string{"required_not_found": "not_found", "required_expired": "expired", "": "present"} {
		if a.code() == code && !statuses[status] {
			return "no input is " + status
		}
	}
	if late(a) && (len(statuses) != 1 || !statuses["unavailable"]) {
		return "inputs were read"
	}
	return ""
}

// deleteHalf deletes every other state, and changes what the questions about them are to be answered.
func (o *redisOutage) deleteHalf() {
	o.t.Helper()
	ctx := context.Background()
	client := redis.NewClient(&redis.Options{Addr: o.redis.direct()})
	defer client.Close()
	keys, err := client.Keys(ctx, "mr:*:e:*").Result()
	must(o.t, err)
	slices.Sort(keys)
	var gone []string
	for i := 0; i < len(keys); i += 2 {
		gone = append(gone, keys[i])
	}
	must(o.t, client.Del(ctx, gone...).Err())
	deleted := func(group, airport string) bool {
		return slices.ContainsFunc(gone, func(key string) bool {
			return strings.Contains(key, "."+group+"@") && strings.HasSuffix(key, ":e:"+airport)
		})
	}
	lost := 0
	for i := range o.questions {
		q := &o.questions[i]
		switch origin, destination := deleted("origin_delays", q.from), deleted("destination_delays", q.to); {
		case origin || destination && q.lacks == "": // which of two is told is the first
			q.lacks = "required_not_found"
			lost++
		}
	}
	if lost == 0 || lost == len(o.questions) {
		o.t.Fatalf("%d of %d questions lost a state", lost, len(o.questions))
	}
}

// compareWithMetrics compares the answers by rung and reason with what the process counted.
func (o *redisOutage) compareWithMetrics() {
	o.t.Helper()
	rungs, below := map[string]int{}, map[[2]string]int{}
	for _, a := range o.since(o.began) {
		rungs[a.prediction.Rung]++
		if a.prediction.Rung != schemas.RungPrimary {
			below[[2]string{a.prediction.Rung, a.code()}]++
		}
	}
	for rung, n := range rungs {
		if got := o.serve.metric("millrace_serving_predictions_total", fmt.Sprintf("rung=%q", rung)); got != float64(n) {
			o.t.Errorf("%v answers of %s are counted, %d were given", got, rung, n)
		}
	}
	for by, n := range below {
		if got := o.serve.metric("millrace_serving_fallbacks_total", fmt.Sprintf("rung=%q", by[0]), fmt.Sprintf("reason=%q", by[1])); got != float64(n) {
			o.t.Errorf("%v answers of %v are counted, %d were given", got, by, n)
		}
	}
	if off := o.serve.metric("millrace_serving_feature_reads_off"); off != 0 {
		o.t.Errorf("reads are off")
	}
	o.t.Logf("answers by rung %v, below the champion %v", rungs, below)
}

// compareWithLog compares the answers with the predictions on the topic: each is there once, and as it was given.
func (o *redisOutage) compareWithLog() {
	o.t.Helper()
	logged := o.predictions()
	for _, a := range o.since(o.began) {
		p, once := logged[a.prediction.ID]
		if !once || p.Rung != a.prediction.Rung || p.Reason != a.prediction.Reason || p.Score != *a.prediction.Score {
			o.t.Fatalf("%s is logged as %+v", &a, p)
		}
		delete(logged, a.prediction.ID)
	}
	if len(logged) > 0 {
		o.t.Errorf("%d predictions are logged that nobody was given", len(logged))
	}
}

// predictions is what is on the topic of predictions, by ID; two of one ID are an error.
func (s *stand) predictions() map[string]schemas.Prediction {
	s.t.Helper()
	all := map[string]schemas.Prediction{}
	_, err := streams.Read(context.Background(), s.brokers(), streams.ReadOptions{Topic: s.project.Own().Predictions.Name}, func(r *kgo.Record) error {
		p, err := schemas.UnmarshalPrediction(r.Value)
		if _, twice := all[p.ID]; twice {
			s.t.Errorf("prediction %s is there twice", p.ID)
		}
		all[p.ID] = p
		return err
	})
	must(s.t, err)
	return all
}
