package serving

import (
	"bytes"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace/millrace/features/profile"
	"github.com/millrace/millrace/registry"
	"github.com/millrace/millrace/registry/model"
	"github.com/millrace/millrace/schemas"
)

// try gives an alias to a version for a percentage.
func (w *world) try(alias, digest string, percent float64) {
	w.t.Helper()
	now, _, _ := w.registry.Alias("late", alias)
	if err := w.registry.SetArm(w.t.Context(), "late", alias, digest, percent, now, ""); err != nil {
		w.t.Fatal(err)
	}
}

// awaitArm waits until the challenger or shadow is as the registry has it.
func (w *world) awaitArm(alias, digest string, share float64) {
	w.t.Helper()
	eventually(w.t, fmt.Sprint(alias, " ", share), func() bool {
		line := w.stage.models["late"].live.Load()
		a := line.challenger
		if alias == registry.Shadow {
			a = line.shadow
		}
		return digest == "" && a == nil || a != nil && a.scorer.digest == digest && a.share == share
	})
}

func from(origin string) string { return strings.Replace(flight, "ATL", origin, 1) }

// armsOf asks about many entities and gives the arm of each. What an arm says must be its own model's.
func (w *world) armsOf(n int, champion, challenger string) map[string]string {
	w.t.Helper()
	arms := map[string]string{}
	for i := range n {
		origin := fmt.Sprint("E", i)
		status, a := w.post(from(origin))
		if status != 200 {
			w.t.Fatalf("%d %+v", status, a)
		}
		p := a.Predictions[0]
		want, score := champion, sigmoid(1)
		if p.Arm == schemas.ArmChallenger {
			want, score = challenger, sigmoid(2)
		}
		if p.Rung != "primary" || p.Digest != want || math.Abs(*p.Score-score) > 1e-12 {
			w.t.Fatalf("%s: %+v", origin, p)
		}
		arms[origin] = p.Arm
	}
	return arms
}

func byDistance(weight float64) trained {
	return trained{weights: map[string]float64{"distance": weight}}
}

// The versions that are tried are shown beside the champion, with what they are asked about.
func TestArmsAreShown(t *testing.T) {
	w := newWorld(t)
	w.promote(byDistance(0.001))
	challenger, shadow := w.register(byDistance(0.002)), w.register(byDistance(0.003))
	w.start()
	w.awaitReady()
	var v modelView
	if w.get("/v1/models/late", &v); v.Challenger != nil || v.Shadow != nil {
		t.Fatalf("%+v", v)
	}
	w.try(registry.Challenger, challenger, 20)
	w.try(registry.Shadow, shadow, 100)
	w.awaitArm(registry.Challenger, challenger, 0.2)
	w.awaitArm(registry.Shadow, shadow, 1)
	var all struct{ Models []modelView }
	w.get("/v1/models", &all)
	c, s := all.Models[0].Challenger, all.Models[0].Shadow
	if c == nil || c.Digest != challenger || c.Version != 2 || c.Percent != 20 || c.Kind != "logistic" || c.Withdrawn != "" {
		t.Errorf("the challenger is %+v", c)
	}
	if s == nil || s.Digest != shadow || s.Version != 3 || s.Percent != 100 {
		t.Errorf("the shadow is %+v", s)
	}
	w.stage.models["late"].live.Load().challenger.withdraw("it was slow")
	if v := w.stage.models["late"].live.Load().challenger.view(); v.Withdrawn != "it was slow" {
		t.Errorf("withdrawn, it is %+v", v)
	}
}

// An entity stays with its arm: from request to request, in another process, and when the share grows.
func TestCanaryIsSticky(t *testing.T) {
	w := newWorld(t)
	champion := w.promote(byDistance(0.001))
	challenger := w.register(byDistance(0.002))
	w.try(registry.Challenger, challenger, 20)
	stop := w.start()
	w.awaitReady()
	w.awaitArm(registry.Challenger, challenger, 0.2)
	const n = 300
	first := w.armsOf(n, champion, challenger)
	share := 0
	for _, arm := range first {
		if arm == schemas.ArmChallenger {
			share++
		}
	}
	if share < n/10 || share > n*3/10 { // 20% of 300 is 60, give or take 7
		t.Errorf("%d of %d entities are the challenger's", share, n)
	}
	stop()
	w.start()
	w.awaitReady()
	w.awaitArm(registry.Challenger, challenger, 0.2)
	for origin, arm := range w.armsOf(n, champion, challenger) {
		if arm != first[origin] {
			t.Errorf("%s was %s, and is %s after a restart", origin, first[origin], arm)
		}
	}
	w.try(registry.Challenger, challenger, 60)
	w.awaitArm(registry.Challenger, challenger, 0.6)
	for origin, arm := range w.armsOf(n, champion, challenger) {
		if first[origin] == schemas.ArmChallenger && arm != schemas.ArmChallenger {
			t.Errorf("%s left the challenger when its share grew", origin)
		}
	}
	if n := w.metric("millrace_serving_arm_rows_total", "arm", "challenger", "rung", "primary"); n == 0 {
		t.Error("no row is counted by its arm")
	}
	w.crown(challenger)
	w.awaitArm(registry.Challenger, "", 0)
	if _, a := w.post(flight); a.Predictions[0].Arm != schemas.ArmChampion || a.Predictions[0].Digest != challenger {
		t.Errorf("promoted: %+v", a.Predictions[0])
	}
}

// A topic's records take the arm of their entity, too.
func TestStreamKeepsArms(t *testing.T) {
	w := newWorld(t, withKafka)
	m := byDistance(0.001)
	m.dataUntil = noon.Add(-time.Hour)
	w.promote(m)
	challenger := w.register(byDistance(0.002))
	w.try(registry.Challenger, challenger, 50)
	unitOf := map[string]string{}
	for i := range 40 {
		w.depart(i, 1, noon, fmt.Sprint("E", i))
		unitOf[flightID(i)] = fmt.Sprint("E", i)
	}
	w.start()
	w.awaitReady()
	var got []schemas.Prediction
	eventually(t, "all are scored", func() bool { got = w.predictions(); return len(got) == 40 })
	for _, p := range got {
		want, score := schemas.ArmChampion, sigmoid(1)
		if point(saltChallenger, "late", unitOf[p.JoinKey]) < 0.5 {
			want, score = schemas.ArmChallenger, sigmoid(2)
		}
		if p.Arm != want || math.Abs(p.Score-score) > 1e-12 {
			t.Errorf("%+v, want %s", p, want)
		}
	}
}

// failing gives no number for any row: infinity less infinity.
func failing() trained {
	return trained{weights: map[string]float64{"distance": 1e308, "hour": -1e308}}
}

// A challenger that fails costs nobody an answer, and is withdrawn: in the registry, with the reason, and on the models topic.
func TestFailingChallengerIsWithdrawn(t *testing.T) {
	w := newWorld(t, withKafka)
	champion := w.promote(byDistance(0.001))
	challenger := w.register(failing())
	w.try(registry.Challenger, challenger, 100)
	// The registry cannot be written: the lock of the model is a folder.
	lock := filepath.Join(w.registry.Dir(), "models", "late", "lock")
	if err := os.Remove(lock); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(lock, 0o755); err != nil {
		t.Fatal(err)
	}
	w.start()
	w.awaitReady()
	w.awaitArm(registry.Challenger, challenger, 1)
	places := 0
	for i := range 60 {
		status, a := w.post(from(fmt.Sprint("E", i)))
		p := a.Predictions[0]
		if status != 200 || p.Digest != champion || *p.Score != sigmoid(1) {
			t.Fatalf("%d %+v", status, a)
		}
		if p.Rung == "champion" {
			places++
			if p.Arm != schemas.ArmChallenger || p.Reason != "score_not_finite" {
				t.Errorf("%+v", p)
			}
		}
	}
	if places != guardLeast {
		t.Errorf("the challenger was asked %d times, want %d", places, guardLeast)
	}
	if n := w.metric("millrace_serving_challengers_withdrawn_total"); n != 1 {
		t.Errorf("%v withdrawn", n)
	}
	if digest, _, err := w.registry.Alias("late", registry.Challenger); digest != challenger {
		t.Errorf("the registry has %s, %v", digest, err)
	}
	if err := os.Remove(lock); err != nil {
		t.Fatal(err)
	}
	w.awaitArm(registry.Challenger, "", 0)
	history := must[[]registry.Entry](t)(w.registry.History("late"))
	last := history[len(history)-1]
	if last.Kind != registry.EntryEnded || last.Previous != challenger || !strings.Contains(last.Note, "failed on 20 of 20 rows") {
		t.Errorf("%+v", last)
	}
	c := w.client(kgo.ConsumeTopics("models"), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	records := c.PollFetches(t.Context()).Records()
	if len(records) != 1 || string(records[0].Key) != "late/challenger" {
		t.Fatalf("%v", records)
	}
	event := must[schemas.ModelEvent](t)(schemas.UnmarshalModelEvent(records[0].Value))
	if event.Kind != schemas.ModelWithdrawn || event.Digest != challenger || event.Reason != last.Note || event.Metrics["failures"] != 20 {
		t.Errorf("%+v", event)
	}
	// Tried again, it is another trial.
	w.try(registry.Challenger, challenger, 100)
	w.awaitArm(registry.Challenger, challenger, 1)
}

// What neither can answer is no fault of the challenger's.
func TestSharedFailuresAreNotTheChallengers(t *testing.T) {
	w := newWorld(t)
	w.promote(byDelay(0.1))
	challenger := w.register(byDelay(0.2))
	w.try(registry.Challenger, challenger, 100)
	w.start()
	w.awaitReady()
	w.awaitArm(registry.Challenger, challenger, 1)
	w.redis.Close()
	for range 3 * guardLeast {
		if status, a := w.post(flight); status != 503 {
			t.Fatalf("%d %+v", status, a)
		}
	}
	if n := w.metric("millrace_serving_challengers_withdrawn_total"); n != 0 {
		t.Error("withdrawn")
	}
}

// scoresOf is a baseline whose held-out scores are as drawn, over days.
func scoresOf(t testing.TB, draw func() float64) *profile.Baseline {
	const n = 4000
	columns, scores, labels, chunk := [][]float64{make([]float64, n)}, make([]float64, n), make([]float64, n), make([]int, n)
	for i := range n {
		scores[i], labels[i], chunk[i] = draw(), float64(i%2), i*10/n
	}
	b := profile.Build([]string{"x"}, columns, chunk)
	b.HoldOut(scores, labels, chunk)
	return must[*profile.Baseline](t)(profile.Decode(must[[]byte](t)(b.Encode())))
}

// The false alarms of a guard, over its whole life, are no more than it says; a challenger that is worse is found.
func TestGuardKeepsItsPromise(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	const lives, rows = 2000, 3000
	alarms := 0
	for range lives { // failures at the very share that is borne
		g := newGuard(nil, nil)
		for range rows {
			var why string
			if random.Float64() < guardFailures {
				why = g.failed("x")
			} else {
				why = g.answered(0.5, 0.5, true)
			}
			if why != "" {
				alarms++
				break
			}
		}
	}
	if most := 7; alarms > most { // of 2,000 lives two are expected at most; more than 7 have a probability of 0.001
		t.Errorf("%d of %d innocent challengers were withdrawn for failures", alarms, lives)
	}
	for share, within := range map[float64]int{1: 20, 0.2: 120, 0.05: 1500} {
		g, row := newGuard(nil, nil), 0
		for why := ""; why == "" && row < 10*within; row++ {
			if random.Float64() < share {
				why = g.failed("x")
			} else {
				g.answered(0.5, 0.5, true)
			}
		}
		if row > within {
			t.Errorf("a share of failures of %v was found after %d rows, want %d", share, row, within)
		}
	}
	honest, shifted := random.Float64, func() float64 { return math.Sqrt(random.Float64()) }
	baseline := scoresOf(t, honest)
	life := func(own, champion func() float64, rows int) (why string, row int) {
		g := newGuard(baseline, baseline)
		for why == "" && row < rows {
			why = g.answered(own(), champion(), true)
			row++
		}
		return why, row
	}
	alarms = 0
	for range 200 {
		if why, _ := life(honest, honest, 4000); why != "" {
			alarms++
		}
	}
	if alarms > 2 {
		t.Errorf("%d of 200 innocent challengers were withdrawn for their scores", alarms)
	}
	if why, row := life(shifted, honest, 4000); row != guardFirst || !strings.Contains(why, "left its baseline") {
		t.Errorf("shifted scores: %q after %d", why, row)
	}
	if why, _ := life(shifted, shifted, 4000); why != "" {
		t.Errorf("the world has moved, and the challenger with it: %s", why)
	}
}

// registerWith adds a version with a baseline.
func (w *world) registerWith(m trained, b *profile.Baseline) string {
	w.t.Helper()
	text := must[[]byte](w.t)(b.Encode())
	baseline := must[string](w.t)(w.registry.Put(w.t.Context(), registry.Manifest{Kind: registry.KindBaseline, Name: "late"}, bytes.NewReader(text)))
	content := must[[]byte](w.t)(w.bundle(m).Encode())
	digest := must[string](w.t)(w.registry.Put(w.t.Context(), registry.Manifest{
		Kind: registry.KindModel, Name: "late", MediaType: model.MediaBundle, Inputs: []registry.Ref{{Role: registry.KindBaseline, Digest: baseline}},
	}, bytes.NewReader(content)))
	must[int](w.t)(w.registry.AddVersion("late", digest))
	return digest
}

// A challenger whose scores are not those it was judged on is withdrawn, by way of requests.
func TestChallengerWithOtherScoresIsWithdrawn(t *testing.T) {
	w := newWorld(t)
	random := rand.New(rand.NewPCG(1, 2))
	spread := scoresOf(t, func() float64 { return sigmoid(random.Float64()) }) // as distance, 0 to 1000, makes them
	w.crown(w.registerWith(byDistance(0.001), spread))
	challenger := w.registerWith(byDistance(0.003), spread) // says more than it did in training
	w.try(registry.Challenger, challenger, 100)
	w.start()
	w.awaitReady()
	w.awaitArm(registry.Challenger, challenger, 1)
	rows := make([]string, 50)
	for range guardFirst/len(rows) + 1 {
		for i := range rows {
			rows[i] = strings.Replace(flight, "1000", fmt.Sprint(random.IntN(1000)), 1)
		}
		if status, a := w.post(`{"rows":[` + strings.Join(rows, ",") + `]}`); status != 200 {
			t.Fatalf("%d %+v", status, a)
		}
	}
	w.awaitArm(registry.Challenger, "", 0)
	history := must[[]registry.Entry](t)(w.registry.History("late"))
	if last := history[len(history)-1]; !strings.Contains(last.Note, "left its baseline") {
		t.Errorf("%+v", last)
	}
}

// The shadow is asked what the champion answers; what it says goes to a topic of its own.
func TestShadow(t *testing.T) {
	w := newWorld(t, withKafka)
	champion := w.promote(byDistance(0.001))
	shadow := w.register(byDistance(0.002))
	w.try(registry.Shadow, shadow, 100)
	w.start()
	w.awaitReady()
	w.awaitArm(registry.Shadow, shadow, 1)
	for i := range 20 {
		status, a := w.post(from(fmt.Sprint("E", i)))
		if p := a.Predictions[0]; status != 200 || p.Digest != champion || p.Arm != schemas.ArmChampion {
			t.Fatalf("%d %+v", status, a)
		}
	}
	c := w.client(kgo.ConsumeTopics("shadows"), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	for seen := 0; seen < 20; {
		for _, r := range c.PollFetches(t.Context()).Records() {
			p := must[schemas.Prediction](t)(schemas.UnmarshalPrediction(r.Value))
			if p.Arm != schemas.ArmShadow || p.Digest != shadow || math.Abs(p.Score-sigmoid(2)) > 1e-12 || !strings.HasSuffix(p.ID, "/shadow") || p.JoinKey != "f1" {
				t.Errorf("%+v", p)
			}
			seen++
		}
	}
	for _, p := range w.predictions() {
		if p.Arm == schemas.ArmShadow {
			t.Errorf("a shadow's answer is among the predictions: %+v", p)
		}
	}
}

// A shadow that is slower than the requests drops rows and says so; nobody waits.
func TestShadowDrops(t *testing.T) {
	w := newWorld(t)
	w.cfg.ShadowQueue = 3
	s := w.make() // not running: nobody scores for the shadow
	w.promote(byDistance(0.001))
	w.try(registry.Shadow, w.register(byDistance(0.002)), 100)
	s.lookAll(t.Context())
	for range 10 {
		if _, _, p := s.ask(t.Context(), s.models["late"], []byte(flight), "", noon); p != nil {
			t.Fatal(p)
		}
	}
	if n := w.metric("millrace_serving_shadow_dropped_total", "model", "late"); n != 7 {
		t.Errorf("%v dropped, want 7", n)
	}
}

// An arm whose model is damaged, or reads other features, is left out; the champion goes on.
func TestArmThatCannotBeServed(t *testing.T) {
	w := newWorld(t)
	champion := w.promote(byDistance(0.001))
	spoilt := byDistance(0.002)
	spoilt.spoil = func(b *model.Bundle) { b.Scores[0] += 1e-6 }
	w.try(registry.Challenger, w.register(spoilt), 100)
	w.start()
	w.awaitReady()
	eventually(t, "refused", func() bool { return w.metric("millrace_serving_swaps_total", "result", "refused") == 1 })
	if _, a := w.post(flight); a.Predictions[0].Digest != champion {
		t.Errorf("%+v", a)
	}
	good := w.register(byDistance(0.002))
	w.try(registry.Challenger, good, 100)
	w.awaitArm(registry.Challenger, good, 1)
}
