package batches

import (
	"context"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/millrace/millrace/features/dataset"
	"github.com/millrace/millrace/internal/clock"
	"github.com/millrace/millrace/internal/failure"
	"github.com/millrace/millrace/project"
	"github.com/millrace/millrace/registry"
)

// Deps is what the stage works with.
type Deps struct {
	Project    *project.Project
	Registry   *registry.Registry
	DataDir    string // has the offline log, and the records of runs; relative paths of batches begin there
	Clock      clock.Clock
	Log        *slog.Logger
	Registerer prometheus.Registerer
	Progress   dataset.Progress // may be nil
}

// Stage makes the runs of the project's batches.
type Stage struct {
	cfg      Config
	project  *project.Project
	registry *registry.Registry
	dataDir  string
	clock    clock.Clock
	log      *slog.Logger
	metrics  *metrics
	progress dataset.Progress
	began    time.Time
}

// New makes the stage.
func New(cfg Config, d Deps) (*Stage, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	s := &Stage{
		cfg: cfg, project: d.Project, registry: d.Registry, dataDir: d.DataDir, clock: d.Clock, log: d.Log, metrics: newMetrics(d.Registerer), progress: d.Progress,
		began: d.Clock(),
	}
	if s.progress == nil {
		s.progress = func(string, int64, int64) {}
	}
	return s, nil
}

// agenda is what is to be done for one batch.
type agenda struct {
	batch    *project.Batch
	begin    time.Time   // the time before which a batch without a run had nothing to do; zero once it has been looked at
	after    time.Time   // instants up to it have been looked at
	due      []time.Time // of these, those that are not concluded
	passed   int         // instants before due[0] that nobody makes up for
	attempts int         // at due[0] that failed
	rest     time.Time   // no attempt before it
}

// Run makes the runs of instants as they come until ctx ends; nil then. They are made one after the other, each on all processors. What stands in
// the way of one batch is logged, counted, and tried again: the other roles of the process are not to end for it.
func (s *Stage) Run(ctx context.Context) error {
	tick := time.NewTicker(s.cfg.Every)
	defer tick.Stop()
	all := make([]*agenda, len(s.project.Batches))
	for i, b := range s.project.Batches {
		all[i] = &agenda{batch: b, begin: s.began}
	}
	for {
		for _, a := range all {
			if ctx.Err() == nil && !s.clock().Before(a.rest) {
				s.keep(ctx, a)
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// keep makes what is due of one batch.
func (s *Stage) keep(ctx context.Context, a *agenda) {
	err := s.look(a)
	for err == nil && len(a.due) > 0 {
		var r Record
		r, err = s.perform(ctx, a.batch, a.due[0], a.passed, false)
		if err == nil {
			a.due, a.passed, a.attempts = a.due[1:], 0, 0
			continue
		}
		if ctx.Err() != nil || r.Instant.IsZero() && failure.Of(err) == failure.Conflict {
			return // another replica is at it: it is looked at again, lest that one should die
		}
		if a.attempts+1 >= s.cfg.Attempts && !r.Instant.IsZero() {
			s.failed(a, err)
			err = s.end(journalOf(s.dataDir, a.batch.Name), &r, nil, err)
		}
	}
	if err != nil {
		s.failed(a, err)
		a.attempts++
		a.rest = s.clock().Add(s.cfg.Backoff << min(a.attempts-1, 6))
	}
}

func (s *Stage) failed(a *agenda, err error) {
	s.metrics.failures.WithLabelValues(a.batch.Name, failure.Of(err).String()).Inc()
	s.log.Warn("a batch could not be scored yet", "batch", a.batch.Name, "attempt", a.attempts+1, "err", err)
}

// look finds instants that are due, when those before are concluded. The first look goes on after the last instant that a run was begun for, with
// that run if it was cut short; a batch that never had one begins with the stage.
func (s *Stage) look(a *agenda) error {
	if !a.begin.IsZero() {
		last, err := Last(s.dataDir, a.batch.Name)
		if err != nil {
			return err
		}
		a.after = a.begin
		if last != nil {
			a.after = last.Instant
			s.metrics.known(*last)
			if !last.Concluded() {
				a.due = []time.Time{last.Instant}
			}
		}
		a.begin = time.Time{}
	}
	if len(a.due) > 0 {
		return nil
	}
	times, passed := a.batch.Schedule.Due(a.after, s.clock().Add(-a.batch.Settle), a.batch.CatchUp)
	if len(times) == 0 {
		return nil
	}
	a.due, a.after, a.passed = times, times[len(times)-1], passed
	if passed > 0 {
		s.metrics.passed.WithLabelValues(a.batch.Name).Add(float64(passed))
		s.log.Warn("instants of a batch have passed that nobody makes up for", "batch", a.batch.Name, "passed", passed, "before", times[0], "catch_up", a.batch.CatchUp)
	}
	return nil
}
