package training

import (
	"context"
	"time"

	"github.com/millrace/millrace/internal/failure"
	"github.com/millrace/millrace/project"
)

// scheduleKeeper trains the models that have a schedule, at its times.
func (s *Stage) scheduleKeeper() func(context.Context) error {
	agenda := newAgenda(s.project.Models, s.clock())
	return func(ctx context.Context) error {
		for m, at := range agenda.due(s.clock()) {
			done, err := s.trainAt(ctx, m, at)
			if err := s.retryable(ctx, "training on schedule", m, err); err != nil {
				return err
			}
			if done {
				agenda[m] = at
			}
		}
		return nil
	}
}

// agenda is, for each model with a schedule, the time after which its next one is to be kept.
type agenda map[*project.Model]time.Time

// newAgenda begins now: times that nobody was there for are not made up for.
func newAgenda(models []*project.Model, now time.Time) agenda {
	a := agenda{}
	for _, m := range models {
		if m.Train.Schedule != nil {
			a[m] = now
		}
	}
	return a
}

// due is the models whose time has come, each with the last of its times up to now: of several that were missed, one run
// is enough.
func (a agenda) due(now time.Time) map[*project.Model]time.Time {
	due := map[*project.Model]time.Time{}
	for m, after := range a {
		if times, _ := m.Train.Schedule.Due(after, now, 1); len(times) > 0 {
			due[m] = times[0]
		}
	}
	return due
}

// trainAt makes the model of a time of its schedule, unless it has been made. One replica does it: as long as another is at
// it, it is not done, and asked for again, lest the other should die. A model without a champion is left to makeFirst.
func (s *Stage) trainAt(ctx context.Context, m *project.Model, at time.Time) (done bool, err error) {
	if !s.hasChampion(m) && !s.cfg.IgnoreFirst {
		return true, nil
	}
	release, err := s.registry.Claim(m.Name, "schedule")
	if failure.Of(err) == failure.Conflict && err != nil {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer release()
	q := Request{Run: "schedule/" + at.UTC().Format(time.RFC3339), Model: m.Name, Reason: "the schedule " + m.Train.Schedule.Text}
	if _, concluded, err := s.registry.Concluded(q.Model, q.Run); err != nil || concluded {
		return concluded, err
	}
	event, err := s.insist(ctx, q)
	if err != nil {
		return false, err
	}
	return true, s.publish(ctx, q.Run, event)
}
