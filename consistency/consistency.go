package consistency

import (
	"context"
	"log/slog"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/millrace/millrace/internal/clock"
	"github.com/millrace/millrace/project"
	"github.com/millrace/millrace/registry"
	"github.com/millrace/millrace/streams"
)

// Deps is what a check works with.
type Deps struct {
	Project    *project.Project
	Kafka      streams.Config
	OfflineDir string
	Registry   *registry.Registry    // says what the codes of categories stood for
	Clock      clock.Clock           // of Stage
	Log        *slog.Logger          // of Stage
	Registerer prometheus.Registerer // of Stage
}

// Range is which predictions are checked.
type Range struct {
	Since   int64           // those scored at this time or later, Unix milliseconds of the clock on the wall
	Until   int64           // and before this; 0 for no end
	Offsets map[int32]int64 // those from these offsets on, by partition of the predictions topic; nil for all
}

// Check computes the sample's reads again. next is the offsets after the predictions that it looked at. A difference is no error:
// Report.Verdict judges. Errors: Unavailable when Kafka or the files cannot be read, Overloaded when the sample is larger than the
// limits.
func Check(ctx context.Context, cfg Config, d Deps, from Range) (report *Report, next map[int32]int64, err error) {
	if err := cfg.Validate(); err != nil {
		return nil, nil, err
	}
	report = newReport(d.Project.Name, cfg)
	groups, next, err := collect(ctx, cfg, d, from, report)
	if err != nil {
		return nil, nil, err
	}
	for _, source := range d.Project.Sources {
		if err := recompute(ctx, cfg, d.OfflineDir, source, ofSource(d.Project, source, groups), report); err != nil {
			return nil, nil, err
		}
	}
	report.finish()
	return report, next, nil
}

// ofSource is the groups of a source that were read, in the project's order.
func ofSource(p *project.Project, source *project.Source, groups map[*project.Group]*served) []*served {
	var list []*served
	for _, g := range p.Groups {
		if s := groups[g]; s != nil && g.Source == source {
			list = append(list, s)
		}
	}
	return list
}

func recompute(ctx context.Context, cfg Config, dir string, source *project.Source, groups []*served, report *Report) error {
	if len(groups) == 0 {
		return nil
	}
	kept, events, err := history(ctx, cfg, dir, source, groups)
	if err != nil {
		return err
	}
	report.Events += events
	for _, s := range groups {
		report.Entities += len(s.entities)
		r := &replay{served: s, kept: kept, exact: s.group.Direct || len(kept) <= 1, bound: cfg.RelativeError, report: report}
		if err := r.run(); err != nil {
			return err
		}
	}
	return ctx.Err()
}
