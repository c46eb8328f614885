package ingest

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace/millrace/features"
	"github.com/millrace/millrace/features/offline"
	"github.com/millrace/millrace/features/online"
	"github.com/millrace/millrace/internal/failure"
	"github.com/millrace/millrace/schemas"
	"github.com/millrace/millrace/streams"
)

// chunk is how many records are applied between two looks at everything else.
const chunk = 1024

// groupWorker is the way of one keyed partition's records into features: decode, find the entity, add, write to Redis.
type groupWorker struct {
	*Stage
	group *group
	progress
	tally  tally
	time   eventTime
	times  []eventTime // of each root
	store  *online.Writer
	timing groupTiming

	raw        []byte // the position as Redis has it
	next       int64  // first offset not applied
	taken      int64  // next of the last flush
	seen       []seen // of each root; unused by a direct group
	deadFrom   int64  // dead letters of records before it are written
	cache      *cache
	items      []item
	missing    []*cached
	dirty      []*cached
	unflushed  int       // events applied that Redis does not have, those on their way included
	polled     time.Time // when the first of those that no flush has taken came
	letters    []schemas.DeadLetter
	flight     *flight // the write on its way; nil when there is none
	landed     chan landing
	rows       *offline.Writer // nil: not kept
	due        []byte          // rows that no flush has taken, encoded
	rowsInFile bool            // the rows that Redis has are in a file
	keepSoon   bool            // enough rows wait to be committed before their time
	stalled    bool            // the disk did not take the last commit
	results    []features.Result
	dueAt      []int64             // boundaries whose rows came due with the event at hand
	dueResults [][]features.Result // and the values as of each
	row        schemas.Row
	scratch    features.Scratch
}

// item is a record on its way through a chunk.
type item struct {
	record *kgo.Record
	root   int // index in the group's
	origin origin
	at     int64       // event time
	event  schemas.Row // as the root has it
	row    schemas.Row // as the group takes it
	entity *cached     // nil: nothing more to do
}

func newGroupWorker(s *Stage, g *group, partition int32) *groupWorker {
	w := &groupWorker{
		Stage: s, group: g, tally: s.metrics.tally(kindGroup, g.Name), timing: s.metrics.timing(g.Name),
		store: online.NewWriter(s.deps.Redis, s.deps.Project.Name, g.Name, g.Version), items: make([]item, chunk),
	}
	w.progress.kind, w.progress.name, w.progress.topic, w.progress.partition = kindGroup, g.Name, g.KeyedTopic, partition
	return w
}

// Start loads the position from Redis, the only truth about it, and forgets everything else.
func (w *groupWorker) Start(ctx context.Context, committed int64) (int64, error) {
	loaded, err := w.store.LoadRows(ctx, w.partition)
	if err != nil {
		return 0, err
	}
	if loaded, err = w.rebuild(ctx, loaded); err != nil {
		return 0, err
	}
	w.raw, w.next, w.deadFrom = loaded.Raw, loaded.Position.Next, max(committed, 0)
	w.time = newEventTime(w.deps.Project, w.group.Source, w.deps.Clock)
	w.time.newest = loaded.Position.Newest
	w.times, w.seen = make([]eventTime, len(w.group.roots)), make([]seen, len(w.group.roots))
	for i, root := range w.group.roots {
		w.times[i] = newEventTime(w.deps.Project, root.Source, w.deps.Clock)
		for from, offset := range loaded.Position.Sources {
			if from.Source == root.Name {
				w.seen[i].add(origin{from.Partition, offset})
			}
		}
	}
	w.cache = newCache(w.cfg.CacheEntities, w.cfg.CacheBytes)
	w.dirty, w.missing, w.letters, w.unflushed = w.dirty[:0], w.missing[:0], nil, 0
	w.flight, w.landed = nil, make(chan landing, 1)
	w.due, w.rowsInFile, w.stalled = nil, false, false
	w.taken, w.polled = w.next, time.Time{}
	w.progress.next.Store(w.next)
	w.newest.Store(w.time.newest)
	return w.next, w.startRows(loaded.Rows)
}

// position is how far the worker has come.
func (w *groupWorker) position() online.Position {
	p := online.Position{Next: w.next, Newest: w.time.newest}
	for i, seen := range w.seen {
		for partition, offset := range seen {
			if offset < 0 {
				continue
			}
			if p.Sources == nil {
				p.Sources = make(map[online.SourcePartition]int64, len(seen))
			}
			p.Sources[online.SourcePartition{Source: w.group.roots[i].Name, Partition: int32(partition)}] = offset
		}
	}
	return p
}

// Run is in streams.Worker. While a write is on its way, the next records are applied.
func (w *groupWorker) Run(ctx context.Context, in *streams.Input) error {
	w.entered(&w.progress, in)
	defer w.left(&w.progress)
	flushing := time.NewTimer(w.flushEvery(0))
	defer flushing.Stop()
	keeping := time.NewTicker(w.cfg.OfflineEvery)
	defer keeping.Stop()
	verifying := time.NewTicker(w.cfg.VerifyEvery)
	defer verifying.Stop()
	always := make(chan struct{})
	close(always)

	var records []*kgo.Record
	ended, flushDue := false, false
	for {
		if w.flight == nil && w.pending() && (flushDue || w.unflushed >= w.cfg.FlushEvents) {
			flushDue = false
			if err := w.flush(ctx); err != nil {
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
		case l := <-w.landed:
			if err := w.settle(l, in); err != nil {
				return err
			}
			flushing.Reset(w.flushEvery(l.took))
		case <-flushing.C:
			flushDue = true
		case <-keeping.C:
			if err := w.keep(); err != nil {
				return err
			}
		case <-verifying.C:
			if err := w.verify(ctx); err != nil {
				return err
			}
		case <-ready:
			records, ended = in.Take()
		case <-work:
			n := min(len(records), chunk)
			if err := w.apply(ctx, records[:n]); err != nil {
				return err
			}
			records = records[n:]
			if w.keepSoon {
				if err := w.keep(); err != nil {
					return err
				}
			}
		}
	}
}

// verify finds out that Redis lost what it had when no write would: a partition without events must be rebuilt, too.
func (w *groupWorker) verify(ctx context.Context) error {
	if w.flight != nil || w.pending() {
		return nil
	}
	_, raw, err := w.store.Load(ctx, w.partition)
	if err == nil && !bytes.Equal(raw, w.raw) {
		return w.lost()
	}
	return err
}

func (w *groupWorker) lost() error {
	return failure.New(failure.Conflict, w.group.Name, "the position of partition %d in Redis is not the one written last", w.partition)
}

// flushEvery is how long to wait after a flush that took so long: so that writing takes at most a fifth of the time when everything is
// behind, and the declared time otherwise.
func (w *groupWorker) flushEvery(took time.Duration) time.Duration {
	every := w.group.Flush
	if every == 0 {
		every = w.cfg.Flush
	}
	return max(every, min(4*took, time.Second))
}

// full reports whether the partition must wait: for Redis, or for a disk that does not take rows.
func (w *groupWorker) full() bool {
	return w.unflushed >= w.cfg.MaxUnflushed || w.rows != nil && w.rows.Rows() >= w.cfg.OfflineWaiting
}

// finish writes what is pending, and returns when Redis has it.
func (w *groupWorker) finish(ctx context.Context, in *streams.Input) error {
	if err := w.keep(); err != nil {
		return err
	}
	for w.flight != nil || w.pending() {
		if w.flight == nil {
			if err := w.flush(ctx); err != nil {
				return err
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case l := <-w.landed:
			if err := w.settle(l, in); err != nil {
				return err
			}
		}
	}
	if w.rows != nil {
		return w.rows.Close()
	}
	return nil
}

// apply adds records to their entities. Entities that are not cached are read from Redis together first. When it fails, the worker starts
// over, so what it has changed by then does not matter.
func (w *groupWorker) apply(ctx context.Context, records []*kgo.Record) error {
	if w.polled.IsZero() {
		w.polled = w.deps.Clock()
	}
	items := w.items[:len(records)]
	for i, r := range records {
		if err := w.read(ctx, r, &items[i]); err != nil {
			return err
		}
		w.next = max(w.next, r.Offset+1)
	}
	if err := w.load(ctx); err != nil {
		return err
	}
	for i := range items {
		if items[i].entity == nil {
			continue
		}
		if err := w.add(&items[i]); err != nil {
			return err
		}
	}
	w.unflushed += len(records)
	w.newest.Store(w.time.newest)
	w.cache.trim()
	return w.at("group: after apply")
}

// read decodes a record and finds its entity; one that is not cached is noted as missing. A record that ends here has no entity.
func (w *groupWorker) read(ctx context.Context, r *kgo.Record, it *item) (err error) {
	it.record, it.entity = r, nil
	if r.Offset < w.next {
		return nil
	}
	it.root, it.origin = 0, origin{r.Partition, r.Offset}
	if !w.group.Direct {
		if it.root, it.origin, err = originOf(r, w.group.roots); err != nil {
			w.dead(it, classForeign, err)
			return nil
		}
		if w.seen[it.root].has(it.origin) {
			w.tally.duplicate.Inc()
			return nil
		}
		w.seen[it.root].add(it.origin)
	}
	root := w.group.roots[it.root]
	if it.event, err = root.decoder.Decode(ctx, r.Value, it.event); err != nil {
		return w.unreadable(it, err)
	}
	if it.at, err = w.times[it.root].of(r, it.event); err != nil {
		return w.unreadable(it, err)
	}
	if w.group.Direct && w.time.ahead(it.at) {
		w.tally.skipped.Inc()
		return nil
	}
	var takes bool
	if it.row, takes = w.group.Source.From(root.Source, it.event, it.at, it.row); !takes {
		return w.passOver(it)
	}
	key, err := w.group.Key(it.row)
	if err != nil {
		return w.reject(it, err)
	}
	return w.find(it, key)
}

// passOver counts an event that the group does not take.
func (w *groupWorker) passOver(it *item) error {
	w.tally.filtered.Inc()
	w.time.passed(it.at)
	return nil
}

// find gives the item its entity, when the record is where its entity's records belong.
func (w *groupWorker) find(it *item, key string) error {
	switch {
	case w.group.Direct && online.Partition(key, w.group.partitions) != w.partition:
		w.dead(it, classMisrouted, failure.New(failure.BadRecord, w.group.Name, "entity %s belongs in partition %d", key, online.Partition(key, w.group.partitions)).
			WithHint("do not declare partitioner murmur2 for %s: its producers use another", w.group.Source.Name))
		return nil
	case !w.group.Direct && string(it.record.Key) != key:
		return failure.New(failure.BadProject, w.group.KeyedTopic, "is keyed by another entity than %v: %q, not %q", w.group.Entity, it.record.Key, key).
			WithHint("the group's entity was changed: delete the topic so that it is filled anew, or give the group another name")
	}
	if it.entity = w.cache.get(key); it.entity != nil {
		w.timing.hits.Inc()
	} else {
		w.timing.misses.Inc()
		it.entity = w.cache.add(strings.Clone(key))
		w.missing = append(w.missing, it.entity)
	}
	return nil
}

// load reads the missing entities from Redis.
func (w *groupWorker) load(ctx context.Context) error {
	if len(w.missing) == 0 {
		return nil
	}
	keys := make([]string, len(w.missing))
	for i, e := range w.missing {
		keys[i] = e.key
	}
	states, raw, err := w.store.StatesAt(ctx, w.partition, keys)
	if err != nil {
		return err
	}
	if !bytes.Equal(raw, w.raw) && (w.flight == nil || !bytes.Equal(raw, w.flight.raw)) {
		return w.lost() // what was read is another's; adding to it would count events twice
	}
	for i, e := range w.missing {
		if states[i] == nil {
			e.entity = w.group.NewEntity()
		} else if len(raw) == 0 {
			return failure.New(failure.Corrupt, w.group.Name, "entity %q has a state in Redis, but partition %d has no position", e.key, w.partition).
				WithHint("was the position deleted? Delete the group's other keys, too: it is rebuilt from the log")
		} else if e.entity, err = w.group.Decode(states[i]); err != nil {
			return fmt.Errorf("loading entity %q of %s: %w", e.key, w.group.Name, err)
		}
		w.cache.sized(e, int64(e.entity.Bytes()))
	}
	w.missing = w.missing[:0]
	return nil
}

// add adds an event to its entity.
func (w *groupWorker) add(it *item) error {
	e := it.entity
	w.dueRows(e, it.at)
	outcome, err := w.group.Add(e.entity, it.row, it.at, w.group.Source.Sequence(w.group.roots[it.root].Source, it.origin.partition, it.origin.offset))
	switch {
	case err != nil:
		return w.reject(it, err)
	case outcome == features.TooLate:
		w.late.Add(1)
		w.timing.late.Inc()
		w.dead(it, classLate, failure.New(failure.BadRecord, w.group.Name, "the event is older than everything kept of %q, whose newest is at %s",
			e.key, time.UnixMilli(e.entity.Newest()).UTC().Format(time.RFC3339Nano)))
		return nil
	case outcome == features.Filtered:
		return w.passOver(it)
	}
	w.tally.applied.Inc()
	w.time.passed(it.at)
	if !e.dirty {
		e.dirty = true
		w.dirty = append(w.dirty, e)
	}
	return w.keepRows(it)
}

// unreadable deals with a record that cannot be decoded. What is read directly from a source is not ours to complain of.
func (w *groupWorker) unreadable(it *item, err error) error {
	if w.group.Direct && failure.Of(err).DeadLetter() {
		w.tally.skipped.Inc()
		return nil
	}
	return w.reject(it, err)
}

// reject makes a dead letter of a record that can never be applied; any other failure is returned.
func (w *groupWorker) reject(it *item, err error) error {
	if !failure.Of(err).DeadLetter() {
		return err
	}
	w.dead(it, classOf(err), err)
	return nil
}

// dead notes a dead letter, to be written before the position passes the record. It names the record of the source, so that it can be
// replayed there.
func (w *groupWorker) dead(it *item, class string, err error) {
	r := it.record
	if r.Offset < w.deadFrom {
		return // written before the position was last there
	}
	l := schemas.DeadLetter{
		Topic: w.group.roots[it.root].Topic, Partition: it.origin.partition, Offset: it.origin.offset, Timestamp: r.Timestamp.UnixMilli(),
		Class: class, Reason: err.Error(), Stage: "ingest/" + w.group.Name, Key: r.Key, Value: r.Value,
	}
	if class == classForeign {
		l.Topic, l.Partition, l.Offset = r.Topic, r.Partition, r.Offset
	}
	w.letters = append(w.letters, l)
	w.tally.dead.Inc()
	w.tally.letters.WithLabelValues(class).Inc()
	w.progress.dead.Add(1)
}
