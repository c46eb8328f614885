package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// target is where requests go.
type target struct {
	addr, path string
	bodies     bodies
}

func (t *target) url() string { return "http://" + t.addr + t.path }

// ask sends one request and gives the answer's body.
func (t *target) ask(ctx context.Context, i int) ([]byte, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, t.url(), bytes.NewReader(t.bodies[i]))
	if err != nil {
		return nil, err
	}
	r.Header.Set("Content-Type", "application/json")
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err == nil && answer.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s %s: %s", t.path, answer.Status, body)
	}
	return body, err
}

// wrkScript sends the bodies of a file, one a line, in turn.
const wrkScript = `
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
local requests, i = {}, 0
function init(args)
  for line in io.lines(args[1]) do requests[#requests + 1] = wrk.format(nil, nil, nil, line) end
end
function request()
  i = i % #requests + 1
  return requests[i]
end
`

// saturate lets wrk ask as fast as the server answers, over so many connections.
func (t *target) saturate(ctx context.Context, work string, connections int, span time.Duration) (requests, failed float64, err error) {
	script, file := filepath.Join(work, "post.lua"), filepath.Join(work, "bodies")
	if err := errors.Join(os.WriteFile(script, []byte(wrkScript), 0o600), os.WriteFile(file, append(bytes.Join(t.bodies, []byte("\n")), '\n'), 0o600)); err != nil {
		return 0, 0, err
	}
	cmd := exec.CommandContext(ctx, "taskset", "-c", clientCore, "wrk", "-t1", "-c"+strconv.Itoa(connections), fmt.Sprintf("-d%ds", max(1, int(span.Seconds()))), "--timeout", "10s", "-s", script, t.url(), "--", file)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return 0, 0, fmt.Errorf("wrk: %w: %s", err, out)
	}
	found := wrkTotal.FindSubmatch(out)
	if found == nil {
		return 0, 0, fmt.Errorf("wrk said nothing of its requests: %s", out)
	}
	requests, _ = strconv.ParseFloat(string(found[1]), 64)
	for _, pattern := range []*regexp.Regexp{wrkRefused, wrkBroken} {
		if found := pattern.FindSubmatch(out); found != nil {
			for _, count := range found[1:] {
				n, _ := strconv.ParseFloat(string(count), 64)
				failed += n
			}
		}
	}
	return requests, failed, nil
}

var (
	wrkTotal   = regexp.MustCompile(`(\d+) requests in`)
	wrkRefused = regexp.MustCompile(`Non-2xx or 3xx responses: (\d+)`)
	wrkBroken  = regexp.MustCompile(`Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)`)
)

// paced is what an open loop saw: requests are sent when they are due, whether or not answers have come, and latency counts from then,
// so that a server that stalls does not go unseen (Tene, "coordinated omission").
type paced struct {
	latencies []time.Duration // of those answered, sorted
	failed    int64
}

func (p *paced) quantile(q float64) float64 {
	if len(p.latencies) == 0 {
		return 0
	}
	return p.latencies[min(int(q*float64(len(p.latencies))), len(p.latencies)-1)].Seconds() * 1000
}

// pace asks at a rate per second over so many connections, each of which takes the next request that is due.
func (t *target) pace(ctx context.Context, connections int, rate float64, span time.Duration) (*paced, error) {
	var next, failed atomic.Int64
	total := int64(rate * span.Seconds())
	took := make([]time.Duration, total)
	start := time.Now()
	var all sync.WaitGroup
	errs := make([]error, connections)
	for c := range connections {
		all.Go(func() {
			errs[c] = t.connection(ctx, func(ask func(i int) error) error {
				for i := next.Add(1) - 1; i < total; i = next.Add(1) - 1 {
					due := start.Add(time.Duration(float64(i) / rate * float64(time.Second)))
					if err := sleepUntil(due); err != nil {
						return err
					}
					if err := ask(int(i) % len(t.bodies)); err != nil {
						failed.Add(1)
						if !errors.Is(err, errStatus) {
							return err
						}
						continue
					}
					took[i] = time.Since(due)
				}
				return nil
			})
		})
	}
	all.Wait()
	took = slices.DeleteFunc(took, func(d time.Duration) bool { return d == 0 })
	slices.Sort(took)
	return &paced{latencies: took, failed: failed.Load()}, errors.Join(errs...)
}

// sleepUntil holds the thread: the runtime's own timers wait in whole milliseconds when nothing else goes on, which is as long as an answer takes.
func sleepUntil(due time.Time) error {
	for left := time.Until(due); left > 0; left = time.Until(due) {
		span := unix.NsecToTimespec(left.Nanoseconds())
		if err := unix.Nanosleep(&span, nil); err != nil && !errors.Is(err, unix.EINTR) {
			return err
		}
	}
	return nil
}

var errStatus = errors.New("the answer is not 200")

// connection opens one and gives a way to ask on it. The requests are written beforehand, so that the client takes little of the machine.
func (t *target) connection(ctx context.Context, use func(ask func(i int) error) error) error {
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "tcp", t.addr)
	if err != nil {
		return err
	}
	defer conn.Close()
	messages := make([][]byte, len(t.bodies))
	for i, body := range t.bodies {
		messages[i] = fmt.Appendf(nil, "POST %s HTTP/1.1\r\nHost: %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", t.path, t.addr, len(body), body)
	}
	reader := bufio.NewReaderSize(conn, 64<<10)
	return use(func(i int) error {
		if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
			return err
		}
		if _, err := conn.Write(messages[i]); err != nil {
			return err
		}
		answer, err := http.ReadResponse(reader, nil)
		if err != nil {
			return err
		}
		_, err = io.Copy(io.Discard, answer.Body)
		if err := errors.Join(err, answer.Body.Close()); err != nil {
			return err
		}
		if answer.StatusCode != http.StatusOK {
			return errStatus
		}
		return nil
	})
}
