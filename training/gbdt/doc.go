// Package gbdt trains gradient boosted forests: histograms over binned columns, trees grown leaf by leaf or level by level, as
// LightGBM does it (Ke et al., "LightGBM: A Highly Efficient Gradient Boosting Decision Tree", NIPS 2017). The result is a
// model.Forest, which LightGBM itself can load.
//
// The same data and settings give the same forest to the bit, whatever the number of cores: gradients are rounded to
// integers before they are summed, so that the order of summing cannot matter, and every float sum has a fixed order.
//
// Missing values are a bin of their own, and each split learns which side they take. Where a split saw none, a missing
// value goes with the larger half of its training rows (LightGBM would take it for 0).
//
// Categories are split as LightGBM does it: by sets, found in the order of their gradients; a category that a split did
// not see goes right, and so does a missing one. Rows and columns can be sampled, boosting stopped by the loss on later
// rows, and columns held monotone; what is drawn depends on the seed alone.
//
// Objectives are LightGBM's binary, regression (squared error), poisson and multiclass (softmax): a round of boosting is a tree of
// each output, that of a class for Multiclass.
//
// It refuses labels that do not fit the objective or do not differ, weights that are not above 0, and settings out of
// bounds. Infinite values count as the largest finite ones.
//
// On the event's way it is one of the candidates that training fits; only training and the benches import it.
package gbdt
