package serving

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace/millrace/internal/failure"
	"github.com/millrace/millrace/project"
	"github.com/millrace/millrace/schemas"
	"github.com/millrace/millrace/streams"
)

// streamScorer scores every record of the topic that a model is on. Predictions and the offsets of the records they answer are written
// in one Kafka transaction: after a crash anywhere, a record has been scored for good or it is scored again, and readers of committed
// records see one prediction of it.
//
// A batch that cannot be scored (Redis or the schema registry is away) is aborted and polled again, for as long as it takes: a late
// prediction is worth more than a refusal that can never be taken back.
type streamScorer struct {
	stage   *Stage
	d       *deployment
	decoder schemas.Decoder
	group   string
	topic   string
	event   bool // features as of the event's time, not of now
	filler  *filler
	work    scoring
	in      filled
	values  []schemas.Value // of the batch's rows
	lag     *streamLag
}

func newStreamScorer(s *Stage, d *deployment) (*streamScorer, error) {
	registry, err := streams.NewRegistry(s.deps.Kafka)
	if err != nil {
		return nil, err
	}
	decoder, err := schemas.NewDecoder(d.model.On.Schema, d.model.On.Format, registry)
	if err != nil {
		return nil, err
	}
	return &streamScorer{
		stage: s, d: d, decoder: decoder, topic: d.model.On.Topic, group: s.deps.Project.Name + ".score." + d.model.Name,
		event: s.deps.Project.Clock == project.ClockEvent, filler: newFiller(d.plan),
		lag: newStreamLag(s.metrics.streamLag.WithLabelValues(d.model.Name)),
	}, nil
}

// run waits for a champion, then scores until ctx ends. What ends a session early (Kafka away, a fenced transaction) is logged when it
// changes, and followed by another.
func (s *streamScorer) run(ctx context.Context) error {
	champion := s.d.awaitChampion(ctx)
	last := ""
	for ctx.Err() == nil {
		err := s.session(ctx, champion.dataUntil)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil && err.Error() != last {
			last = err.Error()
			s.stage.deps.Log.Warn("scoring the topic was interrupted", "model", s.d.model.Name, "topic", s.topic, "error", err)
		}
		sleep(ctx, s.stage.cfg.Backoff)
	}
	return nil
}

// session is one membership of the consumer group.
func (s *streamScorer) session(ctx context.Context, from int64) error {
	base, err := streams.NewClient(s.stage.deps.Kafka)
	if err != nil {
		return err
	}
	defer base.Close()
	admin := kadm.NewClient(base)
	if err := s.pin(ctx, base, from); err != nil {
		return err
	}
	cfg := s.stage.cfg
	life, end := context.WithCancel(context.WithoutCancel(ctx))
	defer end()
	session, err := kgo.NewGroupTransactSession(append(base.Opts(),
		kgo.WithContext(life),
		kgo.ConsumerGroup(s.group),
		kgo.ConsumeTopics(s.topic),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), // of a partition that came after pin looked: all in it is new
		kgo.Balancers(kgo.CooperativeStickyBalancer()),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.TransactionalID(s.group+"."+cfg.Instance),
		kgo.TransactionTimeout(cfg.TransactionFor),
		kgo.SessionTimeout(cfg.SessionTimeout),
		kgo.HeartbeatInterval(min(cfg.SessionTimeout/5, 3*time.Second)),
		kgo.OnPartitionsRevoked(s.lag.forget),
		kgo.OnPartitionsLost(s.lag.forget),
	)...)
	if err != nil {
		return failure.Wrap(failure.Internal, s.topic, "joining the group", err)
	}
	defer leave(session, end)
	frontier := newFrontier(s, admin)
	for {
		fetches := session.PollRecords(ctx, cfg.Poll)
		if ctx.Err() != nil {
			return nil
		}
		if fetches.NumRecords() > 0 {
			if err := s.batch(ctx, session, frontier, fetches); err != nil {
				return err
			}
		} else if errs := fetches.Errors(); len(errs) > 0 { // the client goes on trying
			return failure.Wrap(failure.Unavailable, s.topic, "reading the topic", errs[0].Err)
		}
	}
}

// leaveTimeout is how long leaving the group may take.
const leaveTimeout = 3 * time.Second

// leave closes a session. While the group waits for a member that is gone, leaving would wait with it, for that member's session timeout:
// the end of the client's life cuts it short.
func leave(session *kgo.GroupTransactSession, end context.CancelFunc) {
	late := time.AfterFunc(leaveTimeout, end)
	defer late.Stop()
	session.CloseAllowingRebalance()
}

// pin commits where the group starts, for partitions that it has never committed: the first record that the champion was not trained
// on. Were it left to the first batch, a crash before that and another champion would move the start.
func (s *streamScorer) pin(ctx context.Context, client *kgo.Client, from int64) error {
	admin := kadm.NewClient(client)
	committed, err := admin.FetchOffsetsForTopics(ctx, s.group, s.topic)
	if err != nil && !errors.Is(err, kerr.GroupIDNotFound) {
		return failure.Wrap(failure.Unavailable, s.group, "reading committed offsets", err)
	}
	var starts []int64
	if from == noTime {
		starts, err = streams.EndOffsets(ctx, client, s.topic)
	} else {
		starts, err = streams.OffsetsSince(ctx, client, s.topic, from)
	}
	if err != nil {
		return fmt.Errorf("looking for the first record to score: %w", err)
	}
	offsets := kadm.Offsets{}
	for partition, start := range starts {
		if c, ok := committed.Lookup(s.topic, int32(partition)); !ok || c.At < 0 {
			offsets.AddOffset(s.topic, int32(partition), start, -1)
		}
	}
	if len(offsets) == 0 {
		return nil
	}
	answer, err := admin.CommitOffsets(ctx, s.group, offsets)
	if err == nil {
		err = answer.Error()
	}
	// A group with members refuses: one of them has pinned it.
	if err != nil && !errors.Is(err, kerr.UnknownMemberID) && !errors.Is(err, kerr.IllegalGeneration) && !errors.Is(err, kerr.RebalanceInProgress) {
		return failure.Wrap(failure.Unavailable, s.group, "committing where to start", err)
	}
	return nil
}

// batch scores what one poll gave, in one transaction. The error is of the session: it must be given up.
func (s *streamScorer) batch(ctx context.Context, session *kgo.GroupTransactSession, frontier *frontier, fetches kgo.Fetches) error {
	start := s.stage.deps.Clock()
	if err := session.Begin(); err != nil {
		return failure.Wrap(failure.Unavailable, s.group, "beginning a transaction", err)
	}
	// The end of the stage must not leave the transaction open, or partitions would wait for its timeout.
	ending, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.stage.cfg.TransactionFor)
	defer cancel()
	scored, err := s.score(ctx, frontier, fetches, start)
	if err == nil {
		err = s.produce(ending, session, scored.predictions)
	}
	committed, failed := session.End(ending, kgo.TransactionEndTry(err == nil))
	if failed != nil {
		return failure.Wrap(failure.Unavailable, s.group, "ending the transaction", failed)
	}
	if !committed {
		s.stage.metrics.streamAborted.WithLabelValues(s.d.model.Name).Inc()
		if err != nil && ctx.Err() == nil {
			s.stage.deps.Log.Warn("a batch was not scored and is tried again", "model", s.d.model.Name, "error", err)
			sleep(ctx, s.stage.cfg.Backoff)
		}
		return nil
	}
	s.committed(scored, fetches)
	s.stage.metrics.batchSeconds.WithLabelValues(s.d.model.Name).Observe(s.stage.deps.Clock().Sub(start).Seconds())
	return nil
}

func (s *streamScorer) produce(ctx context.Context, session *kgo.GroupTransactSession, predictions []*kgo.Record) error {
	first := kgo.AbortingFirstErrPromise(session.Client())
	for _, r := range predictions {
		session.Produce(ctx, r, first.Promise())
	}
	if err := first.Err(); err != nil {
		return failure.Wrap(failure.Unavailable, s.stage.topic, "writing predictions", err)
	}
	return nil
}

// scoredBatch is what becomes true when the transaction commits.
type scoredBatch struct {
	predictions []*kgo.Record
	verdicts    []verdict
	status      [][]inputStatus
	bad         int
	newest      int64      // event time
	questions   []question // of the predictions
}

// committed counts and keeps what is now on the topic.
func (s *streamScorer) committed(b *scoredBatch, fetches kgo.Fetches) {
	m, name := s.stage.metrics, s.d.model.Name
	for i := range b.verdicts {
		s.d.stream.count(&b.verdicts[i], b.status[i])
	}
	m.streamBad.WithLabelValues(name).Add(float64(b.bad))
	if b.newest != noTime {
		m.streamTime.WithLabelValues(name).Set(float64(b.newest) / 1000)
	}
	for i, r := range b.predictions {
		v := &b.verdicts[i]
		s.stage.mirror(s.d, &b.questions[i], mirrored{v.arm, v.rung, v.score, r.Value}, s.d.stream)
		s.stage.recent.put(name, string(r.Key), r.Value)
	}
	s.lag.scored(fetches)
}

// score makes the predictions of a batch. Its errors are of things that pass: the batch is to be tried again.
func (s *streamScorer) score(ctx context.Context, frontier *frontier, fetches kgo.Fetches, start time.Time) (*scoredBatch, error) {
	batch := &scoredBatch{newest: noTime}
	records, questions, err := s.decode(ctx, fetches, start, batch)
	if err != nil {
		return nil, err
	}
	line := s.d.live.Load()
	if !s.filler.fits(line) {
		s.filler = line.filler()
	}
	f := s.filler
	unnamed := map[int]bool{}
	f.prepare(questions, func(row int, _ string, _ error) { unnamed[row] = true })
	entries, err := frontier.read(ctx, f.refs, batch.newest)
	switch {
	case err == nil:
		f.read(entries)
	case failure.Of(err).Retry():
		s.filler = line.filler() // a read left behind may still look at the old one's refs
		return nil, err
	default:
		f.fail(reasonOf(err))
	}
	s.stage.seen(f.newest())
	for i, q := range questions {
		if unnamed[i] {
			batch.bad++
			continue
		}
		f.fill(i, q, &s.in)
		v, read := s.d.turn(line, f, i, &q, &s.in, &s.work, false)
		q.line, q.shown = line, s.d.show(line, f, i, &q, &s.in, read)
		source := schemas.RecordSource(s.topic, records[i].Partition, records[i].Offset)
		a := asked{id: s.d.model.Name + "/" + source, source: source, start: start, now: s.stage.deps.Clock()}
		prediction, err := predictionRecord(s.stage.topic, s.d.compose(a, q, read, &v, line))
		if err != nil {
			return nil, fmt.Errorf("encoding prediction %s: %w", a.id, err)
		}
		batch.predictions = append(batch.predictions, prediction)
		batch.verdicts, batch.questions = append(batch.verdicts, v), append(batch.questions, q)
		batch.status = append(batch.status, append([]inputStatus(nil), read.status...))
	}
	return batch, nil
}

// decode reads the records into rows, in memory that the next batch uses again, and chooses the time of each. Records that can never be
// decoded are counted and passed over; those that are no events of the source only passed over.
func (s *streamScorer) decode(ctx context.Context, fetches kgo.Fetches, start time.Time, batch *scoredBatch) ([]*kgo.Record, []question, error) {
	width, n := len(s.d.model.On.Schema.Columns), fetches.NumRecords()
	if len(s.values) < n*width {
		s.values = make([]schemas.Value, n*width)
	}
	records, questions := make([]*kgo.Record, 0, n), make([]question, 0, n)
	var failed error
	fetches.EachRecord(func(r *kgo.Record) {
		if failed != nil {
			return
		}
		i := len(questions) * width
		row, err := s.decoder.Decode(ctx, r.Value, schemas.Row(s.values[i:i:i+width]))
		switch {
		case err == nil:
		case failure.Of(err) == failure.BadRecord:
			batch.bad++
			return
		default:
			failed = fmt.Errorf("decoding record: %w", err)
			return
		}
		at := r.Timestamp.UnixMilli()
		if t := s.d.plan.time; t >= 0 && !row[t].IsNull() {
			at = row[t].Int()
		}
		s.stage.deps.Tables.Enrich(s.d.model.On, row, at, nil) // ingest, which reads the same topic, counts what is not found
		if !s.d.model.On.Accepts(row) {
			return
		}
		batch.newest = max(batch.newest, at)
		if !s.event {
			at = start.UnixMilli()
		}
		q := question{row: row, at: at}
		if s.d.plan.ownEvents {
			q.record = recordOf(row, s.d.plan.time, r.Partition, r.Offset, at)
		}
		records, questions = append(records, r), append(questions, q)
	})
	return records, questions, failed
}
