package ingest

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace/millrace/features/offline"
	"github.com/millrace/millrace/internal/failure"
	"github.com/millrace/millrace/schemas"
	"github.com/millrace/millrace/streams"
)

// sourceWorker is the way of one source partition's records: decode, check, keep offline, re-key.
//
// It has two positions. What was re-keyed is the offset committed to Kafka; what is kept offline is the table's own. It reads from the
// lower and does for each record only what is not done yet.
type sourceWorker struct {
	*Stage
	src *source
	progress
	tally tally
	time  eventTime

	rekeyFrom int64
	events    *offline.Writer // nil: not kept
	next      int64           // first offset not read
	end       int64           // of the partition when the worker began
	row       schemas.Row
	merged    schemas.Row    // what a group on a merged source makes of it
	in        *streams.Input // of the present Run
	ships     []*shipment    // on their way to Kafka, in order
	landed    chan struct{}  // holds a token when a shipment may have arrived
	unacked   int
	gaveUp    bool // nothing more is processed: what is queued is the next owner's
	stalled   bool // the disk did not take the last commit: it is asked again by time only
}

// shipment is what one batch of source records became on Kafka.
type shipment struct {
	next   int64 // the source offset after it
	size   int
	landed chan<- struct{}

	mu      sync.Mutex
	left    int // records not acknowledged, and one while the batch is still being made
	refused []refusal
	err     error
}

// refusal is a record that the broker will never take.
type refusal struct {
	original *kgo.Record
	err      error
}

func newSourceWorker(s *Stage, src *source, partition int32) *sourceWorker {
	w := &sourceWorker{Stage: s, src: src, tally: s.metrics.tally(kindSource, src.Name)}
	w.progress.kind, w.progress.name, w.progress.topic, w.progress.partition = kindSource, src.Name, src.Topic, partition
	src.pace.began(partition)
	return w
}

// Start takes the partition's files over and finds the lower of the two positions.
func (w *sourceWorker) Start(ctx context.Context, committed int64) (_ int64, err error) {
	if w.end, err = streams.EndOffset(ctx, w.producer, w.src.Topic, w.partition); err != nil {
		return 0, err
	}
	w.rekeyFrom = max(committed, 0)
	w.time = newEventTime(w.deps.Project, w.src.Source, w.deps.Clock)
	w.ships, w.unacked, w.landed, w.stalled, w.gaveUp = nil, 0, make(chan struct{}, 1), false, false
	w.next = w.rekeyFrom
	if w.src.events == nil {
		return w.next, nil
	}
	if w.events != nil {
		_ = w.events.Close() // what it holds is read again
	}
	if w.events, err = w.src.events.NewWriter(w.partition, offline.WriterOptions{Clock: w.deps.Clock}); err != nil {
		return 0, err
	}
	w.next = min(w.rekeyFrom, max(w.events.Next(), 0))
	return w.next, nil
}

// Run is in streams.Worker.
func (w *sourceWorker) Run(ctx context.Context, in *streams.Input) error {
	w.entered(&w.progress, in)
	defer w.left(&w.progress)
	w.in = in
	w.src.pace.began(w.partition)
	defer w.src.pace.left(w.partition)
	idle := time.NewTimer(idleAfter)
	defer idle.Stop()
	keep := time.NewTicker(w.cfg.OfflineEvery)
	defer keep.Stop()
	for {
		ready := in.Ready()
		if w.unacked >= w.cfg.MaxUnacked || w.events != nil && w.events.Rows() >= w.cfg.OfflineWaiting {
			ready = nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-w.landed:
			if err := w.settle(ctx, in); err != nil {
				return err
			}
		case <-keep.C:
			if err := w.keep(); err != nil {
				return err
			}
		case <-idle.C:
			w.resting()
		case <-ready:
			records, ended := in.Take()
			if err := w.process(ctx, records); err != nil {
				return err
			}
			w.paced(idle)
			if ended {
				return w.finish(ctx, in)
			}
		}
	}
}

// paceEvery is after how many records of a batch a worker tells the others how far it has come.
const paceEvery = 256

// idleAfter is how long a partition must have been at its end to count as having no backlog: a producer of many partitions does not write to
// all of them at once.
const idleAfter = 100 * time.Millisecond

// paced tells how far the partition has come.
func (w *sourceWorker) paced(idle *time.Timer) {
	if w.time.newest > 0 {
		w.src.pace.at(w.partition, w.time.newest)
	}
	idle.Reset(idleAfter)
}

// inPace waits for slower partitions, if the event is far ahead of them. It is false when the partition was given up meanwhile.
func (w *sourceWorker) inPace(ctx context.Context, at int64, applied int) bool {
	ahead := w.src.pace.ahead(at)
	if ahead || applied%paceEvery == 0 {
		w.src.pace.at(w.partition, w.time.newest)
	}
	return !ahead || w.src.pace.wait(ctx, at, w.in.Ended())
}

// resting says that the partition has no backlog, if it has none.
func (w *sourceWorker) resting() {
	if w.next >= max(w.end, w.in.End()) {
		w.src.pace.at(w.partition, paceIdle)
	}
}

// finish waits for what is on its way and keeps what is pending.
func (w *sourceWorker) finish(ctx context.Context, in *streams.Input) error {
	for len(w.ships) > 0 {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-w.landed:
			if err := w.settle(ctx, in); err != nil {
				return err
			}
		}
	}
	err := w.keep()
	if w.events != nil {
		err = errors.Join(err, w.events.Close())
	}
	return err
}

// keep commits the offline rows. A disk that does not take them is no error: the rows wait in memory, and past OfflineWaiting the partition
// waits with them.
func (w *sourceWorker) keep() error {
	if w.events == nil || w.events.Rows() == 0 {
		return nil
	}
	if err := w.at("source: before offline commit"); err != nil {
		return err
	}
	began := w.deps.Clock()
	err := w.events.Commit(w.next)
	w.tally.offlineWrite.Observe(w.deps.Clock().Sub(began).Seconds())
	if w.stalled = err != nil && failure.Of(err) == failure.Unavailable; w.stalled {
		w.log.Warn("keeping events offline", "source", w.src.Name, "partition", w.partition, "error", err)
		return nil
	}
	if err != nil {
		return err
	}
	return w.at("source: after offline commit")
}

// settle takes note of the shipments that have arrived, in order.
func (w *sourceWorker) settle(ctx context.Context, in *streams.Input) error {
	for len(w.ships) > 0 {
		s := w.ships[0]
		s.mu.Lock()
		left, refused, err := s.left, s.refused, s.err
		s.mu.Unlock()
		if left > 0 {
			return nil
		}
		if err != nil {
			return failure.Wrap(failure.Unavailable, w.src.Topic, "re-keying", err)
		}
		for _, r := range refused {
			if err := w.refuse(ctx, r); err != nil {
				return err
			}
		}
		if err := w.at("source: after acknowledgement"); err != nil {
			return err
		}
		w.ships = w.ships[1:]
		w.unacked -= s.size
		w.progress.next.Store(s.next)
		in.Done(s.next)
	}
	return nil
}

// refuse makes a dead letter of a record that the broker does not take in its keyed form. If it does not take that either, the record can
// go nowhere, and the stage ends rather than lose it.
func (w *sourceWorker) refuse(ctx context.Context, r refusal) error {
	letter := w.letter(r.original, w.src.Name, classRefused, r.err)
	w.counted(letter)
	if err := w.letters.Write(ctx, letter); err != nil {
		if permanent(err) {
			return failure.Wrap(failure.Internal, w.src.Topic, "writing a dead letter that Kafka will not take", err).
				WithHint("raise max.message.bytes of %s above that of %s", w.deps.Project.Own().DeadLetters.Name, w.src.Topic)
		}
		return err
	}
	return nil
}

// permanent reports whether a broker will never take the record.
func permanent(err error) bool {
	for _, e := range []error{kerr.MessageTooLarge, kerr.RecordListTooLarge, kerr.InvalidRecord, kerr.InvalidTimestamp} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// process decodes and checks records, keeps the good ones, and sends off what becomes of them on Kafka.
func (w *sourceWorker) process(ctx context.Context, records []*kgo.Record) error {
	if len(records) == 0 || w.gaveUp {
		return nil
	}
	s := &shipment{left: 1, landed: w.landed}
	keyed := make([]kgo.Record, 0, len(records)*len(w.src.keyed))
	applied := 0
	for _, r := range records {
		if r.Offset < w.next {
			continue
		}
		w.next = r.Offset + 1
		at, err := w.check(ctx, r)
		if err == nil && !w.inPace(ctx, at, applied) {
			// The partition is given up, and its next owner goes on here. What is queued after this record must not be re-keyed
			// either: its higher offsets would make this one pass for a duplicate.
			w.next, w.gaveUp = r.Offset, true
			break
		}
		switch {
		case err == nil:
			applied++
			if keyed, err = w.pass(r, at, s, keyed); err != nil {
				return err
			}
		case failure.Of(err).DeadLetter():
			w.dead(r, w.src.Name, err, s)
		default:
			return err
		}
		if w.events != nil && w.events.Rows() >= w.cfg.OfflineRows && !w.stalled {
			if err := w.keep(); err != nil {
				return err
			}
		}
	}
	w.tally.applied.Add(float64(applied))
	if err := w.at("source: after produce"); err != nil {
		return err
	}
	s.next = w.next
	w.ships = append(w.ships, s)
	w.unacked += s.size
	s.acknowledge(nil, nil)
	return nil
}

// check decodes a record into w.row and gives its event time. An error of kind BadRecord is a dead letter.
func (w *sourceWorker) check(ctx context.Context, r *kgo.Record) (at int64, err error) {
	if w.row, err = w.src.decoder.Decode(ctx, r.Value, w.row); err != nil {
		return 0, err
	}
	if at, err = w.time.of(r, w.row); err != nil {
		return 0, err
	}
	if w.time.ahead(at) {
		return 0, &schemas.RecordError{Class: classFuture, Path: w.src.Time, Reason: "is more than " + w.src.Future.String() + " ahead of the clock"}
	}
	w.time.passed(at)
	w.newest.Store(w.time.newest)
	return at, nil
}

// pass keeps a good record and sends it on under the key of each group's entity. keyed is where the records are made; it does not grow.
func (w *sourceWorker) pass(r *kgo.Record, at int64, s *shipment, keyed []kgo.Record) ([]kgo.Record, error) {
	if w.events != nil && r.Offset >= w.events.Next() {
		if err := w.events.Append(w.row, at, r.Offset); err != nil {
			return keyed, err
		}
		w.tally.offlineRows.Inc()
	}
	if r.Offset < w.rekeyFrom || len(w.src.keyed) == 0 {
		return keyed, nil
	}
	headers := []kgo.RecordHeader{
		{Key: headerSource, Value: []byte(w.src.Name)},
		{Key: headerOrigin, Value: origin{w.partition, r.Offset}.append(make([]byte, 0, originSize))},
	}
	for _, g := range w.src.keyed {
		row, takes := g.Source.From(w.src.Source, w.row, at, w.merged)
		if g.Source.Merged() {
			w.merged = row
		}
		key, err := g.Key(row)
		if err != nil {
			if takes {
				w.dead(r, g.Name, err, s)
			}
			continue
		}
		keyed = append(keyed, kgo.Record{Topic: g.KeyedTopic, Key: []byte(key), Value: r.Value, Timestamp: r.Timestamp, Headers: headers})
		w.ship(s, r, &keyed[len(keyed)-1])
	}
	return keyed, nil
}

// dead sends a dead letter off with the shipment. by is the source or group that cannot use the record.
func (w *sourceWorker) dead(r *kgo.Record, by string, err error, s *shipment) {
	if r.Offset < w.rekeyFrom {
		return // written when the offset was committed
	}
	letter := w.letter(r, by, classOf(err), err)
	w.counted(letter)
	w.ship(s, r, w.letters.Record(letter))
}

func (w *sourceWorker) letter(r *kgo.Record, by, class string, err error) schemas.DeadLetter {
	return schemas.DeadLetter{
		Topic: r.Topic, Partition: r.Partition, Offset: r.Offset, Timestamp: r.Timestamp.UnixMilli(),
		Class: class, Reason: err.Error(), Stage: "ingest/" + by, Key: r.Key, Value: r.Value,
	}
}

func (w *sourceWorker) counted(l schemas.DeadLetter) {
	w.tally.dead.Inc()
	w.tally.letters.WithLabelValues(l.Class).Inc()
	w.progress.dead.Add(1)
}

// ship produces a record that belongs to a shipment.
func (w *sourceWorker) ship(s *shipment, original, r *kgo.Record) {
	s.mu.Lock()
	s.left++
	s.mu.Unlock()
	s.size++
	w.producer.Produce(context.Background(), r, func(_ *kgo.Record, err error) { s.acknowledge(original, err) })
}

// acknowledge notes that one part of a shipment has arrived or failed. It is called by the producer.
func (s *shipment) acknowledge(original *kgo.Record, err error) {
	s.mu.Lock()
	s.left--
	switch {
	case err == nil:
	case permanent(err) && original != nil:
		s.refused = append(s.refused, refusal{original, err})
	default:
		s.err = err
	}
	arrived := s.left == 0
	s.mu.Unlock()
	if arrived {
		select {
		case s.landed <- struct{}{}:
		default:
		}
	}
}
