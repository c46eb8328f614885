package model

import (
	"strconv"

	"github.com/millrace/millrace/internal/failure"
)

// Rename is m with other names for its inputs, one for each, in order: for a model whose columns were only numbered.
// Refused when it is of a kind that carries its names elsewhere than in Inputs, Corrupt when they are not names.
func Rename(m Model, names []string) (Model, error) {
	if len(names) == len(m.Inputs()) {
		switch m := m.(type) {
		case *Forest:
			spec := m.spec
			spec.Inputs = names
			return NewForest(spec)
		case *ONNX:
			return m.withInputs(names)
		}
	}
	return nil, failure.New(failure.Refused, "inputs", "a %s of %d inputs cannot be given %d names", m.Kind(), len(m.Inputs()), len(names))
}

// Numbered reports whether a model's file only numbers its columns: what they are is then for the signature to say.
func Numbered(m Model) bool {
	switch m := m.(type) {
	case *Forest:
		return numbered(m.Inputs(), "Column_") || numbered(m.Inputs(), "f") // LightGBM's, XGBoost's
	case *ONNX:
		return m.unnamed
	}
	return false
}

func numbered(names []string, prefix string) bool {
	for i, name := range names {
		if name != prefix+strconv.Itoa(i) {
			return false
		}
	}
	return true
}
