package serving

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/millrace/millrace/features/online"
	"github.com/millrace/millrace/project"
)

// lose takes a partition's states away and puts its position where the stream role begins again, with so many events to come.
func (w *world) lose(entity string, until int64) {
	w.t.Helper()
	w.forget(entity)
	writer := online.NewWriter(w.writer(), w.project.Name, w.group().Name, w.group().Version)
	if _, err := writer.Write(w.t.Context(), partitionOf(entity), online.Batch{Next: online.Position{Until: until}}); err != nil {
		w.t.Fatal(err)
	}
}

// forget deletes a partition's states and its position.
func (w *world) forget(entity string) {
	w.t.Helper()
	of := fmt.Sprintf("mr:{%s/%d}:", online.Owner(w.project.Name, w.group().Name, w.group().Version), partitionOf(entity))
	for _, key := range w.redis.Keys() {
		if strings.HasPrefix(key, of) {
			w.redis.Del(key)
		}
	}
}

// elsewhere is an entity of another partition.
func elsewhere(from string) string {
	for i := 'A'; ; i++ {
		if name := "X" + string(i); partitionOf(name) != partitionOf(from) {
			return name
		}
	}
}

// While a partition is computed again, and while it has no position, its entities are told from those that were never seen, by every way
// to ask. Those of other partitions are answered as ever.
func TestRebuildingIsTold(t *testing.T) {
	w := newWorld(t)
	other := elsewhere("ATL")
	seen := []arrival{{"ATL", noon.Add(-30 * time.Minute), 10}, {"ATL", noon.Add(-20 * time.Minute), 50}}
	w.apply(seen...)
	w.apply(arrival{other, noon.Add(-10 * time.Minute), 20})
	w.fallTo(project.Rung{Kind: project.RungPrevious})
	w.promote(trained{weights: map[string]float64{"distance": 0.001}})
	w.promote(byDelay(0.1))
	w.start()
	w.awaitReady()
	ask := func(what, origin, rung, reason, status string, features int) {
		t.Helper()
		code, a := w.post(`{"flight_id":"f1","scheduled":"2001-05-20T12:30:00Z","origin":"` + origin + `","distance":1000}`)
		if p := a.Predictions[0]; code != 200 || p.Rung != rung || p.Reason != reason || p.Features[0].Status != status {
			t.Errorf("%s: %d %+v", what, code, a)
		}
		var problem Problem
		if code := w.get("/v1/features/origin_delays/"+origin, &problem); code != features || code != 200 && problem.Code != "features_rebuilding" {
			t.Errorf("%s: features: %d %+v", what, code, problem)
		}
		_, p := w.stage.ReadEntities(t.Context(), Call{}, []EntityRead{{"origin_delays", map[string]string{"origin": origin}}})
		if (p == nil) != (features == 200) || p != nil && (p.Code != "features_rebuilding" || p.Status != 503) {
			t.Errorf("%s: entities: %+v", what, p)
		}
	}
	const told = "features_rebuilding: origin_delays"
	ask("whole", "ATL", "primary", "", "present", 200)
	ask("never seen", neighbour("ATL"), "primary", "", "not_found", 200)
	w.forget("ATL")
	ask("without a position", "ATL", "previous", told, "unavailable", 503)
	w.lose("ATL", 2)
	ask("from the start", "ATL", "previous", told, "unavailable", 503)
	ask("from the start", neighbour("ATL"), "previous", told, "unavailable", 503)
	ask("of another partition", other, "primary", "", "present", 200)
	w.apply(seen[0])
	ask("on the way", "ATL", "previous", told, "unavailable", 503)
	w.apply(seen[1])
	ask("whole again", "ATL", "primary", "", "present", 200)
	ask("never seen", neighbour("ATL"), "primary", "", "not_found", 200)

	w.fallTo()
	w.lose("ATL", 2)
	if code, a := w.post(flight); code != 503 || a.Code != "features_rebuilding" || a.Predictions[0].Rung != "refused" {
		t.Errorf("without another rung: %d %+v", code, a)
	}
}

// What is scored on its topic waits until its features are there again, by either clock: a prediction is made once.
func TestStreamWaitsForRebuilding(t *testing.T) {
	for name, change := range map[string]func(*world){"wall": func(*world) {}, "event": byEvents} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, withKafka, change)
			w.cfg.Backoff, w.cfg.FeatureWait = 5*time.Millisecond, 20*time.Millisecond
			w.lose("ATL", 1)
			m := byDelay(0.1)
			m.dataUntil = noon
			w.promote(m)
			w.start()
			w.awaitReady()
			w.depart(0, 40, noon, "ATL")
			eventually(t, "batches are aborted", func() bool { return w.metric("millrace_serving_stream_aborted_batches_total") > 1 })
			w.apply(arrival{"ATL", noon.Add(-10 * time.Minute), 10})
			eventually(t, "all are scored", func() bool { return w.scored() == 40 })
			predictions := w.predictions()
			exactlyOnce(t, predictions, 0, 40)
			for _, p := range predictions {
				if p.Refused || p.Rung != "primary" || p.Inputs[0].Status != "present" {
					t.Errorf("%+v", p)
				}
			}
		})
	}
}
