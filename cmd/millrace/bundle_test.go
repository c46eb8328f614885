package main

import (
	"archive/tar"
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"io"
	"math"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	goruntime "runtime"
	"strings"
	"testing"
	"time"

	"github.com/millrace/millrace/internal/failure"
)

// TestMain lets a copy of the test's own program, called millrace, be the program in a bundle.
func TestMain(m *testing.M) {
	if filepath.Base(os.Args[0]) == "millrace" {
		main()
	}
	os.Exit(m.Run())
}

// bundled makes a bundle of the shelf's version 2, whose inputs are distance, hour and origin_delays.delay_mean_1h with weight 0.02 each.
func (s *shelf) bundled(out string) {
	s.t.Helper()
	self, err := os.Executable()
	if err != nil {
		s.t.Fatal(err)
	}
	stdout, stderr, status := millrace(s.t, "bundle", "late@2", "--project", flightsProject, "--data-dir", s.dir, "--out", out, "--binary", self)
	if status != 0 || !strings.Contains(stdout, "late@2 "+s.digests[1]) {
		s.t.Fatalf("status %d: %s%s", status, stdout, stderr)
	}
}

// alone runs the program of a bundle in an empty folder, with nothing in its environment.
func alone(t *testing.T, dir, in string, args ...string) (stdout, stderr string, status int) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), filepath.Join(dir, "millrace"), args...)
	cmd.Dir, cmd.Env, cmd.Stdin = t.TempDir(), []string{}, strings.NewReader(in)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	var exit *exec.ExitError
	if err := cmd.Run(); err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

const edgeRow = `{"flight_id":"f1","scheduled":"2001-05-20T12:30:00Z","origin":"ATL","destination":"DEN","distance":100,"overrides":{"origin_delays.delay_mean_1h":7.5}}`

func TestBundle(t *testing.T) {
	s := newShelf(t)
	dir := filepath.Join(t.TempDir(), "late")
	s.bundled(dir)
	stdout, stderr, status := alone(t, dir, edgeRow+"\nnonsense\n", "score", "--bundle", dir)
	first, second, _ := strings.Cut(stdout, "\n")
	var answer struct {
		Score   float64
		Version int
		Digest  string
		Rung    string
	}
	if err := json.Unmarshal([]byte(first), &answer); err != nil {
		t.Fatalf("status %d: %v in %s%s", status, err, stdout, stderr)
	}
	if want := 1 / (1 + math.Exp(1-0.02*(100+12+7.5))); math.Abs(answer.Score-want) > 1e-12 || answer.Version != 2 || answer.Digest != s.digests[1] || answer.Rung != "primary" {
		t.Errorf("%+v, want %v", answer, want)
	}
	if !strings.Contains(second, `"line":2`) || !strings.Contains(stderr, "1 of 2 lines") || status != failure.BadRequest.ExitCode() {
		t.Errorf("status %d: %s%s", status, second, stderr)
	}
	servedBundle(t, dir, answer.Score)
	s.refusedBundle(dir)

	for says, args := range map[string][]string{
		"is there already": {"bundle", "late@2", "--out", dir},
		"no such version":  {"bundle", "late@9", "--out", dir + "2"},
		"was built for":    {"bundle", "late@2", "--out", dir + "2", "--binary", filepath.Join(flightsProject, "millrace.yaml")},
		"not for linux/":   {"bundle", "late@2", "--out", dir + "2", "--os", "linux", "--arch", otherArch(), "--binary", filepath.Join(dir, "millrace")},
	} {
		if _, stderr, status := millrace(t, append(args, "--project", flightsProject, "--data-dir", s.dir)...); status == 0 || !strings.Contains(stderr, says) {
			t.Errorf("%v: status %d: %s", args, status, stderr)
		}
	}
	if _, err := os.Stat(dir + "2"); err == nil {
		t.Error("a refused bundle is there")
	}
}

// servedBundle asks the bundle's HTTP endpoint for the row that it scored.
func servedBundle(t *testing.T, dir string, want float64) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	said, out := io.Pipe()
	status := make(chan int, 1)
	go func() {
		status <- run(ctx, []string{"serve", "--bundle", dir, "--listen", "127.0.0.1:0"}, out, io.Discard)
		out.Close()
	}()
	first, err := bufio.NewReader(said).ReadString('\n')
	_, endpoint, ok := strings.Cut(strings.TrimSpace(first), "endpoint ")
	if err != nil || !ok {
		t.Fatalf("%q: %v", first, err)
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, endpoint+"/v1/models/late:score", strings.NewReader(edgeRow))
	if err != nil {
		t.Fatal(err)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	var answer struct{ Predictions []struct{ Score float64 } }
	if err := json.NewDecoder(response.Body).Decode(&answer); err != nil || response.StatusCode != http.StatusOK ||
		len(answer.Predictions) != 1 || math.Float64bits(answer.Predictions[0].Score) != math.Float64bits(want) {
		t.Errorf("%d %+v, want %v: %v", response.StatusCode, answer, want, err)
	}
	cancel()
	if s := <-status; s != 0 {
		t.Errorf("the role ended with status %d", s)
	}
}

// refusedBundle damages each file in turn: none of them may go unseen.
func (s *shelf) refusedBundle(dir string) {
	s.t.Helper()
	damaged := 0
	err := filepath.WalkDir(dir, func(path string, e os.DirEntry, err error) error {
		if err != nil || e.IsDir() || e.Name() == "millrace" || e.Name() == "bundle.json" {
			return err
		}
		whole, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		spoilt := bytes.Clone(whole)
		spoilt[len(spoilt)/2] ^= 1
		if err := os.WriteFile(path, spoilt, 0o644); err != nil {
			return err
		}
		damaged++
		for _, verb := range []string{"score", "serve"} {
			if stderr, status := opened(s.t, verb, dir); status != failure.Corrupt.ExitCode() || !strings.Contains(stderr, e.Name()) {
				s.t.Fatalf("%s with a damaged %s: status %d: %s", verb, path, status, stderr)
			}
		}
		return os.WriteFile(path, whole, 0o644)
	})
	if err != nil || damaged < 8 {
		s.t.Errorf("%d files were damaged: %v", damaged, err)
	}
}

// opened runs a verb on a bundle that it must refuse. One that does not is ended, so that the test says so rather than waits.
func opened(t *testing.T, verb, dir string) (stderr string, status int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var errs bytes.Buffer
	status = run(ctx, []string{verb, "--bundle", dir}, io.Discard, &errs)
	return errs.String(), status
}

// The archive has the bundle's files, and is the same each time.
func TestBundleArchive(t *testing.T) {
	s := newShelf(t)
	dir := t.TempDir()
	s.bundled(filepath.Join(dir, "late.tar.gz"))
	whole, err := os.ReadFile(filepath.Join(dir, "late.tar.gz"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(dir, "late.tar.gz")); err != nil {
		t.Fatal(err)
	}
	s.bundled(filepath.Join(dir, "late.tar.gz"))
	if again, err := os.ReadFile(filepath.Join(dir, "late.tar.gz")); err != nil || !bytes.Equal(again, whole) {
		t.Errorf("made again, the archive differs: %v", err)
	}
	zipped, err := gzip.NewReader(bytes.NewReader(whole))
	if err != nil {
		t.Fatal(err)
	}
	for r := tar.NewReader(zipped); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(dir, h.Name)
		if h.Typeflag == tar.TypeDir {
			if err := os.MkdirAll(path, 0o755); err != nil {
				t.Fatal(err)
			}
			continue
		}
		b, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, b, os.FileMode(h.Mode)); err != nil {
			t.Fatal(err)
		}
	}
	if stdout, stderr, status := alone(t, filepath.Join(dir, "late"), edgeRow, "score", "--bundle", filepath.Join(dir, "late")); status != 0 || !strings.Contains(stdout, `"version":2`) {
		t.Errorf("status %d: %s%s", status, stdout, stderr)
	}
}

func otherArch() string {
	if goruntime.GOARCH == "amd64" {
		return "arm64"
	}
	return "amd64"
}
