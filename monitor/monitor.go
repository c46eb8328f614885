package monitor

import (
	"fmt"
	"log/slog"
	"sync"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/millrace/millrace/features/profile"
	"github.com/millrace/millrace/internal/clock"
	"github.com/millrace/millrace/internal/failure"
	"github.com/millrace/millrace/project"
	"github.com/millrace/millrace/registry"
	"github.com/millrace/millrace/streams"
)

// Deps is what the stage works with.
type Deps struct {
	Project    *project.Project
	Kafka      streams.Config
	Baselines  Baselines
	Clock      clock.Clock
	Log        *slog.Logger
	Registerer prometheus.Registerer
}

// Baselines finds the baseline of a model version by the model's digest. Errors of a kind that can be retried are; with any other the
// version is not judged.
type Baselines interface {
	Baseline(digest string) (*profile.Baseline, error)
}

// Stage is the monitor.
type Stage struct {
	cfg       Config
	project   *project.Project
	kafka     streams.Config
	baselines Baselines
	clock     clock.Clock
	log       *slog.Logger
	metrics   *metrics

	lock   sync.Mutex
	status Status
}

// New makes the stage. It does not connect yet.
func New(cfg Config, d Deps) (*Stage, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if err := d.Kafka.Validate(); err != nil {
		return nil, err
	}
	return &Stage{
		cfg: cfg, project: d.Project, kafka: d.Kafka, baselines: d.Baselines, clock: d.Clock, log: d.Log, metrics: newMetrics(d.Registerer),
		status: newStatus(d.Project),
	}, nil
}

func (s *Stage) predictions() string { return s.project.Own().Predictions.Name }

// RegistryBaselines takes the baseline that a model's manifest names.
type RegistryBaselines struct{ Registry *registry.Registry }

// baselineRole is the role of the baseline among the inputs of a model's manifest.
const baselineRole = "baseline"

// Baseline reads a model version's baseline: NotFound without model or baseline, Corrupt when it is not what was stored.
func (r RegistryBaselines) Baseline(digest string) (*profile.Baseline, error) {
	m, err := r.Registry.Manifest(digest)
	if err != nil {
		return nil, fmt.Errorf("reading manifest: %w", err)
	}
	address, ok := m.Input(baselineRole)
	if !ok {
		return nil, failure.New(failure.NotFound, digest, "the model was made without a baseline")
	}
	_, text, err := r.Registry.Read(address)
	if err != nil {
		return nil, fmt.Errorf("reading baseline: %w", err)
	}
	return profile.Decode(text)
}
