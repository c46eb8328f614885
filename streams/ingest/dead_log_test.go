package ingest

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/millrace/millrace/schemas"
)

// A stage whose records are all refused must not look like one that has nothing to do, nor fill the disk with saying so.
func TestDeadLettersAreTold(t *testing.T) {
	var out bytes.Buffer
	now := time.Unix(1000, 0)
	d := newDeadLog(slog.New(slog.NewTextHandler(&out, nil)), func() time.Time { return now })
	note := func(class string, n int) {
		for range n {
			d.note(&schemas.DeadLetter{Topic: "arrivals", Partition: 2, Offset: 41, Class: class, Stage: "ingest/by_card", Reason: "4711 is secret", Key: []byte("4711")})
		}
	}
	lines := func() []string { return strings.Split(strings.TrimSpace(out.String()), "\n") }

	note("misrouted", 1000)
	note("late", 1)
	if got := lines(); len(got) != 2 || !strings.Contains(got[0], "class=misrouted records=1 topic=arrivals partition=2 offset=41") || !strings.Contains(got[1], "class=late") {
		t.Fatalf("the first of each class are told so: %q", got)
	}
	now = now.Add(deadLogEvery)
	note("misrouted", 500)
	if got := lines(); len(got) != 3 || !strings.Contains(got[2], "class=misrouted records=1000") {
		t.Fatalf("those after the first are told so: %q", got)
	}
	if strings.Contains(out.String(), "4711") {
		t.Error("the log has what is in a record")
	}
}
