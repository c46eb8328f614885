// Package project reads the folder that says what Millrace is to do: millrace.yaml, the Avro schemas it names, and the feature tests
// beside it. Load checks everything at once and gives back either a Project in which every name resolves, every expression is typed
// against its schema and every setting has a value, or all of its Faults, each with file, line, column and, where a name is misspelt,
// the nearest right one.
//
// It refuses unknown keys, YAML beyond plain mappings, lists and scalars (no anchors, tags or merges), files outside the folder, and
// any column, type, duration or bound that cannot be meant. It stands before the event's way: stages are given a *Project and need
// ask nothing more. Plan compares a project with what was last applied and says what would break whom; Test runs the feature tests on
// the pure engine.
//
// Stages and cmd may import it; it imports schemas, features and internal leaves.
package project
