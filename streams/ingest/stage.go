package ingest

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/sync/errgroup"

	"github.com/millrace/millrace/features/offline"
	"github.com/millrace/millrace/features/online"
	"github.com/millrace/millrace/internal/failure"
	"github.com/millrace/millrace/project"
	"github.com/millrace/millrace/schemas"
	"github.com/millrace/millrace/streams"
)

// Stage is the stream role.
type Stage struct {
	cfg     Config
	deps    Deps
	log     *slog.Logger
	metrics *metrics
	sources []*source
	groups  []*group

	producer *kgo.Client // while running
	letters  *streams.DeadLetters
	members  []*streams.Consumer

	mu      sync.Mutex
	running map[*progress]struct{}

	// Tests only.
	crash  func(step string) error // an error ends everything where it is called, as if the process had died there
	suffix string                  // of the consumer groups: a stage that Kafka does not know to be the same
}

// source is a source with what all its partitions share.
type source struct {
	*project.Source
	decoder schemas.Decoder
	events  *offline.Table // nil: not kept
	keyed   []*group       // that need its records re-keyed
	direct  []*group       // that its records are keyed for already
	pace    *pace
}

// group is a feature group with what all its partitions share.
type group struct {
	*project.Group
	roots      []*source      // whose events it gets: its source, or those that this is merged of
	partitions int32          // of the topic it reads
	rows       *offline.Table // nil: not kept
	expiry     time.Duration  // of its states in Redis
}

// New checks the configuration. Nothing is connected before Run.
func New(cfg Config, deps Deps) (*Stage, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if err := deps.Kafka.Validate(); err != nil {
		return nil, err
	}
	registry, err := streams.NewRegistry(deps.Kafka)
	if err != nil {
		return nil, err
	}
	s := &Stage{cfg: cfg, deps: deps, log: deps.Log.With("stage", "ingest"), running: map[*progress]struct{}{}}
	byName := map[string]*source{}
	for _, declared := range deps.Project.Sources {
		if declared.Merged() {
			continue
		}
		src := &source{Source: declared, pace: newPace(declared.Lateness)}
		if src.decoder, err = schemas.NewDecoder(declared.Schema, declared.Format, registry); err != nil {
			return nil, fmt.Errorf("source %s: %w", declared.Name, err)
		}
		if deps.OfflineDir != "" {
			if src.events, err = offline.EventsTable(deps.OfflineDir, declared.Name, declared.Schema); err != nil {
				return nil, fmt.Errorf("source %s: %w", declared.Name, err)
			}
		}
		byName[declared.Name] = src
		s.sources = append(s.sources, src)
	}
	for _, declared := range deps.Project.Groups {
		g := &group{Group: declared, expiry: expiry(deps.Project, declared)}
		if deps.OfflineDir != "" && !declared.Offline.None {
			if g.rows, err = offline.FeaturesTable(deps.OfflineDir, declared.Group); err != nil {
				return nil, fmt.Errorf("group %s: %w", declared.Name, err)
			}
		}
		for _, root := range declared.Source.Roots() {
			src := byName[root.Name]
			g.roots = append(g.roots, src)
			switch {
			case !g.Direct:
				src.keyed = append(src.keyed, g)
			case deps.Redis != nil:
				src.direct = append(src.direct, g)
			}
		}
		s.groups = append(s.groups, g)
	}
	if s.metrics, err = newMetrics(deps.Registerer); err != nil {
		return nil, failure.Wrap(failure.Internal, "metrics", "registering", err)
	}
	if err := deps.Registerer.Register(s); err != nil {
		return nil, failure.Wrap(failure.Internal, "metrics", "registering", err)
	}
	return s, nil
}

// expiry is how long Redis keeps the state of an entity without events; 0 for ever. A state must outlive everything that can still be read
// from it or added to: an entity that comes back must not depend on whether a worker had it cached. So groups with a lifetime
// output have none. Nor have replayed streams: Redis counts in its own time.
func expiry(p *project.Project, g *project.Group) time.Duration {
	if g.TTL == 0 || p.Clock == project.ClockEvent {
		return 0
	}
	longest := g.TTL
	for _, o := range g.Outputs {
		if o.Window == 0 {
			return 0
		}
		longest = max(longest, o.Window)
	}
	return 2*longest + g.Lateness + g.Source.Lateness
}

// Run computes until ctx ends; nil then. It creates the topics that are missing first, and waits for Kafka and Redis when they do not
// answer yet. When it returns, what was pending is written.
func (s *Stage) Run(ctx context.Context) error {
	producer, err := streams.NewClient(s.deps.Kafka,
		streams.Logger(s.log),
		kgo.ProducerLinger(s.cfg.ProducerLinger),
		kgo.MaxBufferedRecords(1<<30), // each worker keeps to MaxUnacked: a Produce that blocked could not be interrupted
	)
	if err != nil {
		return err
	}
	defer producer.Close()
	s.producer = producer
	s.letters = streams.NewDeadLetters(producer, s.deps.Project.Own().DeadLetters.Name)
	if err := s.prepare(ctx); err != nil || ctx.Err() != nil {
		return err
	}
	if s.members, err = s.consumers(); err != nil {
		return err
	}
	all, ctx := errgroup.WithContext(ctx)
	for _, c := range s.members {
		all.Go(func() error { return c.Run(ctx) })
	}
	return all.Wait()
}

// prepare creates topics and learns partition counts, as soon as Kafka and Redis answer.
func (s *Stage) prepare(ctx context.Context) error {
	for wait := s.cfg.BackoffMin; ; wait = min(2*wait, s.cfg.BackoffMax) {
		err := s.tryPrepare(ctx)
		if err == nil || ctx.Err() != nil {
			return nil
		}
		if !failure.Of(err).Retry() {
			return err
		}
		s.log.Warn("waiting for Kafka and Redis", "error", err)
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait):
		}
	}
}

func (s *Stage) tryPrepare(ctx context.Context) error {
	if err := streams.EnsureTopics(ctx, s.producer, s.deps.Project.Topology()); err != nil {
		return err
	}
	if s.deps.Redis == nil {
		return nil
	}
	for _, g := range s.groups {
		n, err := streams.Partitions(ctx, s.producer, g.KeyedTopic)
		if err != nil && failure.Of(err) == failure.NotFound { // just created: not every broker knows of it yet
			return failure.Wrap(failure.Unavailable, g.KeyedTopic, "waiting for the new topic", err)
		}
		if err != nil {
			return err
		}
		g.partitions = n
		if err := online.Declare(ctx, s.deps.Redis, s.deps.Project.Name, g.Name, g.Version, n); err != nil {
			return err
		}
	}
	return nil
}

func (s *Stage) consumers() ([]*streams.Consumer, error) {
	var all []*streams.Consumer
	add := func(kind, name, membership, topic string, worker func(partition int32) streams.Worker) error {
		c, err := streams.NewConsumer(s.deps.Kafka, s.consumerConfig(kind, name, membership, topic, worker))
		all = append(all, c)
		return err
	}
	for _, src := range s.sources {
		err := add(kindSource, src.Name, SourceGroup(s.deps.Project, src.Source), src.Topic, func(p int32) streams.Worker { return newSourceWorker(s, src, p) })
		if err != nil {
			return nil, err
		}
	}
	if s.deps.Redis == nil {
		return all, nil
	}
	for _, g := range s.groups {
		if g.Direct {
			continue // computed by its source's workers
		}
		err := add(kindGroup, g.Name, GroupGroup(s.deps.Project, g.Group), g.KeyedTopic, func(p int32) streams.Worker { return newGroupWorker(s, g, p) })
		if err != nil {
			return nil, err
		}
	}
	return all, nil
}

// SourceGroup is the consumer group that reads a source.
func SourceGroup(p *project.Project, s *project.Source) string { return p.Name + ".source." + s.Name }

// GroupGroup is the consumer group that computes a feature group: its source's when that is keyed for it.
func GroupGroup(p *project.Project, g *project.Group) string {
	if g.Direct {
		return SourceGroup(p, g.Source)
	}
	return p.Name + ".group." + g.Name + "@" + g.Version
}

func (s *Stage) consumerConfig(kind, name, membership, topic string, worker func(int32) streams.Worker) streams.ConsumerConfig {
	return streams.ConsumerConfig{
		Group: membership + s.suffix, Topics: []string{topic}, Log: s.log,
		NewWorker:    func(_ string, partition int32) streams.Worker { return worker(partition) },
		QueueRecords: s.cfg.QueueRecords, PollRecords: s.cfg.PollRecords,
		CommitEvery: s.cfg.CommitEvery, SessionTimeout: s.cfg.SessionTimeout, StopTimeout: s.cfg.StopTimeout,
		BackoffMin: s.cfg.BackoffMin, BackoffMax: s.cfg.BackoffMax,
		FetchMaxWait: s.cfg.FetchMaxWait, FetchPartitionBytes: s.cfg.FetchPartBytes,
		Restarted: func(_ string, partition int32, err error) {
			s.metrics.restarts.WithLabelValues(kind, name, failure.Of(err).String()).Inc()
			s.log.Warn("starting over from the stored position", kind, name, "partition", partition, "error", err)
		},
		Skipped: func(_ string, partition int32, from, to int64) {
			s.metrics.skipped.WithLabelValues(kind, name).Add(float64(to - from))
		},
	}
}

// at is where tests make the process die: nothing of this stage is written after an error.
func (s *Stage) at(step string) error {
	if s.crash == nil {
		return nil
	}
	err := s.crash(step)
	if err != nil {
		for _, c := range s.members {
			c.Abandon(err)
		}
	}
	return err
}
