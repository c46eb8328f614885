package training

import (
	"context"
	"fmt"
	"time"

	"github.com/millrace/millrace/internal/failure"
	"github.com/millrace/millrace/project"
	"github.com/millrace/millrace/registry"
)

// makeFirsts looks after models that have no champion yet.
func (s *Stage) makeFirsts(ctx context.Context) error {
	for _, m := range s.project.Models {
		if err := s.retryable(ctx, "making the first model", m, s.makeFirst(ctx, m)); err != nil {
			return err
		}
	}
	return nil
}

// repeat looks at once, and again every cfg.Every, until ctx ends or a look fails.
func (s *Stage) repeat(ctx context.Context, look func(context.Context) error) error {
	tick := time.NewTicker(s.cfg.Every)
	defer tick.Stop()
	for {
		if err := look(ctx); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

// retryable lets pass, with a word in the log, what the next look may not meet again.
func (s *Stage) retryable(ctx context.Context, what string, m *project.Model, err error) error {
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case err != nil && failure.Of(err).Retry():
		s.log.Warn(what, "model", m.Name, "err", err)
		return nil
	case err != nil:
		return fmt.Errorf("%s of %s: %w", what, m.Name, err)
	default:
		return nil
	}
}

// makeFirst makes a model's first version once the log spans enough event time. One replica does it: the others find the
// claim taken, or the run concluded. A refused first model is tried again with more data.
func (s *Stage) makeFirst(ctx context.Context, m *project.Model) error {
	until, err := s.firstCutoff(ctx, m)
	if err != nil || until == 0 {
		return err
	}
	release, err := s.registry.Claim(m.Name, "first")
	if failure.Of(err) == failure.Conflict && err != nil {
		return nil
	}
	if err != nil {
		return err
	}
	defer release()
	q := Request{Run: "first/" + instant(until), Model: m.Name, Until: until, Reason: "the first model"}
	if _, done, err := s.registry.Concluded(q.Model, q.Run); err != nil || done || s.hasChampion(m) {
		return err
	}
	event, err := s.insist(ctx, q)
	if err != nil {
		return err
	}
	return s.publish(ctx, q.Run, event)
}

func (s *Stage) hasChampion(m *project.Model) bool {
	_, _, err := s.registry.Alias(m.Name, registry.Champion)
	return err == nil
}

// firstCutoff is the event time up to which a first model may be made now, 0 when it may not. It moves in steps from the
// log's beginning, so that a model does not depend on the moment of looking.
func (s *Stage) firstCutoff(ctx context.Context, m *project.Model) (int64, error) {
	if s.hasChampion(m) {
		return 0, nil
	}
	asking, err := s.extent(ctx, m.On)
	if err != nil || asking.rows == 0 {
		return 0, err
	}
	through := asking.through
	for _, source := range sources(m)[1:] {
		e, err := s.extent(ctx, source)
		if err != nil {
			return 0, err
		}
		through = min(through, e.through)
	}
	after := m.Train.FirstAfter.Milliseconds()
	step := max(after/int64(s.cfg.FirstSteps), s.cfg.Idle.Milliseconds())
	if through-asking.from < after {
		return 0, nil
	}
	return asking.from + after + (through-asking.from-after)/step*step, nil
}
