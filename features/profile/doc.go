// Package profile describes what a model was trained on, what it is scoring now, and how far the two are apart.
//
// A Baseline is the profile of the very rows that a model was trained on: for each input up to MaxBins bins cut at the
// quantiles of those rows (one bin per value when there are few values), nulls counted apart, and the counts of each chunk.
// A chunk is as long as the windows that will be judged, a day for instance. A Window counts live rows into the same bins.
// Counts are integers, so that a profile does not depend on the order or the partitioning of its rows, windows merge, and a
// replay gives the same bytes.
//
// Compare puts a window beside its baseline: the population stability index and the Jensen-Shannon distance over at most
// MaxGroups groups of bins, and the share of nulls, each with the threshold that it has to pass. A fixed threshold would be a
// detector of small windows, and the critical value of independent rows would be one of autocorrelation and season: how far
// an innocent window strays is therefore taken from the baseline itself, by comparing each chunk with all the others
// (calibration.go). What remains is a stated rate of false alarms over all columns of a window.
//
// Training builds baselines:
//
//	b := profile.Build(names, columns, chunks)        // inputs of the training rows, column by column
//	b.HoldOut(scores, labels, chunksOfHeldOut)        // what the model says of rows it has not seen: scores of its training rows are too sure
//
// It refuses to judge a window, or a column of it, with fewer values than asked for: the result is then not Sufficient, which
// is neither drift nor its absence.
//
// The package does no I/O and asks no clock. Training and monitor import it; it imports the standard library and gonum alone.
package profile
