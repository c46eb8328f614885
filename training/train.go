package training

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"

	"github.com/millrace/millrace/internal/failure"
	"github.com/millrace/millrace/project"
	"github.com/millrace/millrace/registry"
	"github.com/millrace/millrace/registry/model"
	"github.com/millrace/millrace/schemas"
)

// Request is a run that is asked for.
type Request struct {
	Run       string // identifies the run: a run that is concluded is not run again
	Model     string
	Until     int64  // cutoff, event time, Unix milliseconds; 0 for all that there is
	Reason    string // why a new model is wanted
	Replaces  string // digest of the model that is to be replaced; empty for whichever is champion
	RetrainID string // of the retrain event that asked, if one did
}

// candidate is a fitted model with its numbers.
type candidate struct {
	project.Candidate
	model   fitted
	outputs []float64 // of the held-out rows, each row's after the other
	metrics Metrics
}

// trained is all that a run found out before the champion is looked at.
type trained struct {
	data       *Dataset
	train      Part
	held       Part
	candidates []candidate
	failed     map[string]string // candidates that could not be fitted, and why
	printed    map[string]string // by candidates that are programs
	parent     *parent           // that programs were given; nil for none
	best       candidate
	ablation   *Metrics // nil when the best kind could not be fitted without the feature groups
	simpler    *fitted  // what the ablation measured; nil where the inputs are all of groups or none is
}

// champion is the model that answers requests, measured on the run's held-out rows.
type champion struct {
	digest       string // empty when there is none
	metrics      Metrics
	incomparable string // why it could not be measured
}

// errMoved says that the champion changed while its successor was being judged.
var errMoved = errors.New("the champion has moved")

// Train makes a model, registers it and promotes it when every gate passes. It gives the model event that tells the
// outcome, which the registry keeps as the run's conclusion; the caller publishes it. A refusal is an outcome, not an
// error. For a run that is concluded it gives what was kept.
func (s *Stage) Train(ctx context.Context, q Request) (schemas.ModelEvent, error) {
	m := s.project.Model(q.Model)
	if m == nil {
		return schemas.ModelEvent{}, failure.New(failure.NotFound, q.Model, "the project has no such model")
	}
	if kept, ok, err := s.concluded(q); err != nil || ok {
		return kept, err
	}
	if reason, err := s.outdated(q); err != nil || reason != "" {
		if err != nil {
			return schemas.ModelEvent{}, err
		}
		return s.refuse(ctx, q, reason)
	}
	release, err := s.enter(ctx)
	if err != nil {
		return schemas.ModelEvent{}, err
	}
	defer release()
	event, err := s.run(ctx, m, q)
	if failure.Of(err) == failure.Refused {
		return s.refuse(ctx, q, err.Error())
	}
	return event, err
}

// run is a run from the dataset to the conclusion.
func (s *Stage) run(ctx context.Context, m *project.Model, q Request) (schemas.ModelEvent, error) {
	until, err := s.cutoff(ctx, m, q.Until)
	if err != nil {
		return schemas.ModelEvent{}, fmt.Errorf("waiting for the offline log: %w", err)
	}
	data, err := Build(ctx, s.cfg, s.offlineDir, m, until, s.progress)
	if err != nil {
		return schemas.ModelEvent{}, fmt.Errorf("building dataset: %w", err)
	}
	if err := Verify(s.cfg, data); err != nil {
		return schemas.ModelEvent{}, err
	}
	t, err := s.fitAll(ctx, m, data)
	if err != nil {
		return schemas.ModelEvent{}, err
	}
	kept, err := s.register(ctx, m, t)
	if err != nil {
		return schemas.ModelEvent{}, fmt.Errorf("registering: %w", err)
	}
	for {
		event, err := s.decide(ctx, m, q, t, kept)
		if !errors.Is(err, errMoved) {
			return event, err
		}
		s.log.Info("the champion moved while its successor was judged: judging again", "model", m.Name, "run", q.Run)
	}
}

// fitAll fits and measures every candidate, then the best kind without the feature groups.
func (s *Stage) fitAll(ctx context.Context, m *project.Model, data *Dataset) (*trained, error) {
	t := &trained{data: data, failed: map[string]string{}, printed: map[string]string{}}
	var err error
	if t.train, t.held, err = Split(s.cfg, data); err != nil {
		return nil, err
	}
	if t.parent, err = s.parent(m, data); err != nil {
		return nil, err
	}
	f := s.newFitting(m, t.train, false)
	f.parent = t.parent
	total := int64(len(m.Train.Candidates) + 1)
	for i, declared := range m.Train.Candidates {
		s.progress("fitting "+declared.Name, int64(i), total)
		c := candidate{Candidate: declared}
		c.model, err = s.fit(ctx, declared, f)
		if c.model.printed != "" {
			t.printed[c.Name] = c.model.printed
		}
		if failure.Of(err) == failure.Refused {
			t.failed[c.Name] = err.Error() // the others may still do
			s.log.Warn("a candidate could not be fitted", "model", m.Name, "candidate", c.Name, "err", err)
			continue
		}
		if err != nil {
			return nil, err
		}
		if c.outputs, c.metrics, err = judge(ctx, c.model, data, t.held); err != nil {
			return nil, fmt.Errorf("evaluating %s: %w", c.Name, err)
		}
		t.candidates = append(t.candidates, c)
	}
	if len(t.candidates) == 0 {
		return nil, failure.New(failure.Refused, m.Name, "no candidate could be fitted: %v", t.failed)
	}
	t.best = best(m.Train.Metric, t.candidates)
	s.progress("fitting without feature groups", total-1, total)
	if t.ablation, err = s.ablate(ctx, m, t); err != nil {
		return nil, fmt.Errorf("evaluating without feature groups: %w", err)
	}
	s.progress("fitted", total, total)
	return t, nil
}

// best is the candidate that does best on the metric; of equals, the one declared first.
func best(metric string, candidates []candidate) candidate {
	return slices.MaxFunc(candidates, func(a, b candidate) int {
		switch g := gain(metric, a.metrics, b.metrics); {
		case g > 0:
			return 1
		case g < 0:
			return -1
		default:
			return 0
		}
	})
}

// ablate measures the best kind of model fitted on the row's own columns alone: what the stream's features are worth. A
// program that cannot do with these leaves the question open.
func (s *Stage) ablate(ctx context.Context, m *project.Model, t *trained) (*Metrics, error) {
	f := s.newFitting(m, t.train, true)
	if len(f.inputs) == len(m.Inputs) {
		return &t.best.metrics, nil
	}
	if len(f.inputs) == 0 {
		alike := even(t.data.Task, len(t.data.Classes), t.train) // nothing to go by: every row scores alike
		metrics := Measure(t.data.Task, len(t.data.Classes), slices.Repeat(alike, len(t.held.Labels)), t.held.Labels, t.held.Weights)
		return &metrics, nil
	}
	plain, err := s.fit(ctx, t.best.Candidate, f)
	if failure.Of(err) == failure.Refused {
		s.log.Warn("the best candidate could not be fitted without feature groups", "model", m.Name, "candidate", t.best.Name, "err", err)
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	t.simpler = &plain
	_, metrics, err := judge(ctx, plain, t.data, t.held)
	return &metrics, err
}

// decide compares the best candidate with the champion of this moment, asks the gates, and concludes the run, moving
// the alias in the same write. errMoved when the champion has become another meanwhile.
func (s *Stage) decide(ctx context.Context, m *project.Model, q Request, t *trained, kept registered) (schemas.ModelEvent, error) {
	old, err := s.champion(ctx, m, t)
	if err != nil {
		return schemas.ModelEvent{}, err
	}
	values := t.values()
	if old.digest != "" && old.incomparable == "" {
		if g := gain(m.Train.Metric, t.best.metrics, old.metrics); !math.IsNaN(g) {
			values[project.MetricVersusChampion] = g
		}
	}
	verdicts := pass(m.Gates, values, old.digest != "", old.incomparable)
	if err := s.registerEvaluation(ctx, m, t, kept, old, verdicts); err != nil {
		return schemas.ModelEvent{}, fmt.Errorf("registering evaluation: %w", err)
	}
	event := schemas.ModelEvent{
		ID: eventID(q), Model: m.Name, Version: kept.version, Digest: kept.model, Previous: old.digest, Metrics: values,
		RetrainID: q.RetrainID, DataFrom: t.data.Times[0], DataUntil: t.data.Until, At: s.clock().UnixMilli(),
		Kind: schemas.ModelPromoted, Reason: q.Reason,
	}
	c := registry.Conclusion{Run: q.Run, Note: q.Reason, Digest: kept.model, Alias: registry.Champion, Expected: old.digest}
	if reason := refusal(verdicts); reason != "" {
		event.Kind, event.Reason = schemas.ModelRefused, reason
		c.Note, c.Alias, c.Expected = reason, "", ""
	}
	return s.conclude(ctx, event, c)
}

// values is the numbers of the best candidate, and the rest's in brief.
func (t *trained) values() map[string]float64 {
	values := t.best.metrics.Values()
	values[metricTrainRows] = float64(len(t.train.Labels))
	if t.ablation != nil {
		if name, v := t.ablation.leading(); !math.IsNaN(v) {
			values[name+withoutGroups] = v
		}
	}
	for _, c := range t.candidates {
		if name, v := c.metrics.leading(); !math.IsNaN(v) {
			values[name+"_"+c.Name] = v
		}
	}
	return values
}

// champion loads the model's champion and measures it on the held-out rows.
func (s *Stage) champion(ctx context.Context, m *project.Model, t *trained) (champion, error) {
	digest, _, err := s.registry.Alias(m.Name, registry.Champion)
	if failure.Of(err) == failure.NotFound {
		return champion{}, nil
	}
	if err != nil {
		return champion{}, fmt.Errorf("looking up the champion: %w", err)
	}
	old := champion{digest: digest}
	manifest, b, err := s.registry.Read(digest)
	if err != nil {
		return old, fmt.Errorf("reading the champion: %w", err)
	}
	bundle, err := model.DecodeBundle(b)
	if err != nil {
		return old, fmt.Errorf("decoding the champion: %w", err)
	}
	loaded, err := bundle.Check()
	if err != nil {
		return old, fmt.Errorf("checking the champion: %w", err)
	}
	old.incomparable = cmp.Or(changedInput(bundle.Signature, Signature(m)), hasSeen(manifest, t.data.Span))
	if why := otherTask(loaded, t.data); old.incomparable == "" && why != "" {
		old.incomparable = "the champion " + why
	}
	if old.incomparable != "" {
		return old, nil
	}
	_, old.metrics, err = judge(ctx, loaded, t.data, t.held)
	return old, err
}

// changedInput names an input of the champion that is not in the project any more, or means something else now.
func changedInput(old, now []model.SignatureInput) string {
	for _, in := range old {
		same := func(n model.SignatureInput) bool { return n.Name == in.Name && n.Source == in.Source }
		if !slices.ContainsFunc(now, same) {
			return fmt.Sprintf("the champion reads %s from %s, which the project no longer has", in.Name, in.Source)
		}
		if !slices.ContainsFunc(now, func(n model.SignatureInput) bool {
			return n.Name == in.Name && slices.Equal(n.Categories, in.Categories)
		}) {
			return fmt.Sprintf("the champion has other categories of %s than the project", in.Name)
		}
	}
	return ""
}

// hasSeen says whether a model was trained on rows that are held out here: it would be asked what it was told. That is so
// when a run's cutoff lies before the champion's.
func hasSeen(m registry.Manifest, s Span) string {
	until, err := strconv.ParseInt(m.Annotations[annotationTrainUntil], 10, 64)
	if err != nil || until <= s.HoldoutFrom {
		return ""
	}
	return fmt.Sprintf("the champion was trained on rows up to %s, and rows from %s on are held out", instant(until), instant(s.HoldoutFrom))
}

// concluded gives the event of a run that has ended.
func (s *Stage) concluded(q Request) (schemas.ModelEvent, bool, error) {
	var event schemas.ModelEvent
	kept, ok, err := s.registry.Concluded(q.Model, q.Run)
	if err != nil || !ok {
		return event, false, err
	}
	if err := json.Unmarshal(kept, &event); err != nil {
		return event, false, failure.Wrap(failure.Corrupt, q.Model, "decoding the outcome of run "+q.Run, err)
	}
	return event, true, nil
}

// outdated says why a request needs no run any more: the model that it complains of is gone already.
func (s *Stage) outdated(q Request) (string, error) {
	if q.Replaces == "" {
		return "", nil
	}
	now, _, err := s.registry.Alias(q.Model, registry.Champion)
	if err != nil && failure.Of(err) != failure.NotFound {
		return "", fmt.Errorf("looking up the champion: %w", err)
	}
	if now == q.Replaces {
		return "", nil
	}
	return fmt.Sprintf("the request is to replace %s, which is not the champion any more", q.Replaces), nil
}

// refuse concludes a run that made no model.
func (s *Stage) refuse(ctx context.Context, q Request, reason string) (schemas.ModelEvent, error) {
	event := schemas.ModelEvent{
		ID: eventID(q), Model: q.Model, Kind: schemas.ModelRefused, Reason: reason, Metrics: map[string]float64{},
		RetrainID: q.RetrainID, DataUntil: q.Until, At: s.clock().UnixMilli(),
	}
	if now, _, err := s.registry.Alias(q.Model, registry.Champion); err == nil {
		event.Previous = now
	}
	return s.conclude(ctx, event, registry.Conclusion{Run: q.Run, Note: reason})
}

// conclude keeps the outcome. When another replica has concluded the same run meanwhile, its outcome is the one.
func (s *Stage) conclude(ctx context.Context, event schemas.ModelEvent, c registry.Conclusion) (schemas.ModelEvent, error) {
	var err error
	if c.Outcome, err = json.Marshal(event); err != nil {
		return event, fmt.Errorf("encoding the outcome of run %s: %w", c.Run, err)
	}
	err = s.registry.Conclude(ctx, event.Model, c)
	if failure.Of(err) != failure.Conflict {
		return event, err
	}
	kept, ok, err := s.concluded(Request{Run: c.Run, Model: event.Model})
	if err == nil && !ok {
		err = errMoved
	}
	return kept, err
}

func eventID(q Request) string { return q.Model + "/" + q.Run }
