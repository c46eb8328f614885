package access

import (
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/millrace/millrace/internal/clock"
)

// lookEvery is how often it is looked whether files have changed.
const lookEvery = time.Second

// watched is something made of files, made again when they change. While they cannot be read, what was made last stays.
type watched[T any] struct {
	what    string
	files   []string
	load    func() (T, error)
	now     clock.Clock
	log     *slog.Logger
	reloads *prometheus.CounterVec // what, result

	value  atomic.Pointer[T]
	looked atomic.Int64 // nanoseconds
	mu     sync.Mutex   // of seen
	seen   []stamp
}

// stamp tells two states of a file apart.
type stamp struct {
	changed time.Time
	size    int64
}

func watch[T any](what string, files []string, load func() (T, error), deps Deps, m *metrics) (*watched[T], error) {
	w := &watched[T]{what: what, files: files, load: load, now: deps.Clock, log: deps.Log, reloads: m.reloads}
	w.seen = w.stamps()
	v, err := load()
	if err != nil {
		return nil, err
	}
	w.value.Store(&v)
	w.looked.Store(w.now().UnixNano())
	for _, result := range []string{reloaded, failed} {
		w.reloads.WithLabelValues(what, result)
	}
	return w, nil
}

func (w *watched[T]) stamps() []stamp {
	stamps := make([]stamp, len(w.files))
	for i, f := range w.files {
		if info, err := os.Stat(f); err == nil {
			stamps[i] = stamp{info.ModTime(), info.Size()}
		}
	}
	return stamps
}

// current is what the files say now, or said less than lookEvery ago.
func (w *watched[T]) current() T {
	looked, now := w.looked.Load(), w.now().UnixNano()
	if now-looked >= int64(lookEvery) && w.looked.CompareAndSwap(looked, now) {
		w.look()
	}
	return *w.value.Load()
}

func (w *watched[T]) look() {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := w.stamps()
	changed := false
	for i := range now {
		changed = changed || !now[i].changed.Equal(w.seen[i].changed) || now[i].size != w.seen[i].size
	}
	if !changed {
		return
	}
	v, err := w.load()
	if err != nil { // seen stays: a file that is half written is read again
		w.reloads.WithLabelValues(w.what, failed).Inc()
		w.log.Error("changed files cannot be read; what was read last stays in force", "what", w.what, "error", err)
		return
	}
	w.seen = now
	w.value.Store(&v)
	w.reloads.WithLabelValues(w.what, reloaded).Inc()
	w.log.Info("changed files are read", "what", w.what)
}
