package ingest

import (
	"fmt"
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"

	"github.com/millrace/millrace/features/online"
	"github.com/millrace/millrace/project"
)

// losePosition deletes what Redis has of how far a partition of a group has come, and leaves the states, which were made of events that the
// partition is about to see again.
func (r *rig) losePosition(g *project.Group, partition int32) {
	r.t.Helper()
	deleted, err := r.redis.Del(r.t.Context(), fmt.Sprintf("mr:{%s/%d}:p", online.Owner(r.project.Name, g.Name, g.Version), partition)).Result()
	if err != nil || deleted != 1 {
		r.t.Fatalf("%d positions deleted, %v", deleted, err)
	}
}

// TestPositionLost deletes the position of one partition of each group, while the stage is at work and while it is not. What is computed
// again must not be added to what was there.
func TestPositionLost(t *testing.T) {
	t.Run("at work", func(t *testing.T) {
		r := newRig(t)
		r.produce(r.trips(90, 1500))
		g := r.run(r.stage())
		r.caughtUp()
		for i, group := range r.project.Groups {
			r.losePosition(group, int32(i))
		}
		r.caughtUp()
		r.produce(r.trips(91, 200))
		r.caughtUp()
		g.stop(t)
		r.check()
	})
	t.Run("at rest", func(t *testing.T) {
		r := newRig(t)
		r.produce(r.trips(92, 1500))
		g := r.run(r.stage())
		r.caughtUp()
		g.stop(t)
		for i, group := range r.project.Groups {
			r.losePosition(group, int32(i))
		}
		r.produce(r.trips(93, 200))
		r.finish()
	})
	t.Run("filled from files", func(t *testing.T) { // as Kafka has only the end of the topics left
		r := newRig(t)
		r.produce(r.trips(94, 1500))
		g := r.run(r.stage())
		r.caughtUp()
		g.stop(t)
		for i, group := range r.project.Groups {
			var cut kadm.Offsets
			for p, end := range r.ends(group.KeyedTopic) {
				cut.Add(kadm.Offset{Topic: group.KeyedTopic, Partition: p, At: end - 10})
			}
			if _, err := r.admin.DeleteRecords(t.Context(), cut); err != nil {
				t.Fatal(err)
			}
			r.losePosition(group, int32(i))
		}
		r.produce(r.trips(95, 200))
		killed := r.stage() // dies once meanwhile
		killed.crash = once("group: rebuilding", 2, errKilled)
		g = r.run(killed)
		r.await("it to die", g.dead)
		g = r.run(r.stage())
		r.caughtUp()
		g.stop(t)
		r.check()
	})
}
