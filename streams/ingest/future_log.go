package ingest

import (
	"log/slog"
	"sync"
	"time"
)

// futureLimit is how far ahead of the clock an event of a source without a guard may be before it is told. The clocks of producers that are kept in
// time differ by far less.
const futureLimit = time.Hour

// futureLogEvery is how often that is told of one source in the log at most.
const futureLogEvery = time.Minute

// futureLog tells in the log that a source without a future guard has events ahead of the clock: nothing refuses them, and each empties the windows of
// its entity. It says where a record is and not what is in it.
type futureLog struct {
	log *slog.Logger
	now func() time.Time

	mu   sync.Mutex
	told map[string]*futureCount // by source
}

type futureCount struct {
	last   time.Time
	events int // since then
}

func newFutureLog(log *slog.Logger, now func() time.Time) *futureLog {
	return &futureLog{log: log, now: now, told: map[string]*futureCount{}}
}

// note counts n events of a source; newest is the furthest of them.
func (f *futureLog) note(source string, n int, newest *item) {
	now := f.now()
	f.mu.Lock()
	defer f.mu.Unlock()
	c := f.told[source]
	if c == nil {
		c = &futureCount{last: now.Add(-futureLogEvery)}
		f.told[source] = c
	}
	c.events += n
	if now.Sub(c.last) < futureLogEvery {
		return
	}
	r := newest.record
	f.log.Warn("events are more than an hour ahead of the clock: each empties the windows of its entity; declare future: of the source, and they become dead letters",
		"source", source, "events", c.events, "time", time.UnixMilli(newest.at).UTC(), "topic", r.Topic, "partition", r.Partition, "offset", r.Offset)
	c.last, c.events = now, 0
}

// unguarded tells of the accepted events of a chunk that are ahead of the clock, newest being the newest time of them, where their source declares no
// guard. What a chunk without any costs is one look at the clock.
func (w *sourceWorker) unguarded(items []item, newest int64) {
	limit := w.deps.Clock().Add(futureLimit).UnixMilli()
	if newest <= limit || w.src.Future > 0 || w.src.lone {
		return
	}
	n, furthest := 0, (*item)(nil)
	for i := range items {
		it := &items[i]
		if !it.ok || it.at <= limit {
			continue
		}
		if n++; furthest == nil || it.at > furthest.at {
			furthest = it
		}
	}
	if n == 0 {
		return
	}
	w.metrics.ahead.WithLabelValues(w.src.Name).Add(float64(n))
	w.futureLog.note(w.src.Name, n, furthest)
}
