package serving

import (
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/millrace/millrace/features"
	"github.com/millrace/millrace/project"
	"github.com/millrace/millrace/registry"
	"github.com/millrace/millrace/registry/model"
	"github.com/millrace/millrace/schemas"
)

// besideWorld is a stage, not running, that can read the group by two definitions: the project's, whose delay_mean is a mean, and another
// one's, whose delay_mean is the largest. Entities E0 to E29 have delays of i and i+20 by both, "old" by the project's alone.
func besideWorld(t *testing.T) (w *world, s *Stage, other *project.Group) {
	t.Helper()
	w = newWorld(t)
	w.model().Serve.Required = []string{"origin_delays.delay_mean_1h"}
	own := w.group()
	compiled, faults := features.Compile(features.Definition{
		Name: "origin_delays", Source: "arrivals", Entity: []string{"origin"}, Windows: []string{"1h", "24h"}, TTL: 30 * 24 * time.Hour,
		Features: []features.FeatureDefinition{{Name: "flights", Aggregate: "count()"}, {Name: "delay_mean", Aggregate: "max(delay)"}},
	}, own.Source.Schema)
	if len(faults) > 0 {
		t.Fatal(faults)
	}
	// max of whole numbers is one, as mean is not: the kind must be the declared one's for the input to be the same.
	for i := range compiled.Outputs {
		compiled.Outputs[i].Kind = own.Outputs[i].Kind
	}
	other = &project.Group{Group: compiled, Source: own.Source, KeyedTopic: own.KeyedTopic}
	var events []arrival
	for i := range 30 {
		events = append(events, arrival{fmt.Sprint("E", i), noon.Add(-20 * time.Minute), int64(i)}, arrival{fmt.Sprint("E", i), noon.Add(-10 * time.Minute), int64(i + 20)})
	}
	w.project.Groups[0] = other
	w.apply(events...)
	w.project.Groups[0] = own
	w.apply(append(events, arrival{"old", noon.Add(-10 * time.Minute), 7})...)
	s = w.make()
	now := s.catalog.now.Load()
	both := &servable{numbers: append([]servedVersion{}, now.numbers...), active: now.active, latest: map[definition]int{
		{own.Name, own.Version}: 0, {other.Name, other.Version}: 1,
	}}
	beside := both.numbers[0]
	beside.group, beside.id = other, other.Version
	both.numbers = append(both.numbers, beside)
	s.catalog.publish(both)
	return w, s, other
}

// byOther is a model that was trained on the other definition.
func byOther(g *project.Group, weight float64) trained {
	m := byDelay(weight)
	m.spoil = func(b *model.Bundle) {
		for i := range b.Signature {
			if name, ours := strings.CutPrefix(b.Signature[i].Name, "origin_delays."); ours {
				b.Signature[i].Source = g.Meaning(g.Output(name), false)
			}
		}
	}
	return m
}

// as sees that a prediction is of a version of the group: its score, the input that is logged and the version that was read.
func as(t *testing.T, p *schemas.Prediction, g *project.Group, weight, delay float64) {
	t.Helper()
	if want := sigmoid(-1 + weight*delay + 1); math.Abs(p.Score-want) > 1e-12 {
		t.Errorf("%s: score %v, want %v", p.ID, p.Score, want)
	}
	for _, in := range p.Inputs {
		if in.Name == "origin_delays.delay_mean_1h" && (in.Value == nil || *in.Value != delay) {
			t.Errorf("%s: logged with input %v, want %v", p.ID, in.Value, delay)
		}
	}
	if len(p.Positions) != 1 || p.Positions[0].Version != g.Version {
		t.Errorf("%s: read at %+v, want version %s", p.ID, p.Positions, g.Version)
	}
}

func askAll(t *testing.T, s *Stage, origins ...string) []*schemas.Prediction {
	t.Helper()
	rows := make([]string, len(origins))
	for i, o := range origins {
		rows[i] = from(o)
	}
	predictions, _, p := s.ask(t.Context(), s.models["late"], []byte(`{"rows":[`+strings.Join(rows, ",")+`]}`), "", noon)
	if p != nil {
		t.Fatal(p)
	}
	return predictions
}

// A challenger that reads another version of the features than the champion is served beside it: each answers by its own, in one read, and
// where the challenger cannot, the champion does by the champion's.
func TestChallengerOfOtherFeatures(t *testing.T) {
	w, s, other := besideWorld(t)
	champion, challenger := w.promote(byDelay(0.1)), w.register(byOther(other, 0.2))
	w.try(registry.Challenger, challenger, 50)
	s.lookAll(t.Context())
	var origins []string
	for i := range 30 {
		origins = append(origins, fmt.Sprint("E", i))
	}
	arms := map[string]int{}
	for i, p := range askAll(t, s, origins...) {
		arms[p.Arm]++
		switch p.Digest {
		case champion:
			as(t, p, w.group(), 0.1, float64(i+10))
		case challenger:
			as(t, p, other, 0.2, float64(i+20))
		default:
			t.Errorf("%+v", p)
		}
	}
	if arms[schemas.ArmChampion] < 5 || arms[schemas.ArmChallenger] < 5 {
		t.Errorf("arms %v", arms)
	}
	if n := w.metric("millrace_serving_feature_read_seconds"); n != 1 {
		t.Errorf("%v reads for a request", n)
	}
	w.try(registry.Challenger, challenger, 100)
	s.lookAll(t.Context())
	p := askAll(t, s, "old")[0]
	if p.Arm != schemas.ArmChallenger || p.Rung != schemas.RungChampion || p.Digest != champion || !strings.HasPrefix(p.Reason, "required_not_found: origin_delays.delay_mean_1h") {
		t.Errorf("%+v", p)
	}
	as(t, p, w.group(), 0.1, 7)
	// Promoted, it is the only one, and nothing is read beside it.
	w.crown(challenger)
	s.lookAll(t.Context())
	as(t, askAll(t, s, "E3")[0], other, 0.2, 23)
	if line := s.models["late"].live.Load(); len(line.beside) != 0 || line.champion.digest != challenger {
		t.Errorf("beside %s: %d plans", line.champion.digest, len(line.beside))
	}
	w.redis.Close()
	if _, why, p := s.ask(t.Context(), s.models["late"], []byte(from("E3")), "", noon); p != nil || why != reasonUnavailable {
		t.Errorf("%v %q", p, why)
	}
}

// A shadow is shown the features of its own version, whoever answered.
func TestShadowOfOtherFeatures(t *testing.T) {
	for _, answering := range []string{schemas.ArmChampion, schemas.ArmChallenger} {
		t.Run(answering, func(t *testing.T) {
			w, s, other := besideWorld(t)
			w.promote(byDelay(0.1))
			of, delay, weight := other, 23.0, 0.4
			if answering == schemas.ArmChampion {
				w.try(registry.Shadow, w.register(byOther(other, weight)), 100)
			} else { // the challenger reads the other version, and the shadow the champion's
				of, delay = w.group(), 13
				w.try(registry.Challenger, w.register(byOther(other, 0.2)), 100)
				w.try(registry.Shadow, w.register(byDelay(weight)), 100)
			}
			s.lookAll(t.Context())
			if p := askAll(t, s, "E3")[0]; p.Arm != answering {
				t.Errorf("%+v", p)
			}
			job := <-s.shadows.queue
			p := must[schemas.Prediction](t)(schemas.UnmarshalPrediction(job.prediction))
			job.score(&p, nil, &scoring{})
			as(t, &p, of, weight, delay)
		})
	}
}
