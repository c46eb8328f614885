// Package monitor watches what models score, and asks for a new model when the world has moved away from the one that is live.
//
// Its place on an event's way is the end: it reads the predictions topic, which serving writes, and the topics that labels come
// from. It counts predictions into windows of event time beside the baseline of the model version that made them
// (features/profile), joins the labels that come later, and writes its verdicts with their evidence to the drift topic and
// requests for a new model to the retrain topic, which training answers. It meets the other stages only there and in the
// registry, and only cmd may import it.
//
// The files, in the order of a record's way: leadership.go (of all replicas one judges), session.go (what the leader reads, in
// which order it writes), progress.go (how far event time has come), watch.go and window.go (one model: its windows and the
// labels they wait for), judge.go and signal.go (what windows mean; pure), publish.go (events, once each).
//
// What an alarm is: a column, the scores or the AUC pass their thresholds, which are calibrated for a stated rate of false alarms
// over all columns of a window (profile.Sensitivity), in After of the last Of windows, the same one each time. The first window over
// makes the model suspected, the last needed one confirmed, and a confirmed one is resolved when all that was confirmed stayed
// well under its threshold for Of windows. A jump of null rates is found at once and is a fault of quality, not drift: it asks for
// no new model, and a column in that state is no evidence.
//
// What it refuses: to judge a window with too few rows or values, one in which the model changed, and one whose model has no
// baseline. Those are insufficient, which is neither good nor bad. It waits for labels no longer than the project says, and
// reports performance with the share of predictions that have one.
//
// Delivery: a window is judged once its predictions' event time has passed its end and the lateness. What comes later is counted as
// late. An answer that was delivered twice counts once within the open windows, by its id. The verdicts' ids are functions of
// model, version and window, and they are written in transactions of one writer at a time: a leader that was presumed dead is
// fenced by its successor. The successor reads the predictions again from the first that an unfinished window needs, and what
// was published already from the drift and retrain topics, so that nothing is said twice.
package monitor
