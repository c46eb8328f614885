package e2e

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"
)

// question is a row that is asked about, over and over, and what may be answered.
type question struct {
	body  string
	from  string // airports
	to    string
	lacks string             // why the champion must not answer, when its features are read; empty where it must
	score float64            // the champion's
	rungs map[string]float64 // the score of each rung that may answer in its place
}

// answered is what one request was answered.
type answered struct {
	of         int // index of the question
	sent       time.Time
	took       time.Duration
	status     int
	err        error
	text       string
	prediction struct {
		ID       string
		Score    *float64
		Rung     string
		Reason   string
		Digest   string
		Version  int
		Features []struct {
			Name   string
			Value  *float64
			Status string
		}
	}
}

// code is the reason without its detail.
func (a *answered) code() string {
	code, _, _ := strings.Cut(a.prediction.Reason, ":")
	return code
}

func (a *answered) String() string {
	return fmt.Sprintf("question %d, %d after %s: %v %s", a.of, a.status, a.took, a.err, a.text)
}

// asker is clients that ask one after the other, whatever they are answered.
type asker struct {
	url       string
	questions []question
	client    *http.Client
	stopping  chan struct{}
	ended     sync.WaitGroup

	mu      sync.Mutex
	answers []answered
}

// askEvery starts clients that each ask the model every so often, until stop.
func askEvery(t *testing.T, endpoint string, questions []question, clients int, every time.Duration) *asker {
	t.Helper()
	a := &asker{url: endpoint + "/v1/models/late:score", questions: questions, stopping: make(chan struct{})}
	a.client = &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: clients}, Timeout: 2 * patience}
	for c := range clients {
		a.ended.Go(func() {
			tick := time.NewTicker(every)
			defer tick.Stop()
			for next := c; ; next++ {
				a.ask(next % len(a.questions))
				select {
				case <-tick.C:
				case <-a.stopping:
					return
				}
			}
		})
	}
	t.Cleanup(a.stop)
	return a
}

func (a *asker) ask(of int) {
	r := answered{of: of, sent: time.Now()}
	resp, err := a.client.Post(a.url, "application/json", strings.NewReader(a.questions[of].body))
	if err == nil {
		var b []byte
		b, err = io.ReadAll(resp.Body)
		resp.Body.Close()
		r.status, r.text = resp.StatusCode, string(b)
		var body struct{ Predictions []json.RawMessage }
		if err == nil && json.Unmarshal(b, &body) == nil && len(body.Predictions) == 1 {
			err = json.Unmarshal(body.Predictions[0], &r.prediction)
		}
	}
	r.took, r.err = time.Since(r.sent), err
	a.mu.Lock()
	a.answers = append(a.answers, r)
	a.mu.Unlock()
}

// stop ends the clients when they have been answered. It may be called again.
func (a *asker) stop() {
	a.mu.Lock()
	select {
	case <-a.stopping:
	default:
		close(a.stopping)
	}
	a.mu.Unlock()
	a.ended.Wait()
}

// since is the answers to what was asked from a time on, so far.
func (a *asker) since(from time.Time) []answered {
	a.mu.Lock()
	defer a.mu.Unlock()
	var later []answered
	for _, r := range a.answers {
		if !r.sent.Before(from) {
			later = append(later, r)
		}
	}
	return later
}

// awaitEach waits until every question has been answered so often as ok says, from now on, and gives all answers to what was asked meanwhile.
func (a *asker) awaitEach(t *testing.T, what string, times int, ok func(*answered) bool) []answered {
	t.Helper()
	from := time.Now()
	eventually(t, time.Minute, func() (bool, string) {
		counts := make([]int, len(a.questions))
		answers := a.since(from)
		for i := range answers {
			if ok(&answers[i]) {
				counts[answers[i].of]++
			}
		}
		for q, n := range counts {
			if n < times {
				last := "none"
				if len(answers) > 0 {
					last = answers[len(answers)-1].String()
				}
				return false, fmt.Sprintf("waiting for %s: question %d was answered so %d times of %d; of %d answers the last is %s", what, q, n, times, len(answers), last)
			}
		}
		return true, ""
	})
	return a.since(from)
}
