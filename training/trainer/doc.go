// Package trainer runs a user's program that trains a model: it lays out a folder with the rows and job.json, runs the
// program, and reads the model that it left. docs/training.md is the contract.
//
// What the program is not told is as much part of it: the held-out rows are never in its folder, and its model is scored
// by Millrace. A program that fails, runs over its time, leaves no model or one that is not understood is refused; so is a
// model whose inputs are not the job's in their order, or whose own scores of the valid rows are not those that Millrace
// finds.
//
// The program and all it started are killed when its time is over, when the context ends, and when it ends itself. Of
// what it prints the tail is kept.
//
// On the event's way it is one of the candidates that training fits; only training imports it.
package trainer
