package batches

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/apache/arrow/go/v17/arrow/array"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/millrace/millrace/features/dataset"
	"github.com/millrace/millrace/features/offline"
	"github.com/millrace/millrace/internal/failure"
	"github.com/millrace/millrace/project"
	"github.com/millrace/millrace/registry"
	"github.com/millrace/millrace/registry/model"
	"github.com/millrace/millrace/schemas"
	"github.com/millrace/millrace/training"
)

const projectFile = `project: test
sources:
  departures: {schema: departure.avsc, key: flight_id, time: scheduled}
  arrivals: {schema: arrival.avsc, key: flight_id, time: arrived}
features:
  delays: {source: arrivals, entity: origin, windows: [6h], features: {n: count()}}
models:
  late:
    on: departures
    inputs: [distance, delays.n_6h]
    label: {source: arrivals, join: flight_id, value: delay > 15, within: 24h}
batches:
  nightly: {model: late, schedule: "0 3 * * *", last: 1d, settle: 10m, catch_up: 2}
  incoming: {model: late@1, schedule: "0 4 * * *", files: "incoming/{date}/*.csv", settle: 0s, inputs: given, out: "answers/{date}", format: arrow, keep: [flight_id], prefix: late_}
`

// rig is a project with an offline log of eight days: a departure every two hours, an arrival every hour.
type rig struct {
	t        *testing.T
	dir      string
	project  *project.Project
	registry *registry.Registry
	now      atomic.Int64 // Unix milliseconds
}

// began is when the log begins.
var began = time.Date(2001, 5, 20, 0, 0, 0, 0, time.UTC)

const logDays = 8

func newRig(t *testing.T) *rig {
	g := &rig{t: t, dir: t.TempDir()}
	folder := t.TempDir()
	for name, text := range map[string]string{
		project.FileName: projectFile,
		"departure.avsc": `{"type":"record","name":"departure","fields":[{"name":"flight_id","type":"string"},{"name":"scheduled","type":{"type":"long","logicalType":"timestamp-millis"}},
			{"name":"origin","type":"string"},{"name":"distance","type":"int"}]}`,
		"arrival.avsc": `{"type":"record","name":"arrival","fields":[{"name":"flight_id","type":"string"},{"name":"arrived","type":{"type":"long","logicalType":"timestamp-millis"}},
			{"name":"origin","type":"string"},{"name":"delay","type":"int"}]}`,
	} {
		g.must(os.WriteFile(filepath.Join(folder, name), []byte(text), 0o600))
	}
	var err error
	g.project, err = project.Load(folder)
	g.must(err)
	g.registry, err = registry.Open(filepath.Join(g.dir, "registry"))
	g.must(err)
	g.log("departures", 2, func(at time.Time) int64 { return distance(at) })
	g.log("arrivals", 1, func(time.Time) int64 { return 1 })
	g.promote(1)
	return g
}

func (g *rig) must(err error) {
	g.t.Helper()
	if err != nil {
		g.t.Fatal(err)
	}
}

func distance(at time.Time) int64 { return at.Unix() / 3600 % 97 }

// log writes an event of ORD's every so many hours.
func (g *rig) log(source string, hours int, value func(time.Time) int64) {
	g.t.Helper()
	table, err := offline.EventsTable(filepath.Join(g.dir, "offline"), source, g.project.Source(source).Schema)
	g.must(err)
	w, err := table.NewWriter(0, offline.DefaultWriterOptions())
	g.must(err)
	n := int64(0)
	for hour := 0; hour < logDays*24; hour += hours {
		at := began.Add(time.Duration(hour) * time.Hour)
		row := schemas.Row{schemas.StringValue(at.Format(time.RFC3339)), schemas.TimeValue(at.UnixMilli()), schemas.StringValue("ORD"), schemas.IntValue(value(at))}
		g.must(w.Append(row, at.UnixMilli(), n))
		n++
	}
	g.must(errors.Join(w.Commit(n), w.Close()))
}

// promote makes a version whose margin is factor * (distance/100 + n/10).
func (g *rig) promote(factor float64) {
	g.t.Helper()
	m, err := model.NewLogistic(0, []model.LogisticInput{{Name: "distance", Weight: factor / 100, Scale: 1}, {Name: "delays.n_6h", Weight: factor / 10, Scale: 1}})
	g.must(err)
	bundle, err := model.NewBundle(training.Signature(g.project.Models[0]), m, [][]float64{{1, 2}})
	g.must(err)
	content, err := bundle.Encode()
	g.must(err)
	digest, err := g.registry.Put(g.t.Context(), registry.Manifest{Kind: registry.KindModel, Name: "late", MediaType: model.MediaBundle}, bytes.NewReader(content))
	g.must(err)
	_, err = g.registry.AddVersion("late", digest)
	g.must(err)
	old, _, err := g.registry.Alias("late", registry.Champion)
	if failure.Of(err) != failure.NotFound {
		g.must(err)
	}
	g.must(g.registry.SetAlias(g.t.Context(), "late", registry.Champion, digest, old, fmt.Sprint("factor ", factor)))
}

func (g *rig) at(text string) time.Time {
	g.t.Helper()
	at, err := time.Parse(time.RFC3339, text)
	g.must(err)
	return at
}

func (g *rig) stage(progress dataset.Progress) *Stage {
	g.t.Helper()
	cfg := Default()
	cfg.Every, cfg.Backoff, cfg.Attempts = time.Millisecond, time.Millisecond, 3
	s, err := New(cfg, Deps{
		Project: g.project, Registry: g.registry, DataDir: g.dir, Clock: func() time.Time { return time.UnixMilli(g.now.Load()).UTC() },
		Log: slog.New(slog.DiscardHandler), Registerer: prometheus.NewRegistry(), Progress: progress,
	})
	g.must(err)
	return s
}

// start runs a stage until the test, or stop, ends it.
func (g *rig) start(s *Stage) (stop func()) {
	ctx, cancel := context.WithCancel(g.t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	stop = func() {
		cancel()
		if err := <-ended; err != nil {
			g.t.Error(err)
		}
	}
	stop = once(stop)
	g.t.Cleanup(stop)
	return stop
}

// once does a thing once.
func once(f func()) func() {
	var done atomic.Bool
	return func() {
		if !done.Swap(true) {
			f()
		}
	}
}

// await waits for the run of an instant to be concluded.
func (g *rig) await(batch, instant string) Record {
	g.t.Helper()
	j := journalOf(g.dir, batch)
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(2 * time.Millisecond) {
		r, err := j.read(g.at(instant))
		g.must(err)
		if r != nil && r.Concluded() {
			return *r
		}
		if time.Now().After(deadline) {
			g.t.Fatalf("the run of %s at %s is not concluded: %+v", batch, instant, r)
		}
	}
}

// scored reads the answers of a folder, by flight.
func (g *rig) scored(folder, prefix string) map[string]float64 {
	g.t.Helper()
	all := map[string]float64{}
	files, err := filepath.Glob(filepath.Join(folder, "*.*"))
	g.must(err)
	for _, path := range files {
		if strings.HasSuffix(path, ".json") {
			continue
		}
		f, err := dataset.Open(g.t.Context(), path, g.t.TempDir(), nil)
		g.must(err)
		for r, err := range f.Records(g.t.Context(), nil) {
			g.must(err)
			id, score := r.Column(f.Schema().FieldIndices("flight_id")[0]), r.Column(f.Schema().FieldIndices(prefix + "score")[0]).(*array.Float64)
			for i := range int(r.NumRows()) {
				if _, twice := all[id.ValueStr(i)]; twice {
					g.t.Errorf("%s is scored twice", id.ValueStr(i))
				}
				all[id.ValueStr(i)] = score.Value(i)
			}
		}
		g.must(f.Close())
	}
	return all
}

func sigmoid(x float64) float64 { return 1 / (1 + math.Exp(-x)) }

// check holds a nightly run to the departures of the day before it, and to scores by hand: the last six hours have six arrivals, as far as the log goes back.
func (g *rig) check(r Record, factor float64) {
	g.t.Helper()
	if r.State != Done {
		g.t.Fatalf("the run is %+v", r)
	}
	answers, n := g.scored(r.Out, ""), 0
	for hour := 0; hour < logDays*24; hour += 2 {
		at := began.Add(time.Duration(hour) * time.Hour)
		if at.Before(r.Instant.Add(-24*time.Hour)) || !at.Before(r.Instant) {
			continue
		}
		n++
		want := sigmoid(factor * (float64(distance(at))/100 + float64(min(hour, 6))/10))
		if got, ok := answers[at.Format(time.RFC3339)]; !ok || math.Abs(got-want) > 1e-9 {
			g.t.Errorf("%s: score %v (%v), by hand %v", at, got, ok, want)
		}
	}
	if len(answers) != n || int(r.Rows) != n || n == 0 {
		g.t.Errorf("%d answers, the record says %d rows; %d departures", len(answers), r.Rows, n)
	}
}

// TestInstants has two replicas follow one clock: each night's batch is made once, by one of them, with the champion of then.
func TestInstants(t *testing.T) {
	g := newRig(t)
	g.now.Store(g.at("2001-05-21T02:00:00Z").UnixMilli())
	a, b := g.stage(nil), g.stage(nil)
	g.start(a)
	g.start(b)
	g.now.Store(g.at("2001-05-21T03:09:59Z").UnixMilli()) // it is given its time to settle
	g.now.Store(g.at("2001-05-21T03:10:00Z").UnixMilli())
	first := g.await("nightly", "2001-05-21T03:00:00Z")
	g.check(first, 1)
	g.promote(2)
	g.now.Store(g.at("2001-05-22T03:15:00Z").UnixMilli())
	second := g.await("nightly", "2001-05-22T03:00:00Z")
	g.check(second, 2)
	if first.Model != "late@1" || second.Model != "late@2" || first.Out != filepath.Join(g.dir, "scored/nightly/20010521T030000Z") {
		t.Errorf("first %+v, second %+v", first, second)
	}
	made := testutil.ToFloat64(a.metrics.runs.WithLabelValues("nightly", Done)) + testutil.ToFloat64(b.metrics.runs.WithLabelValues("nightly", Done))
	if made != 2 {
		t.Errorf("%v runs of two instants", made)
	}
	if r, err := a.Make(t.Context(), g.project.Batch("nightly"), first.Instant, false); err != nil || r.Ended != first.Ended {
		t.Errorf("asked for again it is %+v, %v; it was %+v", r, err, first)
	}
}

func TestNotBeforeItHasSettled(t *testing.T) {
	g := newRig(t)
	g.now.Store(g.at("2001-05-21T02:00:00Z").UnixMilli())
	s, a := g.stage(nil), &agenda{batch: g.project.Batch("nightly"), begin: g.at("2001-05-21T02:00:00Z")}
	for now, want := range map[string]int{"2001-05-21T03:09:59Z": 0, "2001-05-21T03:10:00Z": 1} {
		g.now.Store(g.at(now).UnixMilli())
		a.due, a.after, a.begin = nil, time.Time{}, g.at("2001-05-21T02:00:00Z")
		if err := s.look(a); err != nil || len(a.due) != want {
			t.Errorf("at %s: due %v, %v", now, a.due, err)
		}
	}
}

// TestCutShort ends a run when its first file is finished. Another replica goes on with the version that the run began with, though there is a new
// champion, and with the second file.
func TestCutShort(t *testing.T) {
	g := newRig(t)
	batch, instant := g.project.Batch("nightly"), g.at("2001-05-22T03:00:00Z")
	g.now.Store(instant.Add(time.Hour).UnixMilli())
	ctx, cancel := context.WithCancel(t.Context())
	finished := filepath.Join(g.dir, "scored/nightly/20010522T030000Z/departures-2001-05-21T030000.parquet.manifest.json")
	dies := g.stage(func(string, int64, int64) {
		if _, err := os.Stat(finished); err == nil {
			cancel()
		}
	})
	dies.cfg.Join.SliceRows = 1 // the files are finished one after the other
	if r, err := dies.Make(ctx, batch, instant, false); err == nil {
		t.Fatalf("the run was not cut short: %+v", r)
	}
	before, err := os.Stat(finished)
	g.must(err)
	left, err := Last(g.dir, "nightly")
	g.must(err)
	if left.State != Running || left.Model != "late@1" {
		t.Fatalf("what was left is %+v", left)
	}
	g.promote(2)
	g.start(g.stage(nil))
	r := g.await("nightly", "2001-05-22T03:00:00Z")
	g.check(r, 1)
	after, err := os.Stat(finished)
	g.must(err)
	if !after.ModTime().Equal(before.ModTime()) || r.Model != "late@1" || !r.Began.Equal(left.Began) {
		t.Errorf("it was made anew: %+v, left was %+v", r, left)
	}
}

// TestMissed: of a week without anybody the last two nights are made up for, in their order.
func TestMissed(t *testing.T) {
	g := newRig(t)
	g.now.Store(g.at("2001-05-21T02:00:00Z").UnixMilli())
	stop := g.start(g.stage(nil))
	g.now.Store(g.at("2001-05-21T03:10:00Z").UnixMilli())
	g.await("nightly", "2001-05-21T03:00:00Z")
	stop()
	g.now.Store(g.at("2001-05-27T12:00:00Z").UnixMilli())
	s := g.stage(nil)
	g.start(s)
	g.check(g.await("nightly", "2001-05-27T03:00:00Z"), 1)
	g.check(g.await("nightly", "2001-05-26T03:00:00Z"), 1)
	all, err := journalOf(g.dir, "nightly").instants()
	g.must(err)
	want := []time.Time{g.at("2001-05-21T03:00:00Z"), g.at("2001-05-26T03:00:00Z"), g.at("2001-05-27T03:00:00Z")}
	if !slices.Equal(all, want) {
		t.Errorf("runs of %v", all)
	}
	r := g.await("nightly", "2001-05-26T03:00:00Z")
	if passed := testutil.ToFloat64(s.metrics.passed.WithLabelValues("nightly")); r.Passed != 4 || passed != 4 {
		t.Errorf("passed: %d in the record, %v counted", r.Passed, passed)
	}
	if last := testutil.ToFloat64(s.metrics.instant.WithLabelValues("nightly")); last != float64(want[2].Unix()) {
		t.Errorf("the last one done is of %v", last)
	}
}

// TestFiles scores files of the day, by a version that is named, and tells why it cannot where there are none.
func TestFiles(t *testing.T) {
	g := newRig(t)
	g.now.Store(g.at("2001-05-21T02:00:00Z").UnixMilli())
	g.promote(2)
	folder := filepath.Join(g.dir, "incoming/2001-05-21")
	g.must(os.MkdirAll(folder, 0o755))
	g.must(os.WriteFile(filepath.Join(folder, "a.csv"), []byte("flight_id,scheduled,distance,delays.n_6h,remark\nx,2001-05-21T02:30:00Z,50,3,first\n"), 0o600))
	s := g.stage(nil)
	g.start(s)
	g.now.Store(g.at("2001-05-21T04:00:00Z").UnixMilli())
	r := g.await("incoming", "2001-05-21T04:00:00Z")
	answers := g.scored(filepath.Join(g.dir, "answers/2001-05-21"), "late_")
	if want := sigmoid(0.5 + 0.3); r.State != Done || len(answers) != 1 || math.Abs(answers["x"]-want) > 1e-9 {
		t.Errorf("the run is %+v, answers %v, by hand %v", r, answers, want)
	}
	g.now.Store(g.at("2001-05-22T04:00:00Z").UnixMilli())
	r = g.await("incoming", "2001-05-22T04:00:00Z")
	if r.State != Refused || !strings.Contains(r.Reason, "incoming/2001-05-22/*.csv") || !strings.Contains(r.Reason, "none that matches") {
		t.Errorf("the run is %+v", r)
	}
	g.must(os.MkdirAll(filepath.Join(g.dir, "incoming/2001-05-22"), 0o755))
	g.must(os.Rename(filepath.Join(folder, "a.csv"), filepath.Join(g.dir, "incoming/2001-05-22/a.csv")))
	if r, err := s.Make(t.Context(), g.project.Batch("incoming"), r.Instant, true); err != nil || r.State != Done || r.Rows != 1 {
		t.Errorf("made anew it is %+v, %v", r, err)
	}
}

// TestTriedAgain: what stands in the way for a while does no harm; what stays is told, after so many attempts.
func TestTriedAgain(t *testing.T) {
	g := newRig(t)
	g.now.Store(g.at("2001-05-21T02:00:00Z").UnixMilli())
	g.must(os.WriteFile(filepath.Join(g.dir, "scored"), []byte("a file where a folder is to be"), 0o600))
	s := g.stage(nil)
	g.start(s)
	g.now.Store(g.at("2001-05-21T03:10:00Z").UnixMilli())
	failures := s.metrics.failures.WithLabelValues("nightly", failure.Unavailable.String())
	for n := range 3 { // the clock stands still between attempts
		for deadline := time.Now().Add(20 * time.Second); testutil.ToFloat64(failures) < float64(n+1); time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("%v attempts", testutil.ToFloat64(failures))
			}
		}
		g.now.Add(1000)
	}
	r := g.await("nightly", "2001-05-21T03:00:00Z")
	if r.State != Refused || !strings.Contains(r.Reason, "scored") || testutil.ToFloat64(failures) != 3 {
		t.Errorf("the run is %+v after %v attempts", r, testutil.ToFloat64(failures))
	}
	g.must(os.Remove(filepath.Join(g.dir, "scored")))
	g.now.Store(g.at("2001-05-22T03:10:00Z").UnixMilli())
	g.check(g.await("nightly", "2001-05-22T03:00:00Z"), 1)
}

func TestConfig(t *testing.T) {
	if err := (Config{}).Validate(); failure.Of(err) != failure.BadProject || !strings.Contains(err.Error(), "Attempts") {
		t.Errorf("no settings: %v", err)
	}
}
