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

const session = 6 * time.Second // the shortest that a broker takes

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
	r.SessionTimeoutMillis, r.RebalanceTimeoutMillis = int32(session.Milliseconds()), 30_000
	p := kmsg.NewJoinGroupRequestProtocol()
	p.Name = "range"
	r.Protocols = append(r.Protocols, p)
	return r.RequestWith(ctx, m.client)
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
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	lives := newMember(ctx, t, addr, group)
	defer lives.client.Close()
	lives.lead(ctx)
	admin := kadm.NewClient(lives.client)
	until := func(what string, members int, meanwhile func()) {
		t.Helper()
		for tick := time.NewTicker(20 * time.Millisecond); ; {
			groups, err := admin.DescribeGroups(ctx, group)
			if err == nil && len(groups[group].Members) == members {
				return
			}
			select {
			case <-ctx.Done():
				t.Fatalf("not in time: %s; %s with %d members (%v)", what, groups[group].State, len(groups[group].Members), err)
			case <-tick.C:
				meanwhile()
			}
		}
	}
	dies := newMember(ctx, t, addr, group)
	go func() { _, _ = dies.join(ctx) }()
	until("a member waits", 2, func() {})
	dies.client.Close()
	generation := lives.lead(ctx)
	until("the dead member is gone", 1, func() {
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
