package serving

import (
	"bytes"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/millrace/millrace/internal/failure"
	"github.com/millrace/millrace/project"
	"github.com/millrace/millrace/registry"
	"github.com/millrace/millrace/registry/model"
)

// stallingProxy passes TCP on to an address until it is told to stall: then connections stay open and nothing passes.
type stallingProxy struct {
	listener net.Listener
	stalled  atomic.Bool
	conns    sync.Map
}

func newStallingProxy(t *testing.T, to string) *stallingProxy {
	l := must[net.Listener](t)(net.Listen("tcp", "127.0.0.1:0"))
	p := &stallingProxy{listener: l}
	t.Cleanup(func() {
		l.Close()
		p.conns.Range(func(c, _ any) bool { c.(net.Conn).Close(); return true })
	})
	go func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial("tcp", to)
			if err != nil {
				in.Close()
				continue
			}
			p.conns.Store(in, nil)
			p.conns.Store(out, nil)
			go p.pipe(in, out)
			go p.pipe(out, in)
		}
	}()
	return p
}

func (p *stallingProxy) pipe(from, to net.Conn) {
	buffer := make([]byte, 32<<10)
	for {
		n, err := from.Read(buffer)
		if err != nil {
			to.Close()
			return
		}
		if p.stalled.Load() {
			continue // swallowed
		}
		if _, err := to.Write(buffer[:n]); err != nil {
			return
		}
	}
}

// inTime does something and holds it to a time that no busy machine makes it miss, and a fault does: clients of Redis wait for 3 s by themselves.
func inTime(t *testing.T, do func()) {
	t.Helper()
	start := time.Now()
	do()
	if took := time.Since(start); took > 2*time.Second {
		t.Errorf("took %s", took)
	}
}

func TestRedisDead(t *testing.T) {
	w := newWorld(t)
	w.model().Serve.Timeout = 300 * time.Millisecond
	w.apply(arrival{"ATL", noon.Add(-time.Minute), 10})
	w.promote(byDelay(0.1))
	w.start()
	w.awaitReady()
	if status, _ := w.post(flight); status != 200 {
		t.Fatalf("%d while Redis lives", status)
	}
	w.redis.Close()
	var status int
	var a answerBody
	inTime(t, func() { status, a = w.post(flight) })
	if status != 503 || a.Code != "features_unavailable" || len(a.Predictions) != 1 || a.Predictions[0].Rung != "refused" || a.Predictions[0].Features[0].Status != "unavailable" {
		t.Errorf("%d %+v", status, a)
	}
	// What the row itself says is known all the same.
	if f := a.Predictions[0].Features[4]; f.Name != "distance" || f.Status != "present" || *f.Value != 1000 {
		t.Errorf("%+v", f)
	}
	if status := w.get("/v1/features/origin_delays/ATL", &a); status != 503 {
		t.Errorf("features: %d", status)
	}
	if status := w.get("/readyz", nil); status != 200 {
		t.Errorf("readyz: %d: restarting this process would not help Redis", status)
	}
}

// A model that reads no feature group answers without Redis.
func TestRedisDeadPreviousNeedsNone(t *testing.T) {
	w := newWorld(t)
	w.promote(trained{intercept: 0.5, weights: map[string]float64{"distance": 0.001}})
	w.promote(byDelay(0.1))
	w.start()
	w.awaitReady()
	w.redis.Close()
	status, a := w.post(flight)
	if p := a.Predictions[0]; status != 200 || p.Rung != "previous" || *p.Score != sigmoid(1.5) || p.Reason != "features_unavailable: origin_delays" {
		t.Errorf("%d %+v", status, a)
	}
}

func TestRedisStalled(t *testing.T) {
	w := newWorld(t)
	proxy := newStallingProxy(t, w.addr)
	w.addr = proxy.listener.Addr().String()
	w.model().Serve.Timeout = 200 * time.Millisecond
	w.cfg.MaxReads = 2
	w.apply(arrival{"ATL", noon.Add(-time.Minute), 10})
	w.promote(byDelay(0.1))
	w.start()
	w.awaitReady()
	if status, _ := w.post(flight); status != 200 {
		t.Fatalf("%d while Redis answers", status)
	}
	proxy.stalled.Store(true)
	ask := func(headers ...string) (status int, a answerBody) {
		t.Helper()
		inTime(t, func() { status, a = w.post(flight, headers...) })
		return status, a
	}
	if status, a := ask(); status != 504 || a.Code != "deadline" || a.Predictions[0].Rung != "refused" {
		t.Errorf("%d %+v", status, a)
	}
	w.model().Serve.Timeout = time.Minute
	if status, a := ask(HeaderTimeout, "40"); status != 504 || a.Code != "deadline" {
		t.Errorf("asked for 40 ms: %d %+v", status, a)
	}
	w.model().Serve.Timeout = 200 * time.Millisecond
	if status, _ := ask(HeaderTimeout, "60000"); status != 504 { // capped by the declared timeout
		t.Errorf("asked for a minute: %d", status)
	}
	// With the reads left behind filling every slot, requests are refused all the same, in time.
	w.fallTo(project.Rung{Kind: project.RungPrevious}, project.Rung{Kind: project.RungDefault, Score: 0.25})
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			if status, a := ask(); status != 200 || a.Predictions[0].Rung != "default" {
				t.Errorf("%d %+v", status, a)
			}
		})
	}
	all.Wait()
	proxy.stalled.Store(false)
	eventually(t, "answered by the champion again", func() bool {
		status, a := w.post(flight)
		return status == 200 && a.Predictions[0].Rung == "primary"
	})
}

// The deadline holds although the client library does not heed its context.
func TestReadLeftBehind(t *testing.T) {
	w := newWorld(t)
	proxy := newStallingProxy(t, w.addr)
	proxy.stalled.Store(true)
	w.addr, w.heedless = proxy.listener.Addr().String(), true // its own timeout is 3 s
	s := w.make()
	ctx, cancel := timeoutContext(t, 50*time.Millisecond)
	defer cancel()
	f := newFiller(s.models["late"].plan)
	q := mustRead(t, s, flight)
	f.prepare(q, func(int, string, error) {})
	start := time.Now()
	_, err := s.fetch.get(ctx, f.refs)
	if took := time.Since(start); failure.Of(err) != failure.Deadline || took > 2*time.Second {
		t.Errorf("%v after %s", err, took)
	}
}

// promoteUnlikeItsRows makes a version champion that does not score its golden rows as they say.
func promoteUnlikeItsRows(w *world) string {
	m := byDelay(0.2)
	m.spoil = func(b *model.Bundle) { b.Scores[0] += 1e-6 }
	return w.promote(m)
}

// promoteDamaged makes a version champion whose bytes are others than were registered.
func promoteDamaged(w *world) string {
	digest := w.register(byDelay(0.2))
	w.damage(digest)
	w.crown(digest)
	return digest
}

func TestCorruptModelDoesNotServe(t *testing.T) {
	for name, promote := range map[string]func(*world) string{
		"golden rows do not reproduce": promoteUnlikeItsRows,
		"bytes are damaged":            promoteDamaged,
		"an input meant something else": func(w *world) string {
			m := byDelay(0.2)
			m.spoil = func(b *model.Bundle) { b.Signature[0].Source = "origin_delays@000000000000/delay_mean_1h" }
			return w.promote(m)
		},
		"is no bundle": func(w *world) string {
			digest := must[string](w.t)(w.registry.Put(w.t.Context(), registry.Manifest{Kind: registry.KindModel, Name: "late", MediaType: model.MediaLogistic}, strings.NewReader("{}")))
			must[int](w.t)(w.registry.AddVersion("late", digest))
			w.crown(digest)
			return digest
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			bad := promote(w)
			w.start()
			var v modelView
			eventually(t, "the fault is shown", func() bool { w.get("/v1/models/late", &v); return v.Fault != "" })
			if v.State != "waiting" || !strings.Contains(v.Fault, bad) {
				t.Errorf("%+v", v)
			}
			if status := w.get("/readyz", nil); status != 503 {
				t.Errorf("ready: %d", status)
			}
			if status, a := w.post(flight); status != 503 || a.Code != "no_champion" {
				t.Errorf("%d %+v", status, a)
			}
			if n := w.metric("millrace_serving_swaps_total", "result", "refused"); n != 1 {
				t.Errorf("%v refused swaps counted, want 1", n)
			}
		})
		t.Run(name+", beside a good one", func(t *testing.T) {
			w := newWorld(t)
			good := w.promote(byDelay(0.1))
			w.start()
			w.awaitReady()
			promote(w)
			var v modelView
			eventually(t, "the fault is shown", func() bool { v = modelView{}; w.get("/v1/models/late", &v); return v.Fault != "" })
			status, a := w.post(flight)
			if status != 200 || a.Predictions[0].Digest != good || a.Predictions[0].Rung != "primary" || v.Digest != good {
				t.Errorf("%d %+v", status, a)
			}
			next := w.promote(byDelay(0.3))
			eventually(t, "the next one is live", func() bool { v = modelView{}; w.get("/v1/models/late", &v); return v.Digest == next && v.Fault == "" })
			if v.Previous != nil {
				t.Errorf("%+v stands in, which does not pass its checks", v.Previous)
			}
		})
	}
}

// damage changes a byte of an artefact's content.
func (w *world) damage(digest string) {
	w.t.Helper()
	m := must[registry.Manifest](w.t)(w.registry.Manifest(digest))
	hex := strings.TrimPrefix(m.Content, "sha256:")
	path := filepath.Join(w.registry.Dir(), "blobs", "sha256", hex)
	b := must[[]byte](w.t)(os.ReadFile(path))
	i := bytes.Index(b, []byte(`weight\":`))
	if i < 0 {
		w.t.Fatal("no weight in the artefact")
	}
	b[i+len(`weight\":`)] ^= 1
	if err := os.Chmod(path, 0o644); err != nil {
		w.t.Fatal(err)
	}
	if err := os.WriteFile(path, b, 0o644); err != nil {
		w.t.Fatal(err)
	}
}

// While champions change, every request is answered, by one version or the other as a whole.
func TestSwapUnderLoad(t *testing.T) {
	w := newWorld(t)
	w.cfg.FollowEvery = time.Millisecond
	w.model().Serve.Timeout = time.Minute
	w.apply(arrival{"ATL", noon.Add(-time.Minute), 10})
	weights := map[string]float64{} // by digest
	first := w.promote(byDelay(0.01))
	weights[first] = 0.01
	w.start()
	w.awaitReady()

	var wrong, asked atomic.Int64
	var mu sync.Mutex
	served := map[string]float64{}
	stop := make(chan struct{})
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				status, a := w.post(flight)
				asked.Add(1)
				if status != http.StatusOK || a.Predictions[0].Rung != "primary" {
					wrong.Add(1)
					continue
				}
				mu.Lock()
				served[a.Predictions[0].Digest] = *a.Predictions[0].Score
				mu.Unlock()
			}
		})
	}
	for i := range 20 {
		weight := 0.02 + float64(i)/100
		digest := w.promote(byDelay(weight))
		weights[digest] = weight
		eventually(t, "swapped and serving", func() bool {
			mu.Lock()
			defer mu.Unlock()
			_, ok := served[digest]
			return ok
		})
	}
	close(stop)
	all.Wait()
	if wrong.Load() > 0 {
		t.Errorf("%d of %d requests were not answered by a champion", wrong.Load(), asked.Load())
	}
	for digest, score := range served {
		if want := sigmoid(-1 + 10*weights[digest] + 1); score-want > 1e-12 || want-score > 1e-12 {
			t.Errorf("%s scored %v, want %v", digest, score, want)
		}
	}
	if n := w.metric("millrace_serving_swaps_total", "result", "swapped"); n != 21 {
		t.Errorf("%v swaps counted, want 21", n)
	}
}

func TestPredictionLogDropsWhenFull(t *testing.T) {
	w := newWorld(t, withKafka)
	w.cfg.LogQueue = 2
	s := w.make() // not running: nobody empties the queue
	w.promote(byDelay(0.1))
	s.lookAll(t.Context())
	for range 5 {
		predictions, _, p := s.answer(t.Context(), s.models["late"], mustRead(t, s, flight), noon)
		if p != nil {
			t.Fatal(p)
		}
		s.keep(s.models["late"], nil, predictions)
	}
	if n := w.metric("millrace_serving_log_dropped_total", "reason", "queue_full"); n != 3 {
		t.Errorf("%v dropped, want 3", n)
	}
	if n := w.metric("millrace_serving_log_queue"); n != 2 {
		t.Errorf("%v queued, want 2", n)
	}
}

// TestBodyRefusedUnread announces what is refused, and sends nothing more: the answer does not wait for it.
func TestBodyRefusedUnread(t *testing.T) {
	w := newWorld(t)
	w.start()
	for header, want := range map[string]string{
		"Content-Length: 99999999999":                        "413",
		"Content-Encoding: gzip\r\nContent-Length: 100":      "415",
		"Content-Encoding: br\r\nTransfer-Encoding: chunked": "415",
	} {
		conn, err := net.Dial("tcp", w.server.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		_ = conn.SetDeadline(time.Now().Add(bodyTimeout / 2))
		if _, err := io.WriteString(conn, "POST /v1/models/late:score HTTP/1.1\r\nHost: x\r\n"+header+"\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		line := make([]byte, len("HTTP/1.1 413"))
		if _, err := io.ReadFull(conn, line); err != nil || string(line) != "HTTP/1.1 "+want {
			t.Errorf("%s: %q (%v), want %s", header, line, err, want)
		}
		_ = conn.Close()
	}
}

// TestAnnouncedBodyTakesNoMemory has a client that announces the largest body there may be and sends a byte.
func TestAnnouncedBodyTakesNoMemory(t *testing.T) {
	s := &Stage{cfg: Default()}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	const clients = 50
	for range clients {
		r := httptest.NewRequest(http.MethodPost, "/v1/models/late:score", strings.NewReader("{"))
		r.ContentLength = s.cfg.MaxBody
		if body, p := s.readBody(httptest.NewRecorder(), r); p != nil || len(body) != 1 {
			t.Fatalf("%q, %v", body, p)
		}
	}
	runtime.ReadMemStats(&after)
	if took := (after.TotalAlloc - before.TotalAlloc) / clients; took > 64<<10 {
		t.Errorf("%d bytes for a client that sent one", took)
	}
}

func TestBodyBreaksOff(t *testing.T) {
	w := newWorld(t)
	w.start()
	reader, writer := io.Pipe()
	go func() {
		_, _ = writer.Write([]byte(`{"flight_id":`))
		writer.CloseWithError(errors.New("gone"))
	}()
	_, err := w.server.Client().Post(w.server.URL+"/v1/models/late:score", "application/json", reader)
	if err == nil {
		t.Error("the request went through")
	}
	if status := w.get("/healthz", nil); status != 200 {
		t.Errorf("healthz: %d", status)
	}
}
