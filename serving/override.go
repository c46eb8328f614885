package serving

import (
	"math"
	"strconv"

	"github.com/valyala/fastjson"

	"github.com/millrace/millrace/project"
	"github.com/millrace/millrace/schemas"
)

// override is what a row says that an input is, which else would be fetched.
type override struct {
	input int     // of the plan
	value float64 // NaN: as if it were missing
}

// fetchedInput is an input of a model that comes from a feature group, as a column that a row may give.
type fetchedInput struct {
	input      int // of the plan
	column     schemas.Column
	categories *project.Categories // of a text; nil of a number
}

// fetchedInputs is those of a model, in its order.
func fetchedInputs(m *project.Model) []fetchedInput {
	var fetched []fetchedInput
	for i, in := range m.Inputs {
		if in.Group != nil {
			fetched = append(fetched, fetchedInput{i, schemas.Column{Name: in.Name, Kind: in.Group.Outputs[in.Output].Kind, Nullable: true}, in.Categories})
		}
	}
	return fetched
}

// readOverrides reads {"<input>": <value>, …}; path is where it stands in the body.
func (r *requestReader) readOverrides(path string, v *fastjson.Value) (given []override, p *problem) {
	object, err := v.Object()
	if err != nil {
		return nil, badRequest(codeType, path, "%s where an object must be", v.Type())
	}
	given = make([]override, 0, object.Len())
	object.Visit(func(key []byte, v *fastjson.Value) {
		if p != nil {
			return
		}
		field := within(path, string(key))
		in, ok := r.fetched[string(key)]
		if !ok {
			p = badRequest(codeUnknown, field, "the model has no input of this name that is fetched")
			return
		}
		for _, other := range given {
			if other.input == in.input {
				p = badRequest(codeMalformed, field, "the field is there twice")
				return
			}
		}
		o := override{input: in.input}
		if o.value, p = in.value(field, v); p == nil {
			given = append(given, o)
		}
	})
	return given, p
}

// value is a value of the column's kind as the number that a model is given: of a text its category, NaN where it has none.
func (in fetchedInput) value(field string, v *fastjson.Value) (float64, *problem) {
	c := in.column
	switch t := v.Type(); {
	case t == fastjson.TypeNull:
		return math.NaN(), nil
	case c.Kind == schemas.Bool && t == fastjson.TypeTrue:
		return 1, nil
	case c.Kind == schemas.Bool && t == fastjson.TypeFalse:
		return 0, nil
	case c.Kind == schemas.String && t == fastjson.TypeString:
		text, _ := v.StringBytes()
		if code, ok := in.categories.Value(schemas.StringValue(string(text))).Float(); ok {
			return code, nil
		}
		return math.NaN(), nil
	case c.Kind == schemas.Time && (t == fastjson.TypeString || t == fastjson.TypeNumber):
		ms, p := readAt(field, v)
		return float64(ms), p
	case (c.Kind == schemas.Int || c.Kind == schemas.Float) && t == fastjson.TypeNumber:
		f, err := strconv.ParseFloat(v.String(), 64) // fastjson's own reading may miss the last bit
		switch {
		case err != nil || math.IsInf(f, 0):
			return 0, badRequest(codeRange, field, "the value is outside %s", bounds(c))
		case c.Kind == schemas.Float || f == math.Trunc(f):
			return f, nil
		}
	}
	return 0, badRequest(codeType, field, "the value must be %s", form(c))
}

// override puts what the row says in the place of what was read.
func (out *filled) override(given []override) {
	for _, o := range given {
		out.values[o.input], out.status[o.input] = o.value, overridden
		if math.IsNaN(o.value) {
			out.status[o.input] = withheld
		}
	}
}
