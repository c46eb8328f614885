package openinference

import (
	"encoding/json"
	"math"
	"testing"

	"github.com/valyala/fastjson"

	"github.com/millrace/millrace/project"
	"github.com/millrace/millrace/schemas"
	"github.com/millrace/millrace/serving"
)

// parsers are shared, as a server shares them.
var parsers fastjson.ParserPool

var anyModel = &serving.Model{Source: source}

// Tensors of every datatype become the JSON rows that say the same, to the bit; what is missing becomes null.
func TestColumnsBecomeRows(t *testing.T) {
	r, p := parseRequest(&parsers, []byte(`{"inputs":[
		{"name":"who.card","datatype":"BYTES","shape":[2],"data":["a\"b","ü"]},
		{"name":"amount","datatype":"FP32","shape":[2,1],"data":[[0.1],[null]]},
		{"name":"who.age","datatype":"UINT8","shape":[2],"parameters":{"binary_data_size":2}},
		{"name":"big","datatype":"UINT64","shape":[2],"data":[18446744073709551615,0]},
		{"name":"least","datatype":"INT64","shape":[2],"data":[-9223372036854775808,9007199254740993]},
		{"name":"whole","datatype":"FP64","shape":[2],"data":[1e6,-3.0]},
		{"name":"yes","datatype":"BOOL","shape":[2],"data":[true,null]},
		{"name":"precise","datatype":"FP64","shape":[2],"parameters":{"binary_data_size":16}}
	]}`), append([]byte{7, 255}, (&tensor{kind: floats, floats: []float64{0.1, math.NaN()}}).appendRaw(nil)...))
	if p != nil {
		t.Fatal(p)
	}
	got, p := body(anyModel, r.inputs)
	want := `{"rows":[` +
		`{"who":{"card":"a\"b","age":7},"amount":0.10000000149011612,"big":18446744073709551615,"least":-9223372036854775808,"whole":1000000,"yes":true,"precise":0.1},` +
		`{"who":{"card":"ü","age":255},"amount":null,"big":0,"least":9007199254740993,"whole":-3,"yes":null,"precise":null}]}`
	if p != nil || string(got) != want {
		t.Errorf("%v\ngot  %s\nwant %s", p, got, want)
	}
}

// The tensor of an input that is fetched overrides it in every row; a column of such a name stays one.
func TestTensorsThatOverride(t *testing.T) {
	r, p := parseRequest(&parsers, []byte(`{"inputs":[
		{"name":"x","datatype":"FP64","shape":[2],"data":[1,2]},
		{"name":"override.delays.mean_1h","datatype":"FP64","shape":[2],"data":[3.5,null]},
		{"name":"override.delays.n","datatype":"INT64","shape":[2],"data":[4,5]}
	]}`), nil)
	if p != nil {
		t.Fatal(p)
	}
	got, p := body(anyModel, r.inputs)
	if want := `{"rows":[{"x":1,"overrides":{"delays.mean_1h":3.5,"delays.n":4}},{"x":2,"overrides":{"delays.mean_1h":null,"delays.n":5}}]}`; p != nil || string(got) != want {
		t.Errorf("%v\ngot  %s\nwant %s", p, got, want)
	}
	own, err := schemas.Parse("x", []byte(`{"type":"record","name":"X","fields":[{"name":"override","type":{"type":"record","name":"O","fields":[{"name":"n","type":"long"}]}}]}`))
	if err != nil {
		t.Fatal(err)
	}
	r, _ = parseRequest(&parsers, []byte(`{"inputs":[{"name":"override.n","datatype":"INT64","shape":[1],"data":[4]}]}`), nil)
	if got, p := body(&serving.Model{Source: &project.Source{Schema: own}}, r.inputs); p != nil || string(got) != `{"rows":[{"override":{"n":4}}]}` {
		t.Errorf("%s %v", got, p)
	}
}

func TestTensorsThatAreRefused(t *testing.T) {
	for name, c := range map[string]struct {
		body string
		raw  string
	}{
		"twice":                 {`{"name":"a","datatype":"BOOL","shape":[1],"data":[true]},{"name":"a","datatype":"BOOL","shape":[1],"data":[true]}`, ""},
		"a record and a column": {`{"name":"a","datatype":"BOOL","shape":[1],"data":[true]},{"name":"a.b","datatype":"BOOL","shape":[1],"data":[true]}`, ""},
		"rows differ":           {`{"name":"a","datatype":"BOOL","shape":[1],"data":[true]},{"name":"b","datatype":"BOOL","shape":[2],"data":[true,true]}`, ""},
		"raw left over":         {`{"name":"a","datatype":"BOOL","shape":[1],"data":[true]}`, "x"},
		"raw too short":         {`{"name":"a","datatype":"INT64","shape":[1],"parameters":{"binary_data_size":8}}`, "1234"},
		"raw of another size":   {`{"name":"a","datatype":"INT64","shape":[1],"parameters":{"binary_data_size":4}}`, "1234"},
		"bytes cut off":         {`{"name":"a","datatype":"BYTES","shape":[1],"parameters":{"binary_data_size":5}}`, "\xff\xff\xff\xffx"},
		"bytes not UTF-8":       {`{"name":"a","datatype":"BYTES","shape":[1],"parameters":{"binary_data_size":5}}`, "\x01\x00\x00\x00\xff"},
		"infinite":              {`{"name":"a","datatype":"FP64","shape":[1],"parameters":{"binary_data_size":8}}`, "\x00\x00\x00\x00\x00\x00\xf0\x7f"},
		"too deep":              {`{"name":"a","datatype":"INT64","shape":[1],"data":[[1]]}`, ""},
		"no data":               {`{"name":"a","datatype":"INT64","shape":[1]}`, ""},
		"a fraction":            {`{"name":"a","datatype":"INT64","shape":[1],"data":[1.5]}`, ""},
		"text for a number":     {`{"name":"a","datatype":"FP64","shape":[1],"data":["1"]}`, ""},
		"three dimensions":      {`{"name":"a","datatype":"FP64","shape":[1,1,1],"data":[1]}`, ""},
		"a negative dimension":  {`{"name":"a","datatype":"FP64","shape":[-1],"data":[]}`, ""},
	} {
		r, p := parseRequest(&parsers, []byte(`{"inputs":[`+c.body+`]}`), []byte(c.raw))
		if p == nil {
			_, p = body(anyModel, r.inputs)
		}
		if p == nil || p.Code != codeTensor || p.Status != 400 {
			t.Errorf("%s: %v", name, p)
		}
	}
}

// What a request says is its own: the next one is parsed where its tree lay.
func TestRequestsDoNotShareMemory(t *testing.T) {
	text := func(id, name, value string) []byte {
		return []byte(`{"id":"` + id + `","inputs":[{"name":"` + name + `","datatype":"BYTES","shape":[1],"data":["` + value + `"]}],"outputs":[{"name":"` + name + `"}]}`)
	}
	var own fastjson.ParserPool
	first, p := parseRequest(&own, text("one", "aaa", "who"), nil)
	if p != nil {
		t.Fatal(p)
	}
	for range 10 {
		if _, p := parseRequest(&own, text("two", "bbb", "xyz"), nil); p != nil {
			t.Fatal(p)
		}
	}
	if in := first.inputs[0]; first.id != "one" || in.name != "aaa" || in.datatype != "BYTES" || in.texts[0] != "who" || first.outputs[0] != "aaa" {
		t.Errorf("%+v %+v", first, in)
	}
}

// A text is written as encoding/json writes it, whatever is in it.
func TestTextsAreJSONs(t *testing.T) {
	texts := []string{"", "score", "ü", "\u2028", "a\xffb", "<b>&"}
	for c := range 256 {
		texts = append(texts, "a"+string(rune(c))+"b")
	}
	for _, text := range texts {
		want, err := json.Marshal(text)
		if err != nil {
			t.Fatal(err)
		}
		if got := appendText(nil, text); string(got) != string(want) {
			t.Errorf("%q: %s, want %s", text, got, want)
		}
	}
}

// A member that is absent or of another type is named.
func TestMembersThatAreRefused(t *testing.T) {
	for body, field := range map[string]string{
		`{}`: "inputs", `{"inputs":null}`: "inputs", `{"inputs":[],"outputs":null}`: "outputs", `{"inputs":[],"outputs":[{}]}`: "outputs[0].name",
		`{"inputs":[],"outputs":[1]}`: "outputs[0]", `{"inputs":[1]}`: "inputs[0]", `{"inputs":[{}]}`: "inputs[0].name", `{"inputs":[{"name":"a"}]}`: "inputs[0].datatype",
		`{"inputs":[{"name":"a","datatype":"BOOL"}]}`: "inputs[0].shape", `{"inputs":[],"id":null}`: "id", `{"inputs":[],"parameters":1}`: "parameters",
		`{"inputs":[{"name":"a","datatype":"BOOL","shape":["1"]}]}`: "inputs[0].shape", `{"inputs":[],"parameters":{"timeout":"1"}}`: "parameters.timeout",
	} {
		if _, p := parseRequest(&parsers, []byte(body), nil); p == nil || p.Status != 400 || p.Field != field {
			t.Errorf("%s: %v, want %s", body, p, field)
		}
	}
}

// FuzzRequest: whatever is sent becomes rows that are JSON, or is refused; never a panic, never memory beyond what was sent.
func FuzzRequest(f *testing.F) {
	f.Add([]byte(`{}`), []byte(nil))
	f.Add([]byte(`{"inputs":[{}],"outputs":[{}]}`), []byte(nil))
	f.Add([]byte(`{"id":"x","inputs":[{"name":"a.b","datatype":"FP32","shape":[2,1],"data":[[1],[null]]}],"outputs":[{"name":"score","parameters":{"binary_data":true}}]}`), []byte(nil))
	f.Add([]byte(`{"inputs":[{"name":"a","datatype":"BYTES","shape":[1],"parameters":{"binary_data_size":5}}]}`), []byte("\x01\x00\x00\x00x"))
	f.Add([]byte(`{"inputs":[{"name":"a","datatype":"INT16","shape":[1073741824],"parameters":{"binary_data_size":2}}]}`), []byte("xx"))
	f.Fuzz(func(t *testing.T, text, raw []byte) {
		r, p := parseRequest(&parsers, text, raw)
		if p == nil {
			var b []byte
			if b, p = body(anyModel, r.inputs); p == nil && !json.Valid(b) {
				t.Fatalf("not JSON: %s", b)
			}
			if rows, p := matrix(&serving.Model{Source: source, Inputs: []string{"x"}}, r.inputs); p == nil && len(rows) > len(text)+len(raw) {
				t.Fatalf("%d rows of %d bytes", len(rows), len(text)+len(raw))
			}
		}
		if p != nil && (p.Status != 400 || p.Code == "" || p.Detail == "") {
			t.Fatalf("%+v", p)
		}
	})
}

var source = func() *project.Source {
	s, err := schemas.Parse("x", []byte(`{"type":"record","name":"X","fields":[{"name":"x","type":"long"}]}`))
	if err != nil {
		panic(err)
	}
	return &project.Source{Schema: s}
}()
