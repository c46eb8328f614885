package e2e

import (
	"bytes"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/millrace/millrace/examples/flights"
)

// TestKilledBatches kills millrace score, and the run of a scheduled batch, at random times, again and again until one comes to its end. The
// files are those of a run that nobody disturbs, to the byte, at every time that one is there with its manifest. Of a deviation the last digit tells in
// which order tiles were merged, which is another where some of the rows are not joined again: the model does without (see TestSameScores).
func TestKilledBatches(t *testing.T) {
	t.Parallel()
	s := newStand(t)
	weights := map[string]float64{}
	for i, in := range s.project.Model("late").Inputs {
		if !strings.Contains(in.Name, "delay_std") {
			weights[in.Name] = 0.001 * float64(i%7-3)
		}
	}
	const days = 4
	from := firstDay.Add(24 * time.Hour)
	events := sample(t, firstDay, (days+1)*24*time.Hour)
	s.ensureTopics()
	s.promoteWeighted("late", weights, from)
	worker := s.start("stream")
	s.produce(events)
	s.awaitApplied()
	worker.stop()

	yaml, err := os.OpenFile(filepath.Join(s.dir, "millrace.yaml"), os.O_APPEND|os.O_WRONLY, 0)
	must(t, err)
	_, err = yaml.WriteString("\nbatches:\n  daily: {model: late@1, schedule: \"0 3 * * *\", files: \"in/{date}/*.csv\", out: \"runs/{instant}\"}\n")
	must(t, err)
	must(t, yaml.Close())
	scheduled := func(day int) (out string, args []string) { // the same rows on each day
		instant := from.AddDate(0, 0, days+day).Add(3 * time.Hour)
		s.departuresAsCSV(events, filepath.Join(s.data, "in", instant.Format(time.DateOnly)), from, days)
		return filepath.Join(s.data, "runs", instant.Format("20060102T150405Z")), []string{"batch", "--once", "daily", "--at", instant.Format(time.RFC3339)}
	}
	score := func(day int) (out string, args []string) {
		out = filepath.Join(t.TempDir(), "out")
		return out, []string{"score", "--model", "late@1", "--batch", filepath.Join(s.data, "in", from.AddDate(0, 0, days+day).Format(time.DateOnly)), "--out", out}
	}
	random := rand.New(rand.NewPCG(15, 16))
	for _, run := range []func(day int) (out string, args []string){scheduled, score} {
		out, args := run(0)
		began := time.Now()
		s.millrace(args...)
		took := time.Since(began)
		want := scoredFiles(t, out)
		if len(want) != 2*days {
			t.Fatalf("%d files are scored, want %d", len(want), 2*days)
		}
		out, args = run(1)
		kills, between := 0, 0 // kills that found some files finished and others not
		for finished := 0; ; {
			// By turns after some time, later and later so that it comes to an end however slow the machine has become, and between two files.
			after, one := time.Duration(random.Int64N(int64(took)*int64(kills+2)/2)), 0
			if kills%2 == 1 {
				after, one = time.Hour, finished+1
			}
			ended := s.killed(after, out, one, args...)
			got := scoredFiles(t, out)
			finished = len(got)
			for name, content := range got {
				if !bytes.Equal(content, want[name]) {
					t.Fatalf("millrace %s: after %d kills, %d between two files, %s is not what it is when nobody disturbs", args[0], kills, between, name)
				}
			}
			if ended {
				break
			}
			kills++
			if finished > 0 && finished < len(want) {
				between++
			}
		}
		if n := len(scoredFiles(t, out)); n != len(want) {
			t.Errorf("millrace %s ended with %d of %d files", args[0], n, len(want))
		}
		if left, err := filepath.Glob(filepath.Join(out, ".*")); err != nil || len(left) > 0 {
			t.Errorf("millrace %s leaves %q, %v", args[0], left, err)
		}
		if between == 0 {
			t.Errorf("millrace %s was never killed between two files", args[0])
		}
		t.Logf("millrace %s was killed %d times, %d of them between two files", args[0], kills, between)
	}
}

// killed runs a command and kills it after a while, or when so many files are finished, unless it has ended by itself; no files are none.
func (s *stand) killed(after time.Duration, dir string, files int, args ...string) (ended bool) {
	s.t.Helper()
	var out bytes.Buffer
	cmd := exec.Command(binary, append(args, "--project", s.dir, "--data-dir", s.data)...)
	cmd.Stdout, cmd.Stderr = &out, &out
	must(s.t, cmd.Start())
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	over := time.NewTimer(after)
	defer over.Stop()
	look := time.NewTicker(time.Millisecond / 2)
	defer look.Stop()
	for {
		select {
		case err := <-done:
			if err != nil {
				s.t.Fatalf("millrace %s: %v: %s", strings.Join(args, " "), err, out.String())
			}
			return true
		case <-look.C:
			manifests, err := filepath.Glob(filepath.Join(dir, "*.manifest.json"))
			must(s.t, err)
			if files == 0 || len(manifests) < files {
				continue
			}
		case <-over.C:
		}
		must(s.t, cmd.Process.Kill())
		<-done
		return false
	}
}

// departuresAsCSV writes the departures of days in two files each.
func (s *stand) departuresAsCSV(events []flights.Event, dir string, from time.Time, days int) {
	s.t.Helper()
	must(s.t, os.MkdirAll(dir, 0o755))
	for half := range 2 * days {
		begin := from.Add(time.Duration(half) * 12 * time.Hour)
		text := []byte("flight_id,scheduled,origin,destination,distance\n")
		for _, e := range eventsWithin(events, begin, begin.Add(12*time.Hour)) {
			if f := e.Flight; e.Topic == flights.Departures {
				text = fmt.Appendf(text, "%s,%s,%s,%s,%d\n", f.ID, time.UnixMilli(f.Scheduled).UTC().Format(time.RFC3339Nano), f.Origin, f.Destination, f.Distance)
			}
		}
		must(s.t, os.WriteFile(filepath.Join(dir, fmt.Sprintf("half%02d.csv", half)), text, 0o644))
	}
}

// scoredFiles is the files of a folder that are finished: those with a manifest.
func scoredFiles(t *testing.T, dir string) map[string][]byte {
	t.Helper()
	files := map[string][]byte{}
	manifests, err := fs.Glob(os.DirFS(dir), "*.parquet.manifest.json")
	must(t, err)
	for _, m := range manifests {
		name := strings.TrimSuffix(m, ".manifest.json")
		content, err := os.ReadFile(filepath.Join(dir, name))
		must(t, err)
		files[name] = content
	}
	return files
}
