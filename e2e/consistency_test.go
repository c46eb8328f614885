package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace/millrace/consistency"
	"github.com/millrace/millrace/examples/flights"
	"github.com/millrace/millrace/features"
	"github.com/millrace/millrace/features/offline"
	"github.com/millrace/millrace/features/online"
	"github.com/millrace/millrace/project"
	"github.com/millrace/millrace/schemas"
	"github.com/millrace/millrace/streams"
)

// promote makes a champion of the example's model that scores by distance; its features are read and logged all the same.
// Departures are scored from a time on.
func (s *stand) promote(from time.Time) {
	s.t.Helper()
	s.promoteBy("late", "distance", from)
}

// awaitScored waits until so many predictions are on their topic.
func (s *stand) awaitScored(departures int) {
	s.t.Helper()
	eventually(s.t, 3*time.Minute, func() (bool, string) {
		n := 0
		_, err := streams.Read(context.Background(), streams.Config{Brokers: []string{s.kafka}},
			streams.ReadOptions{Topic: s.project.Own().Predictions.Name}, func(*kgo.Record) error { n++; return nil })
		return err == nil && n >= departures, fmt.Sprintf("%d of %d departures scored, %v", n, departures, err)
	})
}

// score asks for one prediction over HTTP, as soon as there is a model to make it.
func (s *stand) score(endpoint, origin, destination string, scheduled int64) {
	s.t.Helper()
	var m struct{ State string }
	eventually(s.t, time.Minute, func() (bool, string) {
		status := get(s.t, endpoint+"/v1/models/late", &m)
		return m.State == "live", fmt.Sprintf("status %d, the model is %q", status, m.State)
	})
	body := fmt.Sprintf(`{"flight_id":"asked-%d","scheduled":%q,"origin":%q,"destination":%q,"distance":800}`,
		scheduled, time.UnixMilli(scheduled).UTC().Format(time.RFC3339), origin, destination)
	resp, err := http.Post(endpoint+"/v1/models/late:score", "application/json", strings.NewReader(body))
	must(s.t, err)
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		var text bytes.Buffer
		_, _ = text.ReadFrom(resp.Body)
		s.t.Fatalf("%s answered %d: %s", body, resp.StatusCode, text.String())
	}
}

// consistency runs the check on all entities and gives its report and status.
func (s *stand) consistency(dataDir string) (consistency.Report, int) {
	s.t.Helper()
	cmd := exec.Command(binary, "consistency", "--sample", "1", "--json", "--project", s.dir, "--kafka", s.kafka, "--data-dir", dataDir)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		s.t.Fatal(err)
	}
	s.t.Logf("consistency ended with %d: %s", cmd.ProcessState.ExitCode(), stderr.String())
	var r consistency.Report
	must(s.t, json.Unmarshal(stdout.Bytes(), &r))
	return r, cmd.ProcessState.ExitCode()
}

// different is the features whose values are not what was served, with the entities of the examples.
func different(r consistency.Report) map[string]map[string]bool {
	named := map[string]map[string]bool{}
	for _, f := range r.Features {
		if f.Mismatched+f.Missing == 0 {
			continue
		}
		named[f.Name] = map[string]bool{}
		for _, e := range f.Examples {
			named[f.Name][e.Entity] = true
		}
	}
	return named
}

const exitRefused = 77

// TestConsistency scores a day of departures while their arrivals come in, and asks whether what was served is what the offline log
// gives: first as it is, then with a state altered in Redis, then with an event altered offline.
func TestConsistency(t *testing.T) {
	s := newStand(t)
	events := sample(t, firstDay, 24*time.Hour)
	s.ensureTopics()
	s.promote(firstDay)
	worker := s.start("stream")
	serve := s.start("serve")
	const parts = 4
	for i := range parts {
		s.produce(events[i*len(events)/parts : (i+1)*len(events)/parts])
		s.awaitApplied()
	}
	departures := 0
	for _, e := range events {
		if e.Topic == flights.Departures {
			departures++
		}
	}
	s.awaitScored(departures)
	s.score(serve.endpoint, "ORD", "LGA", endOf(events))
	worker.stop() // what is pending offline is written when a worker ends
	serve.stop()  // and the log of answers

	r, status := s.consistency(s.data)
	if status != 0 || r.Skipped != (consistency.Skipped{}) || r.Predictions != departures+1 || r.Reads != 2*r.Predictions {
		t.Errorf("status %d, %d departures: %+v", status, departures, r)
	}
	if wrong := different(r); len(wrong) > 0 {
		t.Errorf("not what was served: %v", wrong)
	}
	values := 0
	for _, f := range r.Features {
		values += f.Compared
	}
	if len(r.Features) != 52 || values != 52*r.Predictions {
		t.Errorf("%d features, %d values", len(r.Features), values)
	}

	t.Run("a state altered in Redis", func(t *testing.T) {
		s.alterState("origin_delays", "ORD")
		serve := s.start("serve")
		s.score(serve.endpoint, "ORD", "LGA", endOf(events)+1)
		serve.stop()
		r, status := s.consistency(s.data)
		wrong := different(r)
		for name, entities := range wrong {
			if !strings.HasPrefix(name, "origin_delays.") || len(entities) != 1 || !entities["ORD"] {
				t.Errorf("%s of %v is called different", name, entities)
			}
		}
		if status != exitRefused || wrong["origin_delays.flights_1h"] == nil || wrong["origin_delays.delay_max_7d"] == nil || wrong["origin_delays.last_delay"] == nil {
			t.Errorf("status %d, different: %v", status, wrong)
		}
	})
	t.Run("an event altered offline", func(t *testing.T) {
		altered := t.TempDir()
		origin, destination := s.alterEvent(altered, 100)
		r, status := s.consistency(altered)
		wrong := different(r)
		for _, name := range []string{"origin_delays.delay_mean_24h", "destination_delays.delay_mean_24h"} {
			entity := map[string]string{"origin_delays": origin, "destination_delays": destination}[strings.Split(name, ".")[0]]
			if !wrong[name][entity] {
				t.Errorf("%s of %s is not named: %v", name, entity, wrong)
			}
		}
		if status != exitRefused || wrong["destination_delays.flights_24h"] != nil { // the event is there, its delay is another
			t.Errorf("status %d, different: %v", status, wrong)
		}
	})
}

// alterState adds to an entity's state in Redis an event that never was, and leaves the position as it is.
func (s *stand) alterState(group, entity string) {
	s.t.Helper()
	client := redis.NewClient(&redis.Options{Addr: s.redis})
	defer client.Close()
	g := s.project.Group(group)
	writer := online.NewWriter(client, s.project.Name, g.Name, g.Version)
	partition := online.Partition(online.Murmur2, entity, s.project.Partitions)
	ctx := context.Background()
	position, raw, err := writer.Load(ctx, partition)
	must(s.t, err)
	states, err := writer.States(ctx, partition, []string{entity})
	must(s.t, err)
	state, err := g.Decode(states[0])
	must(s.t, err)
	at := state.Newest()
	row := phantom(g, entity, at)
	outcome, err := g.Add(state, row, at, features.Sequence(s.project.Partitions, 0)) // after all others of that time
	must(s.t, err)
	if outcome != features.Applied {
		s.t.Fatalf("the event was %s", outcome)
	}
	_, err = writer.Commit(ctx, partition, raw, position, []string{entity}, [][]byte{state.AppendBinary(nil)}, 0)
	must(s.t, err)
}

// phantom is an arrival from an airport, very late.
func phantom(g *project.Group, origin string, at int64) schemas.Row {
	row := make(schemas.Row, len(g.Source.Schema.Columns))
	row[g.Source.Schema.Index("origin")] = schemas.StringValue(origin)
	row[g.Source.TimeIndex()] = schemas.TimeValue(at)
	row[g.Source.Schema.Index("delay")] = schemas.IntValue(4000)
	return row
}

// alterEvent copies the offline arrivals with the delay of the n-th event changed, and gives that event's airports.
func (s *stand) alterEvent(dir string, n int) (origin, destination string) {
	s.t.Helper()
	source := s.project.Source(flights.Arrivals)
	from, err := offline.EventsTable(filepath.Join(s.data, "offline"), source.Name, source.Schema)
	must(s.t, err)
	to, err := offline.EventsTable(filepath.Join(dir, "offline"), source.Name, source.Schema)
	must(s.t, err)
	partitions, err := from.Partitions()
	must(s.t, err)
	writers := map[int32]*offline.Writer{}
	for _, p := range partitions {
		writers[p], err = to.NewWriter(p, offline.WriterOptions{})
		must(s.t, err)
	}
	delay := source.Schema.Index("delay")
	must(s.t, from.Scan(context.Background(), offline.ScanOptions{}, func(b *offline.Batch) error {
		for i := range b.Len() {
			row := b.Row(i, nil)
			if n--; n == 0 {
				was, _ := row[delay].Float()
				row[delay] = schemas.IntValue(int64(was) + 7)
				origin, destination = row[source.Schema.Index("origin")].Str(), row[source.Schema.Index("destination")].Str()
			}
			if err := writers[b.Partition()].Append(row, b.Time(i), b.Offset(i)); err != nil {
				return err
			}
		}
		return nil
	}))
	for p, w := range writers {
		end, err := from.Next(p)
		must(s.t, err)
		must(s.t, w.Commit(end))
		must(s.t, w.Close())
	}
	return origin, destination
}
