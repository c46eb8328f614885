package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"net/http"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"

	"github.com/millrace/millrace/examples/flights"
	"github.com/millrace/millrace/features/dataset"
	"github.com/millrace/millrace/schemas"
	"github.com/millrace/millrace/streams"
)

// TestSameScores scores real departures three times: on their topic, over HTTP at their times, and by millrace score from the offline log. The model
// weighs its inputs, and the three scores are the same to the bit. Departures and the arrivals that they are judged by come at once, and one of the two
// workers that have the arrivals' partitions stands still meanwhile: the topic's scores wait for it. What is asked within the sources' lateness is read
// from the same events, but tiles that are older may have been rolled up meanwhile. Deviations are the one input here whose last digit tells in which
// order tiles were merged: with them, scores are the same to 1e-12.
func TestSameScores(t *testing.T) {
	t.Parallel()
	t.Run("to the bit", func(t *testing.T) {
		t.Parallel()
		sameScores(t, 0, func(input string) bool { return !strings.Contains(input, "delay_std") })
	})
	t.Run("with deviations", func(t *testing.T) {
		t.Parallel()
		sameScores(t, 1e-12, func(string) bool { return true })
	})
}

func sameScores(t *testing.T, tolerance float64, weighs func(input string) bool) {
	s := newStandOn(t, kafkaForTest(t), redisForTest(t))
	s.amend(exampleServe, `serve: {timeout: 5s, fallback: [{default: 0.5}]}`)
	random := rand.New(rand.NewPCG(11, 12))
	weights := map[string]float64{}
	for _, in := range s.project.Model("late").Inputs {
		if weight := (random.Float64() - 0.5) / 50; weighs(in.Name) {
			weights[in.Name] = weight
		}
	}
	const history, span, slice = 36 * time.Hour, 6 * time.Hour, 90 * time.Minute // a slice is less than the lateness
	from := firstDay.Add(history)
	events := sample(t, firstDay, history+span)
	s.ensureTopics()
	s.promoteWeighted("late", weights, from)
	worker, late, serve := s.start("stream"), s.start("stream"), s.start("serve")
	s.awaitShared(flights.Arrivals, 2)
	s.produce(eventsWithin(events, firstDay, from))
	s.awaitApplied()
	over := map[string]scoredRow{}
	for begin := from; begin.Before(from.Add(span)); begin = begin.Add(slice) {
		now := eventsWithin(events, begin, begin.Add(slice))
		must(t, late.cmd.Process.Signal(syscall.SIGSTOP))
		s.produce(now)
		s.awaitPartlyHandedOn(flights.Arrivals)
		must(t, late.cmd.Process.Signal(syscall.SIGCONT))
		s.awaitTopicScored(serve, len(now))
		s.awaitApplied()
		s.askAtTheirTimes(serve, now, over)
	}
	if n := serve.metric("millrace_serving_stream_waits_given_up_total"); n != 0 {
		t.Fatalf("%v batches were scored before the late worker had come to them", n)
	}
	late.stop()
	worker.stop() // what is pending offline is written when a worker ends
	serve.stop()

	streamed := map[string]scoredRow{}
	for _, p := range s.predictions() {
		if p.Source == "http" {
			continue
		}
		row := scoredRow{score: p.Score, rung: p.Rung}
		for _, in := range p.Inputs {
			row.inputs += fmt.Sprint(in.Name, " ", in.Status, " ", shown(in.Value), " ")
		}
		streamed[p.JoinKey] = row
	}
	file := filepath.Join(t.TempDir(), "scored.parquet")
	s.millrace("score", "--model", "late", "--source", "departures", "--from", from.Format(time.RFC3339), "--until", from.Add(span).Format(time.RFC3339), "--out", file)
	batch := readScored(t, file)
	if len(over) < 1000 || len(streamed) < len(over) || len(batch) != len(over) {
		t.Fatalf("%d departures are scored over HTTP, %d on the topic, %d by millrace score", len(over), len(streamed), len(batch))
	}
	different := map[float64]bool{}
	for id, a := range over {
		b, c := streamed[id], batch[id]
		if a.rung != schemas.RungPrimary || b.rung != a.rung || c.rung != a.rung {
			t.Fatalf("%s is answered by %q over HTTP, %q on the topic, %q by millrace score", id, a.rung, b.rung, c.rung)
		}
		if math.Abs(a.score-b.score) > tolerance || math.Abs(a.score-c.score) > tolerance {
			t.Fatalf("%s: %v over HTTP, %v on the topic, %v by millrace score\n%s\n%s", id, a.score, b.score, c.score, a.inputs, b.inputs)
		}
		different[a.score] = true
	}
	if len(different) < len(over)*9/10 {
		t.Errorf("%d scores of %d departures differ from each other", len(different), len(over))
	}
	t.Logf("%d departures are scored the same on the topic, over HTTP and by millrace score, to %v", len(over), tolerance)
}

// scoredRow is what was answered of a departure. Inputs are their names, statuses and values, for a failure to show.
type scoredRow struct {
	score  float64
	rung   string
	inputs string
}

// awaitShared waits until n workers have partitions of a source each.
func (s *stand) awaitShared(source string, n int) {
	s.t.Helper()
	client, err := streams.NewClient(s.brokers())
	must(s.t, err)
	defer client.Close()
	eventually(s.t, time.Minute, func() (bool, string) {
		groups, err := kadm.NewClient(client).DescribeGroups(context.Background(), s.project.Name+".source."+source)
		if err != nil || groups.Error() != nil {
			return false, fmt.Sprint(err, groups.Error())
		}
		having := 0
		for _, g := range groups {
			for _, m := range g.Members {
				if assigned, ok := m.Assigned.AsConsumer(); ok && len(assigned.Topics) > 0 && len(assigned.Topics[0].Partitions) > 0 {
					having++
				}
			}
		}
		return having == n, fmt.Sprintf("%d workers have partitions of %s", having, source)
	})
}

// awaitPartlyHandedOn waits until one partition of a source has been handed on to its end, and another has not.
func (s *stand) awaitPartlyHandedOn(source string) {
	s.t.Helper()
	client, err := streams.NewClient(s.brokers())
	must(s.t, err)
	defer client.Close()
	eventually(s.t, time.Minute, func() (bool, string) {
		lags, err := kadm.NewClient(client).Lag(context.Background(), s.project.Name+".source."+source)
		if err != nil || lags.Error() != nil {
			return false, fmt.Sprint(err, lags.Error())
		}
		done, left := 0, 0
		for _, g := range lags {
			for _, p := range g.Lag.Sorted() {
				if p.Lag == 0 {
					done++
				} else {
					left++
				}
			}
		}
		return done > 0 && left > 0, fmt.Sprintf("%d partitions of %s have been handed on, %d have not", done, source, left)
	})
}

// eventsWithin is the events of a span of event time.
func eventsWithin(events []flights.Event, from, until time.Time) []flights.Event {
	var within []flights.Event
	for _, e := range events {
		if e.Time >= from.UnixMilli() && e.Time < until.UnixMilli() {
			within = append(within, e)
		}
	}
	return within
}

// askAtTheirTimes asks about the departures among events as of when they were scheduled.
func (s *stand) askAtTheirTimes(serve *proc, events []flights.Event, answers map[string]scoredRow) {
	s.t.Helper()
	var rows, ids []string
	ask := func() {
		if len(rows) == 0 {
			return
		}
		resp, err := http.Post(serve.endpoint+"/v1/models/late:score", "application/json", strings.NewReader(`{"rows":[`+strings.Join(rows, ",")+`]}`))
		must(s.t, err)
		body, err := io.ReadAll(resp.Body)
		must(s.t, err)
		must(s.t, resp.Body.Close())
		var answer struct {
			Predictions []struct {
				Score    *float64
				Rung     string
				Features []struct {
					Name   string
					Value  *float64
					Status string
				}
			}
		}
		must(s.t, json.Unmarshal(body, &answer))
		if resp.StatusCode != http.StatusOK || len(answer.Predictions) != len(rows) {
			s.t.Fatalf("%d: %s", resp.StatusCode, body)
		}
		for i, p := range answer.Predictions {
			row := scoredRow{score: *p.Score, rung: p.Rung}
			for _, f := range p.Features {
				row.inputs += fmt.Sprint(f.Name, " ", f.Status, " ", shown(f.Value), " ")
			}
			answers[ids[i]] = row
		}
		rows, ids = rows[:0], ids[:0]
	}
	for _, e := range events {
		if e.Topic != flights.Departures {
			continue
		}
		f := e.Flight
		rows = append(rows, fmt.Sprintf(`{"flight_id":%q,"scheduled":%d,"origin":%q,"destination":%q,"distance":%d,"at":%d}`, f.ID, f.Scheduled, f.Origin, f.Destination, f.Distance, f.Scheduled))
		if ids = append(ids, f.ID); len(ids) == 200 {
			ask()
		}
	}
	ask()
}

// readScored reads a file of millrace score.
func readScored(t *testing.T, path string) map[string]scoredRow {
	t.Helper()
	f, err := dataset.Open(context.Background(), path, t.TempDir(), nil)
	must(t, err)
	defer f.Close()
	rows := map[string]scoredRow{}
	for r, err := range f.Records(context.Background(), nil) {
		must(t, err)
		column := func(name string) int { return f.Schema().FieldIndices(name)[0] }
		for i := range int(r.NumRows()) {
			score, err := strconv.ParseFloat(r.Column(column("score")).ValueStr(i), 64)
			must(t, err)
			rows[r.Column(column("flight_id")).ValueStr(i)] = scoredRow{score: score, rung: r.Column(column("status")).ValueStr(i)}
		}
	}
	return rows
}
