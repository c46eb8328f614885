package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"testing"
	"time"
)

// TestLoop is the demo, from the first event to the retrained model, as a user runs it: on the servers of the environment,
// embedded without them.
func TestLoop(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 8*time.Minute)
	defer cancel()
	args := []string{"demo", "--exit", "--json", "--data-dir", t.TempDir(), "--listen", "127.0.0.1:0"}
	if kafka := os.Getenv("MILLRACE_TEST_KAFKA"); kafka != "" {
		args = append(args, "--kafka", kafka)
	}
	if redis := os.Getenv("MILLRACE_TEST_REDIS"); redis != "" {
		args = append(args, "--redis", redis)
	}
	cmd := exec.CommandContext(ctx, binary, args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	t.Logf("demo said:\n%s", stderr.String())
	if err != nil {
		t.Fatalf("demo ended with %v: %s", err, stdout.String())
	}
	lines := bytes.Split(bytes.TrimSpace(stdout.Bytes()), []byte("\n"))
	var s struct {
		Events          int64   `json:"events"`
		AUC             float64 `json:"auc"`
		AUCWithout      float64 `json:"auc_without_stream_features"`
		Candidates      int     `json:"candidates"`
		DriftEvents     int     `json:"drift_events"`
		RetrainEvents   int     `json:"retrain_events"`
		Swaps           int     `json:"swaps"`
		Refused         int     `json:"refused"`
		Predictions     int64   `json:"predictions"`
		Requests        int64   `json:"requests"`
		RequestsDropped int64   `json:"requests_dropped"`
	}
	must(t, json.Unmarshal(lines[len(lines)-1], &s))
	t.Logf("summary: %s", lines[len(lines)-1])
	if s.Events < 1_000_000 || s.Predictions < 200_000 {
		t.Errorf("%d events and %d predictions: the sample has more", s.Events, s.Predictions)
	}
	if s.AUC < s.AUCWithout+0.03 {
		t.Errorf("AUC %.4f with streaming features, %.4f without: they must be worth 0.03 at least", s.AUC, s.AUCWithout)
	}
	if s.DriftEvents == 0 || s.RetrainEvents == 0 || s.Swaps+s.Refused == 0 || s.Candidates < 4 {
		t.Errorf("the loop did not close: %s", lines[len(lines)-1])
	}
	if s.Requests == 0 || s.RequestsDropped > 0 {
		t.Errorf("%d requests, %d dropped", s.Requests, s.RequestsDropped)
	}
}
