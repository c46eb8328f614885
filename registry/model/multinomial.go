package model

import (
	"encoding/json"
	"fmt"
	"slices"

	"github.com/millrace/millrace/internal/failure"
)

// MultinomialClass is one class of a Multinomial model: its margin is that of a Logistic with this intercept and these inputs.
type MultinomialClass struct {
	Class     string          `json:"class"`
	Intercept float64         `json:"intercept"`
	Inputs    []LogisticInput `json:"inputs"` // the same names in the same order for each class
}

// Multinomial is a multinomial logistic regression: a margin for each class, of which the probabilities are the softmax.
type Multinomial struct {
	classes []string
	margins []*Logistic // by class
}

// multinomialFile is the JSON text of a Multinomial.
type multinomialFile struct {
	Format  string             `json:"format"`
	Classes []MultinomialClass `json:"classes"`
}

const multinomialFormat = "millrace-multinomial/1"

// NewMultinomial makes a model; it keeps the inputs. Its errors are of kind Corrupt.
func NewMultinomial(classes []MultinomialClass) (*Multinomial, error) {
	if len(classes) < 2 || len(classes) > MaxOutputs {
		return nil, corrupt("classes", "are %d, not 2 to %d", len(classes), MaxOutputs)
	}
	m := &Multinomial{}
	for _, c := range classes {
		margin, err := NewLogistic(c.Intercept, c.Inputs)
		if err != nil {
			return nil, fmt.Errorf("class %q: %w", clip(c.Class), err)
		}
		if c.Class == "" || slices.Contains(m.classes, c.Class) {
			return nil, corrupt("classes", "%q is empty, or there twice", clip(c.Class))
		}
		if len(m.margins) > 0 && !slices.Equal(margin.names, m.margins[0].names) {
			return nil, corrupt("classes", "%q has other inputs than %q", clip(c.Class), clip(m.classes[0]))
		}
		m.classes, m.margins = append(m.classes, c.Class), append(m.margins, margin)
	}
	return m, nil
}

// LoadMultinomial reads what JSON wrote. An unknown field is an error. Its errors are of kind Corrupt, or Refused for another format.
func LoadMultinomial(b []byte) (*Multinomial, error) {
	var file multinomialFile
	if err := decodeStrict(b, &file); err != nil {
		return nil, failure.Wrap(failure.Corrupt, "", "reading multinomial model", err)
	}
	if file.Format != multinomialFormat {
		return nil, failure.New(failure.Refused, "format", "%q is not %q", clip(file.Format), multinomialFormat)
	}
	return NewMultinomial(file.Classes)
}

// JSON is the model's text: the same for equal models.
func (m *Multinomial) JSON() []byte {
	file := multinomialFile{Format: multinomialFormat}
	for i, class := range m.classes {
		file.Classes = append(file.Classes, MultinomialClass{class, m.margins[i].intercept, m.margins[i].inputs})
	}
	b, err := json.MarshalIndent(file, "", " ")
	if err != nil {
		panic(err) // numbers are finite and names are strings: checked when made
	}
	return append(b, '\n')
}

// Inputs names the columns of a row.
func (m *Multinomial) Inputs() []string { return m.margins[0].names }

// Kind is "multinomial".
func (m *Multinomial) Kind() string { return "multinomial" }

// Task is multiclass.
func (m *Multinomial) Task() Task { return TaskMulticlass }

// Outputs names the classes.
func (m *Multinomial) Outputs() []string { return m.classes }

// Predict is the highest probability of a class.
func (m *Multinomial) Predict(row []float64) float64 {
	out := make([]float64, len(m.classes))
	m.PredictInto(row, out)
	return slices.Max(out)
}

// PredictInto writes the probability of each class.
func (m *Multinomial) PredictInto(row, out []float64) {
	m.Margins(row, out)
	toShares(out[:len(m.classes)])
}

// PredictRows writes the probabilities of each row.
func (m *Multinomial) PredictRows(rows [][]float64, out []float64) {
	for i, row := range rows {
		m.PredictInto(row, out[i*len(m.classes):(i+1)*len(m.classes)])
	}
}

// Margins writes the margin of each class: the logarithm of its probability, but for a number that all have in common.
func (m *Multinomial) Margins(row, out []float64) {
	for i, margin := range m.margins {
		out[i] = margin.Margin(row)
	}
}

// Methods is Linear.
func (m *Multinomial) Methods() []string { return []string{Linear} }

// Explain gives each input its term in the margin of a class. The bias is the intercept of the class.
func (m *Multinomial) Explain(row []float64, output int, method string, out []float64) (bias float64, used string) {
	return m.margins[output].Explain(row, 0, method, out)
}

// PredictExplained writes the probabilities, and each input's term for the class of the highest.
func (m *Multinomial) PredictExplained(row, out, contributions []float64) (output int, method string) {
	m.PredictInto(row, out)
	output = Highest(out[:len(m.classes)])
	_, method = m.Explain(row, output, Linear, contributions)
	return output, method
}
