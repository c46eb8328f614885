// Package model is what a trained model is once training is over: something with named inputs that turns a row of
// numbers into a score and can say what moved it.
//
// It reads forests as XGBoost's JSON and UBJSON and as LightGBM text, writes them as the latter, reads and writes
// logistic models as JSON, and packs any encoded model with its signature and golden rows into a Bundle, the content of a
// model artefact. Whoever serves a Bundle first calls Check: a model that
// does not reproduce its own golden rows is refused.
//
// It refuses what it does not understand, by name, rather than guess: other boosters (dart), linear leaves, unknown
// versions, objectives and fields. It draws no randomness, reads no clock and does no I/O.
//
// On the event's way it stands between training, which writes bundles, and serving, which scores with them; both import
// it, and so does cmd. It imports internal/failure alone.
package model
