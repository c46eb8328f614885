package monitor

import (
	"fmt"
	"slices"
	"time"

	"github.com/millrace/millrace/project"
	"github.com/millrace/millrace/schemas"
)

// What becomes of a prediction or a label, as metrics name it.
const (
	outcomeCounted   = "counted"
	outcomeAgain     = "again"     // delivered before
	outcomeLate      = "late"      // its window is closed
	outcomeFull      = "full"      // its window, or the model, is at a limit
	outcomeUnknown   = "unknown"   // of no model of the project
	outcomeTrial     = "trial"     // of a challenger, which is not judged here
	outcomeUnsampled = "unsampled" // in the log beside its model's sample: it would have more than its share
	outcomeMalformed = "malformed" // not decodable
	outcomeJoined    = "joined"
	outcomeEarly     = "early" // kept for a prediction to come
	outcomeNull      = "null"  // without key, time or value
)

// watch follows one model: its windows, the labels that these wait for, and the versions that answered. It does no I/O besides asking
// for a baseline. Not safe for concurrent use.
type watch struct {
	model    *project.Model
	config   Config
	policy   Policy
	span     int64 // length of a window, ms
	lateness int64
	within   int64
	baseline func(digest string) (*version, error)

	read        *reading // of the stream scorer's predictions
	asked       *reading // of those that HTTP clients asked for
	versions    map[string]*version
	current     string        // digest of the version that is judged
	windows     []*openWindow // by start, then in order of appearance
	pending     int
	early       *earlyLabels
	closedUntil int64
	known       *published
	lastRetrain int64
}

func newWatch(m *project.Model, c Config, p Policy, known *published) *watch {
	span := m.Monitor.Window.Milliseconds()
	return &watch{
		model: m, config: c, policy: p, span: span, lateness: int64(c.LatenessShare * float64(span)), within: m.Label.Within.Milliseconds(),
		read: newReading(), asked: newReading(), versions: map[string]*version{}, early: newEarlyLabels(), closedUntil: known.closedUntil(m.Name),
		known: known, lastRetrain: known.lastRetrain(m.Name),
	}
}

// prediction counts an answer into its window.
func (w *watch) prediction(p *schemas.Prediction, from origin, now time.Time) (outcome string, err error) {
	switch {
	case p.Source != sourceHTTP:
		w.read.observe(from.partition, p.At, now)
	case p.At <= p.ScoredAt:
		w.asked.observe(from.partition, p.At, now)
	}
	if p.Arm == schemas.ArmChallenger { // it is on trial; a window is of one version
		return outcomeTrial, nil
	}
	if p.Digest == "" { // refused before a model was live
		return outcomeUnknown, nil
	}
	window, outcome, err := w.windowOf(p)
	if window == nil {
		return outcome, err
	}
	ok, outcome := window.admit(p.ID, w.config.MaxRows)
	window.low.note(from) // also of a repetition: its first may be read again and then is the one that counts
	if !ok {
		return outcome, nil
	}
	window.count(p)
	w.await(window, p)
	return outcomeCounted, nil
}

// sourceHTTP is the source of predictions that a client asked for.
const sourceHTTP = "http"

// passed is the event time up to which predictions have come. Clients ask as of whatever time they like, so their predictions tell the
// time only where there are no others, and not when they are of the future.
func (w *watch) passed(predictions *progress, now time.Time) int64 {
	if len(w.read.newest) == 0 && !predictions.behind() {
		w.read.watermark = max(w.read.watermark, w.asked.advance(predictions, now))
		return w.read.watermark
	}
	return w.read.advance(predictions, now)
}

func (w *watch) await(window *openWindow, p *schemas.Prediction) {
	if !answered(p) || p.JoinKey == "" {
		return
	}
	window.awaited++
	answer := pendingAnswer{p.Score, p.Classes, p.At}
	if early, ok := w.early.find(p.JoinKey); ok && early.at >= p.At && early.at-p.At <= w.within {
		window.judge(answer, early.truth)
		window.low.note(early.from)
		return
	}
	if w.pending >= w.config.MaxPending {
		return
	}
	window.pending[p.JoinKey] = append(window.pending[p.JoinKey], answer)
	w.pending++
}

// windowOf is the window that an answer belongs to; nil, and why, when it is over or there is no room for another.
func (w *watch) windowOf(p *schemas.Prediction) (*openWindow, string, error) {
	start := floor(p.At, w.span)
	end := start + w.span
	closed := end <= w.closedUntil
	if w.read.watermark != never && end+w.lateness <= w.read.watermark || closed && !w.known.rebuilding(w.model.Name, p.Digest, end) {
		return nil, outcomeLate, nil
	}
	for _, window := range w.windows {
		if window.start == start && window.version.digest == p.Digest {
			return window, "", nil
		}
	}
	if len(w.windows) > w.config.MaxWindows {
		return nil, outcomeFull, nil
	}
	v, err := w.version(p.Digest)
	if err != nil {
		return nil, "", err
	}
	window := newOpenWindow(v, w.model, start, end)
	window.closed = closed
	at, _ := slices.BinarySearchFunc(w.windows, start+1, func(o *openWindow, s int64) int { return int(min(max(o.start-s, -1), 1)) })
	w.windows = slices.Insert(w.windows, at, window)
	return window, "", nil
}

func floor(at, span int64) int64 {
	rest := at % span
	if rest < 0 {
		rest += span
	}
	return at - rest
}

func (w *watch) version(digest string) (*version, error) {
	if v, ok := w.versions[digest]; ok {
		return v, nil
	}
	v, err := w.baseline(digest)
	if err != nil {
		return nil, err
	}
	if v.baseline != nil {
		v.judge = NewJudge(w.model.Name, digest, v.baseline, w.policy, w.lastRetrain)
		v.windows = w.known.restore(v.judge)
	}
	w.versions[digest] = v
	return v, nil
}

// label gives a label to the answers that wait for it, or keeps it for those to come.
func (w *watch) label(key string, truth float64, at int64, from origin) (outcome string) {
	labelled := 0
	for _, window := range w.windows {
		labelled += window.label(key, truth, at, w.within, from)
	}
	w.pending -= labelled
	if labelled > 0 {
		return outcomeJoined
	}
	if w.read.watermark != never && at < w.read.watermark-w.lateness {
		return outcomeLate
	}
	w.early.keep(key, earlyLabel{truth, at, from}, w.config.MaxEarly)
	return outcomeEarly
}

// crowded reports whether labels should be read no further until predictions have caught up.
func (w *watch) crowded() bool { return w.early.size() >= w.config.MaxEarly }

// advance closes the windows that event time has passed, and reports the performance of those whose labels have come, in order of
// time. labelled is the event time that labels have passed.
func (w *watch) advance(predictions *progress, labelled int64, now time.Time) (verdicts []Verdict) {
	passed := w.passed(predictions, now)
	if passed == never {
		return nil
	}
	w.early.forget(passed - w.lateness)
	for _, window := range w.windows {
		if !window.closed && window.end+w.lateness <= passed {
			verdicts = append(verdicts, w.close(window.start)...)
		}
	}
	kept := w.windows[:0]
	for i, window := range w.windows {
		crowded := len(w.windows)-i >= w.config.MaxWindows
		waiting := len(window.pending) > 0 && labelled < window.end+w.within
		if window.end+w.lateness > passed || waiting && !crowded {
			kept = append(kept, window)
			continue
		}
		if v, ok := w.perform(window); ok {
			verdicts = append(verdicts, v)
		}
		for _, waiting := range window.pending {
			w.pending -= len(waiting)
		}
	}
	clear(w.windows[len(kept):])
	w.windows = kept
	w.forgetVersions()
	return verdicts
}

// close judges the windows of one time. Where several versions answered, the one that answered last is the model's; the others'
// windows are over without a verdict.
func (w *watch) close(start int64) (verdicts []Verdict) {
	var all []*openWindow
	var rows int64
	latest := -1
	for _, window := range w.windows {
		if window.start != start || window.closed {
			continue
		}
		if latest < 0 || window.last > all[latest].last {
			latest = len(all)
		}
		all, rows = append(all, window), rows+window.rows
	}
	for i := range all { // the one that counts comes last, so that it is what is shown
		i = (latest + 1 + i) % len(all)
		window := all[i]
		window.closed = true
		w.closedUntil = max(w.closedUntil, window.end)
		if window.profile == nil {
			continue
		}
		partial := ""
		switch {
		case i != latest:
			partial = "another version answered at the end of the window"
		case float64(window.rows) < (1-partialShare)*float64(rows):
			partial = "the model changed in the window"
		case window.version.windows == 0 && float64(window.first-start) > partialStart*float64(w.span):
			partial = "the version's first answers came in the middle of the window"
		}
		if i == latest {
			w.current = window.version.digest
		}
		v := window.version.judge.Close(ClosedWindow{Start: start, End: window.end, Profile: window.profile, NotFound: window.notFound, Partial: partial})
		w.note(v)
		verdicts = append(verdicts, v)
		window.version.windows++
		window.profile, window.notFound = nil, nil
	}
	return verdicts
}

const (
	partialShare = 0.05 // of a window's rows that another version may have answered
	partialStart = 0.1  // of a window's length that may have passed before the first answer of a version
)

// perform reports what came of a window's answers. A version that has been replaced is reported on, but no longer judged.
func (w *watch) perform(window *openWindow) (Verdict, bool) {
	if window.version.judge == nil {
		return Verdict{}, false
	}
	v := window.version.judge.Perform(LabelledWindow{Start: window.start, End: window.end, Rows: window.awaited, Outcomes: &window.outcomes, Loss: window.loss, Losses: &window.losses})
	if w.current != "" && window.version.digest != w.current {
		v.Retrain, v.Suppressed, v.Events = nil, "", v.Events[len(v.Events)-1:]
	}
	w.note(v)
	return v, true
}

func (w *watch) note(v Verdict) {
	if v.Retrain == nil {
		return
	}
	w.lastRetrain = max(w.lastRetrain, v.Retrain.Until)
}

// forgetVersions drops the versions that no window needs.
func (w *watch) forgetVersions() {
	for digest := range w.versions {
		if digest != w.current && !slices.ContainsFunc(w.windows, func(o *openWindow) bool { return o.version.digest == digest }) {
			delete(w.versions, digest)
		}
	}
}

// lowWater is the first offsets that the watch would need to be where it is.
func (w *watch) lowWater(into lowWater) {
	for _, window := range w.windows {
		into.merge(window.low)
	}
	into.merge(w.early.low())
}

// state is the model's, for showing.
func (w *watch) state() string {
	if v, ok := w.versions[w.current]; ok && v.judge != nil {
		return v.judge.State()
	}
	return StateInsufficient
}

func (w *watch) String() string { return fmt.Sprintf("%s@%s", w.model.Name, w.current) }
