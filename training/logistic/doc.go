// Package logistic trains logistic regressions: standardized inputs, a missing value taken for the mean with a weight
// of its own for being missing, a ridge penalty, fitted by L-BFGS (gonum/optimize).
//
// The same data and settings give the same model to the bit, whatever the number of cores.
//
// It refuses labels other than 0 and 1 or all the same, weights that are not above 0, and settings out of bounds. A
// value that is infinite counts as missing, in training as in scoring.
//
// On the event's way it is one of the candidates that training fits; only training and the benches import it.
package logistic
