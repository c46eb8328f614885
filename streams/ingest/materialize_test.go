package ingest

import (
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"

	"github.com/millrace/millrace/features"
	"github.com/millrace/millrace/features/online"
	"github.com/millrace/millrace/project"
)

// checkHashes compares the hashes of the project's materialized groups with the states beside them, by Redis key: each has what its state
// says as of the time that it is of, whatever came between them.
func (r *rig) checkHashes(states map[string][]byte) {
	r.t.Helper()
	hashes, err := r.redis.Keys(r.t.Context(), "mr:*:h:*").Result()
	if err != nil {
		r.t.Fatal(err)
	}
	left := map[string]bool{}
	for _, key := range hashes {
		left[key] = true
	}
	for key, state := range states {
		for _, g := range r.project.Groups {
			if !strings.Contains(key, "."+g.Name+"@"+g.Version+"/") || !g.Materialize {
				continue
			}
			key = strings.Replace(key, ":e:", ":h:", 1)
			got, err := r.redis.HGetAll(r.t.Context(), key).Result()
			if err != nil {
				r.t.Fatal(err)
			}
			if want := r.hashOf(g, state, got[online.FieldAt]); !maps.Equal(got, want) {
				r.t.Errorf("hash %s is %v, want %v", key, got, want)
			}
			delete(left, key)
		}
	}
	for key := range left {
		r.t.Errorf("there is a hash %s without a state", key)
	}
}

// hashOf is what the hash of a state must be as of a time.
func (r *rig) hashOf(g *project.Group, state []byte, asOf string) map[string]string {
	r.t.Helper()
	at, err := time.Parse(time.RFC3339Nano, asOf)
	if err != nil {
		r.t.Fatalf("a hash is of the time %q", asOf)
	}
	e, err := g.Decode(state)
	if err != nil {
		r.t.Fatal(err)
	}
	want := map[string]string{online.FieldAt: asOf, online.FieldNewest: time.UnixMilli(e.Newest()).UTC().Format(time.RFC3339Nano)}
	for i, result := range g.Read(e, at.UnixMilli(), nil) {
		if result.Status == features.Present {
			want[g.Outputs[i].Name] = result.Value.Text()
		}
	}
	return want
}

// TestMaterialized runs a group whose windows empty while its entity goes on, on a clock that follows the events, and one whose newest event
// is ahead of the machine's clock.
func TestMaterialized(t *testing.T) {
	r := newRig(t)
	for _, clock := range []string{"wall", "event"} {
		r.declare(map[string]string{
			"trip.avsc": tripSchema,
			"millrace.yaml": `
project: hashes
topic_prefix: PREFIX
partitions: 2
clock: ` + clock + `
sources:
  trips: {topic: PREFIXtrips, schema: trip.avsc, format: json, key: id, time: at}
features:
  cities:
    source: trips
    entity: city
    windows: [1m]
    materialize: true
    flush: 1ms
    features:
      n: count()
      cheapest: {aggregate: min(fare), windows: [1m]}
      rider: {aggregate: last(rider), windows: [lifetime]}
`,
		})
		trip := func(id string, fare any, at int64) map[string]any {
			return map[string]any{"id": id, "city": "Łódź {1}", "rider": id, "delay": 1, "fare": fare, "cancelled": false, "at": at}
		}
		key := func() string {
			g := r.project.Group("cities")
			return online.HashKey(r.project.Name, "cities", g.Version, online.Partition(online.Murmur2, "Łódź {1}", 2), "Łódź {1}")
		}
		await := func(what string, at int64, want map[string]string) {
			t.Helper()
			want[online.FieldNewest] = time.UnixMilli(at).UTC().Format(time.RFC3339Nano)
			want[online.FieldAt] = time.UnixMilli(at + 1).UTC().Format(time.RFC3339Nano)
			var got map[string]string
			r.await(what, func() bool {
				got = r.redis.HGetAll(t.Context(), key()).Val()
				return got[online.FieldNewest] == want[online.FieldNewest]
			})
			if !maps.Equal(got, want) {
				t.Errorf("clock %s, %s: %v, want %v", clock, what, got, want)
			}
		}
		g := r.run(r.stage())
		soon := now().UnixMilli() + 10_000 // ahead of the machine's clock
		r.send("trips", 0, trip("ann", 7.5, soon))
		await("the first event", soon, map[string]string{"n_1m": "1", "cheapest_1m": "7.5", "rider": "ann"})
		r.send("trips", 0, trip("", nil, soon+45_000))
		await("the second", soon+45_000, map[string]string{"n_1m": "2", "cheapest_1m": "7.5", "rider": ""})
		if clock == "event" {
			r.send("trips", 0, trip("bob", nil, soon+100_000))
			await("the third, when the first has left the window", soon+100_000, map[string]string{"n_1m": "2", "rider": "bob"})
		}
		r.settled()
		g.stop(t)
		r.checkHashes(r.states())
	}
}

// TestMaterializedFromHistory has all entities filled from the offline files, and no event after that.
func TestMaterializedFromHistory(t *testing.T) {
	r := newRig(t)
	r.produce(r.trips(72, 800))
	g := r.run(r.stage())
	r.caughtUp()
	g.stop(t)
	if err := r.redis.FlushAll(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
	var cut kadm.Offsets
	topic := r.project.Group("cities").KeyedTopic
	for p, end := range r.ends(topic) {
		cut.Add(kadm.Offset{Topic: topic, Partition: p, At: end})
	}
	if _, err := r.admin.DeleteRecords(t.Context(), cut); err != nil {
		t.Fatal(err)
	}
	r.finish()
}
