package gbdt

import (
	"context"
	"fmt"
	"math"

	"github.com/millrace/millrace/internal/failure"
	"github.com/millrace/millrace/registry/model"
)

// Data is a training set, column by column. Fit reads it only.
type Data struct {
	Names   []string    // of the columns, without blanks
	Columns [][]float64 // [column][row]; NaN is missing
	Labels  []float64   // [row]; 0 or 1 for a binary objective
	Weights []float64   // [row], above 0; nil is 1 for all
}

// Fit trains a forest on all cores. The same data and settings give the same forest to the bit. When ctx ends it returns its
// error; data that cannot be trained on are an error of kind BadRequest, settings out of bounds one of kind BadProject.
func Fit(ctx context.Context, data Data, p Params) (*model.Forest, error) {
	if err := p.Validate(); err != nil {
		return nil, err
	}
	if err := data.check(p.Objective); err != nil {
		return nil, failure.Wrap(failure.BadRequest, "training set", "checking the data", err)
	}
	pool := newPool()
	table := newTable(&data, &p, pool)
	bias := start(&data, p.Objective)
	margins := make([]float64, table.rows)
	for i := range margins {
		margins[i] = bias
	}
	grads := newGradients(table.rows)
	w := newGrower(table, &p, grads, pool)
	var trees []model.Tree
	for len(trees) < p.Trees {
		if err := ctx.Err(); err != nil {
			return nil, fmt.Errorf("training tree %d: %w", len(trees), err)
		}
		grads.compute(&data, p.Objective, margins, pool)
		w.grow()
		if len(w.splits) == 0 {
			break
		}
		trees = append(trees, w.tree(margins))
	}
	return model.NewForest(model.ForestSpec{
		Inputs: data.Names, Ranges: table.ranges, Objective: p.Objective, Shrinkage: p.LearningRate,
		Trees: withBias(trees, bias, &data),
	})
}

// withBias adds the constant that boosting started from to the first tree, as LightGBM does; without any tree it is the
// only leaf.
func withBias(trees []model.Tree, bias float64, data *Data) []model.Tree {
	if len(trees) == 0 {
		return []model.Tree{{Leaves: []model.Leaf{{Value: bias, Rows: len(data.Labels)}}}}
	}
	for i := range trees[0].Leaves {
		trees[0].Leaves[i].Value += bias
	}
	return trees
}

func (d *Data) check(objective model.Objective) error {
	rows := len(d.Labels)
	switch {
	case rows == 0 || rows > maxRows:
		return fmt.Errorf("%d rows, not 1 to %d", rows, maxRows)
	case len(d.Names) != len(d.Columns) || len(d.Columns) == 0:
		return fmt.Errorf("%d names for %d columns", len(d.Names), len(d.Columns))
	case d.Weights != nil && len(d.Weights) != rows:
		return fmt.Errorf("%d weights for %d labels", len(d.Weights), rows)
	}
	for i, c := range d.Columns {
		if len(c) != rows {
			return fmt.Errorf("column %q has %d values for %d labels", d.Names[i], len(c), rows)
		}
	}
	for i, w := range d.Weights {
		if !(w > 0) || math.IsInf(w, 0) {
			return fmt.Errorf("weight %d is %v, not a number above 0", i, w)
		}
	}
	return d.checkLabels(objective)
}

func (d *Data) checkLabels(objective model.Objective) error {
	differ := false
	for i, y := range d.Labels {
		if math.IsNaN(y) || math.IsInf(y, 0) {
			return fmt.Errorf("label %d is %v", i, y)
		}
		if objective == model.Binary && y != 0 && y != 1 {
			return fmt.Errorf("label %d is %v, neither 0 nor 1", i, y)
		}
		differ = differ || y != d.Labels[0]
	}
	if objective == model.Binary && !differ {
		return fmt.Errorf("all %d labels are %v: there is nothing to tell apart", len(d.Labels), d.Labels[0])
	}
	return nil
}
