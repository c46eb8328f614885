package consistency

import (
	"context"
	"time"

	"github.com/millrace/millrace/internal/failure"
)

// Stage repeats the check, each time on the predictions that came since the last one.
type Stage struct {
	cfg     Config
	deps    Deps
	metrics *metrics
}

// NewStage checks the configuration. Nothing is connected before Run.
func NewStage(cfg Config, d Deps) (*Stage, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if err := d.Kafka.Validate(); err != nil {
		return nil, err
	}
	return &Stage{cfg: cfg, deps: d, metrics: newMetrics(d.Registerer)}, nil
}

// Run checks every Config.Every until ctx ends; nil then. A check that cannot be made is logged, counted and made again with the next.
func (s *Stage) Run(ctx context.Context) error {
	tick := time.NewTicker(s.cfg.Every)
	defer tick.Stop()
	from := Range{Since: s.deps.Clock().UnixMilli()}
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		next, err := s.check(ctx, from)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			s.metrics.failures.Inc()
			s.deps.Log.Warn("checking consistency", "error", err)
			continue
		}
		from.Offsets = next
	}
}

// check makes one check and shows it. What was served in the last moments is left to the next one: the offline files
// have it by then.
func (s *Stage) check(ctx context.Context, from Range) (next map[int32]int64, err error) {
	began := s.deps.Clock()
	from.Until = began.Add(-s.cfg.OfflineDelay).UnixMilli()
	report, next, err := Check(ctx, s.cfg, s.deps, from)
	if err != nil {
		return nil, err
	}
	ended := s.deps.Clock()
	s.metrics.show(report, ended, ended.Sub(began))
	if err := report.Verdict(0); err != nil && failure.Of(err) != failure.NotFound {
		s.deps.Log.Error("what was served is not what the offline log gives", "error", err)
	}
	return next, nil
}
