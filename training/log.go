package training

import (
	"context"
	"fmt"
	"time"

	"github.com/millrace/millrace/features/offline"
	"github.com/millrace/millrace/internal/failure"
	"github.com/millrace/millrace/project"
)

// extent is how far a source's offline log reaches.
type extent struct {
	rows    int64
	from    int64 // first event time; 0 with no rows
	through int64 // every partition that is not idle has been written up to here
}

// extent looks at the log of a source. Partitions are committed each at its own time, so the newest event of one says
// nothing of the others; one that has been silent for cfg.Idle of event time is not waited for.
func (s *Stage) extent(ctx context.Context, source *project.Source) (extent, error) {
	t, err := offline.EventsTable(s.offlineDir, source.Name, source.Schema)
	if err != nil {
		return extent{}, err
	}
	stats, err := t.Stats()
	if err != nil || stats.Rows == 0 {
		return extent{}, err
	}
	newest := map[int32]int64{}
	opts := offline.ScanOptions{From: stats.Until - s.cfg.Idle.Milliseconds(), Columns: []string{source.Key}}
	err = t.Scan(ctx, opts, func(b *offline.Batch) error {
		p := b.Partition()
		for i := range b.Len() {
			newest[p] = max(newest[p], b.Time(i))
		}
		return nil
	})
	e := extent{rows: stats.Rows, from: stats.From, through: stats.Until}
	for _, at := range newest {
		e.through = min(e.through, at)
	}
	return e, err
}

// sources lists all that a model is made from, each once: the asking source first, then the label's.
func sources(m *project.Model) []*project.Source {
	list := []*project.Source{m.On}
	others := []*project.Source{m.Label.Source}
	for _, s := range groupSources(m) {
		others = append(others, s.Roots()...)
	}
	for _, s := range others {
		known := false
		for _, l := range list {
			known = known || l == s
		}
		if !known {
			list = append(list, s)
		}
	}
	return list
}

// cutoff waits until the offline log reaches the event time asked for and gives the cutoff of the run: that time, or
// where the log ends if it does before and no longer grows. 0 asks for all there is now.
func (s *Stage) cutoff(ctx context.Context, m *project.Model, until int64) (int64, error) {
	w := &wait{stage: s, until: until, patience: s.cfg.Patience, state: make([]waited, len(sources(m)))}
	const look = 100 * time.Millisecond
	tick := time.NewTicker(look)
	defer tick.Stop()
	for {
		ready, err := w.look(ctx, sources(m), look)
		if err != nil {
			return 0, err
		}
		if ready {
			return w.cutoff()
		}
		select {
		case <-ctx.Done():
			return 0, ctx.Err()
		case <-tick.C:
		}
	}
}

// wait is what is known of the logs that a run waits for.
type wait struct {
	stage    *Stage
	until    int64
	patience time.Duration
	state    []waited
}

type waited struct {
	extent
	still time.Duration // since the log last grew
}

// look reports whether every log reaches far enough or has stopped growing.
func (w *wait) look(ctx context.Context, sources []*project.Source, since time.Duration) (bool, error) {
	ready := true
	for i, source := range sources {
		e, err := w.stage.extent(ctx, source)
		if err != nil {
			return false, fmt.Errorf("looking at the log of %s: %w", source.Name, err)
		}
		if e.rows == w.state[i].rows {
			w.state[i].still += since
		} else {
			w.state[i].still = 0
		}
		w.state[i].extent = e
		ready = ready && (w.until == 0 || e.through >= w.until || w.state[i].still >= w.patience)
	}
	return ready, nil
}

// cutoff is the time asked for, if any log reaches it; otherwise the end of the longest. Asked for all, it is the end of
// the shortest, up to which everything is known.
func (w *wait) cutoff() (int64, error) {
	shortest, longest := w.state[0].through, w.state[0].through
	for _, s := range w.state {
		shortest, longest = min(shortest, s.through), max(longest, s.through)
	}
	switch {
	case shortest == 0 && w.until == 0 || longest == 0:
		return 0, failure.New(failure.Refused, "offline log", "there are no events yet")
	case w.until == 0:
		return shortest, nil
	default:
		return min(w.until, longest), nil
	}
}
