package access

import (
	"log/slog"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/millrace/millrace/internal/clock"
)

// Deps is what the package works with. None may be nil.
type Deps struct {
	Clock clock.Clock
	Log   *slog.Logger
}

// Meters counts refusals and reloads.
type Meters struct{ all *metrics }

type metrics struct {
	denied  *prometheus.CounterVec // reason
	reloads *prometheus.CounterVec // what, result
}

// The results of a reload.
const (
	reloaded = "reloaded"
	failed   = "failed"
)

// NewMeters registers the counters.
func NewMeters(r prometheus.Registerer) *Meters {
	m := &metrics{
		denied: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "millrace_access_denied_total", Help: "Requests refused for who asked: without a token, with one that is unknown or expired, or without the right or the model.",
		}, []string{"reason"}),
		reloads: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "millrace_access_reloads_total", Help: "Times that changed certificates or tokens were read, by result.",
		}, []string{"what", "result"}),
	}
	r.MustRegister(m.denied, m.reloads)
	for _, why := range []string{denyMissing, denyUnknown, denyExpired, denyRight, denyModel} {
		m.denied.WithLabelValues(why)
	}
	return &Meters{m}
}
