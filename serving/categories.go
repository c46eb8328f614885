package serving

import (
	"math"
	"slices"

	"github.com/millrace/millrace/internal/failure"
	"github.com/millrace/millrace/registry/model"
	"github.com/millrace/millrace/schemas"
)

// recode matches the categories of a model's inputs by name with those of the plan: for each input, the model's code of each of the plan's, NaN for a
// name that the model does not know; nil for an input of which they are the same, and all nil where none differs. A model that was trained with names
// that the project does not declare any more, or with none where there are some now, is Refused: its codes would mean something else.
func (p *plan) recode(order []int, signature []model.SignatureInput) ([][]float64, error) {
	var codes [][]float64
	for i, in := range signature {
		now := p.inputs[order[i]].categories.Names()
		if slices.Equal(now, in.Categories) {
			continue
		}
		if (now == nil) != (in.Categories == nil) {
			return nil, failure.New(failure.Refused, in.Name, "the model has %d categories of it, the project %d", len(in.Categories), len(now)).
				WithHint("train again, or restore the definition")
		}
		if codes == nil {
			codes = make([][]float64, len(signature))
		}
		codes[i] = make([]float64, len(now))
		for place := range codes[i] {
			codes[i][place] = math.NaN()
		}
		places := make(map[string]int, len(now))
		for place, name := range now {
			places[name] = place
		}
		for code, name := range in.Categories {
			place, ok := places[name]
			if !ok {
				return nil, failure.New(failure.Refused, in.Name, "the model knows the category %q, which the project does not declare", name).
					WithHint("add it to the input's categories, at their end, or train again")
			}
			codes[i][place] = float64(code)
		}
	}
	return codes, nil
}

// statusOf is what is known of one of the model's inputs: a category that the model does not know is null to it.
func (s *scorer) statusOf(input int, in *filled) inputStatus {
	place := s.order[input]
	if s.codes != nil && s.codes[input] != nil && !in.status[place].missing() && math.IsNaN(recoded(s.codes[input], in.values[place])) {
		return null
	}
	return in.status[place]
}

// recodeShown writes the codes that the model took into inputs, which are those of the plan.
func (s *scorer) recodeShown(inputs []schemas.PredictionInput, in *filled) {
	for i, codes := range s.codes {
		shown := &inputs[s.order[i]]
		if codes == nil || shown.Value == nil {
			continue
		}
		if status := s.statusOf(i, in); status.missing() {
			shown.Value, shown.Status = nil, status.String()
			continue
		}
		code := recoded(codes, *shown.Value)
		shown.Value = &code
	}
}

// recoded is a model's own code of one of the plan's.
func recoded(codes []float64, code float64) float64 {
	if code >= 0 && code < float64(len(codes)) {
		return codes[int(code)]
	}
	return math.NaN()
}
