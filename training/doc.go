// Package training is the stage that makes models: a point-in-time dataset from the offline log, candidates fitted on
// its earlier rows and measured on its later ones, the best held against the champion and the gates, everything kept in
// the registry, and the champion moved or the reason told why not.
//
// Its place on the event's way: it reads the offline events that ingest wrote and the retrain topic that monitor writes
// to; it writes the registry and the models topic, which serving follows. In the order of the code:
//
//	stage.go     Run: retrain requests (requests.go), schedules (schedule.go) and models that have no champion yet (first.go)
//	train.go     one run from the dataset to the model event
//	dataset.go   spine.go (rows and labels) and replay.go (features as of each row's time), then verify.go
//	split.go     earlier rows to train on, later rows held out, and between them what is neither
//	fit.go       candidates, program.go those that are programs, and the ablation without feature groups
//	evaluate.go  the same numbers for every candidate and for the champion, on the very same rows
//	gates.go     what must hold to be promoted
//	register.go  artefacts and their lineage
//	publish.go   the model event
//
// # What is promised
//
// A row knows the events before its time and no other: features come from replaying the log in event time through the
// engine that serves them. A row is used only when the time in which its label may come (Label.Within) had passed by the
// cutoff, and for training rows by the beginning of the held-out rows: taking the labels that happened to be there would
// keep the rows whose labels come early and drop the others, which are not the same kind of row. The log has no time of
// arrival, so an event counts as known from its event time on.
//
// A run repeated from the same log, cutoff and code gives the same digests. A retrain request is answered once: its
// outcome is kept with the move of the alias in one write, and a redelivered request is answered with what was kept. Any
// number of replicas may run.
//
// # What is refused
//
// A dataset with a row that knows the future, or with an input that gives the label away, is not trained on. A candidate
// that fails a gate is registered, but not promoted; the refusal names the gate and the number. A gate that cannot be
// evaluated has not been passed.
//
// Only cmd imports this package.
package training
