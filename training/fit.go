package training

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sort"

	"github.com/millrace/millrace/internal/failure"
	"github.com/millrace/millrace/project"
	"github.com/millrace/millrace/registry/model"
	"github.com/millrace/millrace/training/gbdt"
	"github.com/millrace/millrace/training/logistic"
)

// fitting is what a candidate is fitted on.
type fitting struct {
	model  *project.Model
	inputs []int // of the model, those that it may use
	rows   Part  // all training rows, with the columns of inputs
	valid  int   // rows from here on are the later slice, to stop early by
	parent *parent
}

// fitter makes a model of training rows. A further kind of candidate is one more of these and a line in fitters.
type fitter func(ctx context.Context, cfg Config, f fitting) (model.Model, error)

func fitters() map[string]fitter {
	return map[string]fitter{project.CandidateLogistic: fitLogistic, project.CandidateGBDT: fitForest}
}

// newFitting lays out all inputs of a model, or those alone that do not come from feature groups.
func (s *Stage) newFitting(m *project.Model, train Part, withoutGroups bool) fitting {
	f := fitting{model: m, rows: train, valid: later(train.Times, s.cfg.ValidShare)}
	f.rows.Columns = nil
	for i, in := range m.Inputs {
		if !withoutGroups || in.Group == nil {
			f.inputs, f.rows.Columns = append(f.inputs, i), append(f.rows.Columns, train.Columns[i])
		}
	}
	return f
}

// later is the first of about that share of the rows that are the last ones. It is later than the row before it, unless all
// are of one time.
func later(times []int64, share float64) int {
	at := len(times) - int(share*float64(len(times)))
	if at == len(times) {
		return at
	}
	return cmp.Or(sort.Search(len(times), func(i int) bool { return times[i] >= times[at] }), at)
}

func (f *fitting) names() []string {
	names := make([]string, len(f.inputs))
	for i, in := range f.inputs {
		names[i] = f.model.Inputs[in].Name
	}
	return names
}

func (f *fitting) input(i int) project.Input { return f.model.Inputs[f.inputs[i]] }

func (f *fitting) categorical(i int) bool {
	return f.input(i).Categories != nil || slices.Contains(f.model.Train.Categorical, f.input(i).Name)
}

func fitLogistic(ctx context.Context, cfg Config, f fitting) (model.Model, error) {
	data := logistic.Data{Names: f.names(), Columns: f.rows.Columns, Labels: f.rows.Labels, Weights: f.rows.Weights}
	if f.model.Task == model.TaskMulticlass {
		m, err := logistic.FitMultinomial(ctx, data, f.model.Label.Classes, cfg.Logistic)
		if err != nil {
			return nil, err
		}
		return m, nil
	}
	m, err := logistic.Fit(ctx, data, cfg.Logistic)
	if err != nil {
		return nil, err
	}
	return m, nil
}

// fitForest trains on all rows, or where it is to stop early, on those before the later slice.
func fitForest(ctx context.Context, cfg Config, f fitting) (model.Model, error) {
	p := forestParams(cfg.Forest, f.model.Train)
	p.Objective = model.Objective(f.model.Task)
	rows := f.rows
	var valid *gbdt.Rows
	if p.EarlyStopping > 0 {
		later := rows.between(f.valid, len(rows.Times))
		rows, valid = rows.between(0, f.valid), &gbdt.Rows{Columns: later.Columns, Labels: later.Labels, Weights: later.Weights}
	}
	data := gbdt.Data{Names: f.names(), Columns: rows.Columns, Labels: rows.Labels, Weights: rows.Weights, Valid: valid, Classes: f.model.Label.Classes}
	for i := range f.inputs {
		data.Categorical = append(data.Categorical, f.categorical(i))
		data.Monotone = append(data.Monotone, f.model.Train.Monotone[f.input(i).Name])
	}
	m, err := gbdt.Fit(ctx, data, p)
	if err != nil {
		return nil, err
	}
	return m, nil
}

// forestParams is the default settings with those that the project gives.
func forestParams(p gbdt.Params, t project.Train) gbdt.Params {
	p.Seed, p.DepthWise = uint64(t.Seed), t.GBDT.Growth == project.GrowthDepth
	for _, set := range []struct {
		to    *int
		value int
	}{{&p.Trees, t.GBDT.Trees}, {&p.Leaves, t.GBDT.Leaves}, {&p.MaxDepth, t.GBDT.Depth}, {&p.MinRows, t.GBDT.MinRows}, {&p.EarlyStopping, t.GBDT.EarlyStopping}} {
		*set.to = cmp.Or(set.value, *set.to)
	}
	for _, set := range []struct {
		to    *float64
		value float64
	}{{&p.LearningRate, t.GBDT.LearningRate}, {&p.MinHessian, t.GBDT.MinHessian}, {&p.L2, t.GBDT.L2},
		{&p.RowFraction, t.GBDT.RowFraction}, {&p.FeatureFraction, t.GBDT.FeatureFraction}} {
		*set.to = cmp.Or(set.value, *set.to)
	}
	return p
}

// fitted is a model that a candidate made.
type fitted struct {
	model.Model
	mediaType string   // of encoded
	encoded   []byte   // the file that a program left, to be kept as it is; nil for a model of Millrace's own trainers
	printed   string   // by a program
	classes   []string // of a model in encoded, which has no names for them
}

// pack makes the bundle of it.
func (m fitted) pack(signature []model.SignatureInput, golden [][]float64) (model.Bundle, error) {
	if m.encoded == nil {
		return model.NewBundle(signature, m.Model, golden)
	}
	return model.PackBundle(signature, m.mediaType, m.encoded, m.classes, golden)
}

// fit makes a candidate's model. What a program printed is there with an error, too.
func (s *Stage) fit(ctx context.Context, c project.Candidate, f fitting) (m fitted, err error) {
	if c.Program != nil {
		m, err = s.runProgram(ctx, c, f)
	} else if fitter := s.fitters[c.Name]; fitter != nil {
		m.Model, err = fitter(ctx, s.cfg, f)
	} else {
		err = failure.New(failure.BadProject, c.Name, "there is no such candidate")
	}
	if err != nil {
		return m, fmt.Errorf("fitting %s: %w", c.Name, err)
	}
	return m, nil
}
