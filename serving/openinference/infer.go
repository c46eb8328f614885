package openinference

import (
	"context"
	"fmt"
	"math"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/millrace/millrace/schemas"
	"github.com/millrace/millrace/serving"
)

// Stage is what the face needs of the serving stage (serving.Stage).
type Stage interface {
	Models(ctx context.Context) []serving.Model
	Model(ctx context.Context, name string) (serving.Model, *serving.Problem)
	Ready() error
	Score(ctx context.Context, c serving.Call, body []byte) ([]*schemas.Prediction, *serving.Problem)
	ScoreInputs(ctx context.Context, c serving.Call, rows [][]float64) ([]*schemas.Prediction, *serving.Problem)
	ReadBody(w http.ResponseWriter, r *http.Request) ([]byte, *serving.Problem)
	Measured(route string, handle http.HandlerFunc) http.HandlerFunc
	Measure(route, status string, took time.Duration)
}

// The codes that are the protocol's own; the others are the stage's.
const (
	codeTensor  = "invalid_tensor"
	codeOutput  = "unknown_output"
	codeVersion = "other_version"
)

func invalid(tensor, format string, args ...any) *serving.Problem {
	return &serving.Problem{Status: http.StatusBadRequest, Code: codeTensor, Field: tensor, Detail: fmt.Sprintf(format, args...)}
}

func unsayable(tensor string) *serving.Problem {
	return invalid(tensor, "an element is infinite, or not UTF-8")
}

// request is an inference request, whatever it came by.
type request struct {
	model   string
	version string // "" for whichever answers
	id      string
	timeout time.Duration // 0: the model's
	inputs  []*tensor
	outputs []string // asked for; nil: all
}

// answer is what came of it.
type answer struct {
	model   string
	version string // "" when rows were answered by several
	outputs []*tensor
}

// infer scores a request.
func infer(ctx context.Context, s Stage, r *request) (*answer, *serving.Problem) {
	m, p := served(ctx, s, r.model, r.version)
	if p != nil {
		return nil, p
	}
	for _, name := range r.outputs {
		if o, ok := outputs[name]; !ok || o.byClass && m.Classes == nil {
			return nil, &serving.Problem{Status: http.StatusBadRequest, Code: codeOutput, Field: "outputs", Detail: "there is no such output; GET /v2/models/{model} lists them"}
		}
	}
	predictions, p := score(ctx, s, r, &m)
	if p != nil {
		return nil, p
	}
	a := &answer{model: m.Name, version: versionOf(predictions)}
	if r.version != "" && a.version != r.version {
		return nil, &serving.Problem{Status: http.StatusConflict, Code: codeVersion, Field: "version", Detail: "another version answered, as the fallback ladder or a swap had it"}
	}
	names := r.outputs
	if names == nil {
		names = outputsOf(&m)
	}
	for _, name := range names {
		o := outputs[name]
		t := &tensor{name: name, datatype: o.datatype, kind: datatypes[o.datatype].kind, shape: []int64{int64(len(predictions))}}
		if o.byClass {
			t.shape = append(t.shape, int64(len(m.Classes)))
		}
		for _, p := range predictions {
			o.add(t, p, m.Classes)
		}
		a.outputs = append(a.outputs, t)
	}
	return a, nil
}

// served is a model, if it is served in that version.
func served(ctx context.Context, s Stage, model, version string) (serving.Model, *serving.Problem) {
	m, p := s.Model(ctx, model)
	if p == nil && version != "" && (m.Version == 0 || strconv.Itoa(m.Version) != version) {
		p = &serving.Problem{Status: http.StatusNotFound, Code: "not_found", Field: "version", Detail: "the version is not the one that is served"}
	}
	return m, p
}

func score(ctx context.Context, s Stage, r *request, m *serving.Model) ([]*schemas.Prediction, *serving.Problem) {
	call := serving.Call{Model: m.Name, Timeout: r.timeout}
	rows, p := matrix(m, r.inputs)
	if p != nil {
		return nil, p
	}
	if rows != nil {
		return s.ScoreInputs(ctx, call, rows)
	}
	b, p := body(m, r.inputs)
	if p != nil {
		return nil, p
	}
	return s.Score(ctx, call, b)
}

func versionOf(predictions []*schemas.Prediction) string {
	for _, p := range predictions[1:] {
		if p.Version != predictions[0].Version {
			return ""
		}
	}
	return strconv.Itoa(predictions[0].Version)
}

// output is one tensor of an answer.
type output struct {
	datatype string
	byClass  bool // has an element for each class of the model in each row; of a model with classes only
	add      func(t *tensor, p *schemas.Prediction, classes []string)
}

// outputNames are those of every model, classOutputs those of a model with classes besides.
var (
	outputNames  = []string{"score", "rung", "reason", "version", "prediction_id"}
	classOutputs = []string{"class", "classes", "class_scores"}
)

func outputsOf(m *serving.Model) []string {
	if m.Classes == nil {
		return outputNames
	}
	return slices.Concat(outputNames, classOutputs)
}

var outputs = map[string]output{
	"score": {datatype: typeFP64, add: func(t *tensor, p *schemas.Prediction, _ []string) {
		if p.Refused {
			t.floats = append(t.floats, math.NaN())
		} else {
			t.floats = append(t.floats, p.Score)
		}
	}},
	"rung":          {datatype: typeBytes, add: func(t *tensor, p *schemas.Prediction, _ []string) { t.texts = append(t.texts, p.Rung) }},
	"reason":        {datatype: typeBytes, add: func(t *tensor, p *schemas.Prediction, _ []string) { t.texts = append(t.texts, p.Reason) }},
	"version":       {datatype: typeInt64, add: func(t *tensor, p *schemas.Prediction, _ []string) { t.ints = append(t.ints, int64(p.Version)) }},
	"prediction_id": {datatype: typeBytes, add: func(t *tensor, p *schemas.Prediction, _ []string) { t.texts = append(t.texts, p.ID) }},
	"class":         {datatype: typeBytes, add: func(t *tensor, p *schemas.Prediction, _ []string) { t.texts = append(t.texts, p.Class) }},
	"classes": {datatype: typeBytes, byClass: true, add: func(t *tensor, _ *schemas.Prediction, classes []string) {
		t.texts = append(t.texts, classes...)
	}},
	"class_scores": {datatype: typeFP64, byClass: true, add: func(t *tensor, p *schemas.Prediction, classes []string) {
		for _, class := range classes { // another model may have answered, or none
			i := slices.IndexFunc(p.Classes, func(s schemas.ClassScore) bool { return s.Class == class })
			if i < 0 {
				t.floats = append(t.floats, math.NaN())
			} else {
				t.floats = append(t.floats, p.Classes[i].Score)
			}
		}
	}},
}
