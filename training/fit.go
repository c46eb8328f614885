package training

import (
	"context"
	"fmt"

	"github.com/millrace/millrace/internal/failure"
	"github.com/millrace/millrace/project"
	"github.com/millrace/millrace/registry/model"
	"github.com/millrace/millrace/training/gbdt"
	"github.com/millrace/millrace/training/logistic"
)

// fitter makes a model of training rows. A further kind of candidate is one more of these and a line in fitters.
type fitter func(ctx context.Context, cfg Config, names []string, train Part, seed int64) (model.Model, error)

func fitters() map[string]fitter {
	return map[string]fitter{project.CandidateLogistic: fitLogistic, project.CandidateGBDT: fitForest}
}

func fitLogistic(ctx context.Context, cfg Config, names []string, train Part, _ int64) (model.Model, error) {
	m, err := logistic.Fit(ctx, logistic.Data{Names: names, Columns: train.Columns, Labels: train.Labels}, cfg.Logistic)
	if err != nil {
		return nil, err
	}
	return m, nil
}

func fitForest(ctx context.Context, cfg Config, names []string, train Part, seed int64) (model.Model, error) {
	p := cfg.Forest
	p.Seed = uint64(seed)
	m, err := gbdt.Fit(ctx, gbdt.Data{Names: names, Columns: train.Columns, Labels: train.Labels}, p)
	if err != nil {
		return nil, err
	}
	return m, nil
}

func (s *Stage) fit(ctx context.Context, candidate string, names []string, train Part, seed int64) (model.Model, error) {
	f := s.fitters[candidate]
	if f == nil {
		return nil, failure.New(failure.BadProject, candidate, "there is no such candidate")
	}
	m, err := f(ctx, s.cfg, names, train, seed)
	if err != nil {
		return nil, fmt.Errorf("fitting %s: %w", candidate, err)
	}
	return m, nil
}

// withoutGroups leaves out of a part the inputs that come from feature groups, for the ablation.
func withoutGroups(m *project.Model, p Part) ([]string, Part) {
	var names []string
	plain := Part{Times: p.Times, Labels: p.Labels}
	for i, in := range m.Inputs {
		if in.Group == nil {
			names, plain.Columns = append(names, in.Name), append(plain.Columns, p.Columns[i])
		}
	}
	return names, plain
}
