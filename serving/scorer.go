package serving

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"time"

	"github.com/millrace/millrace/internal/failure"
	"github.com/millrace/millrace/registry"
	"github.com/millrace/millrace/registry/model"
	"github.com/millrace/millrace/schemas"
)

// topReasons is how many contributions an answer carries.
const topReasons = 5

// scorer is one version of a model, checked and ready. It does not change and is shared by goroutines.
type scorer struct {
	plan      *plan // of its inputs
	digest    string
	version   int
	model     model.Model
	order     []int // for each input of the model its place in the plan
	names     []string
	codes     [][]float64 // by input of the model, its own code of each of the plan's, NaN for what it does not know; nil where they are the same
	baseline  string      // digest of the profile of its scores; empty without one
	beside    string      // digest of the simpler model that was trained beside it; empty without one
	dataUntil int64       // event time up to which it was trained, noTime when its manifest does not say
}

// scoring is the working memory of one goroutine.
type scoring struct {
	row           []float64
	contributions []float64
	outputs       []float64
	method        string // of explanation that is asked for
	bare          bool   // nobody asks for reasons
}

// loadScorer reads a model artefact and refuses it unless its digest, its signature and its golden rows hold; then scores the golden
// rows warmUp times over, so that the first request does not pay for cold memory.
func loadScorer(r *registry.Registry, planFor func([]model.SignatureInput) (*plan, error), digest string, version, warmUp int) (*scorer, error) {
	manifest, content, err := r.Read(digest)
	if err != nil {
		return nil, fmt.Errorf("reading model: %w", err)
	}
	if manifest.Kind != registry.KindModel || manifest.MediaType != model.MediaBundle {
		return nil, failure.New(failure.Corrupt, digest, "is a %s of type %q, not a model bundle", manifest.Kind, manifest.MediaType)
	}
	bundle, err := model.DecodeBundle(content)
	if err != nil {
		return nil, fmt.Errorf("decoding model: %w", err)
	}
	m, err := bundle.Check()
	if err != nil {
		return nil, fmt.Errorf("checking model: %w", err)
	}
	p, err := planFor(bundle.Signature)
	if err != nil {
		return nil, fmt.Errorf("planning the model's inputs: %w", err)
	}
	order, err := p.order(bundle.Signature)
	if err != nil {
		return nil, fmt.Errorf("matching the model's inputs: %w", err)
	}
	codes, err := p.recode(order, bundle.Signature)
	if err != nil {
		return nil, fmt.Errorf("matching the model's categories: %w", err)
	}
	beside, _ := manifest.Input(registry.RoleSimpler)
	baseline, _ := manifest.Input(registry.KindBaseline)
	s := &scorer{baseline: baseline, beside: beside, plan: p, digest: digest, version: version, model: m, order: order, names: m.Inputs(), codes: codes, dataUntil: dataUntil(manifest)}
	s.warm(bundle.Golden, len(p.inputs), warmUp)
	return s, nil
}

// warm scores golden rows by the very path that requests take.
func (s *scorer) warm(golden [][]float64, inputs, times int) {
	var w scoring
	values := make([]float64, inputs)
	for range times {
		for _, row := range golden {
			for i, place := range s.order {
				values[place] = row[i]
			}
			s.score(values, &w)
		}
	}
}

// dataUntil reads the annotation of that name: RFC 3339 or Unix milliseconds.
func dataUntil(m registry.Manifest) int64 {
	text := m.Annotations["data_until"]
	if t, err := time.Parse(time.RFC3339, text); err == nil {
		return t.UnixMilli()
	}
	if ms, err := strconv.ParseInt(text, 10, 64); err == nil {
		return ms
	}
	return noTime
}

// score scores a row of the plan's inputs. ok is false when the model gives no finite number.
func (s *scorer) score(values []float64, w *scoring) (v verdict, ok bool) {
	v.scorer = s
	row := s.rowOf(values, w)
	if w.bare {
		ok = s.bare(row, w, &v)
		return v, ok
	}
	contributions := w.contributions[:len(s.order)]
	output, used := s.model.PredictExplained(row, w.room(s.model), contributions)
	if !s.take(w.outputs, output, &v) {
		return verdict{scorer: s}, false
	}
	if v.method = used; w.method != "" && w.method != used {
		_, v.method = s.model.Explain(row, output, w.method, contributions)
	}
	v.reasons = s.strongest(contributions)
	return v, true
}

// rowOf picks the model's row out of the plan's inputs, into w.
func (s *scorer) rowOf(values []float64, w *scoring) []float64 {
	if cap(w.row) < len(s.order) {
		w.row, w.contributions = make([]float64, len(s.order)), make([]float64, len(s.order))
	}
	row := w.row[:len(s.order)]
	for i, place := range s.order {
		row[i] = values[place]
	}
	for i, codes := range s.codes {
		if codes != nil {
			row[i] = recoded(codes, row[i])
		}
	}
	return row
}

// bare finds the score without reasons.
func (s *scorer) bare(row []float64, w *scoring, v *verdict) (ok bool) {
	s.model.PredictInto(row, w.room(s.model))
	return s.take(w.outputs, model.Highest(w.outputs), v)
}

// room makes outputs as long as the model's.
func (w *scoring) room(m model.Model) []float64 {
	n := len(m.Outputs())
	w.outputs = slices.Grow(w.outputs[:0], n)[:n]
	return w.outputs
}

// take puts the score into the verdict; of a model with classes, that of the output it is highest for, and those of all. ok is false when one
// is not a finite number.
func (s *scorer) take(scores []float64, output int, v *verdict) (ok bool) {
	for _, score := range scores {
		if math.IsNaN(score) || math.IsInf(score, 0) {
			return false
		}
	}
	v.score = scores[output]
	if s.model.Task() == model.TaskMulticlass {
		names := s.model.Outputs()
		v.class, v.classes = names[output], make([]schemas.ClassScore, len(names))
		for i, name := range names {
			v.classes[i] = schemas.ClassScore{Class: name, Score: scores[i]}
		}
	}
	return true
}

// strongest is the contributions of largest size, largest first; of equals the earlier input. Inputs that moved nothing are no reason.
func (s *scorer) strongest(contributions []float64) []schemas.Contribution {
	var top [topReasons]int
	n := 0
	for i, c := range contributions {
		size := math.Abs(c)
		if !(size > 0) || n == topReasons && size <= math.Abs(contributions[top[n-1]]) {
			continue
		}
		if n < topReasons {
			n++
		}
		at := n - 1
		for ; at > 0 && math.Abs(contributions[top[at-1]]) < size; at-- {
			top[at] = top[at-1]
		}
		top[at] = i
	}
	reasons := make([]schemas.Contribution, n)
	for i, input := range top[:n] {
		reasons[i] = schemas.Contribution{Input: s.names[input], Value: contributions[input]}
	}
	return reasons
}
