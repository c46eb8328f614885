package broker

import (
	"context"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// kfake gives a group's member its session timer when the answer to its JoinGroup could be sent. A process that dies while it waits for
// that answer stays a member without one: it holds partitions for ever, and nobody reads them. ghosts makes such members leave.
// Kafka itself starts the timer when the join completes, whether or not the answer arrives.
type ghosts struct {
	cluster *kfake.Cluster
	client  *kgo.Client
	stop    context.CancelFunc
	done    chan struct{}

	mu     sync.Mutex
	groups map[string]map[string]*groupMember // by group, by member ID
}

// groupMember is what was heard of a member.
type groupMember struct {
	heard   time.Time // when it last sent anything, or the group was last seen to change
	session time.Duration
}

const (
	ghostsEvery = time.Second // between two looks
	ghostsGrace = time.Second // beyond the session: kfake's own timers come first
)

// watchGhosts begins to watch; client is only used to have ghosts leave.
func watchGhosts(cluster *kfake.Cluster) (*ghosts, error) {
	client, err := kgo.NewClient(kgo.SeedBrokers(cluster.ListenAddrs()...), kgo.DisableClientMetrics())
	if err != nil {
		return nil, err
	}
	ctx, stop := context.WithCancel(context.Background())
	g := &ghosts{cluster: cluster, client: client, stop: stop, done: make(chan struct{}), groups: map[string]map[string]*groupMember{}}
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
	case *kmsg.SyncGroupRequest:
		g.note(r.Group, r.MemberID, 0)
	case *kmsg.HeartbeatRequest:
		g.note(r.Group, r.MemberID, 0)
	}
	return nil, nil, false
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
	m.heard = time.Now()
	if session > 0 {
		m.session = session
	}
}

func (g *ghosts) run(ctx context.Context) {
	defer close(g.done)
	look := time.NewTicker(ghostsEvery)
	defer look.Stop()
	epochs := map[string]int32{}
	for {
		select {
		case <-ctx.Done():
			return
		case <-look.C:
		}
		g.mu.Lock()
		names := make([]string, 0, len(g.groups))
		for name := range g.groups {
			names = append(names, name)
		}
		g.mu.Unlock()
		for _, name := range names {
			info := g.cluster.GroupInfo(name)
			for _, id := range g.silent(name, info, epochs) {
				leave := kmsg.NewPtrLeaveGroupRequest()
				leave.Group, leave.MemberID = name, id
				member := kmsg.NewLeaveGroupRequestMember()
				member.MemberID = id
				leave.Members = append(leave.Members, member)
				_, _ = leave.RequestWith(ctx, g.client) // tried again at the next look
			}
		}
	}
}

// silent gives the members of a group that have not been heard of for their session although nothing keeps them waiting.
func (g *ghosts) silent(name string, info *kfake.GroupInfo, epochs map[string]int32) []string {
	g.mu.Lock()
	defer g.mu.Unlock()
	members := g.groups[name]
	if info == nil || len(info.Members) == 0 && info.State == "Empty" {
		delete(g.groups, name)
		delete(epochs, name)
		return nil
	}
	now := time.Now()
	waiting := info.State == "PreparingRebalance" // who waits for an answer sends nothing
	changed := epochs[name] != info.Epoch
	epochs[name] = info.Epoch
	here := make(map[string]bool, len(info.Members))
	var gone []string
	for _, m := range info.Members {
		here[m.MemberID] = true
		known := members[m.MemberID]
		switch {
		case known == nil:
		case waiting || changed:
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
	return gone
}
