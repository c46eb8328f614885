package ingest

import (
	"strings"
	"testing"
	"time"
)

// TestUnguardedFuture produces events ahead of the clock to a source without a guard, and to one with it.
func TestUnguardedFuture(t *testing.T) {
	for name, c := range map[string]struct {
		future time.Duration
		told   int
	}{
		"without": {0, 3},
		"with":    {48 * time.Hour, 0}, // allowed
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			r.project.Sources[0].Future = c.future
			at := now().UnixMilli()
			r.visit(0, 1, at)
			r.visit(0, 1, at+futureLimit.Milliseconds()) // as far as is taken for a clock that is wrong by little
			r.visit(0, 3, at+10*time.Hour.Milliseconds())
			r.visit(0, 1, at)
			var log lines
			stage := r.stage(told(&log))
			running := r.run(stage)
			r.await("all to be committed", func() bool { p, _ := r.handedOn(0); return p == 6 })
			running.stop(t)
			if n := sum(t, stage.metrics.ahead); n != float64(c.told) {
				t.Errorf("%v events counted, want %d", n, c.told)
			}
			got := log.with("declare future")
			if c.told == 0 && len(got) != 0 || c.told > 0 && (len(got) != 1 || !strings.Contains(got[0], "source=trips") || !strings.Contains(got[0], "offset=")) {
				t.Errorf("told so: %q", got)
			}
		})
	}
}
