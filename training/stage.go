package training

import (
	"context"
	"fmt"
	"log/slog"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/sync/errgroup"

	"github.com/millrace/millrace/internal/clock"
	"github.com/millrace/millrace/internal/failure"
	"github.com/millrace/millrace/project"
	"github.com/millrace/millrace/registry"
	"github.com/millrace/millrace/schemas"
	"github.com/millrace/millrace/streams"
)

// Deps is what the stage works with.
type Deps struct {
	Project    *project.Project
	Kafka      streams.Config // without brokers nothing is published, and Run is refused
	OfflineDir string         // the folder of the offline log that ingest writes
	Registry   *registry.Registry
	Clock      clock.Clock
	Log        *slog.Logger
	Registerer prometheus.Registerer
	Progress   Progress // may be nil
}

// Stage makes models.
type Stage struct {
	cfg        Config
	project    *project.Project
	kafka      streams.Config
	offlineDir string
	registry   *registry.Registry
	clock      clock.Clock
	log        *slog.Logger
	metrics    *metrics
	fitters    map[string]fitter // by candidate
	producer   *kgo.Client       // nil without brokers
	busy       chan struct{}     // holds one token: one run at a time in a process

	telling sync.Mutex
	tell    Progress
}

// New makes the stage. Close it when it is no longer needed.
func New(cfg Config, d Deps) (*Stage, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	s := &Stage{
		cfg: cfg, project: d.Project, kafka: d.Kafka, offlineDir: d.OfflineDir, registry: d.Registry, clock: d.Clock,
		fitters: fitters(),
		log:     d.Log, metrics: newMetrics(d.Registerer), busy: make(chan struct{}, 1), tell: d.Progress,
	}
	if len(d.Kafka.Brokers) > 0 {
		var err error
		if s.producer, err = streams.NewClient(d.Kafka); err != nil {
			return nil, fmt.Errorf("making the producer: %w", err)
		}
	}
	return s, nil
}

// Close gives up the connections.
func (s *Stage) Close() {
	if s.producer != nil {
		s.producer.Close()
	}
}

// Run answers retrain requests, keeps schedules and makes first models until ctx ends. Its error is nil then.
func (s *Stage) Run(ctx context.Context) error {
	if s.producer == nil {
		return failure.New(failure.BadProject, "training", "there are no brokers to take retrain requests from")
	}
	own := s.project.Own()
	if err := streams.EnsureTopics(ctx, s.producer, []schemas.Topic{own.Retrain, own.Models, own.DeadLetters}); err != nil {
		return fmt.Errorf("ensuring topics: %w", err)
	}
	if err := s.publishKept(ctx); err != nil {
		return fmt.Errorf("publishing kept outcomes: %w", err)
	}
	g, inner := errgroup.WithContext(ctx)
	g.Go(func() error { return s.answerRequests(inner) })
	if !s.cfg.IgnoreFirst {
		g.Go(func() error { return s.repeat(inner, s.makeFirsts) })
	}
	g.Go(func() error { return s.repeat(inner, s.scheduleKeeper()) })
	if err := g.Wait(); err != nil && ctx.Err() == nil {
		return err
	}
	return nil
}

// TrainOnce makes a model of the data before until (event time, Unix milliseconds; 0 for all that there is), promotes it
// when it passes the gates, and publishes the outcome where there is a Kafka to publish to. It works beside Run and
// without it.
func (s *Stage) TrainOnce(ctx context.Context, model string, until int64, reason string) (schemas.ModelEvent, error) {
	q := Request{Run: fmt.Sprintf("manual/%d", s.clock().UnixNano()), Model: model, Until: until, Reason: reason}
	event, err := s.train(ctx, q)
	if err != nil {
		return event, err
	}
	return event, s.publish(ctx, q.Run, event)
}

// train is Train, measured.
func (s *Stage) train(ctx context.Context, q Request) (schemas.ModelEvent, error) {
	start := s.clock()
	event, err := s.Train(ctx, q)
	s.metrics.ran(q.Model, event, err, s.clock().Sub(start))
	return event, err
}

// enter waits for its turn: a run uses all processors and much memory.
func (s *Stage) enter(ctx context.Context) (release func(), err error) {
	select {
	case s.busy <- struct{}{}:
		return func() { <-s.busy }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (s *Stage) progress(stage string, done, total int64) {
	if s.tell == nil {
		return
	}
	s.telling.Lock()
	defer s.telling.Unlock()
	s.tell(stage, done, total)
}
