package serving

import (
	"context"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/millrace/millrace/internal/failure"
)

// admission bounds the requests that are worked on at a time and those that wait for it, so that more load than the server has capacity
// for turns into refusals at once rather than into latency for all. What waits is let in in the order it came, and not for long: an answer
// that its client has given up on helps nobody.
type admission struct {
	slots  chan struct{}
	queued atomic.Int64
	queue  int64
	wait   time.Duration
	shed   map[string]prometheus.Counter // by why
}

// Why a request is shed; a metric label.
const (
	shedQueueFull = "queue_full"
	shedWaited    = "waited"
)

// codeOverloaded is also the ladder's reason when too many reads are on their way.
var codeOverloaded = failure.Overloaded.String()

func newAdmission(c Config, m *metrics) *admission {
	a := &admission{slots: make(chan struct{}, c.MaxInFlight), queue: int64(c.MaxQueue), wait: c.QueueFor, shed: map[string]prometheus.Counter{}}
	for _, why := range []string{shedQueueFull, shedWaited} {
		a.shed[why] = m.shed.WithLabelValues(why)
	}
	return a
}

// enter lets a request in, or gives the problem it is refused with. Who was let in leaves.
func (a *admission) enter(ctx context.Context) *problem {
	select {
	case a.slots <- struct{}{}:
		return nil
	default:
	}
	if a.queued.Add(1) > a.queue {
		a.queued.Add(-1)
		return a.refuse(shedQueueFull)
	}
	defer a.queued.Add(-1)
	late := time.NewTimer(a.wait)
	defer late.Stop()
	select {
	case a.slots <- struct{}{}: // a channel serves those who wait in their order
		return nil
	case <-late.C:
	case <-ctx.Done():
	}
	return a.refuse(shedWaited)
}

func (a *admission) leave() { <-a.slots }

func (a *admission) refuse(why string) *problem {
	a.shed[why].Inc()
	return &problem{
		Status: http.StatusTooManyRequests, Code: codeOverloaded, Detail: "the server works on as many requests as it takes on at a time",
		Hint: "try again later, as Retry-After says, or ask another replica",
	}
}
