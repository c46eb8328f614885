package main

import (
	"context"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"time"

	"github.com/millrace/millrace/features/pit"
	"github.com/millrace/millrace/internal/clock"
	"github.com/millrace/millrace/internal/failure"
	"github.com/millrace/millrace/project"
	"github.com/millrace/millrace/serving"
)

// scoreCommand scores rows of files, or of the offline log, without servers.
type scoreCommand struct {
	stored `embed:""`

	Batch  []string  `group:"Rows" help:"Files with the rows: Parquet, Arrow (Feather) or CSV; a folder or a pattern stands for those in it." placeholder:"FILE"`
	Source string    `group:"Rows" help:"The model's source, whose offline events are the rows: a file for each UTC day." placeholder:"NAME"`
	From   time.Time `group:"Rows" help:"With --source: first event time, RFC 3339."`
	Until  time.Time `group:"Rows" help:"With --source: event time to stop before, RFC 3339."`
	Inputs string    `group:"Rows" default:"joined" enum:"joined,given" help:"joined: features as of each row's time, from the offline log; given: the rows have columns called as the model's inputs."`

	Bundle string `group:"Rows" help:"Score JSON lines from standard input to standard output, with the model of a bundle; of the other flags none is needed." type:"path" placeholder:"DIR"`

	Model string `group:"Model" help:"MODEL@N, MODEL@ALIAS, or MODEL for the champion."`

	Out         string   `group:"Output" help:"Folder, or with one input a file, .parquet or .arrow. What is finished there is not made again." type:"path" placeholder:"DIR|FILE"`
	Format      string   `group:"Output" default:"parquet" enum:"parquet,arrow" help:"Of the files in a folder."`
	Keep        []string `group:"Output" help:"Columns of the rows to keep beside the scores (default: all)." placeholder:"COLUMN"`
	Prefix      string   `group:"Output" help:"Of the names of the columns that are added." placeholder:"TEXT"`
	Anew        bool     `group:"Output" help:"Make again what is finished."`
	StateMemory int64    `group:"Output" default:"512" help:"MiB for the states of entities; what does not fit goes to temporary files." placeholder:"MIB"`
	RowMemory   int64    `group:"Output" default:"256" help:"MiB for the times and entities of rows; what does not fit goes to temporary files." placeholder:"MIB"`
	TempDir     string   `group:"Output" help:"Folder for temporary files (default: the system's)." type:"path" placeholder:"DIR"`
}

func (c *scoreCommand) Run(ctx context.Context, env *environment) error {
	if c.Bundle != "" {
		return c.scoreBundle(ctx, env)
	}
	if c.Model == "" || c.Out == "" {
		return failure.New(failure.BadRequest, "score", "--model and --out say with what to score, and where to").WithHint("millrace score --help")
	}
	named, err := c.version(c.Model)
	if err != nil {
		return err
	}
	p, r, v, m := named.project, named.registry, named.reference, named.model
	limits := pit.Default()
	limits.MaxStateBytes, limits.MaxRowBytes, limits.TempDir = c.StateMemory<<20, c.RowMemory<<20, c.TempDir
	q := serving.BatchRequest{
		Project: p, Model: m, Version: v, OfflineDir: filepath.Join(dataDir(p, c.DataDir), "offline"), Given: c.Inputs == "given",
		Keep: c.Keep, Prefix: c.Prefix, Anew: c.Anew, Limits: limits, Code: version(),
	}
	if q.Parts, err = c.parts(ctx, q); err != nil {
		return err
	}
	bar := newBar(env.err, clock.System)
	started := time.Now()
	report, err := serving.Batch(ctx, r, q, bar.show)
	bar.clear()
	if err != nil {
		return err
	}
	if err := report.Write(c.Out); err != nil {
		return err
	}
	printScored(env.out, report, time.Since(started))
	return nil
}

// modelNamed finds a model of the project.
func modelNamed(p *project.Project, name string) (*project.Model, error) {
	var names []string
	for _, m := range p.Models {
		if m.Name == name {
			return m, nil
		}
		names = append(names, m.Name)
	}
	return nil, failure.New(failure.NotFound, name, "the project has no such model").WithHint("it has %s", strings.Join(names, ", "))
}

// parts is where the rows come from.
func (c *scoreCommand) parts(ctx context.Context, q serving.BatchRequest) ([]serving.BatchPart, error) {
	if (len(c.Batch) > 0) == (c.Source != "") {
		return nil, failure.New(failure.BadRequest, "rows", "one of --batch and --source says where they come from")
	}
	if c.Source == "" {
		files, err := serving.RowFiles(c.Batch)
		if err != nil {
			return nil, err
		}
		return serving.BatchFiles(ctx, q.Model, files, c.Out, c.Format, c.TempDir)
	}
	if c.Source != q.Model.On.Name {
		return nil, failure.New(failure.BadRequest, "--source", "%s is asked about %s, not about %s", q.Model.Name, q.Model.On.Name, c.Source)
	}
	return serving.BatchEvents(q.OfflineDir, q.Model, millis(c.From), millis(c.Until), c.Out, c.Format, c.TempDir)
}

func printScored(out io.Writer, report *serving.BatchReport, took time.Duration) {
	for _, p := range report.Parts {
		before := ""
		if p.Before {
			before = ", finished before"
		}
		fmt.Fprintf(out, "%s: %d rows, %d without a score, %s%s\n", p.Out, p.Rows, p.Refused, p.Digest, before)
	}
	fmt.Fprintf(out, "%s@%d: %d rows, %d without a score, in %s\n", report.Model, report.Version, report.Rows, report.Refused, took.Round(time.Millisecond))
}
