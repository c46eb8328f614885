package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/millrace/millrace/features/offline"
	"github.com/millrace/millrace/internal/clock"
	"github.com/millrace/millrace/internal/failure"
	"github.com/millrace/millrace/project"
	"github.com/millrace/millrace/streams/ingest"
)

// backfillCommand computes a group anew beside what is read.
type backfillCommand struct {
	servers `embed:""`
	Group   string `arg:"" help:"Feature group."`
	From    string `help:"Take events from this time on only: a date, or RFC 3339." placeholder:"DATE"`
}

func (c *backfillCommand) Run(ctx context.Context, env *environment) error {
	from, err := parseDate("--from", c.From)
	if err != nil {
		return err
	}
	rt, err := c.open(ctx, env, opening{kafka: true, redis: true})
	if err != nil {
		return err
	}
	defer rt.close()
	stage, err := rt.ingest(ingest.Default())
	if err != nil {
		return err
	}
	bar := newBar(env.err, clock.System)
	version, err := stage.Backfill(ctx, c.Group, from, func(done, total int64) { bar.show("filling "+c.Group, done, total) })
	bar.clear()
	if ctx.Err() != nil {
		return failure.Wrap(failure.Unavailable, c.Group, "filling", ctx.Err()).WithHint("run the command again: it goes on where it was")
	}
	if err != nil {
		return err
	}
	fmt.Fprintf(env.out, "%s@%s is filled; the stream role moves readers to it when it has caught up (millrace status)\n", c.Group, version.ID)
	return nil
}

// parseDate is the zero time for no text.
func parseDate(where, text string) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	for _, layout := range []string{time.DateOnly, time.RFC3339} {
		if t, err := time.Parse(layout, text); err == nil {
			return t, nil
		}
	}
	return time.Time{}, failure.New(failure.BadRequest, where, "%q is no date", text).WithHint("write 2026-01-31 or 2026-01-31T06:00:00Z")
}

// ingest makes the stream stage.
func (rt *runtime) ingest(cfg ingest.Config) (*ingest.Stage, error) {
	return ingest.New(cfg, ingest.Deps{
		Project: rt.project, Kafka: rt.kafka, Redis: rt.redis, OfflineDir: rt.offlineDir(), Tables: rt.tables,
		Clock: clock.System, Log: rt.log.With("role", string(roleStream)), Registerer: rt.registerer,
	})
}

// printVersions prints the versions of the groups.
func (rt *runtime) printVersions(ctx context.Context, out io.Writer) error {
	versions, err := ingest.Versions(ctx, rt.redis, rt.project)
	if err != nil {
		return err
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "\nGROUP\tVERSION\tSTATE\tFILLED\tRECORDS\tNEWEST EVENT")
	for _, v := range versions {
		progress := fmt.Sprintf("%d/%d partitions", v.Filled, v.Partitions)
		if v.Filled < v.Partitions {
			progress += fmt.Sprintf(", %d events", v.History)
		}
		newest := ""
		if v.Newest > 0 {
			newest = stamp(v.Newest)
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%d\t%s\n", v.Group, v.ID, v.State, progress, v.Records, newest)
	}
	return w.Flush()
}

// printRebuilt tells what the groups that are computed anew are filled from.
func printRebuilt(env *environment, p *project.Project, changes project.Changes, offlineDir string) error {
	for _, c := range changes {
		g := p.Group(c.Name)
		if c.Object != "group" || g == nil || c.Kind != project.ChangeRebuild {
			continue
		}
		fmt.Fprintf(env.out, "%s is filled beside the version that is read, and readers are moved when it has caught up: ", g.Name)
		from := make([]string, 0, 1)
		for _, root := range g.Source.Roots() {
			text, err := rebuiltFrom(root, offlineDir)
			if err != nil {
				return err
			}
			from = append(from, text)
		}
		fmt.Fprintln(env.out, strings.Join(from, "; "))
	}
	return nil
}

// rebuiltFrom tells what there is of a source's events.
func rebuiltFrom(s *project.Source, offlineDir string) (string, error) {
	table, err := offline.EventsTable(offlineDir, s.Name, s.Schema)
	if err != nil {
		return "", err
	}
	stats, err := table.Stats()
	if err != nil {
		return "", err
	}
	if stats.Rows == 0 {
		return fmt.Sprintf("from topic %s; there are no offline events", s.Topic), nil
	}
	return fmt.Sprintf("%d events of %s to %s in %s, and what topic %s has since", stats.Rows, stamp(stats.From), stamp(stats.Until-1), table.Dir(), s.Topic), nil
}

// declareVersions makes the versions that the project asks for the targets of their groups.
func (rt *runtime) declareVersions(ctx context.Context) error {
	stage, err := rt.ingest(ingest.Default())
	if err != nil {
		return err
	}
	return stage.Declare(ctx)
}
