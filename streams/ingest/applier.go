package ingest

import (
	"bytes"
	"context"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace/millrace/features"
	"github.com/millrace/millrace/features/offline"
	"github.com/millrace/millrace/features/online"
	"github.com/millrace/millrace/internal/failure"
	"github.com/millrace/millrace/project"
	"github.com/millrace/millrace/schemas"
)

// chunk is how many records are decoded before they are applied: entities that are not cached are read from Redis together.
const chunk = 1024

// item is a record on its way through a chunk.
type item struct {
	record *kgo.Record
	root   int // index of its source in the group's roots
	origin origin
	at     int64 // event time
	row    schemas.Row
	ok     bool // nothing is wrong with it so far
}

// applier adds one partition's events to the entities of one group, and writes what it has to Redis, the position with it. Its worker
// drives it: it brings the items in the order of the partition and calls it when its time has come.
type applier struct {
	*Stage
	group *group
	progress
	tally  tally
	timing groupTiming
	store  *online.Writer

	raw        []byte // the position as Redis has it
	next       int64  // first offset not applied
	taken      int64  // next of the last flush
	done       int64  // first offset that Redis does not have
	newest     int64  // event time
	until      int64  // online.Position.Until; 0 from there on
	seen       []seen // of each root; unused by a direct group
	times      sourceTimes
	deadFrom   int64 // dead letters of records before it are written
	strays     bool  // among the records at hand
	cache      *cache
	found      []*cached // of each item of a chunk; nil: nothing more to do
	missing    []*cached
	created    int // entities of a chunk that Redis was not asked for, as it has none
	dirty      []*cached
	unflushed  int       // events applied that Redis does not have, those on their way included
	polled     time.Time // when the first of those that no flush has taken came
	written    time.Time // its record's timestamp
	due        bool      // the time to flush has come
	letters    []schemas.DeadLetter
	flight     *flight // the write on its way; nil when there is none
	encoded    int     // bytes of the last flush's states
	landed     chan landing
	rows       *offline.Writer // nil: not kept
	dueRows    []byte          // rows that no flush has taken, encoded
	rowsInFile bool            // the rows that Redis has are in a file
	keepSoon   bool            // enough rows wait to be committed before their time
	stalled    bool            // the disk did not take the last commit
	results    []features.Result
	dueAt      []int64             // boundaries whose rows came due with the event at hand
	dueResults [][]features.Result // and the values as of each
	row        schemas.Row
	scratch    features.Scratch

	materializer materializer
	outbox       outbox
}

// newApplier makes the applier of a partition. Landings of its flights come to landed.
func newApplier(s *Stage, g *group, partition int32, landed chan landing) *applier {
	a := &applier{
		Stage: s, group: g, tally: s.metrics.tally(kindGroup, g.Name), timing: s.metrics.timing(g.Name), landed: landed,
		store: online.NewWriter(s.deps.Redis, s.deps.Project.Name, g.Name, g.version.ID), found: make([]*cached, chunk),
	}
	a.progress.kind, a.progress.name, a.progress.topic, a.progress.partition = kindGroup, g.Name, g.KeyedTopic, partition
	return a
}

// start loads the position from Redis, the only truth about it, and forgets everything else. committed is the offset below which dead
// letters are written.
func (a *applier) start(ctx context.Context, committed int64) error {
	loaded, err := a.store.LoadRows(ctx, a.partition)
	if err != nil {
		return err
	}
	if loaded, err = a.rebuild(ctx, loaded); err != nil {
		return err
	}
	a.raw, a.next, a.deadFrom = loaded.Raw, loaded.Position.Next, max(committed, 0)
	a.newest, a.until = loaded.Position.Newest, loaded.Position.Until
	a.seen = make([]seen, len(a.group.roots))
	for i, root := range a.group.roots {
		for from, offset := range loaded.Position.Sources {
			if from.Source == root.Name {
				a.seen[i].add(origin{partition: from.Partition, offset: offset})
			}
		}
	}
	a.times = nil
	if a.deps.Project.Clock == project.ClockEvent {
		a.times = newSourceTimes(a.group.roots, loaded.Position)
	}
	a.cache = newCache(&a.Stage.cached, a.group.Group.Group)
	if loaded.Position.Untouched() {
		a.cache.evicted = &evicted{}
	}
	a.dirty, a.missing, a.letters, a.unflushed = a.dirty[:0], a.missing[:0], nil, 0
	a.flight, a.due = nil, false
	a.outbox.start(len(a.group.gives))
	a.dueRows, a.rowsInFile, a.stalled = nil, false, false
	a.taken, a.done, a.polled = a.next, a.next, time.Time{}
	a.progress.next.Store(a.next)
	a.progress.newest.Store(a.newest)
	return a.startRows(loaded.Rows)
}

// position is how far the applier has come.
func (a *applier) position() online.Position {
	if a.next >= a.until {
		a.until = 0
	}
	p := online.Position{Next: a.next, Newest: a.newest, Until: a.until}
	for i, seen := range a.seen {
		for partition, offset := range seen {
			if offset < 0 {
				continue
			}
			if p.Sources == nil {
				p.Sources = make(map[online.SourcePartition]int64, len(seen))
			}
			p.Sources[online.SourcePartition{Source: a.group.roots[i].Name, Partition: int32(partition)}] = offset
		}
	}
	p.SourceTimes = a.times.of(a.group.roots, a.newest)
	return p
}

// full reports whether the partition must wait: for Redis, or for a disk that does not take rows.
func (a *applier) full() bool {
	return a.unflushed >= a.cfg.MaxUnflushed || a.flight != nil && a.crowded() || a.rows != nil && a.rows.Rows() >= a.cfg.OfflineWaiting
}

// apply adds a chunk of items to their entities. next is the offset after the last of them. When it fails, the worker starts over, so what
// it has changed by then does not matter.
func (a *applier) apply(ctx context.Context, items []item, next int64) error {
	if a.polled.IsZero() && len(items) > 0 {
		a.polled, a.written = a.deps.Clock(), items[0].record.Timestamp
	}
	fresh, looked := 0, 0
	a.created = 0
	for i := range items {
		it := &items[i]
		a.found[i] = nil
		if it.record.Offset < a.next {
			continue
		}
		fresh++
		if !it.ok {
			continue
		}
		if err := a.find(it, i); err != nil {
			return err
		}
		if a.found[i] != nil {
			looked++
		}
	}
	a.timing.hits.Add(float64(looked - len(a.missing) - a.created))
	a.timing.misses.Add(float64(len(a.missing)))
	a.timing.created.Add(float64(a.created))
	a.next = max(a.next, next)
	if err := a.checkStrays(ctx); err != nil {
		return err
	}
	if err := a.load(ctx); err != nil {
		return err
	}
	applied := 0
	for i := range items {
		if e := a.found[i]; e != nil {
			outcome, err := a.add(&items[i], e)
			if err != nil {
				return err
			}
			if outcome == features.Applied {
				applied++
				if err := a.give(ctx, &items[i], e); err != nil {
					return err
				}
			}
		}
	}
	a.tally.applied.Add(float64(applied))
	a.unflushed += fresh
	a.progress.newest.Store(a.newest)
	a.cache.trim()
	if a.keepSoon {
		if err := a.keep(); err != nil {
			return err
		}
	}
	return a.at("group: after apply")
}

// find looks up the entity of an item; one that is not cached is noted as missing, unless it can be nowhere else.
func (a *applier) find(it *item, i int) error {
	key, err := a.group.Key(it.row)
	if err != nil && a.group.Direct && !a.group.Source.Accepts(it.row) {
		a.passOver(it)
		return nil
	}
	if err != nil {
		return a.reject(it, err)
	}
	if !a.group.Direct && string(it.record.Key) != key {
		return failure.New(failure.BadProject, a.group.KeyedTopic, "is keyed by another entity than %v: %q, not %q", a.group.Entity, it.record.Key, key).
			WithHint("the group's entity was changed: delete the topic so that it is filled anew, or give the group another name")
	}
	e := a.cache.get(key)
	if e == nil {
		if a.group.Direct && !a.belongs(it, key) { // who is cached was asked before
			return nil
		}
		e = a.cache.add(strings.Clone(key))
		if a.cache.isNew(e) {
			a.created++
		} else {
			a.missing = append(a.missing, e)
		}
	}
	a.found[i] = e
	return nil
}

// passOver counts an event that the group does not take.
func (a *applier) passOver(it *item) {
	a.tally.filtered.Inc()
	a.newest = max(a.newest, it.at)
}

// belongs reports whether the entity is one of this partition's; a record of another is a dead letter.
func (a *applier) belongs(it *item, key string) bool {
	at := online.Partition(a.group.version.Partitioner, key, a.group.version.Partitions)
	if at != a.partition {
		a.misrouted(it, key)
	}
	return at == a.partition
}

// load reads the missing entities from Redis.
func (a *applier) load(ctx context.Context) error {
	if len(a.missing) == 0 {
		return nil
	}
	keys := make([]string, len(a.missing))
	for i, e := range a.missing {
		keys[i] = e.key
	}
	states, raw, err := a.store.StatesAt(ctx, a.partition, keys)
	if err != nil {
		return err
	}
	if !bytes.Equal(raw, a.raw) && (a.flight == nil || !bytes.Equal(raw, a.flight.raw)) {
		return a.lost() // what was read is another's; adding to it would count events twice
	}
	for i, e := range a.missing {
		if err := a.cache.decode(e, states[i]); err != nil {
			return err
		}
	}
	a.missing = a.missing[:0]
	return nil
}

// add adds an event to its entity.
func (a *applier) add(it *item, e *cached) (features.Outcome, error) {
	entity := a.cache.open(e)
	if a.rows != nil {
		a.rowsDue(entity, it.at)
	}
	outcome, err := a.group.Add(entity, it.row, it.at, a.group.Source.Sequence(a.group.roots[it.root].Source, it.origin.partition, it.origin.offset))
	switch {
	case err != nil:
		return features.Filtered, a.reject(it, err)
	case outcome == features.TooLate:
		a.late.Add(1)
		a.timing.late.Inc()
		a.dead(it, classLate, failure.New(failure.BadRecord, a.group.Name, "the event is older than everything kept of %q, whose newest is at %s",
			e.key, time.UnixMilli(entity.Newest()).UTC().Format(time.RFC3339Nano)))
		return outcome, nil
	}
	if outcome == features.Filtered {
		a.passOver(it)
		return outcome, nil
	}
	a.newest = max(a.newest, it.at)
	if outcome == features.Duplicate {
		a.tally.duplicate.Inc()
		return outcome, nil
	}
	a.cache.keep(e, entity)
	if !e.dirty {
		e.dirty = true
		a.dirty = append(a.dirty, e)
	}
	if a.rows == nil {
		return outcome, nil
	}
	return outcome, a.keepRows(it, e)
}

// reject makes a dead letter of a record that can never be applied; any other failure is returned.
func (a *applier) reject(it *item, err error) error {
	if !failure.Of(err).DeadLetter() {
		return err
	}
	a.dead(it, classOf(err), err)
	return nil
}

// dead notes a dead letter, to be written before the position passes the record. It names the record of the source, so that it can be
// replayed there.
func (a *applier) dead(it *item, class string, err error) {
	r := it.record
	if r.Offset < a.deadFrom {
		return // written before the position was last there
	}
	l := schemas.DeadLetter{
		Topic: a.group.roots[it.root].Topic, Partition: it.origin.partition, Offset: it.origin.offset, Timestamp: r.Timestamp.UnixMilli(),
		Class: class, Reason: err.Error(), Stage: "ingest/" + a.group.Name, Key: bytes.Clone(r.Key), Value: bytes.Clone(r.Value),
	}
	if class == classForeign {
		l.Topic, l.Partition, l.Offset = r.Topic, r.Partition, r.Offset
	}
	a.letters = append(a.letters, l)
	a.tally.dead.Inc()
	a.tally.letters.WithLabelValues(class).Inc()
	a.deadLog.note(&l)
	a.progress.dead.Add(1)
}

// verify finds out that Redis lost what it had when no write would: a partition without events must be rebuilt, too.
func (a *applier) verify(ctx context.Context) error {
	if a.flight != nil || a.pending() {
		return nil
	}
	_, raw, err := a.store.Load(ctx, a.partition)
	if err == nil && !bytes.Equal(raw, a.raw) {
		return a.lost()
	}
	return err
}

func (a *applier) lost() error {
	return failure.New(failure.Conflict, a.group.Name, "the position of partition %d in Redis is not the one written last", a.partition)
}
