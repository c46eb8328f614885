package serving

import (
	"math"
	"strconv"

	"github.com/valyala/fastjson"

	"github.com/millrace/millrace/schemas"
)

// givenInput is an input of the model that a row brings along, where there is no Redis to read it from.
type givenInput struct {
	input int     // of the plan
	value float64 // NaN for null: known not to be there
}

// givable are the inputs that rows may bring, by name. One called as a column is that column.
func givable(p *plan) map[string]int {
	inputs := map[string]int{}
	for i, in := range p.inputs {
		if p.model.On.Schema.Index(in.name) < 0 {
			inputs[in.name] = i
		}
	}
	return inputs
}

// takeGiven takes the inputs that a row brings out of it; what is left are columns.
func (r *requestReader) takeGiven(object *fastjson.Object, path string) (given []givenInput, p *problem) {
	if len(r.given) == 0 {
		return nil, nil
	}
	var names []string
	object.Visit(func(key []byte, v *fastjson.Value) {
		input, ok := r.given[string(key)]
		if !ok || p != nil {
			return
		}
		name := string(key)
		for _, g := range given {
			if g.input == input {
				p = badRequest(codeMalformed, within(path, name), "the field is there twice")
				return
			}
		}
		names, given = append(names, name), append(given, givenInput{input, math.NaN()})
		if v.Type() != fastjson.TypeNull {
			given[len(given)-1].value, p = number(within(path, name), v)
		}
	})
	for _, name := range names {
		object.Del(name)
	}
	return given, p
}

// number reads a number to its last bit, which fastjson's own reading does not promise.
func number(field string, v *fastjson.Value) (float64, *problem) {
	if v.Type() != fastjson.TypeNumber {
		return 0, badRequest(codeType, field, "%s where a number, or null, must be", v.Type())
	}
	f, err := strconv.ParseFloat(v.String(), 64)
	if err != nil {
		return 0, badRequest(codeRange, field, "the number is outside the range of 64-bit floats")
	}
	return f, nil
}

// override puts what a row brought in the place of what was, or was not, read.
func (out *filled) override(given []givenInput) {
	for _, g := range given {
		out.set(g.input, schemas.FloatValue(g.value))
	}
}
