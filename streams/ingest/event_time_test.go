package ingest

import (
	"testing"
	"time"

	"github.com/millrace/millrace/project"
)

// Under clock: event a record too far ahead of its partition's newest event is refused after a restart as before it: else each restart would let one
// through, which believes all that comes after it.
func TestFutureGuardAfterARestart(t *testing.T) {
	for name, direct := range map[string]bool{"re-keyed": false, "read directly": true} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			r.project.Clock = project.ClockEvent
			if direct {
				r.project.Groups = r.project.Groups[2:]
			} else {
				r.project.Groups = r.project.Groups[:2]
			}
			r.visit(0, 10, start)
			stage := r.run(r.stage())
			r.await("the first to be committed", func() bool { at, _ := r.handedOn(0); return at == 10 })
			stage.stop(t)

			r.visit(0, 1, start+24*time.Hour.Milliseconds()) // an hour is allowed
			r.visit(0, 1, start+time.Minute.Milliseconds())
			stage = r.run(r.stage())
			r.await("all to be committed", func() bool { at, _ := r.handedOn(0); return at == 12 })
			stage.stop(t)
			future := 0
			letters, _ := r.letters()
			for _, l := range letters {
				if l.class == classFuture {
					future++
				}
			}
			if future != 1 {
				t.Errorf("%d dead letters of the future, want 1: %v", future, r.reasons())
			}
		})
	}
}
