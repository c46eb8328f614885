package enrich

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/millrace/millrace/features"
	"github.com/millrace/millrace/internal/clock"
	"github.com/millrace/millrace/internal/failure"
	"github.com/millrace/millrace/project"
	"github.com/millrace/millrace/streams"
)

// Deps is what tables are loaded with.
type Deps struct {
	Project    *project.Project
	Kafka      streams.Config
	Getenv     func(string) string // for the connection URLs of queries
	Clock      clock.Clock
	Log        *slog.Logger
	Registerer prometheus.Registerer
}

// Loader loads a project's tables and keeps them up to date.
type Loader struct {
	deps   Deps
	tables project.Tables
	follow []func(context.Context) error // what keeps each table up to date

	mu     sync.Mutex
	loaded map[string]time.Time
}

// New is the loader of a project's tables, which are empty before Load.
func New(deps Deps) (*Loader, error) {
	l := &Loader{deps: deps, tables: project.Tables{}, loaded: map[string]time.Time{}}
	for _, t := range deps.Project.Tables {
		l.tables[t.Name] = features.NewTable(t.Name, t.MaxRows)
	}
	if len(l.tables) == 0 {
		return l, nil
	}
	if err := deps.Registerer.Register(l); err != nil {
		return nil, failure.Wrap(failure.Internal, "metrics", "registering", err)
	}
	return l, nil
}

// Tables are what the stages look up in.
func (l *Loader) Tables() project.Tables { return l.tables }

// Load loads every table once. Its error is that of the first that cannot be: Unavailable where it may pass.
func (l *Loader) Load(ctx context.Context) error {
	l.follow = nil
	for _, t := range l.deps.Project.Tables {
		follow, err := l.load(ctx, t)
		if err != nil {
			return fmt.Errorf("loading table %s: %w", t.Name, err)
		}
		l.follow = append(l.follow, follow)
	}
	return nil
}

// Run keeps the loaded tables up to date until ctx ends; nil then. Its error is that of a table which has outgrown its limit.
func (l *Loader) Run(ctx context.Context) error {
	all, ctx := errgroup.WithContext(ctx)
	for _, follow := range l.follow {
		all.Go(func() error { return follow(ctx) })
	}
	return all.Wait()
}

func (l *Loader) load(ctx context.Context, t *project.Table) (follow func(context.Context) error, err error) {
	switch {
	case t.Topic != "":
		return l.loadTopic(ctx, t)
	case t.Query != "":
		return l.loadEvery(ctx, t, func(ctx context.Context, into *features.Table) error { return l.query(ctx, t, into) })
	default:
		f := &file{table: t, dir: l.deps.Project.Dir}
		return l.loadEvery(ctx, t, f.read)
	}
}

// errSame says that there is nothing new.
var errSame = errors.New("the table is as it was")

// loadEvery fills a table at once, and again every so often.
func (l *Loader) loadEvery(ctx context.Context, t *project.Table, read func(context.Context, *features.Table) error) (func(context.Context) error, error) {
	once := func(ctx context.Context) error {
		fresh := features.NewTable(t.Name, t.MaxRows)
		if err := read(ctx, fresh); errors.Is(err, errSame) {
			l.upToDate(t)
			return nil
		} else if err != nil {
			return err
		}
		l.tables[t.Name].Become(fresh)
		l.upToDate(t)
		return nil
	}
	if err := once(ctx); err != nil {
		return nil, err
	}
	return func(ctx context.Context) error {
		tick := time.NewTicker(t.Every)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return nil
			case <-tick.C:
			}
			err := once(ctx)
			if err != nil && failure.Of(err) == failure.Refused {
				return err
			}
			if err != nil && ctx.Err() == nil {
				l.deps.Log.Warn("a table stays as it was", "table", t.Name, "error", err)
			}
		}
	}, nil
}

func (l *Loader) upToDate(t *project.Table) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.loaded[t.Name] = l.deps.Clock()
}

var (
	rowsDesc = prometheus.NewDesc("millrace_table_rows", "Rows of a table, all versions of all keys.", []string{"table"}, nil)
	ageDesc  = prometheus.NewDesc("millrace_table_age_seconds", "Time since a table was last found up to date.", []string{"table"}, nil)
)

// Describe makes the loader a prometheus.Collector.
func (l *Loader) Describe(to chan<- *prometheus.Desc) {
	to <- rowsDesc
	to <- ageDesc
}

// Collect gives the rows and the age of each table.
func (l *Loader) Collect(to chan<- prometheus.Metric) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for name, at := range l.loaded {
		to <- prometheus.MustNewConstMetric(rowsDesc, prometheus.GaugeValue, float64(l.tables[name].Len()), name)
		to <- prometheus.MustNewConstMetric(ageDesc, prometheus.GaugeValue, l.deps.Clock().Sub(at).Seconds(), name)
	}
}
