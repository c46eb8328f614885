package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	goruntime "runtime"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"golang.org/x/sync/errgroup"

	"github.com/millrace/millrace/bundle"
	"github.com/millrace/millrace/internal/clock"
	"github.com/millrace/millrace/internal/failure"
	"github.com/millrace/millrace/serving"
)

// bundleCommand makes a folder that scores without servers.
type bundleCommand struct {
	stored  `embed:""`
	Version string `arg:"" help:"MODEL@N, MODEL@ALIAS, or MODEL for the champion."`
	Out     string `required:"" help:"Folder, or FILE.tar.gz, to make." type:"path" placeholder:"DIR|FILE"`
	OS      string `name:"os" help:"System that it is for: linux or darwin (default: this one's)." enum:",linux,darwin" default:"" placeholder:"NAME"`
	Arch    string `help:"Processor that it is for: amd64 or arm64 (default: this one's)." enum:",amd64,arm64" default:"" placeholder:"NAME"`
	Binary  string `help:"Program to put into it (default: this one, or one built in a checkout)." type:"path" placeholder:"FILE"`
}

func (c *bundleCommand) Run(ctx context.Context, env *environment) error {
	named, err := c.version(c.Version)
	if err != nil {
		return err
	}
	p, r, v, model := named.project, named.registry, named.reference, named.model
	temp, err := os.MkdirTemp("", "millrace-bundle-")
	if err != nil {
		return failure.Wrap(failure.Unavailable, "", "making a temporary folder", err)
	}
	defer os.RemoveAll(temp)
	program, err := c.program(ctx, temp)
	if err != nil {
		return err
	}
	q := bundle.Request{Project: p, Model: model, Version: v, Registry: r, Program: program, Check: func(b *bundle.Bundle) error {
		_, err := bundleStage(ctx, env, b, prometheus.NewRegistry())
		return err
	}}
	m, err := c.write(ctx, q, temp)
	if err != nil {
		return err
	}
	if !m.Program.Static {
		fmt.Fprintf(env.err, "%s needs the C library of a machine like this one; make build makes one that does not\n", program)
	}
	fmt.Fprintf(env.out, "%s: %s %s, for %s/%s\n", c.Out, v, v.Digest, m.Program.OS, m.Program.Arch)
	return nil
}

// program finds a binary for the machine that the bundle is for.
func (c *bundleCommand) program(ctx context.Context, temp string) (string, error) {
	goos, goarch := cmp.Or(c.OS, goruntime.GOOS), cmp.Or(c.Arch, goruntime.GOARCH)
	if c.Binary == "" {
		return bundle.Find(ctx, goos, goarch, temp)
	}
	p, err := bundle.Inspect(c.Binary)
	if err != nil {
		return "", err
	}
	if p.OS != goos || p.Arch != goarch {
		return "", failure.New(failure.BadRequest, c.Binary, "is for %s/%s, not for %s/%s", p.OS, p.Arch, goos, goarch).WithHint("say --os %s --arch %s, or name another --binary", p.OS, p.Arch)
	}
	return c.Binary, nil
}

func (c *bundleCommand) write(ctx context.Context, q bundle.Request, temp string) (bundle.Manifest, error) {
	name, archived := strings.CutSuffix(c.Out, ".tar.gz")
	if !archived {
		return bundle.Write(ctx, q, c.Out)
	}
	dir := filepath.Join(temp, "bundle")
	m, err := bundle.Write(ctx, q, dir)
	if err != nil {
		return m, err
	}
	return m, writeWhole(c.Out, func(w io.Writer) error { return bundle.Archive(dir, filepath.Base(name), w) })
}

// bundleStage is the serving stage of a bundle, its model loaded and its golden rows reproduced.
func bundleStage(ctx context.Context, env *environment, b *bundle.Bundle, r prometheus.Registerer) (*serving.Stage, error) {
	s, err := serving.New(serving.Default(), serving.Deps{Project: b.Project, Registry: b.Registry, Clock: clock.System, Log: env.log, Registerer: r})
	if err != nil {
		return nil, err
	}
	return s, s.Load(ctx)
}

// scoreBundle scores JSON lines from in.
func (c *scoreCommand) scoreBundle(ctx context.Context, env *environment) error {
	if c.Model != "" || c.Out != "" || len(c.Batch) > 0 || c.Source != "" {
		return failure.New(failure.BadRequest, "--bundle", "a bundle scores the lines that it is given, with the model that it has").
			WithHint("millrace score --bundle DIR < rows.jsonl > answers.jsonl")
	}
	b, err := bundle.Open(c.Bundle)
	if err != nil {
		return err
	}
	s, err := bundleStage(ctx, env, b, prometheus.NewRegistry())
	if err != nil {
		return err
	}
	done, err := s.ScoreLines(ctx, b.Model, env.in, env.out)
	if err != nil {
		return err
	}
	fmt.Fprintf(env.err, "%s@%d: %d rows, %d without a score\n", b.Model, b.Version, done.Rows, done.Refused+done.Unread)
	if done.Unread > 0 {
		return failure.New(failure.BadRequest, "rows", "%d of %d lines are no rows of %s", done.Unread, done.Rows, b.Project.Models[0].On.Name).
			WithHint("each has a problem where its answer would be")
	}
	return nil
}

// serveBundle answers scores until ctx ends, without servers.
func (c *serveCommand) serveBundle(ctx context.Context, env *environment) error {
	if len(c.Kafka)+len(c.Redis) > 0 || c.Project != "" || c.DataDir != "" {
		return failure.New(failure.BadRequest, "--bundle", "a bundle is served without servers, with its own project").
			WithHint("leave out --kafka, --redis, --project and --data-dir, and the variables of the environment that stand for them")
	}
	b, err := bundle.Open(c.Bundle)
	if err != nil {
		return err
	}
	rt := &runtime{project: b.Project, registry: b.Registry, dataDir: c.Bundle, log: env.log, metrics: prometheus.NewRegistry(), mux: http.NewServeMux()}
	defer rt.close()
	rt.registerer = rt.metrics
	rt.metrics.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	s, err := bundleStage(ctx, env, b, rt.registerer)
	if err != nil {
		return err
	}
	if err := c.openEdge(ctx, rt); err != nil {
		return err
	}
	if err := c.listen(ctx, rt); err != nil {
		return err
	}
	if err := c.listenGRPC(ctx, rt); err != nil {
		return err
	}
	rt.mux.Handle("/", s.Handler())
	run, err := rt.withFaces(s)
	if err != nil {
		return err
	}
	rt.mux.Handle("GET /metrics", promhttp.HandlerFor(rt.metrics, promhttp.HandlerOpts{}))
	fmt.Fprintf(env.out, "serve: bundle %s, %s@%d, endpoint %s\n", c.Bundle, b.Model, b.Version, rt.endpoint())
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return run(ctx) })
	g.Go(func() error { return rt.serveHTTP(ctx) })
	return g.Wait()
}
