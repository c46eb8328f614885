package monitor

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace/millrace/features/profile"
	"github.com/millrace/millrace/internal/failure"
	"github.com/millrace/millrace/project"
	"github.com/millrace/millrace/schemas"
	"github.com/millrace/millrace/streams"
)

// session is one leader's work, from taking over until it is replaced or something fails. One goroutine does it all.
type session struct {
	stage  *Stage
	group  *kgo.Client // the member that holds the leadership; it commits
	reader *kgo.Client
	writer *kgo.Client // transactional

	known   *published
	watches map[string]*watch // by model
	topics  map[string]*progress
	labels  map[string]*labelSource // by topic
	paused  bool

	committed time.Time
}

// labelSource is a topic that labels come from, for one model or several.
type labelSource struct {
	source  *project.Source
	decoder schemas.Decoder
	row     schemas.Row
	read    *reading
	watches []*watch
	joins   []int // index of each watch's join column
}

// runSession takes over, reads and judges until ctx ends.
func (s *Stage) runSession(ctx context.Context, group *kgo.Client) error {
	writer, err := streams.NewClient(s.kafka, kgo.TransactionalID(s.project.Name+".monitor"))
	if err != nil {
		return err
	}
	defer writer.Close()
	if _, _, err := writer.ProducerID(ctx); err != nil { // from here on, whoever led before writes nothing more
		return failure.Wrap(failure.Unavailable, "kafka", "taking over as the writer of verdicts", err)
	}
	known, err := s.readPublished(ctx)
	if err != nil {
		return err
	}
	work := &session{stage: s, group: group, writer: writer, known: known, watches: map[string]*watch{}, topics: map[string]*progress{}, labels: map[string]*labelSource{}}
	if err := work.prepare(); err != nil {
		return err
	}
	if err := work.open(ctx); err != nil {
		return err
	}
	defer work.reader.Close()
	s.show(work)
	return work.run(ctx)
}

// prepare makes a watch of each model and finds where its labels come from.
func (s *session) prepare() error {
	registry, err := streams.NewRegistry(s.stage.kafka)
	if err != nil {
		return err
	}
	for _, m := range s.stage.project.Models {
		w := newWatch(m, s.stage.cfg, policyOf(s.stage.cfg, m), s.known)
		w.baseline = func(digest string) (*version, error) { return s.stage.versionOf(digest) }
		s.watches[m.Name] = w
		source := m.Label.Source
		from := s.labels[source.Topic]
		if from == nil {
			decoder, err := schemas.NewDecoder(source.Schema, source.Format, registry)
			if err != nil {
				return fmt.Errorf("making the decoder of %s: %w", source.Topic, err)
			}
			from = &labelSource{source: source, decoder: decoder, read: newReading()}
			s.labels[source.Topic] = from
		}
		from.watches = append(from.watches, w)
		from.joins = append(from.joins, source.Schema.Index(m.Label.Join))
	}
	return nil
}

// policyOf is the project's wishes on top of the stage's configuration.
func policyOf(c Config, m *project.Model) Policy {
	return Policy{
		Sensitivity: profile.Sensitivity{FalseAlarms: c.FalseAlarms, Floor: c.Floor, NullFloor: c.NullFloor, PerformanceFloor: c.LossFloor, MinValues: int64(min(c.MinValues, max(m.Monitor.MinRows, 1)))},
		MinRows:     int64(m.Monitor.MinRows), After: max(m.Monitor.After, 1), Of: max(m.Monitor.Of, m.Monitor.After, 1), Leave: c.Leave,
		MinColumns: max(m.Monitor.MinColumns, 1), Cooldown: m.Monitor.Cooldown, Exclude: m.Monitor.Exclude,
	}
}

// versionOf loads the baseline of a model version. A version without one is followed but not judged.
func (s *Stage) versionOf(digest string) (*version, error) {
	b, err := s.baselines.Baseline(digest)
	switch kind := failure.Of(err); {
	case err == nil:
		return &version{digest: digest, baseline: b}, nil
	case kind.Retry():
		return nil, fmt.Errorf("loading the baseline of %s: %w", digest, err)
	default:
		s.log.Warn("a model version is not judged, because it has no baseline", "digest", digest, "error", err)
		return &version{digest: digest, problem: err.Error()}, nil
	}
}

// open starts reading where the last leader's unfinished windows begin.
func (s *session) open(ctx context.Context) error {
	topics := []string{s.stage.predictions()}
	for topic := range s.labels {
		topics = append(topics, topic)
	}
	starts, ends, err := bounds(ctx, s.group, topics...)
	if err != nil {
		return err
	}
	kept, err := kadm.NewClient(s.group).FetchOffsets(ctx, s.stage.group())
	if err != nil {
		return failure.Wrap(failure.Unavailable, "kafka", "reading committed offsets", err)
	}
	from := map[string]map[int32]kgo.Offset{}
	for topic, partitions := range ends {
		from[topic] = map[int32]kgo.Offset{}
		at := &progress{partitions: map[int32]*position{}, idleAfter: s.stage.cfg.IdleAfter}
		s.topics[topic] = at
		for partition, end := range partitions {
			first := starts[topic][partition]
			if c, ok := kept.Lookup(topic, partition); ok && c.At > first {
				first = min(c.At, end)
			}
			from[topic][partition] = kgo.NewOffset().At(first)
			at.partitions[partition] = &position{next: first, end: end, newest: never}
		}
	}
	s.reader, err = streams.NewClient(s.stage.kafka,
		kgo.ConsumePartitions(from), kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.KeepControlRecords(),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	return err
}

// run reads, judges, publishes and commits, in this order, until ctx ends.
func (s *session) run(ctx context.Context) error {
	for {
		poll, cancel := context.WithTimeout(ctx, s.stage.cfg.IdleAfter/2) // event time may pass because a partition is silent
		fetches := s.reader.PollRecords(poll, s.stage.cfg.Poll)
		cancel()
		if ctx.Err() != nil {
			return nil
		}
		if err := s.take(ctx, fetches); err != nil {
			return err
		}
		if err := s.judge(ctx); err != nil {
			return err
		}
		s.throttle()
		if now := s.stage.clock(); now.Sub(s.committed) >= s.stage.cfg.CommitEvery {
			s.commit(ctx)
			s.committed = now
			s.stage.show(s)
		}
	}
}

func (s *session) take(ctx context.Context, fetches kgo.Fetches) (err error) {
	fetches.EachError(func(topic string, _ int32, e error) {
		if !errors.Is(e, context.DeadlineExceeded) && err == nil {
			err = failure.Wrap(failure.Unavailable, topic, "reading", e)
		}
	})
	if err != nil {
		return err
	}
	now := s.stage.clock()
	fetches.EachPartition(func(p kgo.FetchTopicPartition) {
		topic := s.topics[p.Topic] // nil for the poll's own errors
		if topic == nil || err != nil {
			return
		}
		at := topic.partitions[p.Partition]
		if at == nil { // a partition that was added since; the next session reads it
			return
		}
		at.end = max(at.end, p.LastStableOffset)
		for _, r := range p.Records {
			if !r.Attrs.IsControl() && err == nil {
				err = s.record(ctx, r, at, now)
			}
			at.next = r.Offset + 1
		}
	})
	return err
}

func (s *session) record(ctx context.Context, r *kgo.Record, at *position, now time.Time) error {
	at.heard = now
	from := origin{r.Topic, r.Partition, r.Offset}
	if r.Topic == s.stage.predictions() {
		return s.prediction(r, from, at, now)
	}
	return s.label(ctx, r, from, at, now)
}

func (s *session) prediction(r *kgo.Record, from origin, at *position, now time.Time) error {
	count := s.stage.metrics.predictions
	p, err := schemas.UnmarshalPrediction(r.Value)
	if err != nil {
		count.WithLabelValues(outcomeMalformed).Inc()
		return nil
	}
	w, ok := s.watches[p.Model]
	if !ok {
		count.WithLabelValues(outcomeUnknown).Inc()
		return nil
	}
	if p.Source != sourceHTTP {
		at.newest = max(at.newest, p.At)
	}
	if slices.ContainsFunc(r.Headers, func(h kgo.RecordHeader) bool { return h.Key == schemas.HeaderUnsampled }) {
		count.WithLabelValues(outcomeUnsampled).Inc()
		return nil
	}
	outcome, err := w.prediction(&p, from, now)
	if err != nil {
		return err
	}
	count.WithLabelValues(outcome).Inc()
	return nil
}

func (s *session) label(ctx context.Context, r *kgo.Record, from origin, at *position, now time.Time) (err error) {
	l := s.labels[r.Topic]
	count := s.stage.metrics.labels
	l.row, err = l.decoder.Decode(ctx, r.Value, l.row)
	if failure.Of(err) == failure.BadRecord && err != nil {
		count.WithLabelValues(outcomeMalformed).Inc() // ingest reads the same topic and puts it to the dead letters
		return nil
	}
	if err != nil {
		return fmt.Errorf("decoding label of %s: %w", r.Topic, err)
	}
	when := l.row[l.source.TimeIndex()]
	if when.IsNull() {
		count.WithLabelValues(outcomeNull).Inc()
		return nil
	}
	at.newest = max(at.newest, when.Int())
	l.read.observe(r.Partition, when.Int(), now)
	for i, w := range l.watches {
		key := l.row[l.joins[i]]
		truth, ok, _, err := w.model.Label.Truth(l.row)
		if key.IsNull() || err != nil || !ok {
			count.WithLabelValues(outcomeNull).Inc()
			continue
		}
		count.WithLabelValues(w.label(key.Text(), truth, when.Int(), from)).Inc()
	}
	return nil
}

// judge closes what event time has passed, publishes the verdicts and shows them.
func (s *session) judge(ctx context.Context) error {
	now := s.stage.clock()
	var verdicts []Verdict
	for _, l := range s.labels {
		labelled := l.read.advance(s.topics[l.source.Topic], now)
		if labelled != never {
			labelled -= l.source.Lateness.Milliseconds()
		}
		for _, w := range l.watches {
			verdicts = append(verdicts, w.advance(s.topics[s.stage.predictions()], labelled, now)...)
		}
	}
	if len(verdicts) == 0 {
		return nil
	}
	if err := s.publish(ctx, verdicts); err != nil {
		return err
	}
	for _, v := range verdicts {
		s.stage.metrics.judged(v, !s.known.has(v.Full.ID))
	}
	s.stage.remember(verdicts)
	s.stage.show(s)
	return nil
}

// throttle stops reading labels while too many of them wait for predictions that are still to be read.
func (s *session) throttle() {
	crowded := false
	for _, w := range s.watches {
		crowded = crowded || w.crowded()
	}
	pause := crowded && s.topics[s.stage.predictions()].behind()
	if pause == s.paused {
		return
	}
	s.paused = pause
	for topic := range s.labels {
		if pause {
			s.reader.PauseFetchTopics(topic)
		} else {
			s.reader.ResumeFetchTopics(topic)
		}
	}
}

// commit keeps how far is done: the first record that an unfinished window is made of. That it fails while members come and go is no
// harm, the next leader then reads some more again.
func (s *session) commit(ctx context.Context) {
	low := lowWater{}
	for _, w := range s.watches {
		w.lowWater(low)
	}
	offsets := map[string]map[int32]kgo.EpochOffset{}
	for topic, p := range s.topics {
		offsets[topic] = map[int32]kgo.EpochOffset{}
		for partition, at := range p.partitions {
			next := at.next
			if first, ok := low[topic][partition]; ok {
				next = min(next, first)
			}
			offsets[topic][partition] = kgo.EpochOffset{Epoch: -1, Offset: next}
		}
	}
	limited, cancel := context.WithTimeout(ctx, s.stage.cfg.SessionFor)
	defer cancel()
	s.group.CommitOffsetsSync(limited, offsets, nil)
}
