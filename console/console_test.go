package console

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace/millrace/internal/clock"
	"github.com/millrace/millrace/project"
	"github.com/millrace/millrace/registry"
	"github.com/millrace/millrace/schemas"
	"github.com/millrace/millrace/streams"
	"github.com/millrace/millrace/streams/broker"
)

// TestConsoleShowsWhatStagesTold puts events on the topics, as the stages would, and looks at the page's state.
func TestConsoleShowsWhatStagesTold(t *testing.T) {
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	p, err := project.Load("../examples/flights")
	if err != nil {
		t.Fatal(err)
	}
	b, err := broker.Start(t.TempDir(), 0)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	kafka := streams.Config{Brokers: []string{b.Addr()}}
	client, err := streams.NewClient(kafka)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	if err := streams.EnsureTopics(ctx, client, p.Topology()); err != nil {
		t.Fatal(err)
	}
	r, err := registry.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	cfg := Default()
	cfg.Refresh = time.Millisecond
	c, err := New(cfg, Deps{
		Project: p, Registry: r, Clock: clock.System, Log: slog.New(slog.DiscardHandler),
		NewClient: func(_ context.Context, opts ...kgo.Opt) (*kgo.Client, error) {
			return streams.NewClient(kafka, opts...)
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = c.Run(ctx) }()
	server := httptest.NewServer(c.Handler())
	defer server.Close()

	var verdicts []*kgo.Record
	for _, d := range []schemas.Drift{
		{ID: "d1", Model: "late", Digest: "a", Kind: schemas.DriftWindowClosed, State: "ok", Rows: 7, WindowStart: 1, WindowEnd: 2},
		{ID: "d2", Model: "late", Digest: "a", Kind: schemas.DriftWindowClosed, State: "ok", Rows: 8, WindowStart: 2, WindowEnd: 3},
		{ID: "d3", Model: "late", Digest: "b", Kind: schemas.DriftPerformance, State: "confirmed", Labels: 5, Reason: "of another version", WindowStart: 2, WindowEnd: 3},
		{ID: "d4", Model: "late", Digest: "a", Kind: schemas.DriftPerformance, State: "suspected", Labels: 6, Reason: "rmse 14, held out 12, a rise of 1 is allowed", WindowStart: 1, WindowEnd: 2},
	} {
		b, err := d.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		verdicts = append(verdicts, &kgo.Record{Topic: p.Own().Drift.Name, Key: []byte("late"), Value: b})
	}
	letter := schemas.DeadLetter{Topic: "arrivals", Partition: 3, Offset: 9, Class: "malformed", Reason: "too short", Stage: "ingest"}
	dead := &kgo.Record{Topic: p.Own().DeadLetters.Name, Value: []byte("x")}
	for _, h := range letter.Headers() {
		dead.Headers = append(dead.Headers, kgo.RecordHeader(h))
	}
	if err := client.ProduceSync(ctx, append(verdicts, dead)...).FirstErr(); err != nil {
		t.Fatal(err)
	}
	deadline := time.After(time.Minute)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		s := state(t, server.URL)
		if s != nil && len(s.Models) == 1 && len(s.Models[0].Verdicts) == 4 && s.DeadLetters.Count == 1 {
			if v := s.Models[0].Verdicts[0]; v.ID != "d1" || v.Rows != 7 {
				t.Errorf("verdict is %+v", v)
			}
			want := map[string]Performance{"d1": {6, "suspected", "rmse 14, held out 12, a rise of 1 is allowed"}}
			if got := s.Models[0].Performance; !maps.Equal(got, want) {
				t.Errorf("performance is %+v, want %+v", got, want)
			}
			if l := s.DeadLetters.Newest[0]; l.Topic != "arrivals" || l.Partition != 3 || l.Offset != 9 || l.Reason != "too short" {
				t.Errorf("dead letter is %+v", l)
			}
			break
		}
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("the state does not show what was told: %+v", s)
		}
	}
	for path, want := range map[string]string{"/console/": "<title>Millrace</title>", "/console/console.js": "api/state", "/console/console.css": ":root"} {
		if body := body(t, server.URL+path); !strings.Contains(body, want) {
			t.Errorf("%s does not have %q", path, want)
		}
	}
}

// state is nil while the console is not connected yet.
func state(t *testing.T, url string) *State {
	t.Helper()
	resp, err := http.Get(url + "/console/api/state")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil
	}
	var s State
	if err := json.NewDecoder(resp.Body).Decode(&s); err != nil {
		t.Fatal(err)
	}
	return &s
}

func body(t *testing.T, url string) string {
	t.Helper()
	resp, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
