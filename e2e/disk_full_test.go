package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/millrace/millrace/internal/failure"
	"github.com/millrace/millrace/registry"
	"github.com/millrace/millrace/registry/model"
	"github.com/millrace/millrace/schemas"
)

// fillDiskWith writes to a file until the disk takes no more.
func fillDiskWith(t *testing.T, path string) {
	t.Helper()
	f, err := os.Create(path)
	must(t, err)
	defer f.Close()
	for size := 1 << 20; size > 0; {
		if _, err := f.Write(make([]byte, size)); err != nil {
			size /= 2
		}
	}
}

// TestFullDisk fills the disk of the data folder, where offline files and the registry are, under load. MILLRACE_TEST_SMALL_DISK is a folder on a disk
// of its own, of some 30 MiB. Answers and features go on; what must write says that there is no space and changes nothing; when there is
// room again nothing is missing.
func TestFullDisk(t *testing.T) {
	disk := tool(t, "MILLRACE_TEST_SMALL_DISK", "no small disk to fill")
	t.Parallel()
	s := newStandOn(t, kafkaForTest(t), redisForTest(t))
	s.data = filepath.Join(disk, fmt.Sprint("full-disk-", time.Now().UnixNano()))
	must(t, os.Mkdir(s.data, 0o755))
	t.Cleanup(func() { must(t, os.RemoveAll(s.data)) })
	s.amend(exampleServe, `serve: {timeout: 5s, fallback: [{default: 0.5}]}`)
	events := sample(t, firstDay, 12*time.Hour)
	s.ensureTopics()
	from := time.UnixMilli(endOf(events)).Add(time.Hour)
	s.crown(s.register("late", weighted(t, 0.001), from))
	s.register("late", weighted(t, 0.002), from)
	worker, serve := s.start("stream"), s.start("serve")
	s.produce(events[:len(events)/2])
	s.awaitApplied()
	load := askEvery(t, serve.endpoint, byDistance(0.001), 2, 20*time.Millisecond)
	right := func(a *answered) bool {
		p := &a.prediction
		return a.status == http.StatusOK && p.Rung == schemas.RungPrimary && math.Abs(*p.Score-load.questions[a.of].score) < 1e-12
	}
	load.awaitEach(t, "a champion", 1, right)

	ballast := filepath.Join(s.data, "ballast")
	fillDiskWith(t, ballast)
	began := time.Now()
	s.produce(events[len(events)/2:])
	eventually(t, time.Minute, func() (bool, string) {
		said := worker.text()
		return strings.Contains(said, "no space left") && strings.Contains(said, "make room on the data directory's disk"), last(said)
	})
	scored := filepath.Join(s.data, "scored.parquet")
	_, err := s.registry().Put(context.Background(), registry.Manifest{Kind: registry.KindModel, Name: "late", MediaType: model.MediaBundle}, bytes.NewReader(make([]byte, 1<<16)))
	if failure.Of(err) != failure.Unavailable || !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("a model is put into the registry: %v", err)
	}
	s.fails("scoring", "score", "--model", "late@1", "--source", "departures", "--out", scored)
	left, err := os.ReadDir(s.data)
	must(t, err)
	for _, e := range left {
		if strings.Contains(e.Name(), "scored") {
			t.Errorf("scoring left %s", e.Name())
		}
	}
	load.awaitEach(t, "answers on a full disk", 3, right)
	if m := serve.late(); m.Version != 1 || m.Fault != "" {
		t.Errorf("%+v", m)
	}

	must(t, os.Remove(ballast))
	s.awaitApplied()
	s.checkOnline(serve.endpoint, newOracle(events), endOf(events))
	load.stop()
	for _, a := range load.since(began) {
		if !right(&a) {
			t.Fatalf("not answered as it must be: %s", &a)
		}
	}
	worker.stop() // what is pending offline is written when a worker ends
	s.checkOfflineEvents(events)
	s.millrace("models", "promote", "late@2")
	eventually(t, time.Minute, func() (bool, string) { return serve.late().Version == 2, last(serve.text()) })
	s.millrace("score", "--model", "late@1", "--source", "departures", "--out", scored)
	departures := 0
	for id, row := range readScored(t, scored) {
		if departures++; row.rung != schemas.RungPrimary {
			t.Errorf("%s is answered by %s", id, row.rung)
		}
	}
	if want := len(events) / 2; departures != want {
		t.Errorf("%d departures are scored of %d", departures, want)
	}
}

// fails runs a verb that must end with the status of what is tried again, and say that there is no space.
func (s *stand) fails(what string, args ...string) {
	s.t.Helper()
	out, err := exec.Command(binary, append(args, "--project", s.dir, "--data-dir", s.data)...).CombinedOutput()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != failure.Unavailable.ExitCode() || !strings.Contains(string(out), "no space left") {
		s.t.Errorf("%s on a full disk: %v: %s", what, err, out)
	}
}
