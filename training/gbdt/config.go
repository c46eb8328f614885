package gbdt

import (
	"errors"
	"fmt"
	"slices"

	"github.com/millrace/millrace/internal/failure"
	"github.com/millrace/millrace/registry/model"
)

// Params are the settings of a training run, under the meaning that LightGBM gives them (its name in brackets where it
// differs).
type Params struct {
	Objective    model.Objective // Binary, Regression, Poisson or Multiclass
	Trees        int             // of each output, at most: training ends early when no split gains anything (num_iterations)
	LearningRate float64         // 0 < rate <= 1
	Leaves       int             // of a tree, at most (num_leaves)
	MaxDepth     int             // splits on the way to a leaf; 0 is no limit
	DepthWise    bool            // level by level; else the leaf that gains most is split first
	MinRows      int             // in a leaf, as estimated from its hessian (min_data_in_leaf)
	MinHessian   float64         // in a leaf (min_sum_hessian_in_leaf)
	L2           float64         // added to a leaf's hessian (lambda_l2)
	MinGain      float64         // of a split (min_gain_to_split)
	Bins         int             // of a column, 2 to 255, one of them for missing values where there are any (max_bin)
	BinRows      int             // rows looked at to choose the bins (bin_construct_sample_cnt)

	RowFraction     float64 // of the rows, drawn anew for each tree; 1 is all (bagging_fraction, with bagging_freq 1)
	FeatureFraction float64 // of the columns, drawn anew for each tree; 1 is all (feature_fraction)
	EarlyStopping   int     // trees of each output that may follow one another without less loss on Data.Valid; 0 trains them all (early_stopping_round)

	OneHot            int     // a column of at most so many categories is split into one of them and the rest (max_cat_to_onehot)
	MaxCategories     int     // that a split sends left, at most (max_cat_threshold)
	MinCategoryRows   int     // that a split must move to the left, beyond those of the one before it (min_data_per_group)
	CategorySmoothing float64 // rows that a category must have, and hessian added to order it by (cat_smooth)
	CategoryL2        float64 // added to L2 where a split is by category (cat_l2)

	PoissonStep float64 // of a Poisson objective, what bounds a step: the hessian is taken at a margin so much higher (poisson_max_delta_step)

	Seed uint64 // chooses rows and columns
}

// Default is LightGBM's defaults for a binary objective.
func Default() Params {
	return Params{
		Objective: model.Binary, Trees: 100, LearningRate: 0.1, Leaves: 31, MinRows: 20, MinHessian: 1e-3,
		Bins: 255, BinRows: 200_000, RowFraction: 1, FeatureFraction: 1,
		OneHot: 4, MaxCategories: 32, MinCategoryRows: 100, CategorySmoothing: 10, CategoryL2: 10, PoissonStep: 0.7, Seed: 1,
	}
}

// Validate names every setting that is out of its bounds. The error is of kind BadProject.
func (p Params) Validate() error {
	var errs []error
	need := func(ok bool, name string, value any, bound string) {
		if !ok {
			errs = append(errs, fmt.Errorf("%s is %v, must be %s", name, value, bound))
		}
	}
	need(slices.Contains([]model.Objective{model.Binary, model.Regression, model.Poisson, model.Multiclass}, p.Objective), "objective", p.Objective, "binary, regression, poisson or multiclass")
	need(p.Trees >= 1 && p.Trees <= model.MaxTrees, "trees", p.Trees, fmt.Sprintf("1 to %d", model.MaxTrees))
	need(p.LearningRate > 0 && p.LearningRate <= 1, "learning rate", p.LearningRate, "above 0 and at most 1")
	need(p.Leaves >= 2 && p.Leaves <= model.MaxLeaves, "leaves", p.Leaves, fmt.Sprintf("2 to %d", model.MaxLeaves))
	need(p.MaxDepth >= 0, "max depth", p.MaxDepth, "at least 0")
	need(p.MinRows >= 0, "min rows", p.MinRows, "at least 0")
	need(p.MinHessian >= 0, "min hessian", p.MinHessian, "at least 0")
	need(p.L2 >= 0, "l2", p.L2, "at least 0")
	need(p.MinGain >= 0, "min gain", p.MinGain, "at least 0")
	need(p.Bins >= 2 && p.Bins <= 255, "bins", p.Bins, "2 to 255")
	need(p.BinRows >= 1, "bin rows", p.BinRows, "at least 1")
	need(p.PoissonStep >= 0, "poisson step", p.PoissonStep, "at least 0")
	need(p.RowFraction > 0 && p.RowFraction <= 1, "row fraction", p.RowFraction, "above 0 and at most 1")
	need(p.FeatureFraction > 0 && p.FeatureFraction <= 1, "feature fraction", p.FeatureFraction, "above 0 and at most 1")
	need(p.EarlyStopping >= 0, "early stopping", p.EarlyStopping, "at least 0")
	need(p.OneHot >= 0, "one hot", p.OneHot, "at least 0")
	need(p.MaxCategories >= 1, "max categories", p.MaxCategories, "at least 1")
	need(p.MinCategoryRows >= 0, "min category rows", p.MinCategoryRows, "at least 0")
	need(p.CategorySmoothing >= 0, "category smoothing", p.CategorySmoothing, "at least 0")
	need(p.CategoryL2 >= 0, "category L2", p.CategoryL2, "at least 0")
	if len(errs) == 0 {
		return nil
	}
	return failure.Wrap(failure.BadProject, "gbdt", "checking the settings", errors.Join(errs...))
}
