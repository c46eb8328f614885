package ingest

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace/millrace/features/online"
	"github.com/millrace/millrace/internal/failure"
	"github.com/millrace/millrace/project"
	"github.com/millrace/millrace/streams"
)

// Declare makes the versions that the project asks for the targets of their groups, as the stage does when it starts. It is not for a stage
// that runs.
func (s *Stage) Declare(ctx context.Context) error {
	if err := s.connect(); err != nil {
		return err
	}
	defer s.disconnect()
	return s.untilKnown(ctx, func() error { return s.tryPrepare(ctx) })
}

// topicWait is how long a command waits for brokers to hear of a topic that was created or deleted a moment ago; milliseconds as a rule.
const topicWait = 15 * time.Second

// untilKnown tries again for as long as the broker that is asked does not know of a topic. One that has not heard yet of a topic's end
// lets it pass for existing, so whoever tries makes sure of the topics each time.
func (s *Stage) untilKnown(ctx context.Context, try func() error) error {
	late := time.After(topicWait)
	for wait := s.cfg.BackoffMin; ; wait = min(2*wait, s.cfg.BackoffMax) {
		err := try()
		if !errors.Is(err, streams.ErrNoTopic) {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-late:
			return err
		case <-time.After(wait):
		}
	}
}

// Backfill computes a group anew from its history, into a version of its own beside the one that is read, which may go on being computed
// meanwhile. When a stage that runs has caught up with the topic from there, it moves readers over. Only events from a time on are
// taken, if it is given. A backfill that was killed is taken up where it was. It is not for a stage that runs.
func (s *Stage) Backfill(ctx context.Context, name string, from time.Time, progress FillProgress) (online.Version, error) {
	i := slices.IndexFunc(s.groups, func(g *group) bool { return g.Name == name })
	if i < 0 {
		return online.Version{}, failure.New(failure.NotFound, name, "the project has no such feature group")
	}
	g := s.groups[i]
	if len(g.gives) > 0 {
		return online.Version{}, failure.New(failure.BadProject, name, "gives out the events of %s: another version of it would give out other ones", g.gives[0].source.Name).
			WithHint("declare the group and its source under other names; an emptied Redis is rebuilt by the stream role itself")
	}
	if now := s.deps.Clock(); s.deps.Project.Clock == project.ClockWall && from.After(now) {
		return online.Version{}, failure.New(failure.BadRequest, "--from", "%s is to come, it is %s now: nothing would be left of %s, and readers would be moved to that",
			from.UTC().Format(time.RFC3339), now.UTC().Format(time.RFC3339), name).WithHint("name a time of the past")
	}
	if err := s.connect(); err != nil {
		return online.Version{}, err
	}
	defer s.disconnect()
	var want online.Version
	if err := s.untilKnown(ctx, func() (err error) {
		if err = streams.EnsureTopics(ctx, s.producer, s.deps.Project.Topology()); err != nil {
			return err
		}
		if err = s.checkRecreated(ctx, g); err != nil {
			return err
		}
		want, err = s.wanted(ctx, g)
		return err
	}); err != nil {
		return online.Version{}, err
	}
	if !from.IsZero() {
		want.From = from.UnixMilli()
	}
	known, err := s.versions.Load(ctx, g.Name)
	if err != nil {
		return want, err
	}
	g.version = anewVersion(&known[0], want)
	if err := s.versions.Declare(ctx, g.Name, g.version); err != nil {
		return g.version, err
	}
	return g.version, s.fillSoon(ctx, g, progress)
}

// anewVersion is the version that a backfill fills: the target, if that is one like it which is not read yet.
func anewVersion(known *online.Group, want online.Version) online.Version {
	if v, ok := known.All[known.Target]; ok && v.ID != known.Active && v.Definition == want.Definition && v.SameLayout(&want) && v.SameTopics(&want) && v.From == want.From {
		return v
	}
	want.ID = known.Next(want.Definition)
	return want
}

// fillSoon fills a version as soon as no other process does. What the other has filled by then stays.
func (s *Stage) fillSoon(ctx context.Context, g *group, progress FillProgress) error {
	for {
		ours, err := s.fillAlone(ctx, g, progress)
		if ours || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(fillAgain):
		}
	}
}

// connect makes the clients that everything but the consumers uses.
func (s *Stage) connect() (err error) {
	all := []kgo.Opt{streams.Logger(s.log), kgo.RecordPartitioner(s.placing())}
	if s.lone, err = streams.NewLoneProducer(s.deps.Kafka, all...); err != nil {
		return err
	}
	s.producer, err = streams.NewClient(s.deps.Kafka, append(all,
		kgo.ProducerLinger(s.cfg.ProducerLinger),
		kgo.MaxBufferedRecords(1<<30), // each worker keeps to MaxUnacked: a Produce that blocked could not be interrupted
	)...)
	return err
}

// disconnect closes them.
func (s *Stage) disconnect() {
	s.producer.Close()
	s.lone.Close()
}
