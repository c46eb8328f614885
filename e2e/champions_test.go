package e2e

import (
	"context"
	"fmt"
	"math"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/millrace/millrace/registry"
	"github.com/millrace/millrace/registry/model"
	"github.com/millrace/millrace/schemas"
)

// byDistance is questions whose answers a model that weighs the distance gives, whatever the features.
func byDistance(weight float64) []question {
	var questions []question
	for i, origin := range airports[:4] {
		distance := float64(300 * (i + 1))
		q := question{body: flightAsked(origin, airports[i+1], distance, scheduled)}
		q.score = 1 / (1 + math.Exp(1-weight*distance))
		questions = append(questions, q)
	}
	return questions
}

// modelShown is what GET /v1/models/late says.
type modelShown struct {
	State, Digest, Fault string
	Version              int
}

func (p *proc) late() (m modelShown) {
	p.t.Helper()
	if status := get(p.t, p.endpoint+"/v1/models/late", &m); status != http.StatusOK {
		p.t.Fatalf("the model is shown with status %d", status)
	}
	return m
}

// crown moves the champion's alias.
func (s *stand) crown(digest string) {
	s.t.Helper()
	r := s.registry()
	now, _, _ := r.Alias("late", registry.Champion)
	must(s.t, r.SetAlias(context.Background(), "late", registry.Champion, digest, now, ""))
}

// spoil changes the file of a version's model as change says.
func (s *stand) spoil(digest string, change func([]byte) []byte) {
	s.t.Helper()
	r := s.registry()
	m, err := r.Manifest(digest)
	must(s.t, err)
	path := filepath.Join(r.Dir(), "blobs", "sha256", strings.TrimPrefix(m.Content, "sha256:"))
	b, err := os.ReadFile(path)
	must(s.t, err)
	must(s.t, os.Chmod(path, 0o644))
	must(s.t, os.WriteFile(path, change(b), 0o644))
}

// weighted is a bundle of a model that weighs the distance.
func weighted(t *testing.T, weight float64) model.Bundle {
	t.Helper()
	l, err := model.NewLogistic(-1, []model.LogisticInput{{Name: "distance", Weight: weight, Scale: 1}})
	must(t, err)
	bundle, err := model.NewBundle([]model.SignatureInput{{Name: "distance"}}, l, [][]float64{{100}, {2000}})
	must(t, err)
	return bundle
}

// TestCorruptChampions makes champions of versions whose files are damaged. Who answers goes on; the log, the metrics and the model's page say which
// version is refused and why. A process that starts on such a champion says so, is not ready, and becomes so when the champion is another.
func TestCorruptChampions(t *testing.T) {
	t.Parallel()
	s := newStandOn(t, kafkaForTest(t), redisForTest(t))
	s.amend(exampleServe, `serve: {timeout: 5s, fallback: previous}`)
	s.ensureTopics()
	from := time.UnixMilli(scheduled)
	good := s.register("late", weighted(t, 0.001), from)
	s.crown(good)
	serve := s.start("serve")
	load := askEvery(t, serve.endpoint, byDistance(0.001), 2, 20*time.Millisecond)
	right := func(a *answered) bool {
		p := &a.prediction
		return a.status == http.StatusOK && p.Rung == schemas.RungPrimary && p.Version == 1 && p.Digest == good && math.Abs(*p.Score-load.questions[a.of].score) < 1e-12
	}
	load.awaitEach(t, "the first version", 1, right)
	began := time.Now()
	var refused string
	for i, c := range []struct {
		name   string
		says   string
		bundle func(*model.Bundle)
		damage func([]byte) []byte
	}{
		{"a bit is flipped", "digest", nil, func(b []byte) []byte { b[len(b)/2] ^= 1; return b }},
		{"the file is cut short", "", nil, func(b []byte) []byte { return b[:len(b)/2] }},
		{"the file is empty", "", nil, func([]byte) []byte { return nil }},
		{"golden rows do not reproduce", "golden", func(b *model.Bundle) { b.Scores[1] += 1e-6 }, nil},
	} {
		bundle := weighted(t, 0.002+float64(i)/1000)
		if c.bundle != nil {
			c.bundle(&bundle)
		}
		refused = s.register("late", bundle, from)
		if c.damage != nil {
			s.spoil(refused, c.damage)
		}
		s.crown(refused)
		version := fmt.Sprint("late@", i+2)
		eventually(t, time.Minute, func() (bool, string) {
			m := serve.late()
			return strings.Contains(m.Fault, refused) && serve.metric("millrace_serving_swaps_total", `result="refused"`) == float64(i+1), fmt.Sprintf("%s: %+v", c.name, m)
		})
		m := serve.late()
		if m.Version != 1 || m.Digest != good || m.State != "degraded" || !strings.Contains(m.Fault, version+" ") || !strings.Contains(m.Fault, c.says) {
			t.Errorf("%s: the model is shown as %+v", c.name, m)
		}
		if text := serve.text(); !strings.Contains(text, "the champion cannot be served") || !strings.Contains(text, version+" "+refused) {
			t.Errorf("%s: the log does not name %s: %s", c.name, version, last(text))
		}
		if v := serve.metric("millrace_serving_champion_version"); v != 1 {
			t.Errorf("%s: version %v answers", c.name, v)
		}
		if status := get(t, serve.endpoint+"/readyz", nil); status != http.StatusOK {
			t.Errorf("%s: readiness is %d although version 1 answers", c.name, status)
		}
		load.awaitEach(t, c.name, 2, right)
	}
	load.stop()
	for _, a := range load.since(began) {
		if !right(&a) {
			t.Fatalf("not answered by the first version: %s", &a)
		}
	}
	s.startOnCorrupt(refused, fmt.Sprint("late@", 5))
}

// startOnCorrupt starts a process whose champion is a refused version.
func (s *stand) startOnCorrupt(refused, version string) {
	s.t.Helper()
	fresh := s.start("serve")
	eventually(s.t, time.Minute, func() (bool, string) {
		m := fresh.late()
		return m.State == "waiting" && strings.Contains(m.Fault, version+" "+refused), fmt.Sprintf("%+v", m)
	})
	if status := get(s.t, fresh.endpoint+"/readyz", nil); status != http.StatusServiceUnavailable {
		s.t.Errorf("readiness without a champion is %d", status)
	}
	if text := fresh.text(); !strings.Contains(text, "the champion cannot be served") || !strings.Contains(text, version+" "+refused) {
		s.t.Errorf("the log does not name %s: %s", version, last(text))
	}
	resp, err := http.Post(fresh.endpoint+"/v1/models/late:score", "application/json", strings.NewReader(byDistance(1)[0].body))
	must(s.t, err)
	resp.Body.Close()
	if resp.StatusCode != http.StatusServiceUnavailable {
		s.t.Errorf("without a champion: %d", resp.StatusCode)
	}
	s.millrace("models", "promote", "late@1")
	eventually(s.t, time.Minute, func() (bool, string) {
		return get(s.t, fresh.endpoint+"/readyz", nil) == http.StatusOK, last(fresh.text())
	})
}

// millrace runs a verb on the stand's project and registry to its end.
func (s *stand) millrace(args ...string) string {
	s.t.Helper()
	out, err := exec.Command(binary, append(args, "--project", s.dir, "--data-dir", s.data)...).CombinedOutput()
	if err != nil {
		s.t.Fatalf("millrace %s: %v: %s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// TestSwapsUnderLoad promotes one version after another, by hand, while many clients ask. No request is dropped or refused, and each answer is
// of a version that was champion between the asking and the answer.
func TestSwapsUnderLoad(t *testing.T) {
	t.Parallel()
	s := newStandOn(t, kafkaForTest(t), redisForTest(t))
	s.amend(exampleServe, `serve: {timeout: 5s, fallback: [{default: 0.5}]}`)
	s.ensureTopics()
	const versions = 8
	weight := func(version int) float64 { return 0.001 * float64(version) }
	digests := []string{""}
	for v := 1; v <= versions; v++ {
		digests = append(digests, s.register("late", weighted(t, weight(v)), time.UnixMilli(scheduled)))
	}
	s.crown(digests[1])
	serve := s.start("serve")
	eventually(t, time.Minute, func() (bool, string) { return serve.late().Version == 1, "version 1 is not live" })
	load := askEvery(t, serve.endpoint, byDistance(1), 32, time.Millisecond)
	began := time.Now()
	// Of each version: when it was asked for, and when it was seen to be live.
	asked, live := make([]time.Time, versions+2), make([]time.Time, versions+2)
	live[1] = began
	for v := 2; v <= versions; v++ {
		load.awaitEach(t, "answers", 8, func(a *answered) bool { return a.prediction.Version == v-1 })
		asked[v] = time.Now()
		s.millrace("models", "promote", fmt.Sprint("late@", v), "--kafka", s.kafka)
		eventually(t, time.Minute, func() (bool, string) {
			m := serve.late()
			return m.Version == v, fmt.Sprintf("%+v", m)
		})
		live[v] = time.Now()
	}
	load.awaitEach(t, "answers of the last", 8, func(a *answered) bool { return a.prediction.Version == versions })
	load.stop()
	asked[versions+1] = time.Now().Add(time.Hour)
	live[versions+1] = asked[versions+1]
	answers := load.since(began)
	between := 0
	for i := range answers {
		a := &answers[i]
		v, until := a.prediction.Version, a.sent.Add(a.took)
		if a.err != nil || a.status != http.StatusOK || a.prediction.Rung != schemas.RungPrimary || v < 1 || v > versions || a.prediction.Digest != digests[v] {
			t.Fatalf("dropped, refused, or of no version: %s", a)
		}
		if want := byDistance(weight(v))[a.of].score; math.Abs(*a.prediction.Score-want) > 1e-12 {
			t.Fatalf("version %d gives %v: %s", v, want, a)
		}
		if until.Before(asked[v]) || a.sent.After(live[v+1]) {
			t.Fatalf("version %d was not the champion from %s until %s: %s", v, a.sent, until, a)
		}
		if v <= versions-1 && until.After(asked[v+1]) || a.sent.Before(live[v]) {
			between++
		}
	}
	if refused := serve.metric("millrace_serving_requests_total", `route="score"`) - serve.metric("millrace_serving_requests_total", `route="score"`, `status="200"`); refused != 0 {
		t.Errorf("%v requests are counted with another status than 200", refused)
	}
	if n := serve.metric("millrace_serving_swaps_total", `result="swapped"`); n != versions {
		t.Errorf("%v swaps are counted, want %d", n, versions)
	}
	t.Logf("%d answers of %d versions, %d of them while one took over from another", len(answers), versions, between)
}
