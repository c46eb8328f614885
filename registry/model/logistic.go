package model

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"math"

	"github.com/millrace/millrace/internal/failure"
)

// LogisticInput is one input of a Logistic model. A present value adds Weight*(x-Mean)/Scale to the margin, a missing
// one (NaN or infinite) adds Missing: it is imputed with the mean, and the fact that it is missing has a weight.
type LogisticInput struct {
	Name    string  `json:"name"`
	Weight  float64 `json:"weight"`
	Mean    float64 `json:"mean"`
	Scale   float64 `json:"scale"` // above 0
	Missing float64 `json:"missing"`
}

// Logistic is a logistic regression over standardized inputs.
type Logistic struct {
	intercept float64
	inputs    []LogisticInput
	names     []string
}

// logisticFile is the JSON text of a Logistic.
type logisticFile struct {
	Format    string          `json:"format"`
	Intercept float64         `json:"intercept"`
	Inputs    []LogisticInput `json:"inputs"`
}

const logisticFormat = "millrace-logistic/1"

// NewLogistic makes a model; it keeps inputs. Its errors are of kind Corrupt.
func NewLogistic(intercept float64, inputs []LogisticInput) (*Logistic, error) {
	m := &Logistic{intercept: intercept, inputs: inputs}
	for _, in := range inputs {
		m.names = append(m.names, in.Name)
	}
	if err := m.check(); err != nil {
		return nil, failure.Wrap(failure.Corrupt, "", "checking logistic model", err)
	}
	return m, nil
}

func (m *Logistic) check() error {
	if err := checkNames(m.names); err != nil {
		return err
	}
	if !finite(m.intercept) {
		return fmt.Errorf("intercept is %v", m.intercept)
	}
	for _, in := range m.inputs {
		if !finite(in.Weight) || !finite(in.Mean) || !finite(in.Scale) || !finite(in.Missing) || in.Scale <= 0 {
			return fmt.Errorf("input %q has a number that is not finite, or a scale that is not above 0", in.Name)
		}
	}
	return nil
}

// LoadLogistic reads what JSON wrote. An unknown field is an error. Its errors are of kind Corrupt, or Refused for
// another format.
func LoadLogistic(b []byte) (*Logistic, error) {
	var file logisticFile
	if err := decodeStrict(b, &file); err != nil {
		return nil, failure.Wrap(failure.Corrupt, "", "reading logistic model", err)
	}
	if file.Format != logisticFormat {
		return nil, failure.New(failure.Refused, "format", "%q is not %q", file.Format, logisticFormat)
	}
	return NewLogistic(file.Intercept, file.Inputs)
}

// JSON is the model's text: the same for equal models.
func (m *Logistic) JSON() []byte {
	b, err := json.MarshalIndent(logisticFile{logisticFormat, m.intercept, m.inputs}, "", " ")
	if err != nil {
		panic(err) // numbers are finite and names are strings: checked when made
	}
	return append(b, '\n')
}

// Inputs names the columns of a row.
func (m *Logistic) Inputs() []string { return m.names }

// Kind is "logistic".
func (m *Logistic) Kind() string { return "logistic" }

// Task is binary.
func (m *Logistic) Task() Task { return TaskBinary }

// Outputs is the one score.
func (m *Logistic) Outputs() []string { return oneOutput }

// Predict is the probability.
func (m *Logistic) Predict(row []float64) float64 { return 1 / (1 + math.Exp(-m.Margin(row))) }

// PredictInto writes the probability.
func (m *Logistic) PredictInto(row, out []float64) { out[0] = m.Predict(row) }

// PredictRows writes the probability of each row.
func (m *Logistic) PredictRows(rows [][]float64, out []float64) {
	for i, row := range rows {
		out[i] = m.Predict(row)
	}
}

// Margin is the log odds.
func (m *Logistic) Margin(row []float64) float64 {
	sum := m.intercept
	for i := range m.inputs {
		sum += m.inputs[i].term(row[i])
	}
	return sum
}

// Margins writes the log odds.
func (m *Logistic) Margins(row, out []float64) { out[0] = m.Margin(row) }

// Methods is Linear.
func (m *Logistic) Methods() []string { return []string{Linear} }

// Explain gives each input its term. The bias is the intercept: the margin of a row with every input at its mean.
func (m *Logistic) Explain(row []float64, _ int, _ string, out []float64) (bias float64, used string) {
	for i := range m.inputs {
		out[i] = m.inputs[i].term(row[i])
	}
	return m.intercept, Linear
}

// PredictExplained writes the probability and each input's term.
func (m *Logistic) PredictExplained(row, out, contributions []float64) (output int, method string) {
	m.PredictInto(row, out)
	_, method = m.Explain(row, 0, Linear, contributions)
	return 0, method
}

func (in *LogisticInput) term(x float64) float64 {
	if !finite(x) {
		return in.Missing
	}
	return in.Weight * (x - in.Mean) / in.Scale
}

// decodeStrict reads exactly one JSON value with no field that into does not know.
func decodeStrict(b []byte, into any) error {
	if len(b) > MaxBytes {
		return fmt.Errorf("%d bytes, above the limit of %d", len(b), MaxBytes)
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		return err
	}
	if _, err := d.Token(); err != io.EOF {
		return fmt.Errorf("bytes after the end at offset %d", d.InputOffset())
	}
	return nil
}
