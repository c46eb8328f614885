package ingest

import (
	"testing"
	"time"

	"github.com/millrace/millrace/project"
	"github.com/millrace/millrace/streams"
)

// A slow write delays the next one a little, and a declared time longer than that holds; a partition that is behind has its own.
func TestFlushEvery(t *testing.T) {
	cfg := Default()
	for _, c := range []struct {
		declared, took, want time.Duration
		behind               bool
	}{
		{declared: 10 * time.Millisecond, want: 10 * time.Millisecond},
		{declared: 10 * time.Millisecond, took: 4 * time.Millisecond, want: 16 * time.Millisecond},
		{declared: 10 * time.Millisecond, took: 400 * time.Millisecond, want: longestPause},
		{declared: time.Second, took: 400 * time.Millisecond, want: time.Second},
		{took: time.Millisecond, want: cfg.Flush},
		{declared: 10 * time.Millisecond, behind: true, want: cfg.FlushBehind},
		{declared: time.Minute, behind: true, want: time.Minute},
	} {
		a := &applier{Stage: &Stage{cfg: cfg}, group: &group{Group: &project.Group{Flush: c.declared}}}
		if c.behind {
			a.next = -int64(cfg.BehindRecords) - 1 // of an input that ends at 0
		}
		if got := a.flushEvery(c.took, &streams.Input{}); got != c.want {
			t.Errorf("declared %s, behind %t, a write of %s: the next after %s, must be after %s", c.declared, c.behind, c.took, got, c.want)
		}
	}
}
