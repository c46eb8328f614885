package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/millrace/millrace/features/dataset"
	"github.com/millrace/millrace/features/pit"
	"github.com/millrace/millrace/internal/clock"
	"github.com/millrace/millrace/internal/duration"
	"github.com/millrace/millrace/internal/failure"
)

// datasetCommand makes a training set.
type datasetCommand struct {
	folder  `embed:""`
	DataDir string `help:"Folder of the offline files (default: .millrace in the project)." env:"MILLRACE_DATA_DIR" type:"path" placeholder:"DIR"`

	Spine    string    `group:"Rows" help:"File with the rows: Parquet, Arrow (Feather) or CSV with a header." type:"path" placeholder:"FILE"`
	Query    string    `group:"Rows" help:"SQL query that gives the rows, or @FILE with it; runs where --postgres says." placeholder:"SQL"`
	Postgres string    `group:"Rows" help:"PostgreSQL to run --query on: a URL or connection string." env:"MILLRACE_POSTGRES" placeholder:"URL"`
	Source   string    `group:"Rows" help:"Source of the project whose offline events are the rows." placeholder:"NAME"`
	From     time.Time `group:"Rows" help:"With --source: first event time, RFC 3339."`
	Until    time.Time `group:"Rows" help:"With --source: event time to stop before, RFC 3339."`
	Time     string    `group:"Rows" help:"Column of the rows' times: features are as they were known just before it." placeholder:"COLUMN"`

	Features []string          `group:"Features" help:"group.feature or group.*; NAME=group.* names a group that is read by other columns. Default: all." placeholder:"NAMES"`
	Entity   map[string]string `group:"Features" help:"Column of the rows that names an entity, where it is not called so: airport=origin, or GROUP.airport=origin." placeholder:"ENTITY=COLUMN"`
	Events   map[string]string `group:"Features" help:"File to read a source's events from instead of the offline log; columns are called as in its schema." placeholder:"SOURCE=FILE"`
	Known    map[string]string `group:"Features" help:"When a source's events became known: a span after their event time, or a time column of the source's schema. Default: at their event time." placeholder:"SOURCE=SPAN|COLUMN"`
	Status   bool              `group:"Features" help:"Add a column GROUP.status: present, not_found or expired."`

	Out         string `required:"" group:"Output" help:"File to write, .parquet or .arrow; FILE.manifest.json says what it was made of." type:"path" placeholder:"FILE"`
	StateMemory int64  `group:"Output" default:"512" help:"MiB for the states of entities; what does not fit goes to temporary files." placeholder:"MIB"`
	RowMemory   int64  `group:"Output" default:"256" help:"MiB for the times and entities of rows; what does not fit goes to temporary files." placeholder:"MIB"`
	TempDir     string `group:"Output" help:"Folder for temporary files (default: the system's)." type:"path" placeholder:"DIR"`
}

func (c *datasetCommand) Run(ctx context.Context, env *environment) error {
	q, err := c.request()
	if err != nil {
		return err
	}
	bar := newBar(env.err, clock.System)
	started := time.Now()
	m, err := dataset.Make(ctx, q, bar.show)
	bar.clear()
	if err != nil {
		return err
	}
	fmt.Fprintf(env.out, "%s: %d rows, %d features, %d bytes, %s in %s\n", m.Output.File, m.Output.Rows, len(m.Output.Column), m.Output.Bytes,
		m.Output.Digest, time.Since(started).Round(time.Millisecond))
	for _, g := range m.Groups {
		if g.Without > 0 {
			fmt.Fprintf(env.err, "%d rows name no entity of %s (%s is null, empty, or cannot name one): its features are null there\n", g.Without, g.Name, strings.Join(g.Columns, ", "))
		}
	}
	return nil
}

// request is the flags, checked.
func (c *datasetCommand) request() (dataset.Request, error) {
	p, err := c.load()
	if err != nil {
		return dataset.Request{}, err
	}
	dir := dataDir(p, c.DataDir)
	kinds := 0
	for _, given := range []string{c.Spine, c.Query, c.Source} {
		if given != "" {
			kinds++
		}
	}
	if kinds != 1 {
		return dataset.Request{}, failure.New(failure.BadRequest, "rows", "one of --spine, --query and --source says where they come from")
	}
	if c.Query != "" && c.Postgres == "" {
		return dataset.Request{}, failure.New(failure.BadRequest, "--query", "there is no --postgres to run it on")
	}
	if file, ok := strings.CutPrefix(c.Query, "@"); ok {
		text, err := os.ReadFile(file)
		if err != nil {
			return dataset.Request{}, failure.Wrap(failure.NotFound, file, "reading the query", err)
		}
		c.Query = string(text)
	}
	known := map[string]dataset.Known{}
	for source, text := range c.Known {
		if text != "" && text[0] >= '0' && text[0] <= '9' {
			after, err := duration.Parse(text)
			if err != nil {
				return dataset.Request{}, failure.Wrap(failure.BadRequest, "--known", "reading when "+source+" is known", err)
			}
			known[source] = dataset.Known{After: after}
		} else {
			known[source] = dataset.Known{Column: text}
		}
	}
	limits := pit.Default()
	limits.MaxStateBytes, limits.MaxRowBytes, limits.TempDir = c.StateMemory<<20, c.RowMemory<<20, c.TempDir
	return dataset.Request{
		Project: p, OfflineDir: filepath.Join(dir, "offline"),
		Spine: dataset.Spine{
			File: c.Spine, Query: c.Query, Postgres: c.Postgres, Source: c.Source, From: millis(c.From), Until: millis(c.Until), Time: c.Time,
		},
		Features: c.Features, Entities: c.Entity, Events: c.Events, Known: known, Status: c.Status, Out: c.Out, Limits: limits, Code: version(),
	}, nil
}
