package monitor

import (
	"fmt"
	"path"
	"sort"
	"strings"
	"time"

	"github.com/millrace/millrace/features/profile"
	"github.com/millrace/millrace/schemas"
)

// Policy says when a difference becomes an alarm.
type Policy struct {
	profile.Sensitivity
	// MinRows is the number of predictions below which a window is insufficient.
	MinRows int64
	// After of the last Of windows must be over for the same signal to be confirmed.
	After, Of int
	// Leave is the share of its threshold that a confirmed signal must stay under, for Of windows in a row, to be resolved.
	Leave float64
	// MinColumns is the number of confirmed columns that make drift of a model. Drift of its scores and loss of performance need no company.
	MinColumns int
	// Cooldown is the event time after a retrain request in which no other is made.
	Cooldown time.Duration
	// Exclude lists columns that are not judged; patterns as of path.Match.
	Exclude []string
}

// DefaultPolicy confirms what two of three windows show. With independent windows that turns the one window in twenty that has
// an innocent column over its threshold into fewer than one false event in a thousand windows, because it must be the same column.
func DefaultPolicy() Policy {
	return Policy{Sensitivity: profile.DefaultSensitivity(), MinRows: 200, After: 2, Of: 3, Leave: 0.75, MinColumns: 1, Cooldown: 72 * time.Hour}
}

// The states of a window, a signal and a model.
const (
	StateOK           = "ok"
	StateSuspected    = "suspected"
	StateConfirmed    = "confirmed"
	StateInsufficient = "insufficient"
)

// The signals that are not columns, as they are named in reasons and in the verdicts of performance events.
const (
	scoreSignal = "prediction"
	aucSignal   = "auc"
)

// ClosedWindow is what was scored between two event times by one model version. It is over: no row will be added.
type ClosedWindow struct {
	Start, End int64 // event time, Unix milliseconds; End is exclusive
	Profile    *profile.Window
	// NotFound counts, per column of the baseline, the nulls whose entity was not found or had expired.
	NotFound []int64
	// Partial says why the window cannot stand for a whole one (the model changed in it); empty when it can.
	Partial string
}

// LabelledWindow is what came of a window's predictions.
type LabelledWindow struct {
	Start, End int64
	Rows       int64 // predictions that a label was waited for
	Outcomes   *profile.Outcomes
	Loss       profile.Loss // of a model that foretells no yes or no, which has Losses instead of Outcomes
	Losses     *profile.Losses
}

// Verdict is what a window led to: events to publish, in order, and a request for a new model, or why there was none.
type Verdict struct {
	Events     []schemas.Drift
	Retrain    *schemas.Retrain
	Suppressed string       // why a confirmed drift asked for no new model; empty otherwise
	Loss       *LossVerdict // of a window whose labels have come, of a model that is judged by its loss
	// Full is the window's own event with the bins of every column, for showing.
	Full schemas.Drift
}

// Judge decides what the windows of one model version mean. It does no I/O and has no clock: the same windows in the same order
// give the same verdicts with the same ids. Not safe for concurrent use.
type Judge struct {
	model, digest string
	baseline      *profile.Baseline
	policy        Policy

	columns     []signal
	quality     []bool // columns whose nulls are over their threshold
	score       signal
	performance signal // loss of AUC, or rise of the mean loss
	measured    string // what performance is of, as it came last
	state       string
	lastRetrain int64 // window end of the last request; 0 for none
}

// NewJudge starts with no window seen. lastRetrain is the window end at which a new model was last asked for, 0 for never: the
// cooldown goes on over a change of the model.
func NewJudge(model, digest string, b *profile.Baseline, p Policy, lastRetrain int64) *Judge {
	return &Judge{
		model: model, digest: digest, baseline: b, policy: p,
		columns: make([]signal, len(b.Columns)), quality: make([]bool, len(b.Columns)),
		state: StateOK, lastRetrain: lastRetrain,
	}
}

// State is what the windows so far say of the model: ok, suspected or confirmed.
func (j *Judge) State() string { return j.state }

// LastRetrain is the window end at which a new model was last asked for, 0 for never.
func (j *Judge) LastRetrain() int64 { return j.lastRetrain }

// Close judges a window's inputs and scores. The window's own event is the last of Verdict.Events, after the transitions it caused.
func (j *Judge) Close(w ClosedWindow) Verdict {
	columns, score := j.baseline.Compare(w.Profile, j.policy.Sensitivity)
	full := j.event(schemas.DriftWindowClosed, w.Start, w.End)
	full.Rows = w.Profile.Rows()
	for i, c := range columns {
		full.Columns = append(full.Columns, j.verdictOf(i, c, w.Profile))
	}
	if score != nil && score.Sufficient {
		full.PredictionPSI, full.PredictionThreshold = score.PSI, score.PSIThreshold
	}
	if reason := j.insufficient(w); reason != "" {
		full.State, full.Reason = StateInsufficient, reason
		for i := range full.Columns {
			full.Columns[i].State = StateInsufficient
		}
		return Verdict{Events: []schemas.Drift{trimmed(full)}, Full: full}
	}
	var events []schemas.Drift
	if q, changed := j.judgeQuality(&full, columns, w); changed {
		events = append(events, q)
	}
	j.pushInputs(&full)
	before := j.move()
	full.State, full.Reason = j.state, j.reason()
	return j.conclude(full, before, events)
}

// Perform judges how well a closed window was foretold.
func (j *Judge) Perform(w LabelledWindow) Verdict {
	if w.Loss != "" {
		return j.performLoss(w)
	}
	full := j.event(schemas.DriftPerformance, w.Start, w.End)
	full.Rows, full.Labels = w.Rows, w.Outcomes.Labels()
	if w.Rows > 0 {
		full.LabelCoverage = float64(full.Labels) / float64(w.Rows)
	}
	if gap, ok := w.Outcomes.CalibrationError(); ok {
		full.CalibrationError = &gap
	}
	auc, ok := w.Outcomes.AUC()
	if ok {
		full.AUC = &auc
	}
	base := j.baseline.Performance
	if base != nil {
		full.BaselineAUC = &base.AUC
	}
	if !ok || base == nil || full.Labels < j.policy.MinValues {
		full.State, full.Reason = StateInsufficient, fmt.Sprintf("%d labels for %d predictions", full.Labels, w.Rows)
		return Verdict{Events: []schemas.Drift{full}, Full: full}
	}
	bar := base.AUCThreshold(w.Outcomes.Positives, w.Outcomes.Negatives, j.policy.Sensitivity)
	loss := schemas.ColumnVerdict{Column: aucSignal, Statistic: "auc_loss", Value: base.AUC - auc, Threshold: base.AUC - bar}
	j.measured = aucSignal
	j.performance.push(loss.Value, loss.Threshold, j.policy)
	loss.State = j.performance.state()
	full.Columns, full.State = []schemas.ColumnVerdict{loss}, loss.State
	full.Reason = fmt.Sprintf("auc %.3f, held out %.3f, a loss of %.3f is allowed", auc, base.AUC, loss.Threshold)
	return j.conclude(full, j.move(), nil)
}

// Restore takes up where another judge of the same version ended, from the events that it published, in their order. Events of
// other models or versions are passed over, but for the requests, of which the model's last counts whatever its version.
func (j *Judge) Restore(events []schemas.Drift, requests []schemas.Retrain) {
	for _, r := range requests {
		if r.Model == j.model {
			j.lastRetrain = max(j.lastRetrain, r.Until)
		}
	}
	for _, e := range events {
		if e.Model != j.model || e.Digest != j.digest || e.State == StateInsufficient {
			continue
		}
		switch e.Kind {
		case schemas.DriftQuality:
			j.restoreQuality(e)
		case schemas.DriftWindowClosed:
			j.pushInputs(&e)
			j.state = j.judged()
		case schemas.DriftPerformance:
			for _, c := range e.Columns {
				j.measured = c.Column
				j.performance.push(c.Value, c.Threshold, j.policy)
			}
			j.state = j.judged()
		}
	}
}

func (j *Judge) insufficient(w ClosedWindow) string {
	switch {
	case w.Partial != "":
		return w.Partial
	case w.Profile.Rows() < j.policy.MinRows:
		return fmt.Sprintf("%d predictions, %d needed", w.Profile.Rows(), j.policy.MinRows)
	}
	return ""
}

// verdictOf puts a comparison into the form of the event. Its state is insufficient, or else filled in by pushInputs.
func (j *Judge) verdictOf(i int, c profile.ColumnResult, w *profile.Window) schemas.ColumnVerdict {
	v := schemas.ColumnVerdict{
		Column: c.Column, Statistic: "psi",
		Value: c.PSI, Threshold: c.PSIThreshold, Distance: c.JensenShannon, DistanceThreshold: c.JensenShannonThreshold,
		NullRate: c.NullRate, BaselineNullRate: c.BaselineNullRate,
		Live: bins(w.Bins(i)), Baseline: bins(j.baseline.Columns[i].Bins()),
	}
	if !c.Sufficient || j.excluded(c.Column) {
		v.State = StateInsufficient
	}
	return v
}

func (j *Judge) excluded(column string) bool {
	for _, pattern := range j.policy.Exclude {
		if matched, err := path.Match(pattern, column); matched && err == nil {
			return true
		}
	}
	return false
}

// judgeQuality compares null rates. Its event lists all columns in violation, and comes when that list changes.
func (j *Judge) judgeQuality(full *schemas.Drift, columns []profile.ColumnResult, w ClosedWindow) (event schemas.Drift, changed bool) {
	event = j.event(schemas.DriftQuality, w.Start, w.End)
	event.Rows = full.Rows
	var reasons []string
	for i, c := range columns {
		bar := c.NullThreshold
		if j.quality[i] {
			bar = c.BaselineNullRate + j.policy.Leave*(c.NullThreshold-c.BaselineNullRate)
		}
		violated := c.NullRate > bar && !j.excluded(c.Column)
		changed = changed || violated != j.quality[i]
		j.quality[i] = violated
		if !violated {
			continue
		}
		v := full.Columns[i]
		v.State = StateConfirmed
		event.Columns = append(event.Columns, v)
		reasons = append(reasons, fmt.Sprintf("%s is null in %.1f %% of rows (baseline %.1f %%, threshold %.1f %%; entity not found %.1f %%)", c.Column,
			100*c.NullRate, 100*c.BaselineNullRate, 100*c.NullThreshold, 100*notFoundRate(w, i)))
	}
	event.State, event.Reason = StateOK, "nulls are back at their baseline"
	if len(reasons) > 0 {
		event.State, event.Reason = StateConfirmed, strings.Join(reasons, "; ")
	}
	return event, changed
}

func notFoundRate(w ClosedWindow, column int) float64 {
	if column >= len(w.NotFound) || w.Profile.Rows() == 0 {
		return 0
	}
	return float64(w.NotFound[column]) / float64(w.Profile.Rows())
}

func (j *Judge) restoreQuality(e schemas.Drift) {
	clear(j.quality)
	for _, c := range e.Columns {
		if i := j.baseline.Index(c.Column); i >= 0 {
			j.quality[i] = true
		}
	}
}

// pushInputs moves the signals of columns and scores on by one window. A column whose nulls are in violation stands still: what is
// left of a broken input is no evidence that the world has moved.
func (j *Judge) pushInputs(full *schemas.Drift) {
	for i := range full.Columns {
		c := &full.Columns[i]
		at := j.columnOf(i, c.Column)
		if at < 0 || c.State == StateInsufficient || j.quality[at] {
			continue
		}
		j.columns[at].push(c.Value, c.Threshold, j.policy)
		c.State = j.columns[at].state()
	}
	if full.PredictionThreshold > 0 {
		j.score.push(full.PredictionPSI, full.PredictionThreshold, j.policy)
	}
}

// columnOf is the index of a column, which is where it is expected unless an event of another layout is restored.
func (j *Judge) columnOf(expected int, name string) int {
	if expected < len(j.baseline.Columns) && j.baseline.Columns[expected].Name == name {
		return expected
	}
	return j.baseline.Index(name)
}

// judged is the model's state by its signals.
func (j *Judge) judged() string {
	confirmed, suspected := 0, j.score.state() == StateSuspected || j.performance.state() == StateSuspected
	for i := range j.columns {
		switch j.columns[i].state() {
		case StateConfirmed:
			confirmed++
		case StateSuspected:
			suspected = true
		}
	}
	switch {
	case confirmed >= j.policy.MinColumns && confirmed > 0, j.score.confirmed, j.performance.confirmed:
		return StateConfirmed
	case confirmed > 0, suspected:
		return StateSuspected
	}
	return StateOK
}

var transitions = map[string]string{StateOK: schemas.DriftResolved, StateSuspected: schemas.DriftSuspected, StateConfirmed: schemas.DriftConfirmed}

// move brings the model's state up to its signals, and gives the one before.
func (j *Judge) move() (before string) {
	before, j.state = j.state, j.judged()
	return before
}

// conclude adds the transition of the model's state and a request for a new model, and ends with the window's own event.
func (j *Judge) conclude(full schemas.Drift, before string, events []schemas.Drift) Verdict {
	verdict := Verdict{Full: full}
	if j.state != before {
		transition := full
		transition.State, transition.Reason, transition.Kind = j.state, j.reason(), transitions[j.state]
		if before == StateConfirmed {
			transition.Kind = schemas.DriftResolved
		}
		transition.ID = j.id(transition.Kind, full.Kind, full.WindowEnd)
		events = append(events, trimmed(transition))
	}
	if j.state == StateConfirmed {
		verdict.Retrain, verdict.Suppressed = j.request(full)
	}
	verdict.Events = append(events, trimmed(full))
	return verdict
}

// request asks for a new model, once per cooldown for as long as drift stays confirmed.
func (j *Judge) request(full schemas.Drift) (*schemas.Retrain, string) {
	if j.lastRetrain != 0 && full.WindowEnd-j.lastRetrain < j.policy.Cooldown.Milliseconds() {
		return nil, "cooldown"
	}
	j.lastRetrain = full.WindowEnd
	return &schemas.Retrain{
		ID: j.id("retrain", full.Kind, full.WindowEnd), Model: j.model, Digest: j.digest, Reason: j.reason(),
		Until: full.WindowEnd, DriftID: full.ID,
	}, ""
}

// reason names the signals that make the state, the furthest over its threshold first.
func (j *Judge) reason() string {
	type cause struct {
		text  string
		ratio float64
	}
	var causes []cause
	add := func(s *signal, name, statistic string) {
		if state := s.state(); state != StateOK {
			causes = append(causes, cause{fmt.Sprintf("%s %s (%s %.3f, threshold %.3f)", name, state, statistic, s.value, s.threshold), s.value / s.threshold})
		}
	}
	for i := range j.columns {
		add(&j.columns[i], j.baseline.Columns[i].Name, "psi")
	}
	add(&j.score, scoreSignal, "psi")
	worse := "rise"
	if j.measured == aucSignal {
		worse = "loss"
	}
	add(&j.performance, j.measured, worse)
	if len(causes) == 0 {
		return "everything within its threshold"
	}
	sort.SliceStable(causes, func(a, b int) bool { return causes[a].ratio > causes[b].ratio })
	texts := make([]string, 0, maxCauses+1)
	for i, c := range causes {
		if i == maxCauses {
			texts = append(texts, fmt.Sprintf("and %d more", len(causes)-maxCauses))
			break
		}
		texts = append(texts, c.text)
	}
	return strings.Join(texts, "; ")
}

// maxCauses is the number of signals that a reason names.
const maxCauses = 5

func (j *Judge) event(kind string, start, end int64) schemas.Drift {
	return schemas.Drift{ID: j.id(kind, kind, end), Model: j.model, Digest: j.digest, Kind: kind, WindowStart: start, WindowEnd: end}
}

// id is the same for the same window however often it is judged. A transition also names what caused it, because inputs and
// performance of one window are judged at different times.
func (j *Judge) id(kind, cause string, end int64) string {
	id := eventID(j.model, j.digest, kind, end)
	if cause == schemas.DriftPerformance && kind != cause {
		id += "/" + cause
	}
	return id
}

func eventID(model, digest, kind string, end int64) string {
	return fmt.Sprintf("%s/%s/%s/%s", model, digest, time.UnixMilli(end).UTC().Format(time.RFC3339Nano), kind)
}

// evidenceColumns is the number of columns whose bins an event carries besides those over their threshold.
const evidenceColumns = 5

// trimmed leaves the bins of the columns over their threshold and of those nearest to it: an event is to be small.
func trimmed(e schemas.Drift) schemas.Drift {
	e.Columns = append([]schemas.ColumnVerdict(nil), e.Columns...)
	order := make([]int, len(e.Columns))
	for i := range order {
		order[i] = i
	}
	ratio := func(i int) float64 {
		if e.Columns[i].State == StateInsufficient || e.Columns[i].Threshold == 0 {
			return 0
		}
		return e.Columns[i].Value / e.Columns[i].Threshold
	}
	sort.SliceStable(order, func(a, b int) bool { return ratio(order[a]) > ratio(order[b]) })
	for rank, i := range order {
		c := &e.Columns[i]
		if rank >= evidenceColumns && ratio(i) <= 1 && !(e.Kind == schemas.DriftQuality && rank < maxQualityEvidence) {
			c.Live, c.Baseline = nil, nil
		}
	}
	return e
}

const maxQualityEvidence = 20

func bins(in []profile.Bin) []schemas.Bin {
	out := make([]schemas.Bin, len(in))
	for i, b := range in {
		out[i] = schemas.Bin(b)
	}
	return out
}
