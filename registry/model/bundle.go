package model

import (
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strconv"
	"unicode/utf8"

	"github.com/millrace/millrace/internal/failure"
)

// SignatureInput says what one input of a model is, so that whoever fills the row can see that it is still the same
// thing as when the model was trained.
type SignatureInput struct {
	Name     string `json:"name"`
	Source   string `json:"source,omitempty"` // where it comes from, e.g. "origin_delays@3f2a…/delay_mean_1h", "distance", "hour(scheduled)"
	Kind     string `json:"kind,omitempty"`   // type of the column it comes from, e.g. "float"
	Required bool   `json:"required,omitempty"`

	// Categories are the names of the codes 0, 1, …, of an input that comes from a text; nil of a number.
	Categories []string `json:"categories,omitempty"`
}

// Bundle is a model as it is kept and served: the content of a model artefact.
type Bundle struct {
	Signature []SignatureInput // one for each of the model's inputs, in order
	Format    string           // media type of Model
	Model     []byte
	Classes   []string    // names of a Multiclass model's outputs, in order; nil for those that it has by itself
	Golden    [][]float64 // rows from the training set; NaN is missing
	Scores    []float64   // what PredictInto gave for them: the outputs of the first row, then of the next
}

// Tolerance is how far a golden row's score may be off, as a share of it where it is above 1: processors differ in
// fusing multiply and add, and in exp.
const Tolerance = 1e-9

// bundleFile is the JSON text of a Bundle. Numbers that JSON lacks (NaN) are null.
type bundleFile struct {
	Format    string           `json:"format"`
	Signature []SignatureInput `json:"signature"`
	MediaType string           `json:"media_type"`
	Model     string           `json:"model,omitempty"`
	Binary    []byte           `json:"model_base64,omitempty"` // instead of Model, when that is not text
	Classes   []string         `json:"classes,omitempty"`
	Golden    [][]*float64     `json:"golden"`
	Scores    []float64        `json:"scores"`
}

// The versions of the text. A bundle is written as the first that has all it says: the second has binary models and names of
// classes, the third names of categories.
const (
	bundleFormat  = "millrace-bundle/1"
	bundleFormat2 = "millrace-bundle/2"
	bundleFormat3 = "millrace-bundle/3"
)

// NewBundle packs m with golden rows and the scores it gives them, and checks the result.
func NewBundle(signature []SignatureInput, m Model, golden [][]float64) (Bundle, error) {
	format, b, err := Encode(m)
	if err != nil {
		return Bundle{}, err
	}
	return PackBundle(signature, format, b, classesOf(m), golden)
}

// classesOf is what a bundle must say of the outputs: nothing when the bytes of the model give them the same names.
func classesOf(m Model) []string {
	if _, named := m.(*Multinomial); named || m.Task() != TaskMulticlass {
		return nil
	}
	for i, name := range m.Outputs() {
		if name != strconv.Itoa(i) {
			return m.Outputs()
		}
	}
	return nil
}

// PackBundle packs an encoded model, whose bytes stay as they are, with golden rows and the scores it gives them, and
// checks the result. classes names the outputs of a Multiclass model; nil leaves them "0", "1", ….
func PackBundle(signature []SignatureInput, mediaType string, encoded []byte, classes []string, golden [][]float64) (Bundle, error) {
	b := Bundle{Signature: signature, Format: mediaType, Model: encoded, Classes: classes, Golden: golden}
	m, err := b.load()
	if err != nil {
		return Bundle{}, err
	}
	if err := b.checkRows(m); err != nil {
		return Bundle{}, err
	}
	b.Scores = make([]float64, len(golden)*len(m.Outputs()))
	m.PredictRows(golden, b.Scores)
	_, err = b.check(m)
	return b, err
}

// Encode is the bundle's bytes: the same for equal bundles. Golden values must not be infinite.
func (b Bundle) Encode() ([]byte, error) {
	file := bundleFile{
		Format: bundleFormat, Signature: b.Signature, MediaType: b.Format, Model: string(b.Model), Classes: b.Classes,
		Golden: make([][]*float64, len(b.Golden)), Scores: b.Scores,
	}
	if !utf8.Valid(b.Model) {
		file.Model, file.Binary = "", b.Model
	}
	if file.Binary != nil || file.Classes != nil {
		file.Format = bundleFormat2
	}
	if slices.ContainsFunc(b.Signature, func(in SignatureInput) bool { return in.Categories != nil }) {
		file.Format = bundleFormat3
	}
	for i, row := range b.Golden {
		file.Golden[i] = make([]*float64, len(row))
		for j, v := range row {
			if !math.IsNaN(v) {
				file.Golden[i][j] = &row[j]
			}
		}
	}
	text, err := json.MarshalIndent(file, "", " ")
	if err != nil {
		return nil, failure.Wrap(failure.Corrupt, "", "encoding bundle", err)
	}
	return append(text, '\n'), nil
}

// DecodeBundle reads what Encode wrote; an unknown field is an error. It does not look at the model: call Check.
func DecodeBundle(text []byte) (Bundle, error) {
	var file bundleFile
	if err := decodeStrict(text, &file); err != nil {
		return Bundle{}, failure.Wrap(failure.Corrupt, "", "decoding bundle", err)
	}
	if !slices.Contains([]string{bundleFormat, bundleFormat2, bundleFormat3}, file.Format) {
		return Bundle{}, failure.New(failure.Refused, "format", "%q is none of %q, %q and %q", file.Format, bundleFormat, bundleFormat2, bundleFormat3)
	}
	if file.Binary == nil {
		file.Binary = []byte(file.Model)
	} else if file.Model != "" {
		return Bundle{}, failure.New(failure.Corrupt, "model", "is there twice, as text and as base64")
	}
	b := Bundle{
		Signature: file.Signature, Format: file.MediaType, Model: file.Binary, Classes: file.Classes,
		Golden: make([][]float64, len(file.Golden)), Scores: file.Scores,
	}
	for i, row := range file.Golden {
		b.Golden[i] = make([]float64, len(row))
		for j, v := range row {
			b.Golden[i][j] = math.NaN()
			if v != nil {
				b.Golden[i][j] = *v
			}
		}
	}
	return b, nil
}

// Check loads the model, sees that its inputs are those of the signature, and that it gives every golden row its scores
// to within Tolerance (ONNXTolerance of an ONNX model). A bundle without golden rows does not pass: nothing would vouch for it.
func (b Bundle) Check() (Model, error) {
	m, err := b.load()
	if err != nil {
		return nil, err
	}
	return b.check(m)
}

// load reads the model, and names its classes, and its inputs where the file only numbers them.
func (b Bundle) load() (Model, error) {
	m, err := Load(b.Format, b.Model)
	if err != nil {
		return nil, fmt.Errorf("loading the bundle's model: %w", err)
	}
	if names := b.inputs(); Numbered(m) && len(names) == len(m.Inputs()) && !slices.Equal(names, m.Inputs()) {
		if m, err = Rename(m, names); err != nil {
			return nil, fmt.Errorf("naming the inputs of the bundle's model: %w", err)
		}
	}
	if _, named := m.(*Multinomial); b.Classes == nil || named && slices.Equal(b.Classes, m.Outputs()) {
		return m, nil
	}
	switch m := m.(type) {
	case *Forest:
		return m.WithClasses(b.Classes)
	case *ONNX:
		return m.withClasses(b.Classes)
	}
	return nil, failure.New(failure.Corrupt, "classes", "are named for a %s model, which has none", m.Kind())
}

// inputs is the names of the signature.
func (b Bundle) inputs() []string {
	names := make([]string, len(b.Signature))
	for i, in := range b.Signature {
		names[i] = in.Name
	}
	return names
}

// tolerance is how far a golden row's score may be off.
func (b Bundle) tolerance() float64 {
	if b.Format == MediaONNX {
		return ONNXTolerance
	}
	return Tolerance
}

func (b Bundle) check(m Model) (Model, error) {
	if err := b.checkRows(m); err != nil {
		return nil, err
	}
	outputs := len(m.Outputs())
	if len(b.Scores) != len(b.Golden)*outputs {
		return nil, failure.New(failure.Corrupt, "golden rows", "are %d, with %d scores for %d outputs", len(b.Golden), len(b.Scores), outputs)
	}
	out := make([]float64, outputs)
	for i, row := range b.Golden {
		m.PredictInto(row, out)
		for j, got := range out {
			want := b.Scores[i*outputs+j]
			// Written so that a NaN on either side fails.
			if !(math.Abs(got-want) <= b.tolerance()*max(1, math.Abs(want))) {
				return nil, failure.New(failure.Corrupt, "golden rows", "row %d scores %v, not %v", i, got, want).
					WithHint("the model is not the one that was packed, or this build scores it differently: do not serve it")
			}
		}
	}
	if err := probabilities(m, b.Scores); err != nil {
		return nil, err
	}
	return m, nil
}

// checkRows compares the signature and the golden rows with the model's inputs.
func (b Bundle) checkRows(m Model) error {
	names := b.inputs()
	if !slices.Equal(names, m.Inputs()) {
		return failure.New(failure.Corrupt, "signature", "names %d inputs, and the model's %d are others or in another order", len(names), len(m.Inputs()))
	}
	if len(b.Golden) == 0 {
		return failure.New(failure.Corrupt, "golden rows", "there are none").WithHint("a bundle carries at least one row with its score")
	}
	for i, row := range b.Golden {
		if len(row) != len(names) {
			return corruptRow(i, len(row), len(names))
		}
	}
	return nil
}

func corruptRow(i, has, want int) error {
	return failure.New(failure.Corrupt, "golden rows", "row %d has %d values for %d inputs", i, has, want)
}
