package ingest

import (
	"bytes"
	"strings"
	"sync"
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"

	"github.com/millrace/millrace/features/online"
)

// TestEmptiedIsTold empties Redis and reads every state that was there again and again while they are computed anew. Nothing new comes, so
// each must be what it was, or its partition must say that it is being rebuilt: both where the group's topic is read from its start, and
// where it is filled from the source's history. Of a new project nothing is ever being rebuilt.
func TestEmptiedIsTold(t *testing.T) {
	r := newRig(t)
	r.produce(r.trips(80, 800))
	first := r.stage()
	var mu sync.Mutex
	begun := map[string]bool{}
	first.crash = func(string) error {
		mu.Lock()
		defer mu.Unlock()
		for _, g := range r.project.Groups {
			for p := range int32(sourcePartitions) {
				position, raw, err := r.position(g, p)
				if err == nil && raw != nil && position.Rebuilding() {
					t.Errorf("%s, partition %d of a new project is at %+v", g.Name, p, position)
				}
				begun[g.Name] = begun[g.Name] || raw != nil
			}
		}
		return nil
	}
	g := r.run(first)
	r.caughtUp()
	g.stop(t)
	if len(begun) != len(r.project.Groups) {
		t.Fatalf("only %v were looked at", begun)
	}
	before := r.states()

	for _, name := range []string{"read from its start", "filled from history"} {
		if err := r.redis.FlushAll(t.Context()).Err(); err != nil {
			t.Fatal(err)
		}
		if name == "filled from history" {
			for _, group := range r.project.Groups {
				var cut kadm.Offsets
				for p := range r.ends(group.KeyedTopic) {
					cut.Add(kadm.Offset{Topic: group.KeyedTopic, Partition: p, At: 1})
				}
				if _, err := r.admin.DeleteRecords(t.Context(), cut); err != nil {
					t.Fatal(err)
				}
			}
		}
		again := r.stage()
		told, right := 0, 0
		again.crash = func(step string) error {
			if step != "group: after write" && step != "group: rebuilding" {
				return nil
			}
			mu.Lock()
			defer mu.Unlock()
			for key, state := range before {
				slot, _, _ := strings.Cut(key, "}:")
				values, err := r.redis.MGet(t.Context(), slot+"}:p", key).Result()
				if err != nil {
					t.Error(err)
					continue
				}
				raw, _ := values[0].(string)
				position, err := online.DecodePosition([]byte(raw))
				now, _ := values[1].(string)
				switch {
				case err != nil:
					t.Error(err)
				case raw == "" || position.Rebuilding():
					told++
				case !bytes.Equal([]byte(now), state):
					t.Errorf("%s: %s is served at %+v as it never was", name, key, position)
				default:
					right++
				}
			}
			return nil
		}
		g := r.run(again)
		r.caughtUp()
		g.stop(t)
		if told == 0 || right == 0 {
			t.Errorf("%s: %d reads were told, %d right", name, told, right)
		}
	}
	r.check()
}
