package model

import (
	"encoding/json"
	"fmt"
	"math"
	"slices"
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
}

// Bundle is a model as it is kept and served: the content of a model artefact.
type Bundle struct {
	Signature []SignatureInput // one for each of the model's inputs, in order
	Format    string           // media type of Model
	Model     []byte
	Golden    [][]float64 // rows from the training set; NaN is missing
	Scores    []float64   // what Predict gave for them
}

// Tolerance is how far a golden row's score may be off: processors differ in fusing multiply and add, and in exp.
const Tolerance = 1e-9

// bundleFile is the JSON text of a Bundle. Numbers that JSON lacks (NaN) are null.
type bundleFile struct {
	Format    string           `json:"format"`
	Signature []SignatureInput `json:"signature"`
	MediaType string           `json:"media_type"`
	Model     string           `json:"model"`
	Golden    [][]*float64     `json:"golden"`
	Scores    []float64        `json:"scores"`
}

const bundleFormat = "millrace-bundle/1"

// NewBundle packs m with golden rows and the scores it gives them, and checks the result.
func NewBundle(signature []SignatureInput, m Model, golden [][]float64) (Bundle, error) {
	format, b, err := Encode(m)
	if err != nil {
		return Bundle{}, err
	}
	bundle := Bundle{Signature: signature, Format: format, Model: b, Golden: golden}
	for i, row := range golden {
		if len(row) != len(m.Inputs()) {
			return Bundle{}, corruptRow(i, len(row), len(m.Inputs()))
		}
		bundle.Scores = append(bundle.Scores, m.Predict(row))
	}
	_, err = bundle.Check()
	return bundle, err
}

// Encode is the bundle's bytes: the same for equal bundles. The model must be UTF-8 text (both formats are) and golden
// values must not be infinite.
func (b Bundle) Encode() ([]byte, error) {
	if !utf8.Valid(b.Model) {
		return nil, failure.New(failure.Corrupt, "model", "is not UTF-8 text")
	}
	file := bundleFile{bundleFormat, b.Signature, b.Format, string(b.Model), make([][]*float64, len(b.Golden)), b.Scores}
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
	if file.Format != bundleFormat {
		return Bundle{}, failure.New(failure.Refused, "format", "%q is not %q", file.Format, bundleFormat)
	}
	b := Bundle{file.Signature, file.MediaType, []byte(file.Model), make([][]float64, len(file.Golden)), file.Scores}
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

// Check loads the model, sees that its inputs are those of the signature, and that it gives every golden row its score
// to within Tolerance. A bundle without golden rows does not pass: nothing would vouch for it.
func (b Bundle) Check() (Model, error) {
	m, err := Load(b.Format, b.Model)
	if err != nil {
		return nil, fmt.Errorf("loading the bundle's model: %w", err)
	}
	names := make([]string, len(b.Signature))
	for i, in := range b.Signature {
		names[i] = in.Name
	}
	if !slices.Equal(names, m.Inputs()) {
		return nil, failure.New(failure.Corrupt, "signature", "names %d inputs, and the model's %d are others or in another order", len(names), len(m.Inputs()))
	}
	if len(b.Golden) == 0 || len(b.Golden) != len(b.Scores) {
		return nil, failure.New(failure.Corrupt, "golden rows", "are %d, with %d scores", len(b.Golden), len(b.Scores)).
			WithHint("a bundle carries at least one row with its score")
	}
	for i, row := range b.Golden {
		if len(row) != len(names) {
			return nil, corruptRow(i, len(row), len(names))
		}
		// Written so that a NaN on either side fails.
		if got := m.Predict(row); !(math.Abs(got-b.Scores[i]) <= Tolerance) {
			return nil, failure.New(failure.Corrupt, "golden rows", "row %d scores %v, not %v", i, got, b.Scores[i]).
				WithHint("the model is not the one that was packed, or this build scores it differently: do not serve it")
		}
	}
	return m, nil
}

func corruptRow(i, has, want int) error {
	return failure.New(failure.Corrupt, "golden rows", "row %d has %d values for %d inputs", i, has, want)
}
