package gbdt

import (
	"context"
	"fmt"
	"math"
	"slices"

	"github.com/millrace/millrace/internal/failure"
	"github.com/millrace/millrace/registry/model"
)

// Data is a training set, column by column. Fit reads it only.
type Data struct {
	Names       []string    // of the columns, without blanks
	Columns     [][]float64 // [column][row]; NaN is missing
	Labels      []float64   // [row]; 0 or 1 for a binary objective, at least 0 for Poisson, the index of a class for Multiclass
	Classes     []string    // names of the classes of a Multiclass objective, at least two; else nil
	Weights     []float64   // [row], above 0; nil is 1 for all
	Categorical []bool      // [column] of codes of categories, cut off to whole numbers, those below 0 or above model.MaxCategory missing; nil is none
	Monotone    []int       // [column] 1: the margin must not fall as it rises, -1: must not rise, 0: either; nil is 0 for all
	Valid       *Rows       // to stop early by; nil is none
}

// Rows is rows that are not trained on.
type Rows struct {
	Columns [][]float64 // as Data has them
	Labels  []float64
	Weights []float64
}

// Fit trains a forest on all cores. The same data and settings give the same forest to the bit. When ctx ends it returns its
// error; data that cannot be trained on are an error of kind BadRequest, settings out of bounds one of kind BadProject.
func Fit(ctx context.Context, data Data, p Params) (*model.Forest, error) {
	if err := p.Validate(); err != nil {
		return nil, err
	}
	if err := data.check(&p); err != nil {
		return nil, failure.Wrap(failure.BadRequest, "training set", "checking the data", err)
	}
	pool := newPool()
	table := newTable(&data, &p, pool)
	bias := start(&data, &p)
	margins := constant(bias, table.rows)
	grads := newGradients(table.rows, len(bias))
	w := newGrower(table, &p, grads, pool)
	stop := newStopper(&data, &p, bias, pool)
	var rounds [][]model.Tree // each has a tree of every output
	for len(rounds) < p.Trees && !stop.due(len(rounds)) {
		if err := ctx.Err(); err != nil {
			return nil, fmt.Errorf("training tree %d: %w", len(rounds), err)
		}
		w.sample(len(rounds))
		grads.share(margins, pool)
		round, grown := make([]model.Tree, len(bias)), false
		for output := range round {
			grads.compute(&data, &p, output, margins, pool)
			w.grow()
			if len(w.splits) == 0 { // the others may still gain
				round[output] = model.Tree{Leaves: []model.Leaf{{Rows: len(w.rows)}}, Output: output}
				continue
			}
			t := w.tree(margins[output])
			t.Output = output
			addTree(&t, data.Columns, w.left, margins[output], pool)
			round[output], grown = t, true
		}
		if !grown {
			break
		}
		rounds = append(rounds, round)
		stop.add(round, len(rounds))
	}
	return model.NewForest(model.ForestSpec{
		Inputs: data.Names, Ranges: table.ranges, Objective: p.Objective, Shrinkage: p.LearningRate, Classes: data.Classes,
		Trees: withBias(rounds[:stop.keep(len(rounds))], bias, &data),
	})
}

// constant is the margins of all rows before any tree, by output.
func constant(bias []float64, rows int) [][]float64 {
	margins := make([][]float64, len(bias))
	for output, b := range bias {
		margins[output] = slices.Repeat([]float64{b}, rows)
	}
	return margins
}

// withBias adds the constants that boosting started from to the first trees, as LightGBM does; without any tree they are the
// only leaves.
func withBias(rounds [][]model.Tree, bias []float64, data *Data) []model.Tree {
	if len(rounds) == 0 {
		first := make([]model.Tree, len(bias))
		for output := range first {
			first[output] = model.Tree{Leaves: []model.Leaf{{Rows: len(data.Labels)}}, Output: output}
		}
		rounds = [][]model.Tree{first}
	}
	for output, t := range rounds[0] {
		for i := range t.Leaves {
			t.Leaves[i].Value += bias[output]
		}
	}
	return slices.Concat(rounds...)
}

func (d *Data) check(p *Params) error {
	rows, columns := len(d.Labels), len(d.Columns)
	switch {
	case rows == 0 || rows > maxRows:
		return fmt.Errorf("%d rows, not 1 to %d", rows, maxRows)
	case len(d.Names) != columns || columns == 0:
		return fmt.Errorf("%d names for %d columns", len(d.Names), columns)
	case d.Categorical != nil && len(d.Categorical) != columns || d.Monotone != nil && len(d.Monotone) != columns:
		return fmt.Errorf("%d columns, %d of them said to be categorical or not and %d to be monotone or not", columns, len(d.Categorical), len(d.Monotone))
	case (p.EarlyStopping > 0) != (d.Valid != nil):
		return fmt.Errorf("stopping early needs valid rows, and valid rows are for nothing else")
	}
	if multiclass := p.Objective == model.Multiclass; multiclass != (d.Classes != nil) || multiclass && (len(d.Classes) < 2 || len(d.Classes) > model.MaxOutputs) {
		return fmt.Errorf("%d classes: a multiclass objective has 2 to %d, another none", len(d.Classes), model.MaxOutputs)
	}
	for i, way := range d.Monotone {
		if way < -1 || way > 1 {
			return fmt.Errorf("column %q is monotone by %d, which is neither 1, 0 nor -1", d.Names[i], way)
		}
		if way != 0 && d.categorical(i) {
			return fmt.Errorf("column %q cannot be monotone: it is categorical", d.Names[i])
		}
	}
	if err := (Rows{d.Columns, d.Labels, d.Weights}).check(d.Names, d.Classes, p.Objective); err != nil {
		return err
	}
	if d.Valid != nil {
		if err := d.Valid.check(d.Names, d.Classes, p.Objective); err != nil {
			return fmt.Errorf("valid rows: %w", err)
		}
		if len(d.Valid.Labels) == 0 {
			return fmt.Errorf("there are no valid rows")
		}
	}
	return d.checkDiffer(p.Objective)
}

// checkDiffer reports labels of one class, or counts that are all 0.
func (d *Data) checkDiffer(objective model.Objective) error {
	if objective != model.Regression && !slices.ContainsFunc(d.Labels, func(y float64) bool { return y != d.Labels[0] }) {
		return fmt.Errorf("all %d labels are %v: there is nothing to tell apart", len(d.Labels), d.Labels[0])
	}
	return nil
}

func (d *Data) categorical(column int) bool { return d.Categorical != nil && d.Categorical[column] }

func (d *Data) monotone(column int) int {
	if d.Monotone == nil {
		return 0
	}
	return d.Monotone[column]
}

func (r Rows) check(names, classes []string, objective model.Objective) error {
	rows := len(r.Labels)
	if r.Weights != nil && len(r.Weights) != rows {
		return fmt.Errorf("%d weights for %d labels", len(r.Weights), rows)
	}
	if len(r.Columns) != len(names) {
		return fmt.Errorf("%d columns of %d", len(r.Columns), len(names))
	}
	for i, c := range r.Columns {
		if len(c) != rows {
			return fmt.Errorf("column %q has %d values for %d labels", names[i], len(c), rows)
		}
	}
	for i, w := range r.Weights {
		if !(w > 0) || math.IsInf(w, 0) {
			return fmt.Errorf("weight %d is %v, not a number above 0", i, w)
		}
	}
	for i, y := range r.Labels {
		if math.IsNaN(y) || math.IsInf(y, 0) {
			return fmt.Errorf("label %d is %v", i, y)
		}
		if objective == model.Binary && y != 0 && y != 1 {
			return fmt.Errorf("label %d is %v, neither 0 nor 1", i, y)
		}
		if objective == model.Poisson && y < 0 {
			return fmt.Errorf("label %d is %v, which is no count", i, y)
		}
		if objective == model.Multiclass && (y != math.Trunc(y) || y < 0 || y >= float64(len(classes))) {
			return fmt.Errorf("label %d is %v, which is none of %d classes", i, y, len(classes))
		}
	}
	return nil
}
