package openinference

import (
	"context"
	"net/http"
	"strconv"
	"strings"

	"github.com/millrace/millrace/schemas"
	"github.com/millrace/millrace/serving"
)

// extensions of the protocol that are supported.
var extensions = []string{"binary_tensor_data", "model_repository(index)"}

// tensorMetadata is a tensor as the metadata of a model has it; -1 is any number of rows.
type tensorMetadata struct {
	Name     string  `json:"name"`
	Datatype string  `json:"datatype"`
	Shape    []int64 `json:"shape"`
}

// modelMetadata is the answer to GET /v2/models/{model}.
type modelMetadata struct {
	Name       string            `json:"name"`
	Versions   []string          `json:"versions"`
	Platform   string            `json:"platform"`
	Inputs     []tensorMetadata  `json:"inputs"`
	Outputs    []tensorMetadata  `json:"outputs"`
	Parameters map[string]string `json:"parameters"`
}

// metadata describes a model. Its inputs are the columns of a row; the tensor that may stand for them all is in the parameters, with the
// names that it is made of, in their order.
func metadata(m *serving.Model) modelMetadata {
	out := modelMetadata{Name: m.Name, Versions: []string{}, Platform: platform(m), Parameters: map[string]string{
		"inputs_tensor": inputsName, "inputs_datatype": typeFP64,
		"inputs_shape": "-1," + strconv.Itoa(len(m.Inputs)), "inputs_order": strings.Join(m.Inputs, ","),
	}}
	if m.Version > 0 {
		out.Versions = append(out.Versions, strconv.Itoa(m.Version))
	}
	for _, c := range m.Source.Schema.Record().Columns {
		out.Inputs = append(out.Inputs, tensorMetadata{c.Name, datatypeOf(c.Kind), []int64{-1}})
	}
	for _, name := range outputsOf(m) {
		shape := []int64{-1}
		if outputs[name].byClass {
			shape = append(shape, int64(len(m.Classes)))
		}
		out.Outputs = append(out.Outputs, tensorMetadata{name, outputs[name].datatype, shape})
	}
	return out
}

// platform is "<project>_<format>", as the protocol names them.
func platform(m *serving.Model) string {
	if m.Kind == "" {
		return "millrace"
	}
	return "millrace_" + m.Kind
}

// datatypeOf is how the values of a column are given; any other numeric datatype that holds them does, too.
func datatypeOf(k schemas.Kind) string {
	switch k {
	case schemas.Bool:
		return typeBool
	case schemas.Int, schemas.Time: // Unix milliseconds
		return typeInt64
	case schemas.Float:
		return typeFP64
	default:
		return typeBytes
	}
}

// indexEntry is a model as the repository index lists it.
type indexEntry struct {
	Name    string `json:"name"`
	Version string `json:"version,omitempty"`
	State   string `json:"state"`
	Reason  string `json:"reason"`
}

// index lists the models, or those that are ready.
func index(ctx context.Context, s Stage, ready bool) []indexEntry {
	entries := []indexEntry{}
	for _, m := range s.Models(ctx) {
		switch {
		case m.Live:
			entries = append(entries, indexEntry{m.Name, strconv.Itoa(m.Version), "READY", ""})
		case !ready:
			entries = append(entries, indexEntry{m.Name, "", "UNAVAILABLE", "no champion that can be served"})
		}
	}
	return entries
}

// promoted is the answer to who asks for a model to be loaded, or unloaded: that is for who may write the registry, not for who may ask for
// scores. It says so of the models alone that who asks may see.
func promoted(ctx context.Context, s Stage, model string, load bool) *serving.Problem {
	if _, p := s.Model(ctx, model); p != nil {
		return p
	}
	detail := "models are not unloaded by this protocol: a model is served as long as the project declares it; millrace models promote, or rollback, changes its version"
	if load {
		detail = "models are not loaded by this protocol: millrace models promote, or rollback, changes the version that is served, within a second"
	}
	return &serving.Problem{Status: http.StatusNotImplemented, Code: "not_supported", Field: "model", Detail: detail}
}
