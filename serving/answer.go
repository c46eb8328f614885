package serving

import (
	"encoding/json"
	"math"
	"strconv"
	"time"

	"github.com/millrace/millrace/schemas"
)

func milli(ms int64) time.Time { return time.UnixMilli(ms).UTC() }

// asked is where a row came from.
type asked struct {
	id     string
	source string // "http" or "topic/partition/offset"
	start  time.Time
	now    time.Time // when it was scored
}

// compose makes the prediction of a row: what is answered, logged and can be explained later.
func (d *deployment) compose(a asked, q question, in *filled, v *verdict, line *lineUp) *schemas.Prediction {
	p := &schemas.Prediction{
		ID: a.id, Model: d.model.Name, At: q.at, ScoredAt: a.now.UnixMilli(), JoinKey: d.plan.labelKey(q.row),
		Entities: d.plan.entities(q.row), Request: d.plan.request(q.row),
		Refused: v.refused(), Arm: v.arm, Rung: v.rung, Reason: v.text(),
		Inputs: in.plan.describe(in), Positions: in.positions, Reasons: v.reasons, ReasonMethod: v.method,
		LatencyMicros: a.now.Sub(a.start).Microseconds(), Source: a.source,
	}
	if !v.refused() {
		p.Score, p.Class, p.Classes = v.score, v.class, v.classes
	}
	who := v.scorer
	if who == nil { // the default's and nobody's answers are the champion's to be judged by
		who = line.champion
	}
	if who != nil {
		p.Digest, p.Version = who.digest, who.version
		who.recodeShown(p.Inputs, in)
	}
	return p
}

// describe gives the inputs as the prediction keeps them.
func (p *plan) describe(in *filled) []schemas.PredictionInput {
	inputs := make([]schemas.PredictionInput, len(p.inputs))
	values := append([]float64(nil), in.values...)
	for i, planned := range p.inputs {
		inputs[i] = schemas.PredictionInput{Name: planned.name, Status: in.status[i].String()}
		if !in.status[i].missing() {
			inputs[i].Value = &values[i]
		}
		if planned.group >= 0 && in.status[i] != overridden && in.status[i] != withheld {
			inputs[i].EventTime = in.eventTime[planned.group]
		}
	}
	return inputs
}

// appendPrediction writes one prediction of an answer. It is written by hand because encoding/json by reflection costs more than the
// rest of a request.
func appendPrediction(b []byte, p *schemas.Prediction) []byte {
	b = appendText(append(b, `{"id":`...), p.ID)
	b = append(b, `,"score":`...)
	if p.Refused {
		b = append(b, "null"...)
	} else {
		b = appendNumber(b, p.Score)
	}
	b = appendClasses(b, p)
	b = appendText(append(b, `,"model":`...), p.Model)
	b = strconv.AppendInt(append(b, `,"version":`...), int64(p.Version), 10)
	b = appendText(append(b, `,"digest":`...), p.Digest)
	b = appendText(append(b, `,"arm":`...), p.Arm)
	b = appendText(append(b, `,"rung":`...), p.Rung)
	b = appendText(append(b, `,"reason":`...), p.Reason)
	b = appendText(append(b, `,"join_key":`...), p.JoinKey)
	b = append(b, `,"features":[`...)
	var last written
	for i := range p.Inputs {
		b = appendInput(comma(b, i), &p.Inputs[i], &last)
	}
	b = append(b, `],"reasons":[`...)
	for i, r := range p.Reasons {
		b = appendText(append(comma(b, i), `{"input":`...), r.Input)
		b = appendNumber(append(b, `,"contribution":`...), r.Value)
		b = append(b, '}')
	}
	b = appendText(append(b, `],"reason_method":`...), p.ReasonMethod)
	b = appendTime(append(b, `,"at":`...), p.At)
	b = appendTime(append(b, `,"scored_at":`...), p.ScoredAt)
	b = appendText(append(b, `,"source":`...), p.Source)
	b = strconv.AppendInt(append(b, `,"latency_us":`...), p.LatencyMicros, 10)
	return append(b, '}')
}

// written is where the text of a time stands in an answer: inputs of a group have the same.
type written struct {
	ms       int64
	from, to int
}

func appendInput(b []byte, in *schemas.PredictionInput, last *written) []byte {
	b = appendText(append(b, `{"name":`...), in.Name)
	b = append(b, `,"value":`...)
	if in.Value == nil {
		b = append(b, "null"...)
	} else {
		b = appendNumber(b, *in.Value)
	}
	b = appendText(append(b, `,"status":`...), in.Status)
	b = append(b, `,"event_time":`...)
	switch in.EventTime {
	case 0:
		b = append(b, "null"...)
	case last.ms:
		b = append(b, b[last.from:last.to]...)
	default:
		from := len(b)
		b = appendTime(b, in.EventTime)
		*last = written{in.EventTime, from, len(b)}
	}
	return append(b, '}')
}

func appendPredictions(b []byte, predictions []*schemas.Prediction) []byte {
	b = append(b, '[')
	for i, p := range predictions {
		b = appendPrediction(comma(b, i), p)
	}
	return append(b, ']')
}

func comma(b []byte, i int) []byte {
	if i == 0 {
		return b
	}
	return append(b, ',')
}

// appendNumber writes what JSON cannot say as null.
func appendNumber(b []byte, f float64) []byte {
	if math.IsNaN(f) || math.IsInf(f, 0) {
		return append(b, "null"...)
	}
	return schemas.AppendFloat(b, f)
}

func appendTime(b []byte, ms int64) []byte {
	b = append(b, '"')
	b = milli(ms).AppendFormat(b, time.RFC3339Nano) // with as many digits as a millisecond needs
	return append(b, '"')
}

func appendText(b []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c >= 0x7f || c == '"' || c == '\\' {
			quoted, err := json.Marshal(s)
			if err != nil { // of a string it cannot fail
				return append(b, `""`...)
			}
			return append(b, quoted...)
		}
	}
	b = append(b, '"')
	b = append(b, s...)
	return append(b, '"')
}
