package ingest

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sr"
	"golang.org/x/sync/errgroup"

	"github.com/millrace/millrace/features/offline"
	"github.com/millrace/millrace/features/online"
	"github.com/millrace/millrace/internal/failure"
	"github.com/millrace/millrace/internal/idle"
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
	groups  []*group // the version of each that readers are to have; changes under mu
	beside  []*group // earlier versions that are computed from the start

	cached cacheShare
	spare  idle.Memory[[]byte] // for the states of a flush, of flights that have landed
	mark   kgo.RecordHeader    // of what is re-keyed and given out

	versions  *online.Versions
	registry  *sr.Client
	producer  *kgo.Client           // while running
	lone      *streams.LoneProducer // likewise
	letters   *streams.DeadLetters
	deadLog   *deadLog
	futureLog *futureLog

	ctx        context.Context // while running: of what goes on beside the consumers
	background sync.WaitGroup

	mu        sync.Mutex
	running   map[*progress]struct{}
	members   []*streams.Consumer
	computing []*computing
	killed    bool // by crash

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
	lone    bool // for a version of a group by itself (lone.go)
}

// group is a feature group with what all its partitions share.
type group struct {
	*project.Group
	roots   []*source // whose events it gets: its source, or those that this is merged of
	version online.Version
	rows    *offline.Table // nil: not kept
	expiry  time.Duration  // of its states in Redis
	gives   []given        // the sources that are what it gives out
	ownRows bool           // of an earlier version: its roots make rows as another project did

	filling    bool  // by this process; guarded by Stage.mu, as is
	fillFailed error // the last try's, until it has been told
}

// computing is a version of a group that this process computes.
type computing struct {
	group *group
	end   context.CancelFunc
	ended chan struct{}
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
	s := &Stage{cfg: cfg, deps: deps, log: deps.Log.With("stage", "ingest"), running: map[*progress]struct{}{}, registry: registry,
		versions: online.NewVersions(deps.Redis, deps.Project.Name), spare: idle.Memory[[]byte]{Most: idleStates},
		mark: kgo.RecordHeader{Key: headerProject, Value: []byte(deps.Project.Name)}}
	s.deadLog, s.futureLog = newDeadLog(s.log, deps.Clock), newFutureLog(s.log, deps.Clock)
	byName := map[string]*source{}
	s.cached.bytes = cfg.CacheBytes
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
			g.roots = append(g.roots, byName[root.Name])
		}
		for _, chained := range deps.Project.GivenBy(declared) {
			encoder, err := schemas.NewEncoder(chained.Schema, chained.Format, nil, "")
			if err != nil {
				return nil, fmt.Errorf("source %s: %w", chained.Name, err)
			}
			g.gives = append(g.gives, given{chained, encoder})
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
	if err := s.connect(); err != nil {
		return err
	}
	defer s.disconnect()
	s.letters = streams.NewDeadLetters(s.producer, s.lone, s.deps.Project.Own().DeadLetters.Name)
	if err := s.prepare(ctx); err != nil || ctx.Err() != nil {
		return err
	}
	all, ctx := errgroup.WithContext(ctx)
	s.ctx = ctx
	for _, src := range s.sources {
		c, err := s.consumer(kindSource, src.Name, SourceGroup(s.deps.Project, src.Source), src.Topic, func(p int32) streams.Worker { return newSourceWorker(s, src, p) })
		if err != nil {
			return err
		}
		all.Go(func() error { return c.Run(ctx) })
	}
	if s.deps.Redis != nil {
		compute := func(g *group) error { return s.compute(ctx, all, g) }
		for _, g := range append(s.targets(), s.beside...) {
			if g.Direct && slices.Contains(g.roots[0].direct, g) {
				continue // computed by its source's workers
			}
			if err := compute(g); err != nil {
				return err
			}
		}
		all.Go(func() error { return s.tend(ctx, compute) })
	}
	err := all.Wait()
	s.background.Wait()
	return err
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
	if err := s.checkRecreated(ctx, nil); err != nil {
		return err
	}
	s.beside = nil
	for _, src := range s.sources {
		src.keyed, src.direct = nil, nil
	}
	for _, g := range s.groups {
		if err := s.tryPrepareGroup(ctx, g); err != nil {
			return err
		}
	}
	for _, g := range s.beside {
		g.rekeyed()
	}
	return nil
}

func (s *Stage) tryPrepareGroup(ctx context.Context, g *group) (err error) {
	g.rekeyed()
	if s.deps.Redis == nil {
		g.version, err = s.wanted(ctx, g)
		return err
	}
	if err := s.declare(ctx, g); err != nil {
		return err
	}
	if err := s.checkGiven(ctx, g); err != nil {
		return err
	}
	if active, err := s.isActive(ctx, g); err != nil {
		return err
	} else if g.Direct && active {
		g.roots[0].direct = append(g.roots[0].direct, g)
	}
	earlier, err := s.earlier(ctx, g)
	s.beside = append(s.beside, earlier...)
	return err
}

func (s *Stage) consumer(kind, name, membership, topic string, worker func(partition int32) streams.Worker) (*streams.Consumer, error) {
	c, err := streams.NewConsumer(s.deps.Kafka, s.consumerConfig(kind, name, membership, topic, worker))
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.members = append(s.members, c)
	return c, nil
}

// compute has a version of a group computed, until it is ended.
func (s *Stage) compute(ctx context.Context, all *errgroup.Group, g *group) error {
	worker := func(p int32) streams.Worker { return newGroupWorker(s, g, p) }
	if g.Direct {
		lone := g.roots[0].alone(g)
		worker = func(p int32) streams.Worker { return newSourceWorker(s, lone, p) }
	}
	consumer, err := s.consumer(kindGroup, g.Name, GroupGroup(s.deps.Project, g.Name, g.version.ID), g.KeyedTopic, worker)
	if err != nil {
		return err
	}
	ctx, end := context.WithCancel(ctx)
	c := &computing{group: g, end: end, ended: make(chan struct{})}
	s.mu.Lock()
	s.computing = append(s.computing, c)
	s.mu.Unlock()
	all.Go(func() error {
		defer close(c.ended)
		return consumer.Run(ctx)
	})
	return nil
}

// computed is the versions of a group that are computed here.
func (s *Stage) computed(group string) (all []*computing) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.computing {
		if c.group.Name == group {
			all = append(all, c)
		}
	}
	return all
}

// stopComputing ends a version gently.
func (s *Stage) stopComputing(c *computing) {
	c.end()
	<-c.ended
	s.mu.Lock()
	defer s.mu.Unlock()
	s.computing = slices.DeleteFunc(s.computing, func(other *computing) bool { return other == c })
}

// targets is the version of each group that readers are to have.
func (s *Stage) targets() []*group {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.groups)
}

func (s *Stage) replaceTarget(before, now *group) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.groups[slices.Index(s.groups, before)] = now
}

// SourceGroup is the consumer group that reads a source.
func SourceGroup(p *project.Project, s *project.Source) string { return p.Name + ".source." + s.Name }

// GroupGroup is the consumer group that computes a version of a feature group; version is online.Version.ID.
func GroupGroup(p *project.Project, group, version string) string {
	return p.Name + ".group." + group + "@" + version
}

func (s *Stage) consumerConfig(kind, name, membership, topic string, worker func(int32) streams.Worker) streams.ConsumerConfig {
	commitEvery := s.cfg.CommitEvery
	if kind == kindSource && s.deps.Project.Clock == project.ClockEvent {
		commitEvery = min(commitEvery, s.cfg.HandedOnEvery)
	}
	return streams.ConsumerConfig{
		Group: membership + s.suffix, Topics: []string{topic}, Log: s.log,
		NewWorker:    func(_ string, partition int32) streams.Worker { return worker(partition) },
		QueueRecords: s.cfg.QueueRecords, PollRecords: s.cfg.PollRecords,
		CommitEvery: commitEvery, SessionTimeout: s.cfg.SessionTimeout, StopTimeout: s.cfg.StopTimeout,
		BackoffMin: s.cfg.BackoffMin, BackoffMax: s.cfg.BackoffMax,
		FetchMaxWait: s.cfg.FetchMaxWait, FetchPartitionBytes: s.cfg.FetchPartBytes,
		Restarted: func(_ string, partition int32, err error) {
			s.metrics.restarts.WithLabelValues(kind, name, failure.Of(err).String()).Inc()
			s.log.Warn("starting over from the stored position", kind, name, "partition", partition, "error", err)
		},
		Skipped: func(_ string, partition int32, from, to int64) {
			s.metrics.skipped.WithLabelValues(kind, name).Add(float64(to - from))
		},
		Lost: func(topic string, partition int32, from, to int64) {
			s.metrics.lost.WithLabelValues(kind, name).Add(float64(to - from))
			s.log.Warn("retention deleted records that were not read yet: features lack their events; the topic must keep records (retention.ms, retention.bytes) for longer than this role may stand still",
				kind, name, "topic", topic, "partition", partition, "from", from, "to", to, "offsets", to-from)
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
		s.mu.Lock()
		s.killed = true
		members := slices.Clone(s.members)
		s.mu.Unlock()
		for _, c := range members {
			c.Abandon(err)
		}
	}
	return err
}

// dead reports whether at has made the process die.
func (s *Stage) dead() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.killed
}
