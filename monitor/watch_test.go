package monitor

import (
	"fmt"
	"math"
	"testing"
	"time"

	"github.com/millrace/millrace/project"
	"github.com/millrace/millrace/registry/model"
	"github.com/millrace/millrace/schemas"
)

const hour = int64(time.Hour / time.Millisecond)

// testWatch follows a model whose versions have no baseline: rows and labels are counted, nothing is judged.
func testWatch(change func(*Config)) *watch {
	c := Default()
	if change != nil {
		change(&c)
	}
	m := &project.Model{Name: "late", Task: model.TaskBinary, Label: project.Label{Within: 6 * time.Hour}, Monitor: project.Monitor{Window: 24 * time.Hour}}
	w := newWatch(m, c, DefaultPolicy(), newPublished(nil, nil))
	w.baseline = func(digest string) (*version, error) { return &version{digest: digest}, nil }
	return w
}

func (w *watch) answer(t *testing.T, key string, at int64, source string) string {
	t.Helper()
	p := schemas.Prediction{ID: fmt.Sprintf("%s@%d", key, at), Digest: "d", At: at, ScoredAt: 200 * day, JoinKey: key, Score: 0.5, Rung: schemas.RungPrimary, Source: source}
	outcome, err := w.prediction(&p, origin{"predictions", 0, at}, time.UnixMilli(0))
	if err != nil {
		t.Fatal(err)
	}
	return outcome
}

func read(partitions ...*position) *progress {
	p := &progress{partitions: map[int32]*position{}, idleAfter: time.Second}
	for i, at := range partitions {
		p.partitions[int32(i)] = at
	}
	return p
}

func TestALabelCountsWithinItsHorizonOnly(t *testing.T) {
	w := testWatch(nil)
	for _, key := range []string{"before", "just", "after", "twice"} {
		w.answer(t, key, 100*day+hour, "departures/0/1")
	}
	w.answer(t, "twice", 100*day+2*hour, "http")
	for _, c := range []struct {
		key     string
		at      int64
		outcome string
		labels  int64
	}{
		{"before", 100*day + hour - 1, outcomeEarly, 0},
		{"after", 100*day + 7*hour + 1, outcomeEarly, 0},
		{"just", 100*day + 7*hour, outcomeJoined, 1},
		{"just", 100*day + 7*hour, outcomeEarly, 1}, // it was given once
		{"twice", 100*day + 3*hour, outcomeJoined, 3},
		{"nobody", 100*day + 3*hour, outcomeEarly, 3},
	} {
		if got := w.label(c.key, 1, c.at, origin{"arrivals", 0, 1}); got != c.outcome {
			t.Errorf("%s: %s, want %s", c.key, got, c.outcome)
		}
		if got := w.windows[0].outcomes.Labels(); got != c.labels {
			t.Errorf("%s: %d labels, want %d", c.key, got, c.labels)
		}
	}
	if w.pending != 2 || len(w.windows[0].pending) != 2 {
		t.Errorf("%d pending, want 2", w.pending)
	}
}

func TestALabelThatComesFirstWaits(t *testing.T) {
	w := testWatch(func(c *Config) { c.MaxEarly = 2 })
	for i, key := range []string{"a", "b", "c"} { // there is room for two
		w.label(key, 1, 100*day+2*hour, origin{"arrivals", 0, int64(i)})
	}
	for _, key := range []string{"a", "b", "c"} {
		w.answer(t, key, 100*day+hour, "departures/0/1")
	}
	if got := w.windows[0].outcomes.Labels(); got != 2 || w.pending != 1 {
		t.Errorf("%d labels, %d pending; want 2 and 1", got, w.pending)
	}
	low := lowWater{}
	w.lowWater(low)
	if low["arrivals"][0] != 1 || low["predictions"][0] != 100*day+hour {
		t.Errorf("low water %v", low)
	}
	w.early.forget(101 * day)
	if w.early.size() != 0 || len(w.early.queue) != w.early.first {
		t.Errorf("%d labels kept", w.early.size())
	}
}

func TestLimitsHold(t *testing.T) {
	w := testWatch(func(c *Config) { c.MaxRows, c.MaxPending, c.MaxWindows = 2, 3, 2 })
	if got := w.answer(t, "a", 100*day, "departures/0/1"); got != outcomeCounted {
		t.Error(got)
	}
	w.answer(t, "b", 100*day, "departures/0/1")
	if got := w.answer(t, "c", 100*day, "departures/0/1"); got != outcomeFull {
		t.Errorf("a third row: %s", got)
	}
	w.answer(t, "d", 101*day, "departures/0/1")
	w.answer(t, "e", 101*day, "departures/0/1")
	if w.pending != 3 || w.windows[1].awaited != 2 {
		t.Errorf("%d pending, %d awaited", w.pending, w.windows[1].awaited)
	}
	w.answer(t, "f", 102*day, "departures/0/1")
	if got := w.answer(t, "g", 103*day, "departures/0/1"); got != outcomeFull {
		t.Errorf("a fourth window: %s", got)
	}
}

// TestWhatAClientAsksForMovesEventTimeOnlyWithoutAStream asks by HTTP, also as of next year.
func TestWhatAClientAsksForMovesEventTimeOnlyWithoutAStream(t *testing.T) {
	w := testWatch(nil)
	silent, later := read(&position{next: 2, end: 2}), time.UnixMilli(0).Add(time.Hour)
	w.answer(t, "a", 465*day, sourceHTTP)
	if w.advance(silent, never, later); w.read.watermark != never {
		t.Errorf("the future came: day %d", w.read.watermark/day)
	}
	w.answer(t, "b", 90*day, sourceHTTP)
	if w.advance(silent, never, later); w.read.watermark != 90*day {
		t.Errorf("without a stream: day %d", w.read.watermark/day)
	}
	w.answer(t, "c", 100*day, "departures/0/1")
	w.answer(t, "d", 120*day, sourceHTTP)
	if w.advance(silent, never, later); w.read.watermark != 100*day {
		t.Errorf("with a stream: day %d", w.read.watermark/day)
	}
}

func TestEventTimeWaitsForPartitionsThatAreBehind(t *testing.T) {
	now := time.UnixMilli(0)
	r := newReading()
	r.observe(0, 50, now)
	r.observe(1, 10, now)
	both := read(&position{next: 5, end: 5, newest: 50}, &position{next: 5, end: 9, newest: 10})
	if got := r.advance(both, now.Add(time.Hour)); got != 10 {
		t.Errorf("one is behind: %d", got)
	}
	both.partitions[1].next = 9
	if got := r.advance(both, now); got != 10 {
		t.Errorf("one has just been heard: %d", got)
	}
	if got := r.advance(both, now.Add(time.Hour)); got != 50 {
		t.Errorf("both are silent: %d", got)
	}
	r.observe(1, 20, now.Add(time.Hour))
	if got := r.advance(both, now.Add(time.Hour)); got != 50 {
		t.Errorf("it went back to %d", got)
	}
	untold := newReading()
	untold.observe(0, 50, now)
	behind := read(&position{next: 5, end: 5, newest: 50}, &position{next: 5, end: 9, newest: 30})
	if got := untold.advance(behind, now); got != 30 {
		t.Errorf("a partition with other models only: %d", got)
	}
	if got := newReading().advance(read(&position{newest: never}), now); got != never {
		t.Errorf("nothing read: %d", got)
	}
}

// What an answer is charged with is a matter of the task: the distance of a value, or the score that the class got which came true, whichever of answer
// and label comes first.
func TestLabelsOfOtherTasks(t *testing.T) {
	classes := []schemas.ClassScore{{Class: "early", Score: 0.2}, {Class: "on_time", Score: 0.7}, {Class: "late", Score: 0.1}}
	for _, c := range []struct {
		task  model.Task
		truth float64
		want  float64
	}{
		{model.TaskRegression, 7, 9}, {model.TaskPoisson, 0, 20}, {model.TaskMulticlass, 2, -math.Log(0.1)},
	} {
		w := testWatch(nil)
		w.model.Task = c.task
		if c.task == model.TaskMulticlass {
			w.model.Label.Classes = []string{"early", "on_time", "late"}
		}
		answer := func(id string, classes []schemas.ClassScore) {
			p := schemas.Prediction{ID: id, Digest: "d", At: 100 * day, JoinKey: id, Score: 10, Classes: classes, Rung: schemas.RungPrimary, Source: "departures/0/1"}
			if c.task == model.TaskMulticlass {
				p.Score, p.Class = 0.7, "on_time"
			}
			if _, err := w.prediction(&p, origin{"predictions", 0, 1}, time.UnixMilli(0)); err != nil {
				t.Fatal(err)
			}
		}
		w.label("second", c.truth, 100*day+hour, origin{"arrivals", 0, 1})
		answer("first", classes)
		answer("second", classes)
		w.label("first", c.truth, 100*day+hour, origin{"arrivals", 0, 2})
		window := w.windows[0]
		if mean, _ := window.losses.Mean(); window.labels() != 2 || window.awaited != 2 || math.Abs(mean-c.want) > 1e-12 {
			t.Errorf("%s: %d labels of %d answers with a mean loss of %v, want 2 with %v", c.task, window.labels(), window.awaited, mean, c.want)
		}
		if c.task != model.TaskMulticlass {
			continue
		}
		answer("third", classes[:2]) // of a version that knows two of the classes
		w.label("third", c.truth, 100*day+hour, origin{"arrivals", 0, 3})
		if window.labels() != 2 || window.awaited != 3 {
			t.Errorf("a class that the model does not know was judged: %d labels of %d answers", window.labels(), window.awaited)
		}
	}
}
