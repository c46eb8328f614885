package schemas

import (
	"encoding/json"
	"math"
)

// Every time in an event is Unix milliseconds, UTC. The Avro field names are the JSON names of the Go fields; avsc/ holds the
// schemas, one file per event, and codec.go binds one to the other.

// The rungs of the fallback ladder that an answer can come from (Prediction.Rung).
const (
	RungPrimary  = "primary"  // the model whose turn it is
	RungChampion = "champion" // the champion in the challenger's place
	RungPrevious = "previous" // the champion before
	RungSimpler  = "simpler"  // the model that was trained beside the champion on the request's own columns
	RungRule     = "rule"
	RungDefault  = "default"
	RungRefused  = "refused"
)

// The arms of a rollout (Prediction.Arm).
const (
	ArmChampion   = "champion"
	ArmChallenger = "challenger"
	ArmShadow     = "shadow"
)

// HeaderUnsampled is the header of a record of predictions whose entity is not of the sample that the model logs. It is on the topic for
// what it is, as a refusal: who counts shares leaves it out.
const HeaderUnsampled = "millrace-unsampled"

// Prediction is one answer of a model, with everything needed to explain it and to compute it again.
type Prediction struct {
	ID       string `json:"id"` // deterministic for stream-scored events: "<model>/<topic>/<partition>/<offset>"
	Model    string `json:"model"`
	Digest   string `json:"digest"`
	Version  int    `json:"version"`
	At       int64  `json:"at"` // the event time that the features are as of
	ScoredAt int64  `json:"scored_at"`
	JoinKey  string `json:"join_key"` // text of the column that labels are joined by
	Entities Texts  `json:"entities"`
	Request  Texts  `json:"request"` // column to text (Value.Text)

	Score   float64 `json:"score"` // never NaN; 0 when refused
	Refused bool    `json:"refused"`

	// Class is the class of highest score of a model with several, Score is its; "" of other models. Classes are all of them.
	Class   string       `json:"class"`
	Classes []ClassScore `json:"classes"`

	Arm    string `json:"arm"`  // whose turn it was; a shadow's are on a topic of their own
	Rung   string `json:"rung"` // one of the rungs above
	Reason string `json:"reason"`

	Inputs        []PredictionInput `json:"inputs"`
	Positions     []ReadPosition    `json:"positions"`
	Reasons       []Contribution    `json:"reasons"`
	ReasonMethod  string            `json:"reason_method"` // saabas, tree_shap or linear; none of a model that gives no reasons
	LatencyMicros int64             `json:"latency_micros"`
	Source        string            `json:"source"` // "topic/partition/offset" or "http"
}

// ClassScore is the score of one class.
type ClassScore struct {
	Class string  `json:"class"`
	Score float64 `json:"score"`
}

// PredictionInput is one input of the model as it was when scored.
type PredictionInput struct {
	Name      string   `json:"name"`
	Value     *float64 `json:"value"`
	Status    string   `json:"status"`     // present, null, not_found, expired, overflow, unavailable or overridden (by the request; Value is null where it said null)
	EventTime int64    `json:"event_time"` // newest event of the entity, 0 when there is none
}

// ReadPosition says how far a group's partition was applied when it was read. What was read is a function of the source's events below
// it, so that it can be computed again from them.
type ReadPosition struct {
	Group     string `json:"group"`
	Version   string `json:"version"` // of the group's definition; with project.RequestMark behind it where the event that asked was merged in
	Partition int32  `json:"partition"`
	Next      int64  `json:"next"`   // offset of the next record to apply
	Newest    int64  `json:"newest"` // newest event time applied

	// Sources says the same in the offsets of the topics that the group's records were re-keyed from. It is empty for a group that reads
	// its source directly: Next is an offset of that source then.
	Sources []SourcePosition `json:"sources"`
}

// SourcePosition is how far the topic of a source was applied to one partition of a group.
type SourcePosition struct {
	Source string  `json:"source"`
	Next   []int64 `json:"next"` // by the topic's partition, the offset after the last record applied; 0 before the first
}

// Contribution is what one input added to the score, in margin space: log odds of a probability, the logarithm of a count. Of a model
// with classes it is the margin of Class.
type Contribution struct {
	Input string  `json:"input"`
	Value float64 `json:"value"`
}

// The kinds of drift event.
const (
	DriftWindowClosed = "window_closed"
	DriftPerformance  = "performance" // how well a closed window was foretold, once its labels have come
	DriftSuspected    = "suspected"
	DriftConfirmed    = "confirmed"
	DriftResolved     = "resolved"
	DriftQuality      = "quality"
)

// Drift is the monitor's verdict on one window of predictions, with its evidence.
type Drift struct {
	ID          string `json:"id"`
	Model       string `json:"model"`
	Digest      string `json:"digest"`
	Kind        string `json:"kind"` // window_closed, performance, suspected, confirmed, resolved or quality
	WindowStart int64  `json:"window_start"`
	WindowEnd   int64  `json:"window_end"`
	Rows        int64  `json:"rows"`
	Labels      int64  `json:"labels"`

	Columns             []ColumnVerdict `json:"columns"`
	PredictionPSI       float64         `json:"prediction_psi"`
	PredictionThreshold float64         `json:"prediction_threshold"`
	AUC                 *float64        `json:"auc"`
	BaselineAUC         *float64        `json:"baseline_auc"`
	CalibrationError    *float64        `json:"calibration_error"`
	LabelCoverage       float64         `json:"label_coverage"`
	State               string          `json:"state"` // ok, suspected, confirmed or insufficient
	Reason              string          `json:"reason"`
	EmittedAt           int64           `json:"emitted_at"`
}

// ColumnVerdict compares one column of a window with the model's baseline.
type ColumnVerdict struct {
	Column            string  `json:"column"`
	Statistic         string  `json:"statistic"` // psi
	Value             float64 `json:"value"`
	Threshold         float64 `json:"threshold"`
	Distance          float64 `json:"distance"` // Jensen-Shannon, base 2
	DistanceThreshold float64 `json:"distance_threshold"`
	NullRate          float64 `json:"null_rate"`
	BaselineNullRate  float64 `json:"baseline_null_rate"`
	State             string  `json:"state"`
	Live              []Bin   `json:"live"`
	Baseline          []Bin   `json:"baseline"`
}

// Bin is the share of values in [Low, High). The outermost bins are unbounded: Low is -Inf, High is +Inf; in JSON, which has no
// infinity, such a bound is null.
type Bin struct {
	Low   float64 `json:"low"`
	High  float64 `json:"high"`
	Share float64 `json:"share"`
}

type binJSON struct {
	Low   *float64 `json:"low"`
	High  *float64 `json:"high"`
	Share float64  `json:"share"`
}

// MarshalJSON writes an unbounded side as null.
func (b Bin) MarshalJSON() ([]byte, error) {
	return json.Marshal(binJSON{Low: finite(b.Low), High: finite(b.High), Share: b.Share})
}

// UnmarshalJSON reads what MarshalJSON writes.
func (b *Bin) UnmarshalJSON(text []byte) error {
	var in binJSON
	if err := json.Unmarshal(text, &in); err != nil {
		return err
	}
	*b = Bin{Low: math.Inf(-1), High: math.Inf(1), Share: in.Share}
	if in.Low != nil {
		b.Low = *in.Low
	}
	if in.High != nil {
		b.High = *in.High
	}
	return nil
}

func finite(f float64) *float64 {
	if math.IsInf(f, 0) || math.IsNaN(f) {
		return nil
	}
	return &f
}

// Retrain asks for a new model.
type Retrain struct {
	ID          string `json:"id"`
	Model       string `json:"model"`
	Digest      string `json:"digest"` // of the model that is to be replaced
	Reason      string `json:"reason"`
	Until       int64  `json:"until"` // event time up to which data may be used; 0 for all
	DriftID     string `json:"drift_id"`
	RequestedAt int64  `json:"requested_at"`
}

// The kinds of model event.
const (
	ModelCandidate  = "candidate"
	ModelPromoted   = "promoted"
	ModelRefused    = "refused"
	ModelRolledBack = "rolled_back"
	ModelWithdrawn  = "withdrawn" // a challenger, by the guard that watched it; Reason says why
)

// ModelEvent says that a model was trained, promoted, refused or rolled back. Serving follows these.
type ModelEvent struct {
	ID        string             `json:"id"`
	Model     string             `json:"model"`
	Kind      string             `json:"kind"` // candidate, promoted, refused, rolled_back or withdrawn
	Version   int                `json:"version"`
	Digest    string             `json:"digest"`
	Previous  string             `json:"previous"` // digest of the champion before
	Reason    string             `json:"reason"`   // when refused: the gate and the number
	Metrics   map[string]float64 `json:"metrics"`
	RetrainID string             `json:"retrain_id"`
	DataFrom  int64              `json:"data_from"`
	DataUntil int64              `json:"data_until"`
	At        int64              `json:"at"`
}
