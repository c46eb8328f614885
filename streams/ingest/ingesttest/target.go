package ingesttest

import (
	"context"
	"errors"
	"slices"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace/millrace/features"
	"github.com/millrace/millrace/features/online"
	"github.com/millrace/millrace/features/script"
	"github.com/millrace/millrace/internal/failure"
	"github.com/millrace/millrace/project"
	"github.com/millrace/millrace/schemas"
	"github.com/millrace/millrace/streams"
	"github.com/millrace/millrace/streams/ingest"
)

// flush is how long a test's groups gather changes before they write them.
const flush = 2 * time.Millisecond

// look is how long to wait between two looks at how far the stage is.
const look = time.Millisecond

// patience is how long the stage may take for what it has been given.
const patience = time.Minute

// target is the stage at work on an isolated project.
type target struct {
	*Servers
	project  *project.Project
	client   *kgo.Client // with a manual partitioner
	stage    *ingest.Stage
	decoders map[*project.Source]schemas.Decoder
	tables   project.Tables
	now      atomic.Int64 // of the stage's clock, Unix milliseconds
	records  map[place]int
	count    int
	last     place // of the last record

	cancel context.CancelFunc
	ended  chan struct{} // closed when the stage has
	err    error         // of the stage, once it has ended
}

// place is where a record is in Kafka. The last record's offset counts for nothing but its name in records.
type place struct {
	topic     string
	partition int32
	offset    int64
}

func (s *Servers) start(ctx context.Context, client *kgo.Client, p *project.Project) (*target, error) {
	t := &target{Servers: s, project: p, client: client, tables: p.NewTables(), decoders: map[*project.Source]schemas.Decoder{}, records: map[place]int{}, ended: make(chan struct{})}
	var err error
	if s.Tables != nil {
		if t.tables, err = s.Tables(ctx, p); err != nil {
			return nil, err
		}
	}
	for _, source := range p.Sources {
		if source.Merged() {
			continue
		}
		if t.decoders[source], err = schemas.NewDecoder(source.Schema, source.Format, nil); err != nil {
			return nil, err
		}
	}
	for _, g := range p.Groups {
		g.Flush = flush
	}
	topics := p.Topology()
	for i := range topics {
		topics[i].Retention = 0 // the events of a test may be of any time
	}
	if err := streams.EnsureTopics(ctx, client, topics); err != nil {
		return nil, err
	}
	cfg := ingest.Default()
	cfg.FetchMaxWait = 50 * time.Millisecond
	t.stage, err = ingest.New(cfg, ingest.Deps{
		Project: p, Kafka: s.Kafka, Redis: s.Redis, Log: s.Log, Tables: t.tables, Registerer: prometheus.NewRegistry(),
		Clock: func() time.Time { return time.UnixMilli(t.now.Load()) },
	})
	if err != nil {
		return nil, err
	}
	var running context.Context
	running, t.cancel = context.WithCancel(context.WithoutCancel(ctx))
	go func() {
		t.err = t.stage.Run(running)
		close(t.ended)
	}()
	return t, nil
}

// stop ends the stage.
func (t *target) stop() error {
	t.cancel()
	<-t.ended
	return t.err
}

// Apply is in script.Target: it produces the record.
func (t *target) Apply(ctx context.Context, source string, record []byte) error {
	s := t.project.Source(source)
	if s == nil {
		return t.put(ctx, source, record)
	}
	if err := s.NoEvents(); err != nil {
		return err
	}
	r := &kgo.Record{Topic: s.Topic, Value: record}
	if row, err := t.decoders[s].Decode(ctx, record, nil); err == nil { // else the stage is to find out
		r.Key = []byte(row[s.KeyIndex()].Text())
		r.Timestamp = time.UnixMilli(row[s.TimeIndex()].Int())
		by := online.Murmur2
		if s.Partitioner == project.PartitionerCRC32 {
			by = online.CRC32
		}
		r.Partition = online.Partition(by, string(r.Key), s.Partitions)
	}
	if t.count > 0 && (t.last.topic != r.Topic || t.last.partition != r.Partition) {
		if err := t.applied(ctx); err != nil {
			return err
		}
	}
	if err := t.client.ProduceSync(ctx, r).FirstErr(); err != nil {
		return failure.Wrap(failure.Unavailable, r.Topic, "producing the record", err)
	}
	t.last = place{r.Topic, r.Partition, r.Offset}
	t.records[t.last] = t.count
	t.count++
	return nil
}

// put adds a row to a table. The records before it are applied without.
func (t *target) put(ctx context.Context, name string, record []byte) error {
	if err := t.applied(ctx); err != nil {
		return err
	}
	t.count++ // as a script counts them
	return t.tables.Put(ctx, t.project, name, record)
}

// SetClock is in script.Target. The records before it are applied at their own time.
func (t *target) SetClock(ctx context.Context, at int64) error {
	if err := t.applied(ctx); err != nil {
		return err
	}
	t.now.Store(at)
	return nil
}

// Read is in script.Target: it reads the entity's state from Redis, as serving does.
func (t *target) Read(ctx context.Context, group string, entity map[string]string, at int64) (map[string]features.Result, error) {
	g := t.project.Group(group)
	if g == nil {
		return nil, failure.New(failure.NotFound, group, "there is no such feature group")
	}
	key, err := g.KeyOf(entity)
	if err != nil {
		return nil, err
	}
	if err := t.applied(ctx); err != nil {
		return nil, err
	}
	reader := online.NewReader(t.Redis, t.project.Name, online.GroupRef{Group: g.Group, Partitions: g.Source.Partitions, Partitioner: online.Partitioner(g.Partitioner())})
	entries, err := reader.Get(ctx, []online.Ref{{Key: key}})
	if err != nil {
		return nil, err
	}
	var state *features.Entity
	if entries[0].State != nil {
		if state, err = g.Decode(entries[0].State); err != nil {
			return nil, err
		}
	}
	return g.Named(g.Read(state, at, nil)), nil
}

// DeadLetters is in script.Target: it reads the dead-letter topic.
func (t *target) DeadLetters(ctx context.Context) ([]script.DeadLetter, error) {
	if err := t.applied(ctx); err != nil {
		return nil, err
	}
	var letters []script.DeadLetter
	_, err := streams.Read(ctx, t.Kafka, streams.ReadOptions{Topic: t.project.Own().DeadLetters.Name}, func(r *kgo.Record) error {
		l, err := streams.ParseDeadLetter(r)
		if err != nil {
			return err
		}
		record, ok := t.records[place{l.Topic, l.Partition, l.Offset}]
		if !ok {
			return failure.New(failure.Internal, l.Topic, "a dead letter of partition %d, offset %d, which the test did not produce", l.Partition, l.Offset)
		}
		letters = append(letters, script.DeadLetter{Record: record, Class: l.Class, Reason: l.Reason})
		return nil
	})
	if err == nil {
		err = ctx.Err()
	}
	slices.SortStableFunc(letters, func(a, b script.DeadLetter) int { return a.Record - b.Record })
	return letters, err
}

// EntityColumns is in script.Target.
func (t *target) EntityColumns(group string) ([]string, error) { return t.project.EntityColumns(group) }

// applied waits until everything that was produced is in Redis or a dead letter, and so is what came of it on the way: until a second look at the
// topics' ends, after all before the first have been worked off, finds nothing new.
func (t *target) applied(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	before, err := t.ends(ctx)
	for err == nil {
		if err = t.reached(ctx, before); err != nil {
			return err
		}
		var after map[work]int64
		if after, err = t.ends(ctx); err == nil && equal(before, after) {
			return nil
		}
		before = after
	}
	return err
}

// work is one partition that the stage works on.
type work struct {
	topic     string
	partition int32
}

// ends are the ends of all partitions that the stage reads.
func (t *target) ends(ctx context.Context) (map[work]int64, error) {
	topics := []string{t.project.Own().DeadLetters.Name} // which is read next, and must be known by then
	for _, s := range t.project.Sources {
		if !s.Merged() {
			topics = append(topics, s.Topic)
		}
	}
	for _, g := range t.project.Groups {
		topics = append(topics, g.KeyedTopic)
	}
	slices.Sort(topics)
	topics = slices.Compact(topics)
	listed, err := t.list(ctx, topics)
	for errors.Is(err, kerr.UnknownTopicOrPartition) && ctx.Err() == nil { // new: not every broker, nor the client, knows of it yet
		select {
		case <-ctx.Done():
		case <-time.After(look):
			listed, err = t.list(ctx, topics)
		}
	}
	if err != nil {
		return nil, failure.Wrap(failure.Unavailable, t.project.Name, "asking for the ends of the test's topics", err)
	}
	ends := map[work]int64{}
	listed.Each(func(o kadm.ListedOffset) { ends[work{o.Topic, o.Partition}] = o.Offset })
	return ends, nil
}

func (t *target) list(ctx context.Context, topics []string) (kadm.ListedOffsets, error) {
	listed, err := kadm.NewClient(t.client).ListEndOffsets(ctx, topics...)
	if err != nil {
		return nil, err
	}
	return listed, listed.Error()
}

func equal(a, b map[work]int64) bool {
	for w, end := range b {
		if a[w] != end {
			return false
		}
	}
	return true
}

// reached waits until whoever reads a partition has come to its end.
func (t *target) reached(ctx context.Context, ends map[work]int64) error {
	tick := time.NewTicker(look)
	defer tick.Stop()
	for !t.at(ends) {
		select {
		case <-tick.C:
		case <-t.ended:
			return errors.Join(failure.New(failure.Internal, t.project.Name, "the stage has ended before the test"), t.err)
		case <-ctx.Done():
			return failure.Wrap(failure.Deadline, t.project.Name, "waiting for the records to be applied", ctx.Err())
		}
	}
	return nil
}

// at reports whether every reader of a topic that has records is at the given ends.
func (t *target) at(ends map[work]int64) bool {
	readers := map[work]int{}
	for _, s := range t.stage.Status() {
		w := work{s.Topic, s.Partition}
		if s.Next >= ends[w] {
			readers[w]++
		}
	}
	for w, end := range ends {
		if end > 0 && readers[w] < t.readersOf(w.topic) {
			return false
		}
	}
	return true
}

// readersOf is how many sources and groups read a topic.
func (t *target) readersOf(topic string) (n int) {
	for _, s := range t.project.Sources {
		if s.Topic == topic {
			n++
		}
	}
	for _, g := range t.project.Groups {
		if g.KeyedTopic == topic {
			n++
		}
	}
	return n
}
