package monitor

import (
	"math"
	"slices"

	"github.com/cespare/xxhash/v2"

	"github.com/millrace/millrace/features/profile"
	"github.com/millrace/millrace/project"
	"github.com/millrace/millrace/schemas"
)

// origin is where a record lies.
type origin struct {
	topic     string
	partition int32
	offset    int64
}

// lowWater is the first offset of each partition that something is made of.
type lowWater map[string]map[int32]int64

func (l lowWater) note(o origin) {
	partitions := l[o.topic]
	if partitions == nil {
		partitions = map[int32]int64{}
		l[o.topic] = partitions
	}
	if first, ok := partitions[o.partition]; !ok || o.offset < first {
		partitions[o.partition] = o.offset
	}
}

func (l lowWater) merge(other lowWater) {
	for topic, partitions := range other {
		for partition, offset := range partitions {
			l.note(origin{topic, partition, offset})
		}
	}
}

// pendingAnswer is an answer that waits for its label.
type pendingAnswer struct {
	score   float64
	classes []schemas.ClassScore // of a model with several
	at      int64
}

// openWindow is what one model version scored between two event times, until its verdict and its performance are published.
type openWindow struct {
	version    *version
	start, end int64

	profile  *profile.Window // nil when the verdict was published by another leader, or there is no baseline
	notFound []int64
	seen     map[uint64]struct{} // hashes of the ids counted
	rows     int64
	first    int64 // event times of the first row, and of the last that the version answered itself
	last     int64
	closed   bool

	pending  map[string][]pendingAnswer // by join key
	awaited  int64
	outcomes profile.Outcomes // of a model that foretells a yes or no
	loss     profile.Loss     // of any other
	losses   profile.Losses
	classes  []string // that a label can be, of a model with several
	low      lowWater
}

func newOpenWindow(v *version, m *project.Model, start, end int64) *openWindow {
	w := &openWindow{
		version: v, start: start, end: end, first: math.MaxInt64, last: never,
		seen: map[uint64]struct{}{}, pending: map[string][]pendingAnswer{}, low: lowWater{}, loss: m.Loss(), classes: m.Label.Classes,
	}
	if v.baseline != nil {
		w.profile, w.notFound = v.baseline.NewWindow(), make([]int64, len(v.baseline.Columns))
	}
	return w
}

// admit reports whether an answer is counted: not when it was counted before, or when there is no room.
func (w *openWindow) admit(id string, limit int) (ok bool, outcome string) {
	hash := xxhash.Sum64String(id)
	if _, again := w.seen[hash]; again {
		return false, outcomeAgain
	}
	if len(w.seen) >= limit {
		return false, outcomeFull
	}
	w.seen[hash] = struct{}{}
	return true, outcomeCounted
}

// count adds an answer to the profile. A refused answer has inputs but no score, and a default's score says nothing of the model.
func (w *openWindow) count(p *schemas.Prediction) {
	w.rows++
	w.first = min(w.first, p.At)
	own := answered(p)
	if own {
		w.last = max(w.last, p.At)
	}
	if w.profile == nil || w.closed {
		return
	}
	w.profile.Add(w.version.rowOf(p.Inputs, w.notFound))
	if own {
		w.profile.AddScore(p.Score)
	}
}

func answered(p *schemas.Prediction) bool {
	return !p.Refused && (p.Rung == schemas.RungPrimary || p.Rung == schemas.RungPrevious)
}

// label gives the answers that wait for it their label, and reports how many there were.
func (w *openWindow) label(key string, truth float64, at, within int64, from origin) (labelled int) {
	waiting, ok := w.pending[key]
	if !ok {
		return 0
	}
	rest := waiting[:0]
	for _, p := range waiting {
		if at < p.at || at-p.at > within {
			rest = append(rest, p)
			continue
		}
		w.judge(p, truth)
		w.low.note(from)
		labelled++
	}
	if len(rest) == 0 {
		delete(w.pending, key)
	} else {
		w.pending[key] = rest
	}
	return labelled
}

// judge adds what came of an answer. An answer that has no score for the class that it was, since its model knows others, is not judged.
func (w *openWindow) judge(p pendingAnswer, truth float64) {
	switch w.loss {
	case "":
		w.outcomes.Add(p.score, truth > 0.5)
	case profile.LogLoss:
		class := w.classes[int(truth)]
		if i := slices.IndexFunc(p.classes, func(c schemas.ClassScore) bool { return c.Class == class }); i >= 0 {
			w.losses.Add(w.loss.Of(p.classes[i].Score, truth))
		}
	default:
		w.losses.Add(w.loss.Of(p.score, truth))
	}
}

// labels is how many answers were judged.
func (w *openWindow) labels() int64 { return w.outcomes.Labels() + w.losses.Rows }

// version is one version of a model with its baseline.
type version struct {
	digest   string
	baseline *profile.Baseline // nil when there is none to judge by
	problem  string            // why not
	judge    *Judge            // nil without baseline
	windows  int               // closed so far

	names  []string // of the inputs as they came last, and the column of each
	column []int
	row    []float64
}

// rowOf puts inputs into the order of the baseline's columns, null where one is missing.
func (v *version) rowOf(inputs []schemas.PredictionInput, notFound []int64) []float64 {
	v.learn(inputs)
	for i := range v.row {
		v.row[i] = math.NaN()
	}
	for i := range inputs {
		column := v.column[i]
		if column < 0 {
			continue
		}
		if value := inputs[i].Value; value != nil {
			v.row[column] = *value
			continue
		}
		if s := inputs[i].Status; s == statusNotFound || s == statusExpired {
			notFound[column]++
		}
	}
	return v.row
}

// The input statuses that say that the entity, not the value, is missing (features.Status).
const (
	statusNotFound = "not_found"
	statusExpired  = "expired"
)

func (v *version) learn(inputs []schemas.PredictionInput) {
	same := len(inputs) == len(v.names)
	for i := 0; same && i < len(inputs); i++ {
		same = inputs[i].Name == v.names[i]
	}
	if same && v.row != nil {
		return
	}
	v.names, v.column, v.row = v.names[:0], v.column[:0], make([]float64, len(v.baseline.Columns))
	for _, in := range inputs {
		v.names, v.column = append(v.names, in.Name), append(v.column, v.baseline.Index(in.Name))
	}
}
