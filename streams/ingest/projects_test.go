package ingest

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
)

// TestTwoProjectsOnOneTopic runs two projects that read topics of their own and, as both have the same prefix and names, re-key through one. Each counts
// its own events, and the others' are dead letters that say what to do.
func TestTwoProjectsOnOneTopic(t *testing.T) {
	r := newRig(t)
	prefix := fmt.Sprintf("s%d-", rand.Uint32())
	r.dir = t.TempDir()
	r.declareAs(prefix, legFiles("15"))
	one := r.project
	files := legFiles("15")
	files["millrace.yaml"] = strings.Replace(files["millrace.yaml"], "topic: PREFIXlegs", "topic: PREFIXother-legs", 1)
	r.declareAs(prefix, files)
	two := r.project
	two.Name += "-two"
	if one.Sources[0].Topic == two.Sources[0].Topic || one.Group("routes").KeyedTopic != two.Group("routes").KeyedTopic {
		t.Fatalf("%s and %s, %s and %s", one.Sources[0].Topic, two.Sources[0].Topic, one.Group("routes").KeyedTopic, two.Group("routes").KeyedTopic)
	}
	second := r.run(r.stage())
	r.project, r.dir = one, t.TempDir()
	first := r.run(r.stage())
	for i := range 90 {
		r.send("legs", int32(i%3), map[string]any{"id": fmt.Sprint(i), "origin": "ATL", "destination": "LAX", "delay": 20, "cancelled": false, "at": start + int64(i)})
	}
	r.settled()
	r.project = two
	for i := range 60 {
		r.send("legs", int32(i%3), map[string]any{"id": fmt.Sprint(i), "origin": "ATL", "destination": "LAX", "delay": 20, "cancelled": false, "at": start + int64(i)})
	}
	r.settled()
	second.stop(t)
	r.expect("routes", "ATL-LAX", map[string]float64{"n": 60})
	r.project = one
	r.settled()
	first.stop(t)
	r.expect("routes", "ATL-LAX", map[string]float64{"n": 90})
	if letters := r.deadLetters(); letters[classForeign] < 150 {
		t.Errorf("dead letters %v", letters)
	}
	for _, why := range r.reasons() {
		if !strings.Contains(why, "topic_prefix") {
			t.Errorf("a dead letter says %q", why)
		}
	}
}
