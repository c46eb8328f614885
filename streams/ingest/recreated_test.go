package ingest

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace/millrace/features/online"
	"github.com/millrace/millrace/internal/failure"
	"github.com/millrace/millrace/project"
	"github.com/millrace/millrace/schemas"
	"github.com/millrace/millrace/streams"
)

// recreate deletes topics and creates them again, and forgets what was produced.
func (r *rig) recreate(topics ...string) {
	r.t.Helper()
	if _, err := r.admin.DeleteTopics(r.t.Context(), topics...); err != nil {
		r.t.Fatal(err)
	}
	r.gone(topics)
	for _, name := range topics {
		if err := streams.EnsureTopics(r.t.Context(), r.client, []schemas.Topic{{Name: name, Partitions: sourcePartitions}}); err != nil {
			r.t.Fatal(err)
		}
	}
	r.produced = [sourcePartitions][]produced{}
	r.client.PurgeTopicsFromClient(topics...)
}

// gone waits until the brokers have heard of the end of topics.
func (r *rig) gone(topics []string) {
	r.t.Helper()
	r.await("the topics to be gone", func() bool {
		left, err := streams.TopicIDs(r.t.Context(), r.client, topics...)
		return err == nil && len(left) == 0
	})
}

// follow does by hand what the message says, and nothing else, but for stopping the roles.
func (r *rig) follow(message string) {
	t := r.t
	t.Helper()
	_, steps, ok := strings.Cut(message, "to begin with what it has now: ")
	if !ok {
		t.Fatalf("no steps in %q", message)
	}
	for step := range strings.SplitSeq(steps, "; ") {
		if folders, ok := strings.CutPrefix(step, "move away "); ok {
			for i, dir := range strings.Split(folders, ", ") {
				if err := os.Rename(dir, filepath.Join(t.TempDir(), string(rune('a'+i)))); err != nil {
					t.Fatal(err)
				}
			}
		}
		if topics, ok := strings.CutPrefix(step, "delete the topics "); ok {
			names := strings.Split(topics, ", ")
			if _, err := r.admin.DeleteTopics(t.Context(), names...); err != nil {
				t.Fatal(err)
			}
			r.gone(names)
		}
		if group, ok := strings.CutPrefix(step, "millrace backfill "); ok {
			if _, err := r.stage().Backfill(t.Context(), group, time.Time{}, nil); err != nil {
				t.Fatalf("%s: %v", step, err)
			}
		}
	}
}

// refused runs a stage until it ends with a fault of the project.
func (r *rig) refused(g *running) string {
	r.t.Helper()
	r.await("the stage to end", g.dead)
	if failure.Of(g.err) != failure.BadProject {
		r.t.Fatalf("the stage ended with %v", g.err)
	}
	return g.err.Error()
}

// counted is how many events the states of a group's active version have, of entities none of which had any for 10 minutes before its newest.
func (r *rig) counted(g *running, group *project.Group) (n int) {
	r.t.Helper()
	known, err := g.versions.Load(r.t.Context(), group.Name)
	if err != nil {
		r.t.Fatal(err)
	}
	output := max(group.Output("n"), 0)
	for key, state := range r.states() {
		if !strings.Contains(key, "{"+online.Owner(r.project.Name, group.Name, known[0].Active)+"/") {
			continue
		}
		e, err := group.Decode(state)
		if err != nil {
			r.t.Fatal(err)
		}
		f, _ := group.Read(e, e.Newest()+1, nil)[output].Value.Float()
		n += int(f)
	}
	return n
}

// TestTopicCreatedAgain has the source's topic deleted and created again, with more events than there were and with fewer. None of them may pass for
// one that was applied long ago; what the message says to do must be enough to have them all.
func TestTopicCreatedAgain(t *testing.T) {
	for name, c := range map[string]struct {
		groups []int
		events int
	}{
		"read directly, fewer": {[]int{2}, 20},
		"read directly, more":  {[]int{2}, 90},
		"re-keyed, fewer":      {[]int{0}, 20},
		"re-keyed, more":       {[]int{0}, 90},
		"all":                  {[]int{0, 1, 2}, 60},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			all := slices.Clone(r.project.Groups)
			r.project.Groups = nil
			for _, i := range c.groups {
				r.project.Groups = append(r.project.Groups, all[i])
			}
			topic := r.project.Sources[0].Topic
			r.visit(0, 40, start)
			g := r.run(r.stage())
			r.await("the first to be committed", func() bool { at, _ := r.handedOn(0); return at == 40 })
			g.stop(t)
			r.recreate(topic)
			r.visit(0, c.events, start+time.Minute.Milliseconds())

			message := r.refused(r.run(r.stage()))
			if !strings.Contains(message, topic+": was deleted and created again") {
				t.Fatalf("told so: %s", message)
			}
			for _, group := range r.project.Groups {
				if _, err := r.stage().Backfill(t.Context(), group.Name, time.Time{}, nil); err == nil {
					t.Fatalf("backfill of %s beside files of the old topic", group.Name)
				}
			}
			r.follow(message)

			g = r.run(r.stage())
			for _, group := range r.project.Groups {
				r.await("readers of "+group.Name+" to be moved", func() bool {
					known, err := g.versions.Load(t.Context(), group.Name)
					return err == nil && known[0].Active == known[0].Target && known[0].Active != group.Version
				})
			}
			r.await("all to be committed", func() bool { at, _ := r.handedOn(0); return at == int64(c.events) })
			for _, group := range r.project.Groups {
				r.await(group.Name+" to have them", func() bool { return r.counted(g, group) >= c.events })
			}
			g.stop(t)
			for _, group := range r.project.Groups {
				if n := r.counted(g, group); n != c.events {
					t.Errorf("%s has %d events, want %d", group.Name, n, c.events)
				}
			}
			if kept := len(r.events()); kept != c.events {
				t.Errorf("%d events are kept offline, want %d", kept, c.events)
			}
		})
	}
}

// TestTopicCreatedAgainUnderAStage does so while a stage runs.
func TestTopicCreatedAgainUnderAStage(t *testing.T) {
	r := newRig(t)
	r.project.Groups = r.project.Groups[2:]
	r.visit(0, 40, start)
	g := r.run(r.stage())
	r.await("the first to be committed", func() bool { at, _ := r.handedOn(0); return at == 40 })
	r.recreate(r.project.Sources[0].Topic)
	r.visit(0, 60, start)
	r.await("the stage to end", g.dead)
	if kind := failure.Of(g.err); kind != failure.BadProject && kind != failure.NotFound && kind != failure.Corrupt {
		t.Fatalf("the stage ended with %v", g.err)
	}
	if message := r.refused(r.run(r.stage())); !strings.Contains(message, "millrace backfill trips_by_id") {
		t.Errorf("told so: %s", message)
	}
}

// TestBrokerHearsLater has the broker that is asked let a topic that was deleted a moment ago pass for existing at first, and know nothing of the one that
// is created after it for a while. A command waits.
func TestBrokerHearsLater(t *testing.T) {
	commands := map[string]func(s *Stage, group string) error{
		"backfill": func(s *Stage, group string) error {
			_, err := s.Backfill(t.Context(), group, time.Time{}, nil)
			return err
		},
		"apply": func(s *Stage, _ string) error { return s.Declare(t.Context()) },
	}
	for name, command := range commands {
		t.Run(name, func(t *testing.T) {
			cluster, r := onFaulty(t)
			r.visit(0, 40, start)
			if err := streams.EnsureTopics(t.Context(), r.client, r.project.Topology()); err != nil {
				t.Fatal(err)
			}
			group, asked := r.project.Groups[0], 0
			fault := cluster.Fault(kfake.Fault{
				Keys: []kmsg.Key{kmsg.Metadata}, Topic: group.KeyedTopic, Err: kerr.UnknownTopicOrPartition, Count: 6,
				When: func(kmsg.Request) bool { asked++; return asked > 1 },
			})
			if err := command(r.stage(), group.Name); err != nil {
				t.Fatal(err)
			}
			if n := fault.Hits(); n < 6 {
				t.Fatalf("the broker knew nothing of the topic %d times", n)
			}
		})
	}
}
