package batches

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"time"

	"github.com/millrace/millrace/internal/failure"
	"github.com/millrace/millrace/project"
	"github.com/millrace/millrace/registry"
	"github.com/millrace/millrace/serving"
)

// Make makes the run of an instant, or goes on with one that was cut short. A run that is concluded is given as it is, unless it is to be made
// anew. An error is of kind Conflict while another process is at the batch; one that is worth trying again leaves the run as it is; what cannot be
// done is no error but a record that says why.
func (s *Stage) Make(ctx context.Context, b *project.Batch, instant time.Time, anew bool) (Record, error) {
	return s.perform(ctx, b, instant, 0, anew)
}

func (s *Stage) perform(ctx context.Context, b *project.Batch, instant time.Time, passed int, anew bool) (Record, error) {
	release, err := s.registry.Claim(b.Model.Name, "batch_"+b.Name)
	if err != nil {
		return Record{}, err
	}
	defer release()
	j := journalOf(s.dataDir, b.Name)
	known, err := j.read(instant)
	if err != nil {
		return Record{}, err
	}
	if known != nil && known.Concluded() && !anew {
		return *known, nil
	}
	r := Record{Batch: b.Name, Instant: instant.UTC(), Passed: passed, Began: s.clock().UTC(), State: Running}
	if known != nil && !known.Concluded() {
		r = *known
	} else if err := s.choose(b, &r); err != nil {
		return s.conclude(ctx, j, r, nil, err)
	} else if err := j.write(r); err != nil {
		return r, err
	}
	s.log.Info("a batch is scored", "batch", b.Name, "instant", r.Instant, "model", r.Model, "out", r.Out)
	report, err := s.score(ctx, b, r, anew)
	return s.conclude(ctx, j, r, report, err)
}

// choose fixes what the run is made of.
func (s *Stage) choose(b *project.Batch, r *Record) error {
	version, err := s.registry.Resolve(b.Version)
	if err != nil {
		return err
	}
	r.Model, r.Digest = version.String(), version.Digest
	r.Out = s.path(project.At(b.Out, r.Instant))
	if len(b.Files) == 0 {
		return nil
	}
	patterns := make([]string, len(b.Files))
	for i, p := range b.Files {
		patterns[i] = s.path(project.At(p, r.Instant))
	}
	r.Files, err = serving.RowFiles(patterns)
	return err
}

// path is a path of the project's: relative to the data folder.
func (s *Stage) path(p string) string {
	if filepath.IsAbs(p) {
		return filepath.Clean(p)
	}
	return filepath.Join(s.dataDir, p)
}

// score makes the files of a run that are not there yet.
func (s *Stage) score(ctx context.Context, b *project.Batch, r Record, anew bool) (*serving.BatchReport, error) {
	version, err := s.registry.Resolve(r.Model)
	if err != nil {
		return nil, err
	}
	if version.Digest != r.Digest {
		return nil, failure.New(failure.Corrupt, r.Model, "it is %s, the run began with %s", version.Digest, r.Digest)
	}
	q := serving.BatchRequest{
		Project: s.project, Model: b.Model, Version: registry.Reference{Model: b.Model.Name, Version: version.Version}, OfflineDir: filepath.Join(s.dataDir, "offline"),
		Given: b.Given, Keep: b.Keep, Prefix: b.Prefix, Anew: anew, Limits: s.cfg.Join, Code: s.cfg.Code,
	}
	if len(b.Files) > 0 {
		q.Parts, err = serving.BatchFiles(ctx, b.Model, slices.Clone(r.Files), r.Out, b.Format, s.cfg.Join.TempDir)
	} else {
		q.Parts, err = serving.BatchEvents(q.OfflineDir, b.Model, r.Instant.Add(-b.Last).UnixMilli(), r.Instant.UnixMilli(), r.Out, b.Format, s.cfg.Join.TempDir)
	}
	if err != nil {
		return nil, err
	}
	report, err := serving.Batch(ctx, s.registry, q, s.progress)
	if err != nil {
		return nil, err
	}
	return report, report.Write(r.Out)
}

// conclude keeps what came of a run, unless it is to be tried again.
func (s *Stage) conclude(ctx context.Context, j journal, r Record, report *serving.BatchReport, err error) (Record, error) {
	if err != nil && (ctx.Err() != nil || failure.Of(err).Retry()) {
		return r, fmt.Errorf("scoring the batch %s of %s: %w", r.Batch, r.Instant.Format(time.RFC3339), err)
	}
	err = s.end(j, &r, report, err)
	return r, err
}

// end keeps what came of a run: a report, or why there is none.
func (s *Stage) end(j journal, r *Record, report *serving.BatchReport, reason error) error {
	r.State, r.Ended = Done, s.clock().UTC()
	if reason != nil {
		r.State, r.Reason = Refused, reason.Error()
	} else {
		r.Rows, r.Without = report.Rows, report.Refused
	}
	if err := j.write(*r); err != nil {
		return err
	}
	s.metrics.ended(*r)
	if reason != nil {
		s.log.Error("a batch could not be scored", "batch", r.Batch, "instant", r.Instant, "err", reason)
	} else {
		s.log.Info("a batch is done", "batch", r.Batch, "instant", r.Instant, "rows", r.Rows, "without_score", r.Without, "out", r.Out)
	}
	return nil
}
