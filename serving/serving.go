package serving

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"
	"golang.org/x/sync/errgroup"

	"github.com/millrace/millrace/internal/clock"
	"github.com/millrace/millrace/internal/failure"
	"github.com/millrace/millrace/project"
	"github.com/millrace/millrace/registry"
	"github.com/millrace/millrace/schemas"
	"github.com/millrace/millrace/streams"
)

// Deps is what the stage works with. None may be nil except where it says so.
type Deps struct {
	Project    *project.Project
	Registry   *registry.Registry
	Redis      redis.UniversalClient // nil where there is none: no feature is read, rows override the inputs that would be
	Tables     project.Tables        // what rows are looked up in, loaded; nil in a project without tables
	Kafka      streams.Config        // without brokers the stage answers HTTP only, logs no answer and looks for models in the registry alone
	Clock      clock.Clock
	Log        *slog.Logger
	Registerer prometheus.Registerer
}

// Stage is the serving role: the HTTP API and, for every model, a scorer of the topic it is on.
type Stage struct {
	cfg          Config
	deps         Deps
	metrics      *metrics
	fetch        *fetcher
	admitted     *admission
	models       map[string]*deployment
	catalog      *catalog
	groups       map[string]*project.Group
	readers      map[string][]string // of a group: the models that it is an input of
	log          *predictionLog
	topic        string    // of predictions
	buffers      sync.Pool // of *[]byte, in which answers are written
	recent       *recent
	shadows      *shadows
	events       chan schemas.ModelEvent // of withdrawn challengers, for the models topic
	handler      http.Handler
	routeMetrics map[string]*routeMetrics // of the routes below a model
	requests     atomic.Uint64            // numbers the HTTP answers
	newest       atomic.Int64             // newest event time seen in any position: now, under clock: event
}

// New compiles the fill plans of the project's models. Nothing is connected, and no model is loaded, before Run.
func New(cfg Config, deps Deps) (*Stage, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if cfg.Instance == "" {
		var b [6]byte
		rand.Read(b[:]) // never fails (crypto/rand)
		cfg.Instance = hex.EncodeToString(b[:])
	}
	s := &Stage{
		cfg: cfg, deps: deps, metrics: newMetrics(deps.Registerer), recent: newRecent(cfg.Recent),
		models: map[string]*deployment{}, groups: map[string]*project.Group{}, readers: map[string][]string{},
	}
	for _, g := range deps.Project.Groups {
		s.groups[g.Name] = g
	}
	for _, m := range deps.Project.Models {
		for _, in := range m.Inputs {
			if in.Group != nil && !slices.Contains(s.readers[in.Group.Name], m.Name) {
				s.readers[in.Group.Name] = append(s.readers[in.Group.Name], m.Name)
			}
		}
	}
	s.admitted = newAdmission(cfg, s.metrics)
	s.catalog = newCatalog(deps.Redis, deps.Project, cfg.Lease)
	s.fetch = newFetcher(s.catalog, cfg, deps.Clock, s.metrics, deps.Project)
	for _, m := range deps.Project.Models {
		plan, err := compilePlan(m, deps.Project.Groups, nil)
		if err != nil {
			return nil, fmt.Errorf("planning model %s: %w", m.Name, err)
		}
		plan.catalog = s.catalog
		s.models[m.Name] = newDeployment(m, plan, s.catalog, deps.Registry, cfg.WarmUp, deps.Clock, deps.Log, s.metrics)
		s.models[m.Name].reader.tables = deps.Tables
	}
	s.buffers.New = func() any { return new([]byte) }
	s.shadows, s.events = newShadows(cfg.ShadowQueue, s.metrics), make(chan schemas.ModelEvent, eventQueue)
	for _, d := range s.models {
		d.tell = s.tell
	}
	s.topic = deps.Project.Own().Predictions.Name
	s.log = newPredictionLog(cfg.LogQueue, s.metrics)
	s.routeMetrics = map[string]*routeMetrics{}
	for _, route := range []string{"score", "model", "prediction", "other"} {
		s.routeMetrics[route] = s.metrics.measure(route)
	}
	s.handler = s.routes()
	return s, nil
}

// Handler is the HTTP API. It may be served before and after Run; until Run has loaded a champion it says that there is none.
func (s *Stage) Handler() http.Handler { return s.handler }

// Ready is nil when every model has a champion whose golden rows reproduce. Otherwise it says which has none, and why.
func (s *Stage) Ready() error {
	for _, m := range s.deps.Project.Models {
		d := s.models[m.Name]
		if d.live.Load().champion == nil {
			e := failure.New(failure.Unavailable, m.Name, "the model has no champion that can be served")
			if fault := d.faultText(); fault != "" {
				return e.WithHint("%s", fault)
			}
			return e.WithHint("it goes live when training promotes one")
		}
	}
	return nil
}

// Load loads every model's champion and reproduces its golden rows, or says why the first that cannot be served cannot. Run looks by
// itself; Load is for who must not begin without.
func (s *Stage) Load(ctx context.Context) error {
	for _, m := range s.deps.Project.Models {
		if err := s.models[m.Name].look(ctx); err != nil {
			return fmt.Errorf("loading %s: %w", m.Name, err)
		}
	}
	return s.Ready()
}

// Run follows the registry, writes the prediction log and scores the topics until ctx ends; nil then.
func (s *Stage) Run(ctx context.Context) error {
	parts := []func(context.Context) error{s.lookRegularly, s.runShadows}
	if s.deps.Redis != nil {
		parts = append(parts, s.followVersions, s.fetch.probe)
		s.lookAtVersions(ctx)
	}
	if len(s.deps.Kafka.Brokers) > 0 {
		parts = append(parts, s.followTopic, s.writeLog, s.publishEvents)
		for _, m := range s.deps.Project.Models {
			scorer, err := newStreamScorer(s, s.models[m.Name])
			if err != nil {
				return fmt.Errorf("making the stream scorer of %s: %w", m.Name, err)
			}
			parts = append(parts, scorer.run)
		}
	}
	s.lookAll(ctx)
	g, ctx := errgroup.WithContext(ctx)
	for _, run := range parts {
		g.Go(func() error { return run(ctx) })
	}
	return g.Wait()
}

// sleep waits for d or the end of ctx; it tells whether ctx still goes on.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
