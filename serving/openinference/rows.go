package openinference

import (
	"encoding/json"
	"math"
	"slices"
	"strings"

	"github.com/millrace/millrace/serving"
)

// inputsName is the tensor of a model's inputs, given whole.
const inputsName = "inputs"

// matrix is the rows of the model's own inputs when the request gives them; nil when it gives columns.
func matrix(m *serving.Model, tensors []*tensor) ([][]float64, *serving.Problem) {
	if len(tensors) != 1 || tensors[0].name != inputsName || m.Source.Schema.Index(inputsName) >= 0 {
		return nil, nil
	}
	t := tensors[0]
	if len(t.shape) != 2 || t.kind == texts {
		return nil, invalid(t.name, "must be of numbers, of shape [rows, %d]", len(m.Inputs))
	}
	rows, width := make([][]float64, t.rows()), t.width()
	values := make([]float64, t.elements())
	for i := range values {
		values[i], _ = t.number(i)
		if math.IsInf(values[i], 0) {
			return nil, unsayable(t.name)
		}
	}
	for i := range rows {
		rows[i] = values[i*width : (i+1)*width]
	}
	return rows, nil
}

// field is a column's tensor, or the record of that name with the fields in it.
type field struct {
	name   string
	tensor *tensor
	fields []*field
}

// overridePrefix is what the tensor of an input begins with that else would be fetched. A column of that name has it first.
const overridePrefix = "override."

// pathOf is where a tensor's values stand in a row.
func pathOf(m *serving.Model, tensor string) []string {
	input, ok := strings.CutPrefix(tensor, overridePrefix)
	if _, column := m.Source.Schema.Column(tensor); ok && !column {
		return []string{"overrides", input}
	}
	return strings.Split(tensor, ".")
}

// body is the rows as POST /v1/models/{model}:score takes them, one for each element of the columns' tensors.
func body(m *serving.Model, tensors []*tensor) ([]byte, *serving.Problem) {
	if len(tensors) == 0 {
		return nil, invalid("inputs", "there is no tensor")
	}
	var root field
	n := tensors[0].rows()
	for _, t := range tensors {
		if t.width() != 1 {
			return nil, invalid(t.name, "the tensor of a column has shape [rows] or [rows, 1]")
		}
		if t.rows() != n {
			return nil, invalid(t.name, "%d rows, where %s has %d", t.rows(), tensors[0].name, n)
		}
		if !root.put(pathOf(m, t.name), t) {
			return nil, invalid(t.name, "the tensor is there twice")
		}
	}
	b := append(make([]byte, 0, 16+n*32*len(tensors)), `{"rows":[`...)
	for i := range n {
		if i > 0 {
			b = append(b, ',')
		}
		var p *serving.Problem
		if b, p = root.appendRow(b, i); p != nil {
			return nil, p
		}
	}
	return append(b, `]}`...), nil
}

// put places a tensor by its path; not when one is there.
func (f *field) put(path []string, t *tensor) bool {
	i := slices.IndexFunc(f.fields, func(below *field) bool { return below.name == path[0] })
	if i < 0 {
		i = len(f.fields)
		f.fields = append(f.fields, &field{name: path[0]})
	} else if len(path) == 1 || f.fields[i].tensor != nil {
		return false
	}
	if len(path) == 1 {
		f.fields[i].tensor = t
		return true
	}
	return f.fields[i].put(path[1:], t)
}

func (f *field) appendRow(b []byte, row int) ([]byte, *serving.Problem) {
	b = append(b, '{')
	for i, below := range f.fields {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(appendText(b, below.name), ':')
		if below.tensor == nil {
			var p *serving.Problem
			if b, p = below.appendRow(b, row); p != nil {
				return nil, p
			}
			continue
		}
		var ok bool
		if b, ok = below.tensor.appendJSON(b, row); !ok {
			return nil, unsayable(below.tensor.name)
		}
	}
	return append(b, '}'), nil
}

// appendText writes a text as encoding/json does; most need no more than quotes.
func appendText(b []byte, s string) []byte {
	if strings.IndexFunc(s, escaped) < 0 {
		return append(append(append(b, '"'), s...), '"')
	}
	quoted, err := json.Marshal(s)
	if err != nil { // of a string it cannot fail
		return append(b, `""`...)
	}
	return append(b, quoted...)
}

// escaped reports whether encoding/json may write a character as another.
func escaped(c rune) bool {
	return c < ' ' || c >= 0x7f || c == '"' || c == '\\' || c == '<' || c == '>' || c == '&'
}
