package ingest

import (
	"bytes"
	"log/slog"
	"strings"
	"sync"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/twmb/franz-go/pkg/kadm"
)

// lines is a log that is read while it is written.
type lines struct {
	mu  sync.Mutex
	out bytes.Buffer
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.out.Write(b)
}

func (l *lines) with(text string) (all []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for line := range strings.Lines(l.out.String()) {
		if strings.Contains(line, text) {
			all = append(all, line)
		}
	}
	return all
}

// told has a stage log to lines.
func told(to *lines) func(*Config, *Deps) {
	return func(_ *Config, d *Deps) { d.Log = slog.New(slog.NewTextHandler(to, nil)) }
}

// sum is a counter over all its labels.
func sum(t *testing.T, c prometheus.Collector) float64 {
	t.Helper()
	if testutil.CollectAndCount(c) == 0 {
		return 0
	}
	return testutil.ToFloat64(c)
}

// truncate is what retention does: it deletes the records of a partition below an offset.
func (r *rig) truncate(topic string, partition int32, below int64) {
	r.t.Helper()
	var cut kadm.Offsets
	cut.Add(kadm.Offset{Topic: topic, Partition: partition, At: below})
	if _, err := r.admin.DeleteRecords(r.t.Context(), cut); err != nil {
		r.t.Fatal(err)
	}
}

// TestRetentionBehindAStoppedStage has retention delete records that a stage had not read yet. They cannot be had again: that must not look like a
// topic that was read to its end.
func TestRetentionBehindAStoppedStage(t *testing.T) {
	r := newRig(t)
	r.project.Groups = r.project.Groups[2:] // read directly
	topic := r.project.Sources[0].Topic

	r.visit(0, 30, start)
	r.truncate(topic, 0, 10) // before the first stage is there: the topic begins later, and nothing of it is missing
	var log lines
	first := r.stage(told(&log))
	running := r.run(first)
	r.await("the first to be committed", func() bool { at, _ := r.handedOn(0); return at == 30 })
	running.stop(t)
	if n := sum(t, first.metrics.lost); n != 0 || len(log.with("retention")) != 0 {
		t.Fatalf("%v offsets lost before the stage began: %q", n, log.with("retention"))
	}

	r.visit(0, 40, start)
	r.truncate(topic, 0, 55)
	second := r.stage(told(&log))
	running = r.run(second)
	r.await("the rest to be committed", func() bool { at, _ := r.handedOn(0); return at == 70 })
	running.stop(t)
	if n := sum(t, second.metrics.lost); n != 25 {
		t.Errorf("%v offsets lost, want 25", n)
	}
	if got := log.with("retention"); len(got) != 1 || !strings.Contains(got[0], "from=30 to=55") {
		t.Errorf("told so: %q", got)
	}
}
