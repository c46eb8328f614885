package model

import (
	"encoding/json"
	"math"
	"slices"
	"strconv"

	"github.com/millrace/millrace/internal/failure"
	"github.com/millrace/millrace/registry/model/onnx"
)

// Metadata properties of an ONNX file (metadata_props) that say what the format has no place for; onnx.NoteScores is another.
const (
	NoteInputs = "millrace.inputs" // names of all columns in order, as a JSON list
	NoteTask   = "millrace.task"   // a Task
)

// ONNXTolerance is Tolerance of an ONNX model: ONNX Runtime computes in float32, by kernels that it picks for the processor.
const ONNXTolerance = 1e-5

// ONNX is a model of an ONNX file, scored by ONNX Runtime. It knows no reasons: Explain says none, by NoReasons. A row is not scored
// (its scores are NaN) when a value is not one that its input's type holds: missing, or a fraction, where that is of whole numbers.
type ONNX struct {
	session *onnx.Session
	names   []string
	unnamed bool // the file numbers its columns, and does not name them
	task    Task
	outputs []string
	pair    bool // scores are of "no" and of "yes"; the second counts
}

// LoadONNX reads an ONNX file. Besides what Load's errors say, it is Refused in a build without the tag onnx.
func LoadONNX(b []byte) (*ONNX, error) {
	if len(b) > MaxBytes {
		return nil, failure.New(failure.Refused, "onnx model", "%d bytes, above the limit of %d", len(b), MaxBytes)
	}
	f, err := onnx.Read(b)
	if err != nil {
		return nil, err
	}
	m := &ONNX{}
	if err := m.nameInputs(f); err != nil {
		return nil, err
	}
	if m.session, err = onnx.Open(f); err != nil { //nolint:staticcheck // always in a build without the tag
		return nil, err
	}
	return m, m.nameOutputs(f)
}

// nameInputs names the columns: as the file's metadata does, else after the inputs that they are of.
func (m *ONNX) nameInputs(f *onnx.File) error {
	for _, in := range f.Inputs {
		if in.Width == 1 {
			m.names = append(m.names, in.Name)
			continue
		}
		m.unnamed = true
		for i := range in.Width {
			m.names = append(m.names, in.Name+"_"+strconv.Itoa(i))
		}
	}
	if note, ok := f.Notes[NoteInputs]; ok {
		var names []string
		if err := json.Unmarshal([]byte(note), &names); err != nil {
			return failure.Wrap(failure.Refused, NoteInputs, "decoding a list of names", err)
		}
		if len(names) != len(m.names) {
			return failure.New(failure.Refused, NoteInputs, "has %d names for %d columns", len(names), len(m.names))
		}
		m.names, m.unnamed = names, false
	}
	if err := checkNames(m.names); err != nil {
		return failure.Wrap(failure.Refused, "onnx inputs", "naming the columns", err)
	}
	return nil
}

// nameOutputs finds out what the scores mean.
func (m *ONNX) nameOutputs(f *onnx.File) error {
	width := m.session.Width()
	m.task, m.outputs = Task(f.Notes[NoteTask]), oneOutput
	switch {
	case m.task == "" && width == 1 && !f.Labels:
		m.task = TaskRegression
	case m.task == "" && width == 2 && f.Labels:
		m.task = TaskBinary
	case m.task == "" && width > 2 && f.Labels:
		m.task = TaskMulticlass
	case m.task == "":
		what := "values"
		if f.Labels {
			what = "beside a label"
		}
		return failure.New(failure.Refused, f.Scores, "nothing says what its %d %s mean", width, what).WithHint("say so in the file's metadata property %s: binary, multiclass, regression, poisson or ranking", NoteTask)
	}
	widths := map[Task][2]int{TaskBinary: {1, 2}, TaskMulticlass: {2, MaxOutputs}, TaskRegression: {1, 1}, TaskPoisson: {1, 1}, TaskRanking: {1, 1}}
	between, known := widths[m.task]
	switch {
	case !known:
		return failure.New(failure.Refused, NoteTask, "%q is no task", m.task).WithHint("it is one of binary, multiclass, regression, poisson and ranking")
	case width < between[0] || width > between[1]:
		return failure.New(failure.Refused, f.Scores, "has %d values a row, which is no %s score", width, m.task)
	case m.task != TaskMulticlass:
		m.pair = width == 2
		return nil
	}
	m.outputs = f.Classes
	if len(f.Classes) != width {
		m.outputs = make([]string, width)
		for i := range m.outputs {
			m.outputs[i] = strconv.Itoa(i)
		}
	}
	return nil
}

// withInputs is m with other names for its columns.
func (m *ONNX) withInputs(names []string) (*ONNX, error) {
	if err := checkNames(names); err != nil {
		return nil, failure.Wrap(failure.Corrupt, "onnx inputs", "naming the columns", err)
	}
	other := *m
	other.names, other.unnamed = names, false
	return &other, nil
}

// withClasses is m with other names for its classes.
func (m *ONNX) withClasses(names []string) (*ONNX, error) {
	if m.task != TaskMulticlass || len(names) != len(m.outputs) {
		return nil, failure.New(failure.Corrupt, "classes", "%d are named for a %s model of %d outputs", len(names), m.task, len(m.outputs))
	}
	other := *m
	other.outputs = names
	return &other, nil
}

// Inputs names the columns of a row.
func (m *ONNX) Inputs() []string { return m.names }

// Kind is "onnx".
func (m *ONNX) Kind() string { return "onnx" }

// Task is what a score means.
func (m *ONNX) Task() Task { return m.task }

// Outputs names the classes, or is "score".
func (m *ONNX) Outputs() []string { return m.outputs }

// Predict is the score, or the highest probability of a class.
func (m *ONNX) Predict(row []float64) float64 {
	if len(m.outputs) > 1 {
		out := make([]float64, len(m.outputs))
		m.PredictInto(row, out)
		return slices.Max(out)
	}
	var out [1]float64
	m.PredictInto(row, out[:])
	return out[0]
}

// PredictInto writes the scores; NaN when the row cannot be scored.
func (m *ONNX) PredictInto(row, out []float64) { m.PredictRows([][]float64{row}, out) }

// PredictRows writes the scores of many rows, by one call of ONNX Runtime for onnx.MaxRows of them.
func (m *ONNX) PredictRows(rows [][]float64, out []float64) {
	scores := out[:len(rows)*len(m.outputs)]
	if m.pair {
		scores = make([]float64, 2*len(rows))
	}
	if err := m.session.Score(rows, scores); err != nil { // a row that has no score
		for i := range scores {
			scores[i] = math.NaN()
		}
	}
	if m.pair {
		for i := range rows {
			out[i] = scores[2*i+1]
		}
	}
}

// Margins writes what the scores are the link of, found from them.
func (m *ONNX) Margins(row, out []float64) {
	m.PredictInto(row, out)
	for i, p := range out[:len(m.outputs)] {
		switch m.task {
		case TaskBinary:
			out[i] = math.Log(p) - math.Log1p(-p)
		case TaskMulticlass, TaskPoisson:
			out[i] = math.Log(p)
		}
	}
}

// Methods is none.
func (m *ONNX) Methods() []string { return nil }

// Explain finds no contributions: the bias is the margin.
func (m *ONNX) Explain(row []float64, output int, _ string, out []float64) (bias float64, used string) {
	clear(out[:len(m.names)])
	margins := make([]float64, len(m.outputs))
	m.Margins(row, margins)
	return margins[output], NoReasons
}

// PredictExplained writes the scores; there are no contributions.
func (m *ONNX) PredictExplained(row, out, contributions []float64) (output int, method string) {
	clear(contributions[:len(m.names)])
	m.PredictInto(row, out)
	return Highest(out[:len(m.outputs)]), NoReasons
}

// probabilities checks that scores that are said to be probabilities could be.
func probabilities(m Model, scores []float64) error {
	if m.Task() != TaskBinary && m.Task() != TaskMulticlass {
		return nil
	}
	for _, p := range scores {
		if !(p >= -ONNXTolerance && p <= 1+ONNXTolerance) {
			return failure.New(failure.Refused, "scores", "%v is no probability, which the scores of a %s model are", p, m.Task()).
				WithHint("export the model with its probabilities, or say in the metadata property %s what the scores are", NoteTask)
		}
	}
	return nil
}
