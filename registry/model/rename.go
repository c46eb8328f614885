package model

import "github.com/millrace/millrace/internal/failure"

// Rename is m with other names for its inputs, one for each, in order: for a model whose columns were only numbered.
// Refused when it is of a kind that carries its names elsewhere than in Inputs, Corrupt when they are not names.
func Rename(m Model, names []string) (Model, error) {
	f, ok := m.(*Forest)
	if !ok || len(names) != len(m.Inputs()) {
		return nil, failure.New(failure.Refused, "inputs", "a %s of %d inputs cannot be given %d names", m.Kind(), len(m.Inputs()), len(names))
	}
	spec := f.spec
	spec.Inputs = names
	return NewForest(spec)
}
