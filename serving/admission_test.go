package serving

import (
	"context"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// With ten times its capacity offered, the server answers as many as it can, none of them much later than without load, and refuses the
// rest at once.
func TestOverloadIsShed(t *testing.T) {
	const takes = 10 * time.Millisecond
	serve := func(perSecond int) (answered, refused []time.Duration) {
		synctest.Test(t, func(t *testing.T) {
			cfg := Default()
			cfg.MaxInFlight, cfg.MaxQueue, cfg.QueueFor = 8, 8, 20*time.Millisecond
			a := newAdmission(cfg, newMetrics(prometheus.NewRegistry()))
			var mu sync.Mutex
			var all sync.WaitGroup
			for range 2 * perSecond {
				time.Sleep(time.Second / time.Duration(perSecond))
				all.Go(func() {
					start := time.Now()
					p := a.enter(t.Context())
					if p == nil {
						time.Sleep(takes)
						a.leave()
					}
					mu.Lock()
					defer mu.Unlock()
					if p == nil {
						answered = append(answered, time.Since(start))
					} else if refused = append(refused, time.Since(start)); p.Status != 429 || p.Code != "overloaded" {
						t.Errorf("%+v", p)
					}
				})
			}
			all.Wait()
			if len(a.slots) != 0 || a.queued.Load() != 0 {
				t.Errorf("%d in flight and %d queued at the end", len(a.slots), a.queued.Load())
			}
		})
		slices.Sort(answered)
		slices.Sort(refused)
		return answered, refused
	}
	const capacity = 800 // a second: 8 at a time, 10 ms each
	calm, none := serve(capacity / 2)
	if len(none) > 0 || len(calm) != capacity || calm[len(calm)-1] != takes {
		t.Errorf("at half its capacity %d are answered, %d refused, the slowest in %s", len(calm), len(none), calm[len(calm)-1])
	}
	answered, refused := serve(10 * capacity)
	p99 := answered[len(answered)*99/100]
	if len(answered) < 2*capacity*95/100 || p99 > 2*takes+time.Millisecond {
		t.Errorf("%d answered of a capacity of %d, p99 %s", len(answered), 2*capacity, p99)
	}
	if len(answered)+len(refused) != 20*capacity || refused[len(refused)*9/10] != 0 {
		t.Errorf("%d refused, nine in ten within %s", len(refused), refused[len(refused)*9/10])
	}
}

// A request whose turn does not come gives up its place in the queue, and its slot to nobody.
func TestWaitingEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := Default()
		cfg.MaxInFlight, cfg.MaxQueue, cfg.QueueFor = 1, 1, 20*time.Millisecond
		a := newAdmission(cfg, newMetrics(prometheus.NewRegistry()))
		if p := a.enter(t.Context()); p != nil {
			t.Fatal(p)
		}
		start := time.Now()
		if p := a.enter(t.Context()); p == nil || time.Since(start) != cfg.QueueFor {
			t.Errorf("%v after %s", p, time.Since(start))
		}
		short, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		if p := a.enter(short); p == nil || time.Since(start) != cfg.QueueFor+time.Millisecond {
			t.Errorf("%v after %s", p, time.Since(start))
		}
		a.leave()
		if p := a.enter(t.Context()); p != nil {
			t.Error(p)
		}
	})
}

// Over HTTP: while Redis holds those that are let in, the others are told to come back, and health is answered.
func TestOverloadOverHTTP(t *testing.T) {
	w := newWorld(t)
	w.cfg.MaxInFlight, w.cfg.MaxQueue, w.cfg.QueueFor = 1, 1, time.Millisecond
	proxy := newStallingProxy(t, w.redis.Addr())
	w.addr = proxy.listener.Addr().String()
	w.model().Serve.Timeout = 3 * time.Second
	w.promote(byDelay(0.1))
	w.start()
	w.awaitReady()
	if status, _ := w.post(flight); status != 200 {
		t.Fatal(status)
	}
	proxy.stalled.Store(true)
	held := make(chan int, 1)
	go func() {
		resp, err := http.Post(w.server.URL+"/v1/models/late:score", "application/json", strings.NewReader(flight))
		if err != nil {
			held <- 0
			return
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
		held <- resp.StatusCode
	}()
	eventually(t, "a request is under way", func() bool { return len(w.stage.admitted.slots) == 1 })
	resp := must[*http.Response](t)(http.Post(w.server.URL+"/v1/models/late:score", "application/json", strings.NewReader(flight)))
	var a answerBody
	w.decode(resp, &a)
	if resp.StatusCode != http.StatusTooManyRequests || resp.Header.Get("Retry-After") != "1" || a.Code != "overloaded" {
		t.Errorf("%d Retry-After %q %+v", resp.StatusCode, resp.Header.Get("Retry-After"), a)
	}
	if status := w.get("/healthz", nil); status != 200 {
		t.Errorf("healthz %d", status)
	}
	if shed := w.metric("millrace_serving_shed_requests_total", "reason", shedWaited); shed != 1 {
		t.Errorf("%v shed", shed)
	}
	if status := <-held; status != 504 && status != 200 {
		t.Errorf("the one let in is answered %d", status)
	}
}
