package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/millrace/millrace/internal/failure"
	"github.com/millrace/millrace/serving"
)

func TestScore(t *testing.T) {
	s := newShelf(t)
	dir, out := t.TempDir(), t.TempDir()
	for _, name := range []string{"b.csv", "a.csv"} {
		text := "flight_id,distance,scheduled,origin_delays.delay_mean_1h\n" + name + ",10,2001-05-20T12:30:00Z,3\n"
		header, row, _ := strings.Cut(strings.TrimSpace(text), "\n")
		for _, in := range s.inputs() { // the model's inputs that the test does not care for
			if !strings.Contains(header, in) && strings.Contains(in, ".") {
				header, row = header+","+in, row+","
			}
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(header+"\n"+row+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	score := func(args ...string) (string, string, int) {
		return millrace(t, append([]string{"score", "--project", flightsProject, "--data-dir", s.dir, "--out", out}, args...)...)
	}
	stdout, stderr, status := score("--batch", dir, "--inputs", "given", "--model", "late@1")
	if status != 0 || !strings.Contains(stdout, "late@1: 2 rows, 0 without a score") || strings.Index(stdout, "a.parquet") > strings.Index(stdout, "b.parquet") {
		t.Errorf("status %d: %s%s", status, stdout, stderr)
	}
	var report serving.BatchReport
	if b, err := os.ReadFile(filepath.Join(out, serving.BatchManifest)); err != nil || json.Unmarshal(b, &report) != nil || report.Rows != 2 || report.Digest != s.digests[0] {
		t.Errorf("report %+v, %v", report, err)
	}
	if stdout, _, _ = score("--batch", filepath.Join(dir, "*.csv"), "--inputs", "given", "--model", "late@1"); strings.Count(stdout, "finished before") != 2 {
		t.Error(stdout)
	}
	for says, args := range map[string][]string{
		"one of --batch and --source": {"--model", "late@1"},
		"is asked about departures":   {"--model", "late@1", "--source", "arrivals"},
		"it has 1 to 3":               {"--model", "late@9", "--batch", dir},
		"none that matches":           {"--model", "late@1", "--batch", filepath.Join(dir, "*.orc")},
	} {
		if _, stderr, status := score(args...); status == 0 || !strings.Contains(stderr, says) {
			t.Errorf("%v: status %d: %s", args, status, stderr)
		}
	}
	if _, _, status := score("--model", "late", "--batch", dir); status != failure.NotFound.ExitCode() {
		t.Errorf("without a champion: status %d", status)
	}
}
