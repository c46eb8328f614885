package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/sync/errgroup"

	"github.com/millrace/millrace/console"
	"github.com/millrace/millrace/enrich"
	"github.com/millrace/millrace/internal/clock"
	"github.com/millrace/millrace/internal/failure"
	"github.com/millrace/millrace/monitor"
	"github.com/millrace/millrace/serving"
	"github.com/millrace/millrace/streams/ingest"
)

// role is a stage that can run alone or beside the others.
type role string

const (
	roleStream  role = "stream"
	roleServe   role = "serve"
	roleMonitor role = "monitor"
	roleTrain   role = "train"
	roleBatch   role = "batch"
	roleConsole role = "console"
)

// allRoles in the order in which they are started: who reads comes after who writes.
var allRoles = []role{roleStream, roleTrain, roleServe, roleBatch, roleMonitor, roleConsole}

// upCommand is all roles in one process.
type upCommand struct {
	servers          `embed:""`
	faceFlags        `embed:""`
	edgeFlags        `embed:""`
	consistencyFlags `embed:""`
}

func (c *upCommand) Run(ctx context.Context, env *environment) error {
	return c.runRoles(ctx, env, opening{kafka: true, redis: true, embed: true, consistency: c.config(), faces: c.faceFlags, edge: c.edgeFlags}, "up", allRoles)
}

type streamCommand struct {
	servers   `embed:""`
	edgeFlags `embed:""`
}

func (c *streamCommand) Run(ctx context.Context, env *environment) error {
	go boundMemory(ctx)
	return c.runRoles(ctx, env, opening{kafka: true, redis: true, edge: c.edgeFlags}, "stream", []role{roleStream})
}

type serveCommand struct {
	servers   `embed:""`
	faceFlags `embed:""`
	edgeFlags `embed:""`
	Bundle    string `help:"Folder that millrace bundle made: serve its model, with neither Kafka nor Redis." type:"path" placeholder:"DIR"`
}

func (c *serveCommand) Run(ctx context.Context, env *environment) error {
	collectAt(serveGCPercent)
	if c.Bundle != "" {
		return c.serveBundle(ctx, env)
	}
	return c.runRoles(ctx, env, opening{kafka: true, redis: true, faces: c.faceFlags, edge: c.edgeFlags}, "serve", []role{roleServe})
}

type monitorCommand struct {
	servers          `embed:""`
	edgeFlags        `embed:""`
	consistencyFlags `embed:""`
}

func (c *monitorCommand) Run(ctx context.Context, env *environment) error {
	return c.runRoles(ctx, env, opening{kafka: true, redis: true, consistency: c.config(), edge: c.edgeFlags}, "monitor", []role{roleMonitor})
}

type consoleCommand struct {
	servers   `embed:""`
	edgeFlags `embed:""`
}

func (c *consoleCommand) Run(ctx context.Context, env *environment) error {
	return c.runRoles(ctx, env, opening{kafka: true, redis: true, edge: c.edgeFlags}, "console", []role{roleConsole})
}

// runRoles is a role command from the flags to the end.
func (s servers) runRoles(ctx context.Context, env *environment, need opening, name string, roles []role) error {
	rt, err := s.open(ctx, env, need)
	if err != nil {
		return err
	}
	defer rt.close()
	if err := need.edge.openEdge(ctx, rt); err != nil {
		return err
	}
	if err := s.listen(ctx, rt); err != nil {
		return err
	}
	if err := need.faces.listenGRPC(ctx, rt); err != nil {
		return err
	}
	rt.announce(env, name)
	return rt.run(ctx, roles)
}

// run creates the topics and runs roles until ctx ends or one of them fails.
func (rt *runtime) run(ctx context.Context, roles []role) error {
	if rt.withKafka() {
		if err := rt.ensureTopics(ctx); err != nil {
			if ctx.Err() != nil { // told to stop before it had begun
				return nil
			}
			return err
		}
	}
	stages, ctx := errgroup.WithContext(ctx)
	if slices.Contains(roles, roleStream) || slices.Contains(roles, roleServe) {
		follow, err := rt.loadTables(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		stages.Go(func() error { return follow(ctx) })
	}
	for _, r := range roles {
		run, err := rt.stage(r)
		if err != nil {
			return fmt.Errorf("starting %s: %w", r, err)
		}
		stages.Go(func() error {
			if err := run(ctx); err != nil && ctx.Err() == nil {
				return fmt.Errorf("%s: %w", r, err)
			}
			return nil
		})
	}
	rt.mux.Handle("GET /metrics", promhttp.HandlerFor(rt.metrics, promhttp.HandlerOpts{}))
	stages.Go(func() error { return rt.serveHTTP(ctx) })
	return stages.Wait()
}

// loadTables loads what events are looked up in, and gives what keeps it up to date. It waits for what does not answer yet.
func (rt *runtime) loadTables(ctx context.Context) (follow func(context.Context) error, err error) {
	const wait = time.Second
	loader, err := enrich.New(enrich.Deps{
		Project: rt.project, Kafka: rt.kafka, Getenv: os.Getenv, Clock: clock.System, Log: rt.log, Registerer: rt.registerer,
	})
	if err != nil {
		return nil, err
	}
	for {
		err := loader.Load(ctx)
		if err == nil || !failure.Of(err).Retry() || ctx.Err() != nil {
			rt.tables = loader.Tables()
			return loader.Run, err
		}
		rt.log.Warn("waiting for tables", "error", err)
		select {
		case <-ctx.Done():
		case <-time.After(wait):
		}
	}
}

// stage makes a role and puts what it answers on the endpoint.
func (rt *runtime) stage(r role) (run func(context.Context) error, err error) {
	log := rt.log.With("role", string(r))
	switch r {
	case roleStream:
		s, err := rt.ingest(ingest.Default())
		if err != nil {
			return nil, err
		}
		return s.Run, nil
	case roleServe:
		s, err := serving.New(serving.Default(), serving.Deps{
			Project: rt.project, Kafka: rt.kafka, Redis: rt.redis, Registry: rt.registry, Tables: rt.tables,
			Clock: clock.System, Log: log, Registerer: rt.registerer,
		})
		if err != nil {
			return nil, err
		}
		rt.mux.Handle("/", s.Handler())
		return rt.withFaces(s)
	case roleMonitor:
		s, err := monitor.New(monitor.Default(), monitor.Deps{
			Project: rt.project, Kafka: rt.kafka, Baselines: monitor.RegistryBaselines{Registry: rt.registry},
			Clock: clock.System, Log: log, Registerer: rt.registerer,
		})
		if err != nil {
			return nil, err
		}
		return rt.withConsistency(s.Run, log)
	case roleTrain:
		s, err := rt.training(log)
		if err != nil {
			return nil, err
		}
		return s.Run, nil
	case roleBatch:
		s, err := rt.batches(log, nil)
		if err != nil {
			return nil, err
		}
		return s.Run, nil
	default:
		c, err := console.New(console.Default(), console.Deps{
			Project: rt.project, Registry: rt.registry, Clock: clock.System, Log: log,
			NewClient: func(ctx context.Context, opts ...kgo.Opt) (*kgo.Client, error) { return rt.kafkaClient(ctx, opts...) },
		})
		if err != nil {
			return nil, err
		}
		rt.mux.Handle("/console/", c.Handler())
		rt.mux.Handle("/console", c.Handler())
		return c.Run, nil
	}
}

// shutdownTimeout is how long requests under way are given at the end.
const shutdownTimeout = 5 * time.Second

// serveHTTP serves the endpoint until ctx ends.
func (rt *runtime) serveHTTP(ctx context.Context) error {
	server := newServer(ctx, rt.guarded())
	servers, serve := []*http.Server{server}, []func() error{func() error { return rt.edge.serveOn(server, rt.listener) }}
	if rt.edge.health != nil {
		health := newServer(ctx, rt.healthOnly())
		servers, serve = append(servers, health), append(serve, func() error { return health.Serve(rt.edge.health) })
	}
	g, ctx := errgroup.WithContext(ctx)
	for i, server := range servers {
		g.Go(func() error { return serveUntil(ctx, server, serve[i]) })
	}
	return g.Wait()
}

// serveUntil serves until ctx ends, and then, for at most shutdownTimeout, what is under way.
func serveUntil(ctx context.Context, server *http.Server, serve func() error) error {
	stopped := make(chan error, 1)
	go func() {
		<-ctx.Done()
		limited, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownTimeout)
		defer cancel()
		stopped <- server.Shutdown(limited)
	}()
	if err := serve(); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return <-stopped
}
