package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"text/tabwriter"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/millrace/millrace/consistency"
	"github.com/millrace/millrace/internal/clock"
	"github.com/millrace/millrace/internal/duration"
	"github.com/millrace/millrace/internal/failure"
)

// consistencyCommand computes what was served again.
type consistencyCommand struct {
	servers   `embed:""`
	Sample    consistency.Sample `help:"Which entities, by the hash of their keys: 1/100, or 1 for all." default:"1/100" placeholder:"1/N"`
	Since     string             `help:"Only predictions made since then: RFC 3339, or a span like 24h." placeholder:"TIME"`
	Tolerance float64            `help:"Share of a feature's values, 0 to 1, that may differ." default:"0" placeholder:"SHARE"`
	Textfile  string             `help:"Write the result for node_exporter's textfile collector." type:"path" placeholder:"FILE"`
	JSON      bool               `name:"json" help:"Print the report as JSON."`
}

func (c *consistencyCommand) Run(ctx context.Context, env *environment) error {
	since, err := sinceTime(c.Since, clock.System())
	if err != nil {
		return err
	}
	if c.Tolerance < 0 || c.Tolerance > 1 {
		return failure.New(failure.BadRequest, "--tolerance", "%v is not a share between 0 and 1", c.Tolerance)
	}
	rt, err := c.open(ctx, env, opening{kafka: true})
	if err != nil {
		return err
	}
	defer rt.close()
	cfg := consistency.Default()
	cfg.Sample = c.Sample
	began := clock.System()
	report, _, err := consistency.Check(ctx, cfg, consistency.Deps{Project: rt.project, Kafka: rt.kafka, OfflineDir: rt.offlineDir(), Registry: rt.registry}, consistency.Range{Since: since})
	if err != nil {
		return err
	}
	if c.Textfile != "" {
		ended := clock.System()
		if err := consistency.WriteTextfile(c.Textfile, report, ended, ended.Sub(began)); err != nil {
			return failure.Wrap(failure.Unavailable, c.Textfile, "writing the textfile", err)
		}
	}
	if c.JSON {
		if err := json.NewEncoder(env.out).Encode(report); err != nil {
			return err
		}
	} else if err := printReport(env.out, report); err != nil {
		return err
	}
	return report.Verdict(c.Tolerance)
}

// consistencyFlags are how often the monitor role makes the check.
type consistencyFlags struct {
	ConsistencyEvery  time.Duration      `help:"How often what was served is computed again; 0 for never." default:"1h" env:"MILLRACE_CONSISTENCY_EVERY"`
	ConsistencySample consistency.Sample `help:"Which entities that is done for, by the hash of their keys: 1/100, or 1 for all." default:"1/100" env:"MILLRACE_CONSISTENCY_SAMPLE" placeholder:"1/N"`
}

func (f consistencyFlags) config() consistency.Config {
	cfg := consistency.Default()
	cfg.Every, cfg.Sample = f.ConsistencyEvery, f.ConsistencySample
	return cfg
}

// withConsistency runs the check beside the monitor.
func (rt *runtime) withConsistency(monitor func(context.Context) error, log *slog.Logger) (func(context.Context) error, error) {
	if rt.consistency.Every == 0 {
		return monitor, nil
	}
	s, err := consistency.NewStage(rt.consistency, consistency.Deps{
		Project: rt.project, Kafka: rt.kafka, OfflineDir: rt.offlineDir(), Registry: rt.registry, Clock: clock.System, Log: log, Registerer: rt.registerer,
	})
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context) error {
		both, ctx := errgroup.WithContext(ctx)
		both.Go(func() error { return monitor(ctx) })
		both.Go(func() error { return s.Run(ctx) })
		return both.Wait()
	}, nil
}

// sinceTime reads a time or a span before now, as Unix milliseconds; 0 for no text.
func sinceTime(text string, now time.Time) (int64, error) {
	if text == "" {
		return 0, nil
	}
	if t, err := time.Parse(time.RFC3339, text); err == nil {
		return t.UnixMilli(), nil
	}
	span, err := duration.Parse(text)
	if err != nil {
		return 0, failure.New(failure.BadRequest, "--since", "%q is neither a time nor a span", text).
			WithHint("write one like 2026-05-20T12:00:00Z, 24h or 7d")
	}
	return now.Add(-span).UnixMilli(), nil
}

func printReport(out io.Writer, r *consistency.Report) error {
	fmt.Fprintf(out, "%s: %d predictions, sample %s: %d entities, %d events replayed, %d reads compared\n",
		r.Project, r.Predictions, r.Sample, r.Entities, r.Events, r.Reads)
	if s := r.Skipped; s != (consistency.Skipped{}) {
		fmt.Fprintf(out, "not compared: %d reads ahead of the offline files, %d of another version of their group, %d not read when served, %d given by the request, %d of groups on merged sources, %d categories of models that are not in this registry, %d records that are no predictions\n",
			s.Pending, s.OtherVersion, s.Unread, s.Overridden, s.Merged, s.Unnamed, s.Unreadable)
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "FEATURE\tCOMPARED\tMISMATCHED\tMISSING\tSMAPE")
	for _, f := range r.Features {
		fmt.Fprintf(w, "%s\t%d\t%d\t%d\t%.3g\n", f.Name, f.Compared, f.Mismatched, f.Missing, f.SMAPE)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	for _, f := range r.Features {
		for _, e := range f.Examples {
			fmt.Fprintf(out, "%s of %q at %s: served %s, recomputed %s (prediction %s)\n",
				f.Name, e.Entity, timeText(e.At), e.Served, e.Recomputed, e.Prediction)
		}
	}
	return nil
}

// timeText is a time in Unix milliseconds as it is printed.
func timeText(ms int64) string {
	return time.UnixMilli(ms).UTC().Format("2006-01-02T15:04:05.999Z07:00")
}
