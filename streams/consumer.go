package streams

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace/millrace/internal/failure"
)

// ConsumerConfig is what a Consumer needs to know. Every limit must be set.
type ConsumerConfig struct {
	Group     string
	Topics    []string
	NewWorker func(topic string, partition int32) Worker
	Log       *slog.Logger

	QueueRecords        int           // records fetched and not yet processed, of all partitions, after which nothing is fetched
	PollRecords         int           // of one poll
	CommitEvery         time.Duration // between commits to Kafka of what the workers are done with
	SessionTimeout      time.Duration // after which Kafka takes this member for dead
	StopTimeout         time.Duration // for a worker to write what is pending when its partition is given up
	BackoffMin          time.Duration // before a worker that failed starts over, doubling up to
	BackoffMax          time.Duration
	FetchMaxWait        time.Duration
	FetchPartitionBytes int32

	Restarted func(topic string, partition int32, err error)      // a worker failed and starts over; may be nil
	Skipped   func(topic string, partition int32, from, to int64) // offsets that are not in the topic any more (or never were visible); may be nil
	Lost      func(topic string, partition int32, from, to int64) // those of them that retention deleted before a worker that had begun read them; may be nil
}

// Consumer is one member of a consumer group, with a worker per assigned partition.
type Consumer struct {
	kafka     Config
	cfg       ConsumerConfig
	client    *kgo.Client
	connected chan struct{} // closed when client is set: the client joins, and calls back, before it is returned
	failed    chan error    // the first failure that cannot be tried again

	seekMu sync.Mutex
	seeks  []*seek
	wake   context.CancelFunc // ends the poll in progress

	mu         sync.Mutex
	partitions map[topicPartition]*partition
	abandoned  bool
	queued     *queued

	commitMu sync.Mutex
}

type topicPartition struct {
	topic     string
	partition int32
}

type partition struct {
	topicPartition
	worker    Worker
	in        *Input
	committed int64  // of the group when the partition was assigned, then what we committed; guarded by Consumer.commitMu
	told      string // metadata of what we committed; guarded likewise
	ctx       context.Context
	cancel    context.CancelFunc
	done      chan struct{}
}

// seek asks the polling goroutine to go on at an offset.
type seek struct {
	p      *partition
	offset int64
	made   chan struct{}
}

// NewConsumer makes a member of the group. It joins in Run.
func NewConsumer(kafka Config, cfg ConsumerConfig) (*Consumer, error) {
	if err := kafka.Validate(); err != nil {
		return nil, err
	}
	return &Consumer{
		kafka: kafka, cfg: cfg, connected: make(chan struct{}), failed: make(chan error, 1),
		partitions: map[topicPartition]*partition{}, wake: func() {}, queued: newQueued(),
	}, nil
}

// Run joins the group and consumes until ctx ends (then nil) or a worker fails for good. Before it returns, the workers have written what
// was pending, and the member has left the group. It can be called once.
func (c *Consumer) Run(ctx context.Context) error {
	var err error
	if c.client, err = NewClient(c.kafka, c.options()...); err != nil {
		return err
	}
	close(c.connected)
	var committing sync.WaitGroup
	stop := make(chan struct{})
	committing.Go(func() { c.commitRegularly(stop) })
	err = c.poll(ctx)
	close(stop)
	committing.Wait()
	if err != nil {
		c.Abandon(err) // what is pending is not to be trusted
	}
	c.client.CloseAllowingRebalance()
	c.giveUpAll()
	return err
}

func (c *Consumer) options() []kgo.Opt {
	return []kgo.Opt{
		Logger(c.cfg.Log),
		kgo.ConsumerGroup(c.cfg.Group),
		kgo.ConsumeTopics(c.cfg.Topics...),
		kgo.Balancers(kgo.CooperativeStickyBalancer()),
		kgo.BlockRebalanceOnPoll(),
		kgo.DisableAutoCommit(),
		kgo.AdjustFetchOffsetsFn(c.assigned),
		kgo.OnPartitionsRevoked(func(_ context.Context, _ *kgo.Client, gone map[string][]int32) { c.giveUp(gone, true) }),
		kgo.OnPartitionsLost(func(_ context.Context, _ *kgo.Client, gone map[string][]int32) { c.giveUp(gone, false) }),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.KeepControlRecords(), // a partition that ends with one would never seem to be done
		kgo.FetchMaxWait(c.cfg.FetchMaxWait),
		kgo.FetchMaxPartitionBytes(c.cfg.FetchPartitionBytes),
		kgo.WithPools(&pool{}),
		kgo.SessionTimeout(c.cfg.SessionTimeout),
		kgo.HeartbeatInterval(min(c.cfg.SessionTimeout/5, 3*time.Second)),
		kgo.RebalanceTimeout(c.cfg.SessionTimeout + c.cfg.StopTimeout),
	}
}

// poll is the only goroutine that takes records from the client and the only one that seeks.
func (c *Consumer) poll(ctx context.Context) error {
	for {
		waiting, wake := context.WithCancel(ctx)
		c.seekMu.Lock()
		c.wake = wake
		seeks := c.seeks
		c.seeks = nil
		c.seekMu.Unlock()
		if early := c.seek(seeks); len(early) > 0 {
			c.seekMu.Lock()
			c.seeks = append(c.seeks, early...)
			c.seekMu.Unlock()
			time.AfterFunc(c.cfg.BackoffMin, wake)
		}
		c.makeRoom(waiting)
		fetches := c.client.PollRecords(waiting, c.cfg.PollRecords)
		wake()
		err := c.hand(ctx, fetches)
		c.client.AllowRebalance()
		select {
		case <-ctx.Done():
			return nil
		case err := <-c.failed:
			return err
		default:
		}
		if err != nil {
			return err
		}
	}
}

// holdAfter is how long the poll waits for any worker to process what is queued before it goes on without them.
const holdAfter = 20 * time.Millisecond

// makeRoom waits while enough is queued. Partitions are paused only when no worker gets on, because those that have some wait for something
// else: pausing those that just have enough would throw away what the client has fetched for them.
func (c *Consumer) makeRoom(ctx context.Context) {
	for c.queued.records.Load() >= int64(c.cfg.QueueRecords) {
		select {
		case <-ctx.Done():
			return
		case <-c.queued.fewer:
		case <-time.After(holdAfter):
			c.mu.Lock()
			for _, p := range c.partitions {
				p.in.hold()
			}
			c.mu.Unlock()
		}
	}
}

// seek has the client go on elsewhere, and gives the seeks for which it is too early: while other workers of the same assignment are still
// starting, the client does not have the partition yet, and would begin where the assignment says. A seek of a worker that was given up
// meanwhile must not move the partition's next one.
func (c *Consumer) seek(seeks []*seek) (early []*seek) {
	if len(seeks) == 0 {
		return nil
	}
	assigned := c.client.CommittedOffsets() // of every partition that the client has, since start gives each an offset
	for _, s := range seeks {
		c.mu.Lock()
		live := c.partitions[s.p.topicPartition] == s.p
		c.mu.Unlock()
		if !live {
			continue
		}
		if _, has := assigned[s.p.topic][s.p.partition]; !has {
			early = append(early, s)
			continue
		}
		c.client.SetOffsets(map[string]map[int32]kgo.EpochOffset{s.p.topic: {s.p.partition: {Epoch: -1, Offset: s.offset}}})
		s.p.in.open(s.offset)
		close(s.made)
	}
	return early
}

// hand gives each partition's records to its worker's input.
func (c *Consumer) hand(ctx context.Context, fetches kgo.Fetches) error {
	if ctx.Err() != nil {
		return nil
	}
	var fault error
	fetches.EachError(func(topic string, partition int32, err error) {
		switch {
		case errors.Is(err, context.Canceled), errors.Is(err, kgo.ErrClientClosed):
		case failureOf(err).Retry():
			c.cfg.Log.Warn("fetching", "group", c.cfg.Group, "topic", topic, "partition", partition, "error", err)
		default:
			fault = failure.Wrap(failureOf(err), topic, "fetching", err).WithHint("%s", hintOf(err))
		}
	})
	if fault != nil {
		return fault
	}
	fetches.EachPartition(func(ftp kgo.FetchTopicPartition) {
		c.mu.Lock()
		p := c.partitions[topicPartition{ftp.Topic, ftp.Partition}]
		c.mu.Unlock()
		if p == nil {
			return
		}
		from, to, beyond := p.in.put(ftp.Records, ftp.HighWatermark)
		switch {
		case beyond:
			fault = failure.New(failure.Corrupt, ftp.Topic, "the position of partition %d is %d, but the topic went back to %d", ftp.Partition, from, to).
				WithHint("was the topic deleted and created again? Start the stream role again: it says what to do")
		case from < to && c.cfg.Skipped != nil:
			c.cfg.Skipped(ftp.Topic, ftp.Partition, from, to)
		}
		if gone := min(to, ftp.LogStartOffset); from > 0 && from < gone && c.cfg.Lost != nil { // at 0 nothing was read yet: the topic begins later
			c.cfg.Lost(ftp.Topic, ftp.Partition, from, gone)
		}
	})
	return fault
}

// assigned starts the workers of new partitions and tells the client where each begins. Kafka calls it with the committed offsets.
func (c *Consumer) assigned(ctx context.Context, committed map[string]map[int32]kgo.Offset) (map[string]map[int32]kgo.Offset, error) {
	<-c.connected
	var starting sync.WaitGroup
	var mu sync.Mutex
	begin := make(map[string]map[int32]kgo.Offset, len(committed))
	for topic, offsets := range committed {
		begin[topic] = make(map[int32]kgo.Offset, len(offsets))
		for number, offset := range offsets {
			starting.Go(func() {
				at := c.start(ctx, topicPartition{topic, number}, offset.EpochOffset().Offset)
				mu.Lock()
				defer mu.Unlock()
				begin[topic][number] = kgo.NewOffset().At(at).WithEpoch(-1)
			})
		}
	}
	starting.Wait()
	return begin, ctx.Err()
}

// start makes the worker of a partition and sets it going; at is where the client is to fetch from. A worker that cannot say where to
// begin yet is tried again while its partition is paused.
func (c *Consumer) start(ctx context.Context, id topicPartition, committed int64) (at int64) {
	c.giveUp(map[string][]int32{id.topic: {id.partition}}, false) // assigned twice without being revoked: the session in between failed
	p := &partition{topicPartition: id, worker: c.cfg.NewWorker(id.topic, id.partition), committed: max(committed, -1), done: make(chan struct{})}
	one := map[string][]int32{id.topic: {id.partition}}
	p.in = newInput(c.queued,
		func() { c.client.PauseFetchPartitions(one) },
		func() { c.client.ResumeFetchPartitions(one) })
	p.ctx, p.cancel = context.WithCancel(context.WithoutCancel(ctx))
	at, err := p.worker.Start(ctx, p.committed)
	if err == nil {
		p.in.open(at)
	} else {
		p.in.close()
	}
	c.mu.Lock()
	c.partitions[id] = p
	c.mu.Unlock()
	go c.work(p, err)
	return max(at, 0)
}

// work is a partition's goroutine: it runs the worker, and starts it over after failures that may pass.
func (c *Consumer) work(p *partition, err error) {
	defer close(p.done)
	for {
		if err == nil {
			err = p.worker.Run(p.ctx, p.in)
		}
		if err == nil || p.ctx.Err() != nil && errors.Is(err, context.Canceled) {
			return
		}
		if !failure.Of(err).Retry() && !errors.Is(err, context.Canceled) { // Start is canceled with the session of the group that it began in
			c.fail(err)
			return
		}
		if c.cfg.Restarted != nil {
			c.cfg.Restarted(p.topic, p.partition, err)
		}
		if !c.restart(p) {
			return
		}
		err = nil
	}
}

// restart has the worker begin anew; false when the partition was given up meanwhile.
func (c *Consumer) restart(p *partition) bool {
	p.in.close()
	ctx, cancel := context.WithCancel(p.ctx)
	defer cancel()
	go func() { // what is not running cannot be ended gently
		select {
		case <-p.in.ended:
			cancel()
		case <-ctx.Done():
		}
	}()
	for wait := c.cfg.BackoffMin; ; wait = min(2*wait, c.cfg.BackoffMax) {
		c.commitMu.Lock()
		committed := p.committed
		c.commitMu.Unlock()
		offset, err := p.worker.Start(ctx, committed)
		if err == nil {
			return c.seekTo(ctx, p, offset)
		}
		if ctx.Err() == nil && !failure.Of(err).Retry() {
			c.fail(err)
			return false
		}
		select {
		case <-ctx.Done():
			return false
		case <-time.After(wait):
		}
	}
}

// seekTo has the polling goroutine go on at an offset, and waits for it.
func (c *Consumer) seekTo(ctx context.Context, p *partition, offset int64) bool {
	s := &seek{p: p, offset: offset, made: make(chan struct{})}
	c.seekMu.Lock()
	c.seeks = append(c.seeks, s)
	wake := c.wake
	c.seekMu.Unlock()
	wake()
	select {
	case <-s.made:
		return true
	case <-ctx.Done():
		return false
	}
}

// fail ends Run with err, unless it ends with another already.
func (c *Consumer) fail(err error) {
	select {
	case c.failed <- err:
	default:
	}
	c.seekMu.Lock()
	wake := c.wake
	c.seekMu.Unlock()
	wake()
}

// giveUp ends the workers of partitions; gently lets them write what is pending, and commits what they are done with. The workers' goroutines
// are gone when it returns.
func (c *Consumer) giveUp(gone map[string][]int32, gently bool) {
	var ending []*partition
	c.mu.Lock()
	gently = gently && !c.abandoned
	for topic, numbers := range gone {
		for _, number := range numbers {
			if p := c.partitions[topicPartition{topic, number}]; p != nil {
				ending = append(ending, p)
			}
		}
	}
	c.mu.Unlock()
	patience := time.NewTimer(c.cfg.StopTimeout)
	defer patience.Stop()
	for _, p := range ending {
		p.in.end()
		if !gently {
			p.cancel()
		}
	}
	for _, p := range ending {
		select {
		case <-p.done:
		case <-patience.C:
			for _, p := range ending {
				p.cancel()
			}
			<-p.done
		}
		p.cancel()
		p.in.drop()
	}
	if gently {
		c.commit(ending)
	}
	c.mu.Lock()
	for _, p := range ending {
		delete(c.partitions, p.topicPartition)
	}
	c.mu.Unlock()
}

// giveUpAll ends what closing the client left: partitions of a member that had lost its coordinator.
func (c *Consumer) giveUpAll() {
	gone := map[string][]int32{}
	c.mu.Lock()
	for id := range c.partitions {
		gone[id.topic] = append(gone[id.topic], id.partition)
	}
	c.mu.Unlock()
	c.giveUp(gone, false)
}

// Abandon gives everything up as if the process had died: from here on nothing pending is written and nothing is committed. Run ends
// with err, unless it ends with another already.
func (c *Consumer) Abandon(err error) {
	c.fail(err)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.abandoned = true
	for _, p := range c.partitions {
		p.cancel()
	}
}

func (c *Consumer) commitRegularly(stop <-chan struct{}) {
	ticks := time.NewTicker(c.cfg.CommitEvery)
	defer ticks.Stop()
	for {
		select {
		case <-stop:
			return
		case <-ticks.C:
		}
		var live []*partition
		c.mu.Lock()
		if !c.abandoned {
			for _, p := range c.partitions {
				live = append(live, p)
			}
		}
		c.mu.Unlock()
		c.commit(live)
	}
}

// commit tells Kafka what the workers are done with. That it fails during a rebalance is no harm: what it says is repeated, or done again
// by workers that know it was done.
func (c *Consumer) commit(partitions []*partition) {
	c.commitMu.Lock()
	defer c.commitMu.Unlock()
	offsets := map[string]map[int32]kgo.EpochOffset{}
	told := map[topicPartition]string{}
	var moved []*partition
	for _, p := range partitions {
		next, metadata := p.in.next.Load(), ""
		if handed := p.in.handed.Load(); handed != nil {
			metadata = handed.metadata()
		}
		if next < 0 || next < p.committed || next == p.committed && metadata == p.told {
			continue
		}
		told[p.topicPartition] = metadata
		if offsets[p.topic] == nil {
			offsets[p.topic] = map[int32]kgo.EpochOffset{}
		}
		offsets[p.topic][p.partition] = kgo.EpochOffset{Epoch: -1, Offset: next}
		moved = append(moved, p)
	}
	if len(moved) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), c.cfg.StopTimeout)
	defer cancel()
	var refused error
	c.client.CommitOffsetsSync(kgo.PreCommitFnContext(ctx, withProgress(told)), offsets, committed(&refused))
	if refused != nil {
		c.cfg.Log.Debug("committing offsets", "group", c.cfg.Group, "error", refused)
		return
	}
	for _, p := range moved {
		p.committed, p.told = offsets[p.topic][p.partition].Offset, told[p.topicPartition]
	}
}
