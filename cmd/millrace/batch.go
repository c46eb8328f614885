package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/millrace/millrace/features/dataset"
	"github.com/millrace/millrace/internal/clock"
	"github.com/millrace/millrace/internal/failure"
	"github.com/millrace/millrace/project"
	"github.com/millrace/millrace/serving/batches"
)

// batchCommand is the batch role, or one run of a batch.
type batchCommand struct {
	servers   `embed:""`
	edgeFlags `embed:""`
	Once      string    `help:"Make one run of this batch and end: the one of --at. What the role has made, or another run is making, is not made twice." placeholder:"NAME"`
	At        time.Time `help:"With --once: the instant, one of the schedule's, RFC 3339 (default: the last one)."`
	Anew      bool      `help:"With --once: make the run again that is concluded."`
}

func (c *batchCommand) Run(ctx context.Context, env *environment) error {
	if c.Once == "" {
		return c.runRoles(ctx, env, opening{edge: c.edgeFlags}, "batch", []role{roleBatch})
	}
	rt, err := c.open(ctx, env, opening{})
	if err != nil {
		return err
	}
	defer rt.close()
	b := rt.project.Batch(c.Once)
	if b == nil {
		var names []string
		for _, b := range rt.project.Batches {
			names = append(names, b.Name)
		}
		return failure.New(failure.NotFound, c.Once, "the project has no such batch").WithHint("it has %s", strings.Join(names, ", "))
	}
	at, err := instantOf(b, c.At, clock.System())
	if err != nil {
		return err
	}
	bar := newBar(env.err, clock.System)
	s, err := rt.batches(rt.log, bar.show)
	if err != nil {
		return err
	}
	r, err := s.Make(ctx, b, at, c.Anew)
	bar.clear()
	if err != nil {
		return err
	}
	if r.State == batches.Refused {
		return failure.New(failure.Refused, b.Name, "%s", r.Reason)
	}
	fmt.Fprintf(env.out, "%s at %s: %s, %d rows, %d without a score, in %s\n", r.Batch, r.Instant.Format(time.RFC3339), r.Model, r.Rows, r.Without, r.Out)
	return nil
}

// instantOf is the instant that is asked for; the last one without. One that the schedule does not have is refused: nobody would look for its files.
func instantOf(b *project.Batch, asked, now time.Time) (time.Time, error) {
	if asked.IsZero() {
		const longest = 5 * 366 * 24 * time.Hour // between two times of a schedule
		for back := time.Hour; back <= longest; back *= 4 {
			if times, _ := b.Schedule.Due(now.Add(-back), now, 1); len(times) > 0 {
				return times[0], nil
			}
		}
		return time.Time{}, failure.New(failure.NotFound, b.Name, "the schedule %q has had no time yet", b.Schedule.Text)
	}
	if times, _ := b.Schedule.Due(asked.Add(-time.Second), asked, 1); len(times) == 0 || !times[0].Equal(asked) {
		return time.Time{}, failure.New(failure.BadRequest, "--at", "%s is no time of the schedule %q", asked.Format(time.RFC3339), b.Schedule.Text).
			WithHint("the next one is %s", b.Schedule.Next(asked).UTC().Format(time.RFC3339))
	}
	if asked.After(now) {
		return time.Time{}, failure.New(failure.BadRequest, "--at", "%s is still to come", asked.Format(time.RFC3339))
	}
	return asked, nil
}

// batches makes the batch stage.
func (rt *runtime) batches(log *slog.Logger, progress dataset.Progress) (*batches.Stage, error) {
	cfg := batches.Default()
	cfg.Code = version()
	return batches.New(cfg, batches.Deps{
		Project: rt.project, Registry: rt.registry, DataDir: rt.dataDir, Clock: clock.System, Log: log, Registerer: rt.registerer, Progress: progress,
	})
}

// printBatches prints the last run of each batch, and when the next one is due.
func (rt *runtime) printBatches(out io.Writer, now time.Time) error {
	if len(rt.project.Batches) == 0 {
		return nil
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "\nBATCH\tSCHEDULE\tNEXT\tLAST\tSTATE\tMODEL\tROWS\tWITHOUT SCORE\tOUT")
	for _, b := range rt.project.Batches {
		last, err := batches.Last(rt.dataDir, b.Name)
		if err != nil {
			return err
		}
		next := b.Schedule.Next(now).UTC().Format(time.RFC3339)
		if last == nil {
			fmt.Fprintf(w, "%s\t%s\t%s\tnone\n", b.Name, b.Schedule.Text, next)
			continue
		}
		result := last.Out
		if last.Reason != "" {
			result = last.Reason
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%d\t%d\t%s\n", b.Name, b.Schedule.Text, next, last.Instant.Format(time.RFC3339), last.State, last.Model, last.Rows, last.Without, result)
	}
	return w.Flush()
}
