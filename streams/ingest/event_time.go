package ingest

import (
	"context"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace/millrace/internal/clock"
	"github.com/millrace/millrace/project"
	"github.com/millrace/millrace/schemas"
	"github.com/millrace/millrace/streams"
)

// eventTime finds a record's event time and says whether it is believable.
type eventTime struct {
	column int           // -1: the record's timestamp
	future time.Duration // 0: no guard
	clock  clock.Clock   // nil under an event clock, where now is the newest event time
	newest int64         // of this partition; 0 before the first event
}

func newEventTime(p *project.Project, s *project.Source, c clock.Clock) eventTime {
	t := eventTime{column: -1, future: s.Future, clock: c}
	if s.Time != "" {
		t.column = s.TimeIndex()
	}
	if p.Clock == project.ClockEvent {
		t.clock = nil
	}
	return t
}

// of is the event time of a record in Unix milliseconds.
func (t *eventTime) of(r *kgo.Record, row schemas.Row) (int64, error) {
	if t.column < 0 {
		return r.Timestamp.UnixMilli(), nil
	}
	v := row[t.column]
	if v.IsNull() {
		return 0, &schemas.RecordError{Class: schemas.ClassMissing, Path: "event time", Reason: "is null"}
	}
	return v.Int(), nil
}

// ahead reports whether at is further ahead of now than the source allows.
func (t *eventTime) ahead(at int64) bool {
	if t.future == 0 {
		return false
	}
	now := t.newest
	if t.clock != nil {
		now = t.clock().UnixMilli()
	}
	return now != 0 && at > now+t.future.Milliseconds()
}

// passed notes an event that was accepted.
func (t *eventTime) passed(at int64) { t.newest = max(t.newest, at) }

// newestBefore is the event clock of a worker that starts: the newest event time of what was done of its partition, by what its predecessors told with
// the offsets that they committed, and by the positions of the groups that read it. Without it the first record after every restart would be
// believed whatever its time. It may be that of records which are read again: what is too far ahead of those is too far ahead of what was before
// them.
func (w *sourceWorker) newestBefore(ctx context.Context) (int64, error) {
	told, err := streams.ToldProgress(ctx, w.producer, SourceGroup(w.deps.Project, w.src.Source)+w.suffix, w.src.Topic, w.partition)
	if err != nil {
		return 0, err
	}
	newest := told.Newest
	for _, a := range w.direct {
		newest = max(newest, a.newest)
	}
	return newest, nil
}
