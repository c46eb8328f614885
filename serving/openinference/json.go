package openinference

import (
	"math"
	"slices"
	"strconv"
	"time"

	"github.com/valyala/fastjson"

	"github.com/millrace/millrace/serving"
)

// jsonRequest is the inference request of a REST body.
type jsonRequest struct {
	request
	binary    map[string]bool // by output: whether it is asked for in binary
	allBinary bool            // those of which nothing is said
}

// pooledText is the longest request whose parsed tree is kept for the next: a tree may take fifty times as much as its text.
const pooledText = 16 << 10

// parseRequest reads an inference request. Tensors that say how many bytes they have in raw take those, in order. Members that the
// protocol does not have are passed over, as extensions add them.
func parseRequest(parsers *fastjson.ParserPool, text, raw []byte) (*jsonRequest, *serving.Problem) {
	parser := &fastjson.Parser{}
	if len(text) <= pooledText { // a larger request's memory is not kept
		parser = parsers.Get()
		defer parsers.Put(parser) // what the request says is copied out of it
	}
	tree, err := parser.ParseBytes(text)
	if err == nil {
		err = fastjson.ValidateBytes(text) // the parser alone lets control characters, NaN and 01 pass
	}
	if err != nil {
		return nil, &serving.Problem{Status: 400, Code: "malformed", Detail: "the body is not JSON"}
	}
	if tree.Type() != fastjson.TypeObject {
		return nil, wrongType("", "an object")
	}
	r := &jsonRequest{binary: map[string]bool{}}
	if id := tree.Get("id"); id != nil {
		var ok bool
		if r.id, ok = textOf(id); !ok {
			return nil, wrongType("id", "text")
		}
	}
	if p := r.parameters(tree.Get("parameters")); p != nil {
		return nil, p
	}
	inputs, ok := arrayOf(tree.Get("inputs"))
	if !ok {
		return nil, wrongType("inputs", "an array of tensors")
	}
	for i, in := range inputs {
		t, rest, p := parseInput(in, "inputs["+strconv.Itoa(i)+"]", raw)
		if p != nil {
			return nil, p
		}
		r.inputs, raw = append(r.inputs, t), rest
	}
	if len(raw) > 0 {
		return nil, invalid("inputs", "%d bytes of binary data belong to no tensor", len(raw))
	}
	return r, r.parseOutputs(tree.Get("outputs"))
}

func wrongType(field, must string) *serving.Problem {
	return &serving.Problem{Status: 400, Code: "wrong_type", Field: field, Detail: "must be " + must}
}

// textOf and arrayOf take what may be absent, which fastjson's own methods do not.
func textOf(v *fastjson.Value) (string, bool) {
	if v == nil || v.Type() != fastjson.TypeString {
		return "", false
	}
	return string(v.GetStringBytes()), true
}

func arrayOf(v *fastjson.Value) ([]*fastjson.Value, bool) {
	if v == nil || v.Type() != fastjson.TypeArray {
		return nil, false
	}
	return v.GetArray(), true
}

// parameters reads those of the request: "timeout" in microseconds, as Triton's clients send it, and "binary_data_output". Others say
// nothing here.
func (r *jsonRequest) parameters(v *fastjson.Value) *serving.Problem {
	if v == nil {
		return nil
	}
	if v.Type() != fastjson.TypeObject {
		return wrongType("parameters", "an object")
	}
	if t := v.Get("timeout"); t != nil {
		micros, err := t.Int64()
		if err != nil || micros < 0 || micros > math.MaxInt64/int64(time.Microsecond) {
			return wrongType("parameters.timeout", "a number of microseconds")
		}
		r.timeout = time.Duration(micros) * time.Microsecond
	}
	return boolean(v.Get("binary_data_output"), "parameters.binary_data_output", &r.allBinary)
}

func boolean(v *fastjson.Value, field string, into *bool) *serving.Problem {
	if v == nil {
		return nil
	}
	b, err := v.Bool()
	if err != nil {
		return wrongType(field, "true or false")
	}
	*into = b
	return nil
}

func (r *jsonRequest) parseOutputs(v *fastjson.Value) *serving.Problem {
	if v == nil {
		return nil
	}
	list, ok := arrayOf(v)
	if !ok {
		return wrongType("outputs", "an array")
	}
	for i, out := range list {
		path := "outputs[" + strconv.Itoa(i) + "]"
		if out.Type() != fastjson.TypeObject {
			return wrongType(path, "an object")
		}
		name, ok := textOf(out.Get("name"))
		if !ok {
			return wrongType(path+".name", "text")
		}
		parameters := out.Get("parameters")
		if parameters != nil && parameters.Type() != fastjson.TypeObject {
			return wrongType(path+".parameters", "an object")
		}
		if parameters.Get("classification") != nil {
			return &serving.Problem{Status: 400, Code: codeOutput, Field: path, Detail: "the classification extension is not supported"}
		}
		binary := r.allBinary
		if p := boolean(parameters.Get("binary_data"), path+".parameters.binary_data", &binary); p != nil {
			return p
		}
		r.outputs = append(r.outputs, name)
		r.binary[name] = binary
	}
	return nil
}

// parseInput reads one tensor, and gives what is left of the binary data.
func parseInput(v *fastjson.Value, path string, raw []byte) (*tensor, []byte, *serving.Problem) {
	if v.Type() != fastjson.TypeObject {
		return nil, nil, wrongType(path, "an object")
	}
	name, ok := textOf(v.Get("name"))
	if !ok {
		return nil, nil, wrongType(path+".name", "text")
	}
	typ, ok := textOf(v.Get("datatype"))
	if !ok {
		return nil, nil, wrongType(path+".datatype", "text")
	}
	dimensions, ok := arrayOf(v.Get("shape"))
	if !ok {
		return nil, nil, wrongType(path+".shape", "an array of integers")
	}
	shape := make([]int64, len(dimensions))
	for i, d := range dimensions {
		var err error
		if shape[i], err = d.Int64(); err != nil {
			return nil, nil, wrongType(path+".shape", "an array of integers")
		}
	}
	t, p := newTensor(name, typ, shape)
	if p != nil {
		return nil, nil, p
	}
	parameters := v.Get("parameters")
	if parameters != nil && parameters.Type() != fastjson.TypeObject {
		return nil, nil, wrongType(path+".parameters", "an object")
	}
	size := parameters.Get("binary_data_size")
	if size == nil {
		return t, raw, t.fromJSON(v.Get("data"))
	}
	n, err := size.Int64()
	if err != nil || n < 0 || n > int64(len(raw)) {
		return nil, nil, invalid(t.name, "binary_data_size is no number of bytes that are there")
	}
	if v.Get("data") != nil {
		return nil, nil, invalid(t.name, "there is data beside binary_data_size")
	}
	return t, raw[n:], t.fromRaw(raw[:n])
}

// fromJSON fills a tensor from its data: elements in row-major order, in arrays as the shape has them or in one.
func (t *tensor) fromJSON(v *fastjson.Value) *serving.Problem {
	if v == nil {
		return invalid(t.name, "there is no data")
	}
	if v.Type() != fastjson.TypeArray {
		return invalid(t.name, "the data must be an array")
	}
	if p := t.flatten(v, 0); p != nil {
		return p
	}
	return t.full()
}

func (t *tensor) flatten(v *fastjson.Value, depth int) *serving.Problem {
	if v.Type() != fastjson.TypeArray { // Array would make the text of an error for every element
		return t.element(v)
	}
	list := v.GetArray()
	if depth >= len(t.shape) {
		return invalid(t.name, "the data has more dimensions than the shape")
	}
	if t.kind == floats {
		t.floats = slices.Grow(t.floats, len(list))
	}
	for _, below := range list {
		if p := t.flatten(below, depth+1); p != nil {
			return p
		}
	}
	return nil
}

func (t *tensor) element(v *fastjson.Value) *serving.Problem {
	if v.Type() == fastjson.TypeNull {
		t.missing = append(t.missing, make([]bool, t.held()+1-len(t.missing))...)
		t.missing[t.held()] = true
		t.grow()
		return nil
	}
	var err error
	switch t.kind {
	case bools:
		var b bool
		if b, err = v.Bool(); b {
			t.ints = append(t.ints, 1)
		} else {
			t.ints = append(t.ints, 0)
		}
	case floats:
		var f float64
		if f, err = v.Float64(); err == nil && datatypes[t.datatype].size == 4 {
			f = float64(float32(f))
		}
		t.floats = append(t.floats, f)
	case texts:
		var b []byte
		b, err = v.StringBytes()
		t.texts = append(t.texts, string(b))
	default:
		var i int64
		i, err = t.integer(v)
		t.ints = append(t.ints, i)
	}
	if err != nil {
		return invalid(t.name, "an element is no %s", t.datatype)
	}
	if t.missing != nil {
		t.missing = append(t.missing, false)
	}
	return nil
}

// grow adds an element that is missing.
func (t *tensor) grow() {
	switch t.kind {
	case floats:
		t.floats = append(t.floats, math.NaN())
	case texts:
		t.texts = append(t.texts, "")
	default:
		t.ints = append(t.ints, 0)
	}
}

// integer is an element that must fit the datatype.
func (t *tensor) integer(v *fastjson.Value) (int64, error) {
	text, bits := v.String(), 8*datatypes[t.datatype].size
	if t.kind == uints {
		u, err := strconv.ParseUint(text, 10, bits)
		return int64(u), err
	}
	return strconv.ParseInt(text, 10, bits)
}

// appendAnswer writes an answer: its JSON, and the raw contents of the outputs that are asked for in binary. header is the length of the
// JSON when there are such, 0 when it is all.
func (r *jsonRequest) appendAnswer(a *answer) (body []byte, header int) {
	b := appendText([]byte(`{"model_name":`), a.model)
	if a.version != "" {
		b = appendText(append(b, `,"model_version":`...), a.version)
	}
	if r.id != "" {
		b = appendText(append(b, `,"id":`...), r.id)
	}
	b = append(b, `,"outputs":[`...)
	var raw []byte
	some := false
	for i, t := range a.outputs {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendText(append(b, `{"name":`...), t.name)
		b = appendText(append(b, `,"datatype":`...), t.datatype)
		b = strconv.AppendInt(append(b, `,"shape":[`...), t.shape[0], 10)
		for _, n := range t.shape[1:] {
			b = strconv.AppendInt(append(b, ','), n, 10)
		}
		binary, said := r.binary[t.name]
		if said && binary || !said && r.allBinary {
			some = true
			before := len(raw)
			raw = t.appendRaw(raw)
			b = strconv.AppendInt(append(b, `],"parameters":{"binary_data_size":`...), int64(len(raw)-before), 10)
			b = append(b, `}}`...)
			continue
		}
		b = append(b, `],"data":[`...)
		for j := range t.held() {
			if j > 0 {
				b = append(b, ',')
			}
			b, _ = t.appendJSON(b, j) // scores are finite
		}
		b = append(b, `]}`...)
	}
	b = append(b, `]}`...)
	if some {
		return append(b, raw...), len(b)
	}
	return b, 0
}
