package ingest

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace/millrace/features/offline"
	"github.com/millrace/millrace/features/online"
	"github.com/millrace/millrace/internal/failure"
	"github.com/millrace/millrace/schemas"
	"github.com/millrace/millrace/streams"
)

// sourceWorker is the way of one source partition's records: decode, check, keep offline, re-key, and apply to the groups that the
// source is keyed for already.
//
// Each of these has its own position: what was re-keyed is the offset committed to Kafka, what is kept offline the table's own, what is
// applied that in Redis. It reads from the lowest and does for each record only what is not done yet. What is committed to Kafka is what all
// of them have done.
type sourceWorker struct {
	*Stage
	src *source
	progress
	tally tally
	time  eventTime

	direct    []*applier
	flights   chan landing // of the appliers' writes
	items     []item
	rekeyFrom int64
	acked     int64           // up to here, what goes to Kafka is there
	passed    int64           // newest event time of the records that were passed on
	handed    int64           // the same of those below acked
	events    *offline.Writer // nil: not kept
	next      int64           // first offset not read
	end       int64           // of the partition when the worker began
	merged    schemas.Row     // what a group on a merged source makes of an event
	missed    func(table string)
	in        *streams.Input // of the present Run
	ships     []*shipment    // on their way to Kafka, in order
	landed    chan struct{}  // holds a token when a shipment may have arrived
	unacked   int
	gaveUp    bool // nothing more is processed: what is queued is the next owner's

	keeping keeping
	links   links // of a chained source

	written    written
	aloneUntil int64 // records below it go to Kafka one by one
}

// shipment is what one batch of source records became on Kafka.
type shipment struct {
	next    int64 // the source offset after it
	newest  int64 // event time of the source's records up to there
	size    int
	records []*kgo.Record // of the source, whose bytes it is made of
	landed  chan<- struct{}

	mu      sync.Mutex
	left    int   // records not acknowledged, and one while the batch is still being made
	refused error // a record that the broker will never take is in it
	err     error
}

func newSourceWorker(s *Stage, src *source, partition int32) *sourceWorker {
	w := &sourceWorker{Stage: s, src: src, tally: s.metrics.tally(kindSource, src.Name)}
	w.progress.kind, w.progress.name, w.progress.topic, w.progress.partition = kindSource, src.Name, src.Topic, partition
	w.items = make([]item, chunk)
	w.missed = func(table string) { s.metrics.lookupsMissed.WithLabelValues(src.Name, table).Inc() }
	for _, g := range src.direct {
		w.direct = append(w.direct, newApplier(s, g, partition, nil))
	}
	w.began()
	return w
}

// Start takes the partition's files over and finds the lower of the two positions.
func (w *sourceWorker) Start(ctx context.Context, committed int64) (_ int64, err error) {
	if w.end, err = streams.EndOffset(ctx, w.producer, w.src.Topic, w.partition); err != nil {
		return 0, err
	}
	w.rekeyFrom = max(committed, 0)
	w.time = newEventTime(w.deps.Project, w.src.Source, w.deps.Clock)
	w.ships, w.unacked, w.landed, w.gaveUp = nil, 0, make(chan struct{}, 1), false
	w.next, w.acked, w.written = w.rekeyFrom, w.rekeyFrom, newWritten(w.src.keyed)
	w.passed, w.handed = 0, 0
	if w.src.events != nil {
		if w.events != nil {
			_ = w.events.Close() // what it holds is read again
		}
		if w.events, err = w.src.events.NewWriter(w.partition, offline.WriterOptions{By: offline.By(w.src.OfflineBy), Clock: w.deps.Clock}); err != nil {
			return 0, err
		}
		if !w.src.Chained() { // of which files and topic count in other offsets: nothing is committed to Kafka that is not in a file
			w.next = min(w.next, max(w.events.Next(), 0))
		}
		w.links = newLinks(w.events.Next())
	} else {
		w.links = newLinks(0)
	}
	w.keeping = newKeeping(w.next)
	w.flights = make(chan landing, len(w.direct)) // what still flies belongs to the past
	if err := w.dropRetired(ctx); err != nil {
		return 0, err
	}
	for _, a := range w.direct {
		a.landed = w.flights
		if err := a.start(ctx, committed); err != nil {
			return 0, err
		}
		w.next = min(w.next, a.next)
	}
	if w.time.clock == nil && w.time.future > 0 {
		if w.time.newest, err = w.newestBefore(ctx); err != nil {
			return 0, err
		}
	}
	w.progress.next.Store(w.next)
	return w.next, nil
}

// Run is in streams.Worker. While writes are on their way, the next records are processed.
func (w *sourceWorker) Run(ctx context.Context, in *streams.Input) error {
	if !w.src.lone {
		w.entered(&w.progress, in)
		defer w.left(&w.progress)
	}
	for _, a := range w.direct {
		w.entered(&a.progress, in)
		defer w.left(&a.progress)
	}
	w.in = in
	w.began()
	defer w.src.pace.left(w.partition)
	idle := time.NewTimer(idleAfter)
	defer idle.Stop()
	keeping := time.NewTicker(w.cfg.OfflineEvery)
	defer keeping.Stop()
	flushing := newTimers(w.direct, in)
	defer flushing.stop()
	verifying := time.NewTicker(w.cfg.VerifyEvery)
	defer verifying.Stop()
	always := make(chan struct{})
	close(always)

	var records []*kgo.Record
	ended := false
	for {
		for _, a := range w.direct {
			if err := a.flushIfDue(ctx); err != nil {
				return err
			}
		}
		if ended && len(records) == 0 {
			return w.finish(ctx, in)
		}
		var ready, work <-chan struct{}
		switch {
		case w.full():
		case len(records) > 0:
			work = always
		default:
			ready = in.Ready()
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-w.landed:
			if err := w.settle(in); err != nil {
				return err
			}
		case l := <-w.flights:
			if err := w.applied(l, in); err != nil {
				return err
			}
			flushing.reset(l.of, l.of.flushEvery(l.took, in))
		case a := <-flushing.due:
			a.due = true
		case k := <-w.keeping.ended:
			if err := w.kept(k, in); err != nil {
				return err
			}
		case <-keeping.C:
			for _, a := range w.direct {
				if err := a.keep(); err != nil {
					return err
				}
			}
			if err := w.keep(); err != nil {
				return err
			}
			w.did(in)
		case <-verifying.C:
			for _, a := range w.direct {
				if err := a.verify(ctx); err != nil {
					return err
				}
			}
		case <-idle.C:
			w.resting()
		case <-ready:
			records, ended = in.Take()
		case <-work:
			n := min(len(records), chunk)
			if err := w.process(ctx, records[:n]); err != nil {
				return err
			}
			records = records[n:]
			in.Processed(n)
			w.paced(idle)
		}
	}
}

// full reports whether the partition must wait: for Kafka, for Redis, or for a disk that does not take rows.
func (w *sourceWorker) full() bool {
	if w.unacked >= w.cfg.MaxUnacked || w.events != nil && w.crowded() {
		return true
	}
	for _, a := range w.direct {
		if a.full() {
			return true
		}
	}
	return false
}

// applied takes note of how a write of an applier ended.
func (w *sourceWorker) applied(l landing, in *streams.Input) error {
	if err := l.of.settle(l); err != nil {
		return err
	}
	w.did(in)
	return nil
}

// did tells what all have done.
func (w *sourceWorker) did(in *streams.Input) {
	done := w.acked
	for _, a := range w.direct {
		done = min(done, a.done)
	}
	if w.src.Chained() && w.events != nil {
		done = min(done, w.keeping.upTo)
	}
	in.Done(done)
	if w.handed > 0 || w.acked > w.rekeyFrom { // else what an earlier worker has told is as good
		in.HandedOn(streams.Progress{Next: w.acked, Newest: w.handed})
	}
}

// timers tell when an applier's time to flush has come.
type timers struct {
	of  map[*applier]*time.Timer
	due chan *applier
}

func newTimers(appliers []*applier, in *streams.Input) timers {
	t := timers{of: map[*applier]*time.Timer{}, due: make(chan *applier, len(appliers))}
	for _, a := range appliers {
		t.of[a] = time.AfterFunc(a.flushEvery(0, in), func() { t.due <- a })
	}
	return t
}

// reset has a flush fall due after a while; the one before has landed.
func (t timers) reset(a *applier, after time.Duration) { t.of[a].Reset(after) }

func (t timers) stop() {
	for _, timer := range t.of {
		timer.Stop()
	}
}

// paceEvery is after how many records of a batch a worker tells the others how far it has come.
const paceEvery = 256

// idleAfter is how long a partition must have been at its end to count as having no backlog: a producer of many partitions does not write to
// all of them at once.
const idleAfter = 100 * time.Millisecond

// began holds the other partitions back until it is known what this one has.
func (w *sourceWorker) began() {
	if len(w.src.keyed) > 0 {
		w.src.pace.began(w.partition)
	}
}

// paced tells how far the partition has come.
func (w *sourceWorker) paced(idle *time.Timer) {
	if len(w.src.keyed) == 0 {
		return
	}
	if w.time.newest > 0 {
		w.src.pace.at(w.partition, w.time.newest)
	}
	idle.Reset(idleAfter)
}

// inPace waits for slower partitions, if the event is far ahead of them. It is false when the partition was given up meanwhile.
func (w *sourceWorker) inPace(ctx context.Context, at int64, applied int) bool {
	if len(w.src.keyed) == 0 {
		return true
	}
	ahead := w.src.pace.ahead(at)
	if ahead || applied%paceEvery == 0 {
		w.src.pace.at(w.partition, w.time.newest)
	}
	return !ahead || w.src.pace.wait(ctx, at, w.in.Ended())
}

// resting says that the partition has no backlog, if it has none.
func (w *sourceWorker) resting() {
	if len(w.src.keyed) > 0 && w.next >= max(w.end, w.in.End()) {
		w.src.pace.at(w.partition, paceIdle)
	}
}

// finish waits for what is on its way and keeps what is pending.
func (w *sourceWorker) finish(ctx context.Context, in *streams.Input) error {
	for {
		flying := len(w.ships) > 0 || w.keeping.under
		for _, a := range w.direct {
			if a.flight == nil && a.pending() {
				if err := a.flush(ctx); err != nil {
					return err
				}
			}
			flying = flying || a.flight != nil
		}
		if !flying {
			break
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-w.landed:
			if err := w.settle(in); err != nil {
				return err
			}
		case l := <-w.flights:
			if err := w.applied(l, in); err != nil {
				return err
			}
		case k := <-w.keeping.ended:
			if err := w.kept(k, in); err != nil {
				return err
			}
		}
	}
	err := w.keepLast(in)
	for _, a := range w.direct {
		err = errors.Join(err, a.keep(), a.closeRows())
	}
	if w.events != nil {
		err = errors.Join(err, w.events.Close())
	}
	return err
}

// settle takes note of the shipments that have arrived, in order.
func (w *sourceWorker) settle(in *streams.Input) error {
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
		if refused != nil {
			return w.alone(s.next, refused)
		}
		if err := w.at("source: after acknowledgement"); err != nil {
			return err
		}
		streams.Recycle(s.records)
		w.ships = w.ships[1:]
		w.unacked -= s.size
		w.progress.next.Store(s.next)
		w.acked, w.handed = s.next, s.newest
		w.did(in)
	}
	return nil
}

// process decodes and checks a chunk of records, keeps the good ones, applies them, and sends off what becomes of them on Kafka.
func (w *sourceWorker) process(ctx context.Context, records []*kgo.Record) error {
	if w.gaveUp {
		return nil
	}
	s := &shipment{records: records, left: 1, landed: w.landed}
	var keyed []kgo.Record
	if n := len(records) * len(w.src.keyed); n > 0 {
		keyed = make([]kgo.Record, 0, n)
	}
	good, items, newest := 0, w.items[:0], int64(0)
	for _, r := range records {
		if r.Offset < w.next {
			continue
		}
		hole := r.Offset > w.next
		w.next = r.Offset + 1
		if r.Attrs.IsControl() { // the end of a transaction
			continue
		}
		items = items[:len(items)+1]
		it := &items[len(items)-1]
		it.record, it.ok = r, false
		what, err := w.place(it, hole)
		if w.passOver(what) {
			items = items[:len(items)-1]
			continue
		}
		named := err == nil
		if named {
			err = w.check(ctx, it)
		}
		if err == nil && !w.inPace(ctx, it.at, good) {
			// The partition is given up, and its next owner goes on here. What is queued after this record must not be re-keyed
			// either: its higher offsets would make this one pass for a duplicate.
			w.next, w.gaveUp = r.Offset, true
			items = items[:len(items)-1]
			break
		}
		if named {
			w.links.accept(it.origin)
		}
		switch {
		case err == nil:
			good++
			it.ok = true
			if keyed, err = w.pass(ctx, it, s, keyed); err != nil {
				return err
			}
			newest = max(newest, it.at)
		case failure.Of(err).DeadLetter():
			if err := w.dead(ctx, r, w.src.Name, err, s); err != nil {
				return err
			}
		default:
			return err
		}
		if w.events != nil && w.enough() {
			if err := w.keep(); err != nil {
				return err
			}
		}
	}
	if !w.src.lone {
		w.tally.applied.Add(float64(good))
	}
	w.passed = max(w.passed, newest)
	w.unguarded(items, newest)
	w.progress.newest.Store(w.time.newest)
	if err := w.at("source: after produce"); err != nil {
		return err
	}
	for _, a := range w.direct {
		if err := a.apply(ctx, items, w.next); err != nil {
			return err
		}
	}
	s.next, s.newest = w.next, w.passed
	w.ships = append(w.ships, s)
	w.unacked += s.size
	s.acknowledge(nil)
	return nil
}

// check decodes a record and finds its event time. An error of kind BadRecord is a dead letter.
func (w *sourceWorker) check(ctx context.Context, it *item) (err error) {
	if it.row, err = w.src.decoder.Borrow(ctx, it.record.Value, it.row); err != nil {
		return err
	}
	if it.at, err = w.time.of(it.record, it.row); err != nil {
		return err
	}
	if w.time.ahead(it.at) {
		return &schemas.RecordError{Class: classFuture, Path: w.src.Time, Reason: "is more than " + w.src.Future.String() + " ahead of the clock"}
	}
	w.time.passed(it.at)
	w.deps.Tables.Enrich(w.src.Source, it.row, it.at, w.missed)
	return nil
}

// pass keeps a good record and sends it on under the key of each group's entity. keyed is where the records are made; it does not grow.
func (w *sourceWorker) pass(ctx context.Context, it *item, s *shipment, keyed []kgo.Record) ([]kgo.Record, error) {
	r := it.record
	if w.events != nil && it.origin.offset >= w.events.Next() {
		if err := w.events.Append(it.row, it.at, it.origin.offset); err != nil {
			return keyed, err
		}
		w.tally.offlineRows.Inc()
	}
	if r.Offset < w.rekeyFrom || len(w.src.keyed) == 0 {
		return keyed, nil
	}
	var joined []byte
	if len(w.src.Enrichments) > 0 {
		joined = appendJoined(nil, w.src.Schema, it.row)
	}
	for i, g := range w.src.keyed {
		row, takes := g.Source.From(w.src.Source, it.row, it.at, w.merged)
		if g.Source.Merged() {
			w.merged = row
		}
		key, err := g.Key(row)
		if err != nil && !takes {
			continue
		}
		if err != nil {
			if err := w.dead(ctx, r, g.Name, err, s); err != nil {
				return keyed, err
			}
			continue
		}
		at := online.Partition(g.version.Partitioner, key, g.version.Partitions)
		last := &w.written[i][at]
		it.origin.before = *last
		headers := make([]kgo.RecordHeader, 0, 4)
		headers = append(headers, w.mark, kgo.RecordHeader{Key: headerSource, Value: []byte(w.src.Name)},
			kgo.RecordHeader{Key: headerOrigin, Value: it.origin.append(make([]byte, 0, originSize))})
		if joined != nil {
			headers = append(headers, kgo.RecordHeader{Key: headerJoined, Value: joined})
		}
		keyed = append(keyed, kgo.Record{Topic: g.KeyedTopic, Partition: at, Key: []byte(key), Value: r.Value, Timestamp: r.Timestamp, Headers: headers})
		taken, err := w.ship(ctx, s, r, &keyed[len(keyed)-1])
		if err != nil {
			return keyed, err
		}
		if taken {
			*last = it.origin.offset
		}
	}
	return keyed, nil
}

// dead sends a dead letter off with the shipment. by is the source or group that cannot use the record.
func (w *sourceWorker) dead(ctx context.Context, r *kgo.Record, by string, err error, s *shipment) error {
	if w.src.lone {
		return nil // the source's own worker writes it
	}
	if r.Offset < w.rekeyFrom {
		return nil // written when the offset was committed
	}
	letter := w.letter(r, by, classOf(err), err)
	w.counted(&letter)
	_, err = w.ship(ctx, s, r, w.letters.Record(letter))
	return err
}

func (w *sourceWorker) letter(r *kgo.Record, by, class string, err error) schemas.DeadLetter {
	return schemas.DeadLetter{
		Topic: r.Topic, Partition: r.Partition, Offset: r.Offset, Timestamp: r.Timestamp.UnixMilli(),
		Class: class, Reason: err.Error(), Stage: "ingest/" + by, Key: r.Key, Value: r.Value,
	}
}

func (w *sourceWorker) counted(l *schemas.DeadLetter) {
	w.tally.dead.Inc()
	w.tally.letters.WithLabelValues(l.Class).Inc()
	w.deadLog.note(l)
	w.progress.dead.Add(1)
}

// ship produces a record that belongs to a shipment. It is not taken when it became a dead letter instead.
func (w *sourceWorker) ship(ctx context.Context, s *shipment, original, r *kgo.Record) (taken bool, err error) {
	if original.Offset < w.aloneUntil {
		return w.shipAlone(ctx, original, r)
	}
	s.mu.Lock()
	s.left++
	s.mu.Unlock()
	s.size++
	w.producer.Produce(context.Background(), r, func(_ *kgo.Record, err error) { s.acknowledge(err) })
	return true, nil
}

// acknowledge notes that one part of a shipment has arrived or failed. It is called by the producer.
func (s *shipment) acknowledge(err error) {
	s.mu.Lock()
	s.left--
	switch {
	case err == nil:
	case permanent(err):
		s.refused = err
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
