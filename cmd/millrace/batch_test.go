package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/millrace/millrace/internal/failure"
	"github.com/millrace/millrace/project"
)

// TestBatchOnce makes the run of an instant by hand: once, unless it is asked for anew.
func TestBatchOnce(t *testing.T) {
	s := newShelf(t)
	folder := t.TempDir()
	if err := os.CopyFS(folder, os.DirFS(flightsProject)); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(folder, project.FileName)
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	text = append(text, "\nbatches:\n  daily: {model: late@1, schedule: \"0 3 * * *\", files: \"in/{date}.csv\", inputs: given, keep: [flight_id]}\n"...)
	header, row := "flight_id,distance,scheduled", "x,10,2001-05-20T12:30:00Z"
	for _, in := range s.inputs() {
		if strings.Contains(in, ".") {
			header, row = header+","+in, row+",3"
		}
	}
	for name, content := range map[string][]byte{path: text, filepath.Join(s.dir, "in/2001-05-21.csv"): []byte(header + "\n" + row + "\n")} {
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	batch := func(args ...string) (string, string, int) {
		return millrace(t, append([]string{"batch", "--project", folder, "--data-dir", s.dir}, args...)...)
	}
	want := "daily at 2001-05-21T03:00:00Z: late@1, 1 rows, 0 without a score, in " + filepath.Join(s.dir, "scored/daily/20010521T030000Z") + "\n"
	for range 2 {
		if stdout, stderr, status := batch("--once", "daily", "--at", "2001-05-21T03:00:00Z"); status != 0 || stdout != want {
			t.Fatalf("status %d: %s%s", status, stdout, stderr)
		}
	}
	if err := os.Remove(filepath.Join(s.dir, "in/2001-05-21.csv")); err != nil {
		t.Fatal(err)
	}
	if stdout, _, status := batch("--once", "daily", "--at", "2001-05-21T03:00:00Z"); status != 0 || stdout != want {
		t.Errorf("a concluded run was made again: status %d: %s", status, stdout)
	}
	for says, c := range map[string]struct {
		kind failure.Kind
		args []string
	}{
		"none that matches":                 {failure.Refused, []string{"--once", "daily", "--at", "2001-05-21T03:00:00Z", "--anew"}},
		"is no time of the schedule":        {failure.BadRequest, []string{"--once", "daily", "--at", "2001-05-21T04:00:00Z"}},
		"is still to come":                  {failure.BadRequest, []string{"--once", "daily", "--at", "2999-05-21T03:00:00Z"}},
		"it has daily":                      {failure.NotFound, []string{"--once", "dayly"}},
		"no such file, and none that match": {failure.Refused, []string{"--once", "daily"}},
	} {
		if _, stderr, status := batch(c.args...); status != c.kind.ExitCode() || !strings.Contains(stderr, says) {
			t.Errorf("%v: status %d: %s", c.args, status, stderr)
		}
	}
	if stdout, stderr, status := millrace(t, "validate", "--project", folder); status != 0 || !strings.Contains(stdout, ", 1 model, 1 batch\n") {
		t.Errorf("validate: status %d: %s%s", status, stdout, stderr)
	}
	p, err := project.Load(folder)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	rt := &runtime{project: p, dataDir: s.dir}
	if err := rt.printBatches(&out, time.Date(2001, 5, 21, 12, 0, 0, 0, time.UTC)); err != nil || !strings.Contains(out.String(), "2001-05-22T03:00:00Z") ||
		!strings.Contains(out.String(), "refused") {
		t.Errorf("status: %s, %v", out.String(), err)
	}
}
