package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/millrace/millrace/examples/flights"
	"github.com/millrace/millrace/internal/failure"
	"github.com/millrace/millrace/project"
)

// requester is a client of the scoring endpoint that keeps asking, so that a request dropped by a swap would be seen.
type requester struct {
	endpoint string
	model    string
	client   *http.Client

	mu       sync.Mutex
	next     *flights.Flight
	asked    int64
	late     int64 // answered with a refusal: too late or overloaded, the machine had too little time just then
	dropped  int64 // any other answer than a score, or none
	lastFail string
	example  string // the body of the newest request
	flight   string
}

// requestEvery is the pause between two requests: a light load beside the replay.
const requestEvery = 10 * time.Millisecond

func newRequester(endpoint string, m *project.Model) *requester {
	return &requester{endpoint: endpoint, model: m.Name, client: &http.Client{Timeout: 5 * time.Second}}
}

// offer names the flight to ask about next.
func (r *requester) offer(f flights.Flight) {
	r.mu.Lock()
	r.next = &f
	r.mu.Unlock()
}

// run asks until ctx ends.
func (r *requester) run(ctx context.Context) error {
	tick := time.NewTicker(requestEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		r.mu.Lock()
		f := r.next
		r.mu.Unlock()
		if f == nil {
			continue
		}
		body, err := json.Marshal(map[string]any{
			"flight_id": f.ID, "scheduled": time.UnixMilli(f.Scheduled).UTC().Format(time.RFC3339),
			"origin": f.Origin, "destination": f.Destination, "distance": f.Distance,
		})
		if err != nil {
			return err
		}
		err = r.ask(ctx, body)
		if ctx.Err() != nil {
			return nil
		}
		r.mu.Lock()
		r.asked++
		r.example, r.flight = string(body), f.ID
		switch {
		case errors.Is(err, errLate):
			r.late++
		case err != nil:
			r.dropped++
			r.lastFail = err.Error()
		}
		r.mu.Unlock()
	}
}

func (r *requester) ask(ctx context.Context, body []byte) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, r.endpoint+"/v1/models/"+r.model+":score", bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := r.client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	switch resp.StatusCode {
	case http.StatusOK:
		return nil
	case http.StatusGatewayTimeout, http.StatusTooManyRequests:
		return errLate
	default:
		return fmt.Errorf("%s: %.300s", resp.Status, answer)
	}
}

// errLate is the refusal of a request whose deadline passed.
var errLate = errors.New("refused: the deadline passed")

// awaitDigest waits until the endpoint says that it serves the model of that digest.
func (r *requester) awaitDigest(ctx context.Context, digest string, patience time.Duration) error {
	ctx, cancel := context.WithTimeoutCause(ctx, patience, failure.New(failure.Deadline, r.endpoint, "the endpoint does not serve %s after %s", digest, patience))
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		live, err := r.liveDigest(ctx)
		if err == nil && live == digest {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func (r *requester) liveDigest(ctx context.Context) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, r.endpoint+"/v1/models/"+r.model, nil)
	if err != nil {
		return "", err
	}
	resp, err := r.client.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	var m struct {
		Digest string `json:"digest"`
	}
	return m.Digest, json.NewDecoder(resp.Body).Decode(&m)
}
