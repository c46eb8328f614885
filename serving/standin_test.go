package serving

import (
	"strings"
	"testing"
	"time"

	"github.com/millrace/millrace/project"
)

// A process that begins with a champion that it cannot serve has the one before it answer, and says so in each answer, to who asks after its
// health, and in its metrics. A champion that can be served ends that.
func TestPreviousStandsInAtStart(t *testing.T) {
	for name, promote := range map[string]func(*world) string{
		"golden rows do not reproduce": promoteUnlikeItsRows,
		"bytes are damaged":            promoteDamaged,
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, withKafka)
			w.fallTo(project.Rung{Kind: project.RungPrevious}, project.Rung{Kind: project.RungDefault, Score: 0.5})
			w.apply(arrival{"ATL", noon.Add(-10 * time.Minute), 10})
			m := byDelay(0.1)
			m.dataUntil = noon
			good := w.promote(m)
			bad := promote(w)
			w.start()
			w.awaitReady()
			want := sigmoid(-1 + 0.1*10 + 1)
			status, a := w.post(flight)
			if p := a.Predictions[0]; status != 200 || p.Rung != "previous" || p.Version != 1 || p.Digest != good || *p.Score != want || p.Reason != "no_champion: late@2" {
				t.Errorf("%d %+v", status, a)
			}
			var health struct{ Status string }
			if status := w.get("/readyz", &health); status != 200 || health.Status != "degraded" {
				t.Errorf("readyz: %d %+v", status, health)
			}
			var v modelView
			if w.get("/v1/models/late", &v); v.State != "degraded" || v.Version != 1 || !strings.Contains(v.Fault, "late@2 "+bad) {
				t.Errorf("%+v", v)
			}
			if w.metric("millrace_serving_degraded") != 1 || w.metric("millrace_serving_champion_version") != 1 || w.metric("millrace_serving_fallbacks_total", "rung", "previous", "reason", "no_champion") != 1 ||
				w.metric("millrace_serving_swaps_total", "result", "swapped") != 0 || w.metric("millrace_serving_swaps_total", "result", "refused") != 1 {
				t.Error("the metrics do not say so")
			}
			given, p := w.stage.ScoreInputs(t.Context(), Call{Model: "late"}, [][]float64{{10, 1000}})
			if p != nil || given[0].Rung != "previous" || given[0].Score != want {
				t.Errorf("%+v %v", given, p)
			}
			w.depart(0, 5, noon, "ATL")
			eventually(t, "the topic is scored", func() bool { return w.scored() == 5 })

			w.crown(good)
			eventually(t, "the champion answers", func() bool {
				status, a := w.post(flight)
				return status == 200 && a.Predictions[0].Rung == "primary" && a.Predictions[0].Reason == ""
			})
			if w.get("/readyz", &health); health.Status != "ready" {
				t.Errorf("readyz: %+v", health)
			}
			if w.metric("millrace_serving_degraded") != 0 || w.metric("millrace_serving_swaps_total", "result", "swapped") != 1 {
				t.Error("the metrics do not say so")
			}
		})
	}
}

// The ladder is the project's: a rung above the previous champion answers first, and one that is not there does not answer.
func TestStandInKeepsTheLadder(t *testing.T) {
	for name, c := range map[string]struct {
		rungs  []project.Rung
		status int
		rung   string
	}{
		"default first": {[]project.Rung{{Kind: project.RungDefault, Score: 0.5}, {Kind: project.RungPrevious}}, 200, "default"},
		"default alone": {[]project.Rung{{Kind: project.RungDefault, Score: 0.5}}, 200, "default"},
		"none":          {nil, 503, "refused"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.fallTo(c.rungs...)
			w.promote(byDelay(0.1))
			bad := w.register(byDelay(0.2))
			w.damage(bad)
			w.crown(bad)
			w.start()
			var v modelView
			eventually(t, "the fault is shown", func() bool { w.get("/v1/models/late", &v); return v.Fault != "" })
			if status, a := w.post(flight); status != c.status || a.Predictions[0].Rung != c.rung || !strings.HasPrefix(a.Predictions[0].Reason, "no_champion") {
				t.Errorf("%d %+v", status, a)
			}
		})
	}
}
