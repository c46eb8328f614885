package broker

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// kfake gives a group's member its session timer when the answer to its JoinGroup could be sent. Kafka starts the timer when the join
// completes, whether or not the answer arrives, and stops it while the member waits for the answer to its next one. Hence two faults:
//
// A process that dies while it waits for that answer stays a member without a timer: it holds partitions for ever, and nobody reads them; and
// a rebalance waits for it until its deadline, which kfake moves with every member that comes or goes.
//
// A process that lives and waits for longer than its session, as it does for members that died, is dropped, and its JoinGroup is never
// answered: its client gives it up half a minute later, and joins anew.
//
// ghosts makes the former leave and sends the heartbeats of the latter.
type ghosts struct {
	cluster *kfake.Cluster
	client  *kgo.Client
	stop    context.CancelFunc
	done    chan struct{}
	sooner  chan struct{} // holds a token when a group may have changed

	mu     sync.Mutex
	groups map[string]map[string]*groupMember // by group, by member ID
}

// groupMember is what was heard of a member.
type groupMember struct {
	heard   time.Time // when it last sent anything, or the group was last seen to change
	session time.Duration
	joined  time.Time // when it sent a JoinGroup whose answer the next rebalance brings; zero when it waits for none
}

const (
	ghostsEvery = time.Second // between two looks, at most
	ghostsGrace = time.Second // beyond the session: kfake's own timers come first
)

// watchGhosts begins to watch; client is only used to have ghosts leave.
func watchGhosts(cluster *kfake.Cluster) (*ghosts, error) {
	client, err := kgo.NewClient(kgo.SeedBrokers(cluster.ListenAddrs()...), kgo.DisableClientMetrics())
	if err != nil {
		return nil, err
	}
	ctx, stop := context.WithCancel(context.Background())
	g := &ghosts{cluster: cluster, client: client, stop: stop, done: make(chan struct{}), sooner: make(chan struct{}, 1), groups: map[string]map[string]*groupMember{}}
	for _, key := range []kmsg.Key{kmsg.JoinGroup, kmsg.SyncGroup, kmsg.Heartbeat} {
		cluster.ControlKey(key.Int16(), g.heard)
	}
	go g.run(ctx)
	return g, nil
}

func (g *ghosts) close() {
	g.stop()
	<-g.done
	g.client.Close()
}

// heard notes that a member lives. It leaves every request to the cluster.
func (g *ghosts) heard(r kmsg.Request) (kmsg.Response, error, bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	switch r := r.(type) {
	case *kmsg.JoinGroupRequest:
		g.note(r.Group, r.MemberID, time.Duration(r.SessionTimeoutMillis)*time.Millisecond)
		g.lookSooner()
	case *kmsg.SyncGroupRequest:
		g.note(r.Group, r.MemberID, 0)
		g.lookSooner()
	case *kmsg.HeartbeatRequest:
		if m := g.groups[r.Group][r.MemberID]; m == nil || m.joined.IsZero() { // else it is ours: who waits for an answer sends nothing
			g.note(r.Group, r.MemberID, 0)
		}
	}
	return nil, nil, false
}

// lookSooner has the groups looked at: whether a rebalance has answered a join is told from looks between the two.
func (g *ghosts) lookSooner() {
	select {
	case g.sooner <- struct{}{}:
	default:
	}
}

// note is called with g.mu held; a session of 0 says nothing about it.
func (g *ghosts) note(group, member string, session time.Duration) {
	members := g.groups[group]
	if members == nil {
		members = map[string]*groupMember{}
		g.groups[group] = members
	}
	m := members[member]
	if m == nil {
		if session == 0 {
			return // joined before this broker started: kfake gave it a timer when it read its state
		}
		m = &groupMember{}
		members[member] = m
	}
	m.heard, m.joined = time.Now(), time.Time{}
	if session > 0 {
		m.session, m.joined = session, m.heard
	}
}

// run looks at the groups. What is to be sent is sent beside it: a look must not come late.
func (g *ghosts) run(ctx context.Context) {
	requests := make(chan []kmsg.Request, 1)
	var sending sync.WaitGroup
	sending.Go(func() {
		for each := range requests {
			for _, r := range each {
				_, _ = g.client.Request(ctx, r) // what fails is sent again after the next look
			}
		}
	})
	defer close(g.done)
	defer sending.Wait()
	defer close(requests)
	ticks := time.NewTicker(ghostsEvery)
	defer ticks.Stop()
	looks := map[string]look{}
	for {
		send := false
		select {
		case <-ctx.Done():
			return
		case <-ticks.C:
			send = true
		case <-g.sooner:
		}
		due := g.look(looks)
		if !send || len(due) == 0 {
			continue
		}
		select {
		case requests <- due:
		default: // the last ones are not through yet
		}
	}
}

// look gives what is to be sent for the members of all groups.
func (g *ghosts) look(looks map[string]look) (requests []kmsg.Request) {
	g.mu.Lock()
	names := slices.Collect(maps.Keys(g.groups))
	g.mu.Unlock()
	for _, name := range names {
		info := g.cluster.GroupInfo(name)
		gone, waiting := g.judge(name, info, looks)
		for _, id := range gone {
			leave := kmsg.NewPtrLeaveGroupRequest()
			leave.Group, leave.MemberID = name, id
			member := kmsg.NewLeaveGroupRequestMember()
			member.MemberID = id
			leave.Members = append(leave.Members, member)
			requests = append(requests, leave)
		}
		for _, id := range waiting {
			heartbeat := kmsg.NewPtrHeartbeatRequest()
			heartbeat.Group, heartbeat.MemberID, heartbeat.Generation = name, id, info.Epoch
			requests = append(requests, heartbeat)
		}
	}
	return requests
}

// look is what a group was at a look.
type look struct {
	epoch int32
	at    time.Time
}

// judge gives the members of a group that have not been heard of for their session although nothing keeps them waiting, and those that
// wait for a rebalance to answer their join.
func (g *ghosts) judge(name string, info *kfake.GroupInfo, looks map[string]look) (gone, waiting []string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	members := g.groups[name]
	if info == nil || len(info.Members) == 0 && info.State == "Empty" {
		delete(g.groups, name)
		delete(looks, name)
		return nil, nil
	}
	now := time.Now()
	rebalancing := info.State == "PreparingRebalance"
	last := looks[name]
	changed := last.epoch != info.Epoch
	looks[name] = look{info.Epoch, now}
	here := make(map[string]bool, len(info.Members))
	for _, m := range info.Members {
		here[m.MemberID] = true
		known := members[m.MemberID]
		if known == nil {
			continue
		}
		if changed && known.joined.Before(last.at) {
			known.joined = time.Time{} // answered: a new epoch is what all joins were waiting for
		}
		switch {
		case rebalancing && !known.joined.IsZero():
			known.heard = now
			waiting = append(waiting, m.MemberID)
		case changed:
			known.heard = now
		case now.Sub(known.heard) > known.session+ghostsGrace:
			gone = append(gone, m.MemberID)
		}
	}
	for id, m := range members {
		if !here[id] && now.Sub(m.heard) > m.session+ghostsGrace {
			delete(members, id)
		}
	}
	return gone, waiting
}
