package broker_test

import (
	"context"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace/millrace/streams/broker"
)

const (
	session   = 6 * time.Second // the shortest that a broker takes
	rebalance = time.Minute
)

// member speaks the group protocol by hand, so that it can die at a given step.
type member struct {
	t      *testing.T
	client *kgo.Client
	group  string
	id     string
}

func newMember(ctx context.Context, t *testing.T, addr, group string) *member {
	client, err := kgo.NewClient(kgo.SeedBrokers(addr), kgo.DisableClientMetrics())
	if err != nil {
		t.Fatal(err)
	}
	m := &member{t: t, client: client, group: group}
	if r, err := m.join(ctx); err != nil || r.ErrorCode != kerr.MemberIDRequired.Code {
		t.Fatalf("first join: %v %v", r, err)
	} else {
		m.id = r.MemberID
	}
	return m
}

func (m *member) join(ctx context.Context) (*kmsg.JoinGroupResponse, error) {
	r := kmsg.NewPtrJoinGroupRequest()
	r.Group, r.MemberID, r.ProtocolType = m.group, m.id, "consumer"
	r.SessionTimeoutMillis, r.RebalanceTimeoutMillis = int32(session.Milliseconds()), int32(rebalance.Milliseconds())
	p := kmsg.NewJoinGroupRequestProtocol()
	p.Name = "range"
	r.Protocols = append(r.Protocols, p)
	return r.RequestWith(ctx, m.client)
}

// joinAndDie has another member join the group, and cuts its connection while it waits for this one to do so, too.
func (m *member) joinAndDie(ctx context.Context) {
	m.t.Helper()
	dies := newMember(ctx, m.t, m.client.OptValue(kgo.SeedBrokers).([]string)[0], m.group)
	go func() { _, _ = dies.join(ctx) }()
	m.until(ctx, "a member waits", 2, func() {})
	dies.client.Close()
}

// until waits for the group to have so many members.
func (m *member) until(ctx context.Context, what string, members int, meanwhile func()) {
	m.t.Helper()
	admin := kadm.NewClient(m.client)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		groups, err := admin.DescribeGroups(ctx, m.group)
		if err == nil && len(groups[m.group].Members) == members {
			return
		}
		select {
		case <-ctx.Done():
			m.t.Fatalf("not in time: %s; %s with %d members (%v)", what, groups[m.group].State, len(groups[m.group].Members), err)
		case <-tick.C:
			meanwhile()
		}
	}
}

// lead joins and syncs as the leader, and gives the generation.
func (m *member) lead(ctx context.Context) int32 {
	m.t.Helper()
	j, err := m.join(ctx)
	if err != nil || j.ErrorCode != 0 || j.LeaderID != m.id {
		m.t.Fatalf("joining: %+v %v", j, err)
	}
	s := kmsg.NewPtrSyncGroupRequest()
	s.Group, s.MemberID, s.Generation = m.group, m.id, j.Generation
	if r, err := s.RequestWith(ctx, m.client); err != nil || r.ErrorCode != 0 {
		m.t.Fatalf("syncing: %+v %v", r, err)
	}
	return j.Generation
}

// TestMembersThatDieWhileJoining cuts a member's connection while its JoinGroup waits for another member. It must not stay in the group:
// its partitions would be nobody's. The one that lives on must stay. kfake may or may not have noticed by the time it answers, hence several
// groups.
func TestMembersThatDieWhileJoining(t *testing.T) {
	b, err := broker.Start("", 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Close)
	for _, group := range []string{"a", "b", "c", "d", "e", "f"} {
		t.Run(group, func(t *testing.T) {
			t.Parallel()
			dieWhileJoining(t, b.Addr(), group)
		})
	}
}

func dieWhileJoining(t *testing.T, addr, group string) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	lives := newMember(ctx, t, addr, group)
	defer lives.client.Close()
	lives.lead(ctx)
	lives.joinAndDie(ctx)
	generation := lives.lead(ctx)
	lives.until(ctx, "the dead member is gone", 1, func() {
		h := kmsg.NewPtrHeartbeatRequest()
		h.Group, h.MemberID, h.Generation = group, lives.id, generation
		if r, err := h.RequestWith(ctx, lives.client); err != nil {
			t.Fatal(err)
		} else if r.ErrorCode == kerr.RebalanceInProgress.Code {
			generation = lives.lead(ctx)
		} else if r.ErrorCode != 0 {
			t.Fatal(kerr.ErrorForCode(r.ErrorCode))
		}
	})
}

// TestRebalanceWithADeadMember has a member die while it joins, and the one that lives on join again. A rebalance waits for all members: it
// must not wait for the dead one until its own deadline, and the other, which waits for longer than its session, must stay and be answered.
func TestRebalanceWithADeadMember(t *testing.T) {
	b, err := broker.Start("", 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Close)
	for _, group := range []string{"a", "b"} {
		t.Run(group, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithTimeout(t.Context(), rebalance/2)
			defer cancel()
			lives := newMember(ctx, t, b.Addr(), group)
			defer lives.client.Close()
			lives.lead(ctx)
			lives.joinAndDie(ctx)
			lives.lead(ctx)
			lives.lead(ctx)
		})
	}
}
