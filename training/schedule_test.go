package training

import (
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/millrace/millrace/project"
	"github.com/millrace/millrace/registry"
	"github.com/millrace/millrace/schemas"
)

func schedule(t *testing.T, text string) *project.Schedule {
	t.Helper()
	s, err := project.ParseSchedule(text)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestSchedule has two replicas follow one clock: each night's model is made once, by one of them.
func TestSchedule(t *testing.T) {
	w := newWorld(t, 12, 480)
	w.model.Gates = nil
	w.model.Train.Schedule = schedule(t, "0 3 * * *")
	k := newKafka(t, w.project)
	var now atomic.Int64
	now.Store(time.Date(2001, 6, 1, 2, 0, 0, 0, time.UTC).UnixMilli())
	r, err := registry.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	replica := func(_ *Config, d *Deps) {
		d.Kafka, d.Registry = k.config, r
		d.Clock = func() time.Time { return time.UnixMilli(now.Load()) }
	}
	a, _ := w.stage(t, replica)
	b, _ := w.stage(t, replica)
	a.start(t)
	b.start(t)
	k.await(t, "the first model", func(e schemas.ModelEvent) bool { return strings.HasPrefix(e.ID, "late/first/") })
	for _, night := range []string{"2001-06-01T03:00:00Z", "2001-06-02T03:00:00Z"} {
		at, err := time.Parse(time.RFC3339, night)
		if err != nil {
			t.Fatal(err)
		}
		now.Store(at.UnixMilli())
		e := k.await(t, night, func(e schemas.ModelEvent) bool { return e.ID == "late/schedule/"+night })
		if e.Reason != "the schedule 0 3 * * *" {
			t.Errorf("event %+v", e)
		}
		now.Store(at.Add(20 * time.Hour).UnixMilli())
	}
	history, err := r.History("late")
	if err != nil {
		t.Fatal(err)
	}
	runs := map[string]int{}
	for _, e := range history {
		if strings.HasPrefix(e.Run, "schedule/") && e.Alias != "" {
			runs[e.Run]++
		}
	}
	if len(runs) != 2 || runs["schedule/2001-06-01T03:00:00Z"] != 1 || runs["schedule/2001-06-02T03:00:00Z"] != 1 {
		t.Errorf("runs %v", runs)
	}
}

// What a trainer was not there for is not made up for; of what it slept through, one run is made.
func TestScheduleOfOneWhoWasAway(t *testing.T) {
	m := &project.Model{Name: "late", Train: project.Train{Schedule: schedule(t, "*/10 * * * *")}}
	start := time.Date(2001, 6, 1, 2, 5, 0, 0, time.UTC)
	a := newAgenda([]*project.Model{m, {Name: "without"}}, start)
	if due := a.due(start.Add(4 * time.Minute)); len(due) != 0 {
		t.Errorf("due before its time: %v", due)
	}
	due := a.due(start.Add(47 * time.Minute))
	if want := time.Date(2001, 6, 1, 2, 50, 0, 0, time.UTC); len(due) != 1 || !due[m].Equal(want) {
		t.Errorf("due: %v, want %v", due, want)
	}
	a[m] = due[m]
	if due := a.due(start.Add(54 * time.Minute)); len(due) != 0 {
		t.Errorf("due again: %v", due)
	}
}

// A model that has no champion is left to those who make first models.
func TestScheduleBeforeTheFirstModel(t *testing.T) {
	w := newWorld(t, 12, 480)
	w.model.Train.Schedule = schedule(t, "0 3 * * *")
	s, r := w.stage(t)
	at := time.Date(2001, 6, 1, 3, 0, 0, 0, time.UTC)
	if done, err := s.trainAt(t.Context(), w.model, at); err != nil || !done {
		t.Errorf("done %v, %v", done, err)
	}
	if _, concluded, err := r.Concluded("late", "schedule/2001-06-01T03:00:00Z"); err != nil || concluded {
		t.Errorf("it was trained: %v, %v", concluded, err)
	}
}
