package model

import (
	"strings"

	"github.com/millrace/millrace/internal/failure"
)

// Media types of the encodings that Load reads.
const (
	MediaLightGBM = "application/vnd.millrace.lightgbm+text" // LightGBM text, v3 or v4
	MediaLogistic = "application/vnd.millrace.logistic+json"
	MediaBundle   = "application/vnd.millrace.bundle+json" // a Bundle; not a Model by itself
)

// Methods of explanation, as Explain names them. Neither is a Shapley value, except that the linear one is when the
// inputs are independent.
const (
	Saabas = "saabas" // per split on the path, the change of the mean training margin (Saabas 2014, treeinterpreter)
	Linear = "linear" // weight times distance from the mean
)

// Limits on what is loaded, so that a damaged or hostile file cannot exhaust memory.
const (
	MaxBytes  = 256 << 20 // of an encoded model or bundle
	MaxInputs = 1 << 16   // inputs of a model
	MaxTrees  = 1 << 17   // trees of a forest
	MaxLeaves = 1 << 17   // leaves of one tree
)

// Model scores rows. All methods are safe for concurrent use, and none changes the row.
//
// A row holds one number for each of Inputs, in that order; NaN is a missing value. A shorter row panics.
type Model interface {
	// Inputs names the columns of a row. The caller must not change the slice.
	Inputs() []string
	// Predict is the score: a probability for a classifier, the value for a regression.
	Predict(row []float64) float64
	// Margin is the sum that Predict is the link of: log odds for a classifier, the value for a regression.
	Margin(row []float64) float64
	// Explain writes to out, which has the length of Inputs, what each input adds to the margin, and returns what is
	// there before any input is looked at. bias plus the sum of out is the margin, to rounding. method says how the
	// contributions were found.
	Explain(row []float64, out []float64) (bias float64, method string)
	// Kind names the family: "forest" or "logistic".
	Kind() string
}

// Load reads a model of one of the media types above. Its errors are of kind Corrupt when the bytes are damaged, and
// of kind Refused when they are whole but say something that this package does not score.
func Load(mediaType string, b []byte) (Model, error) {
	switch mediaType {
	case MediaLightGBM:
		return LoadLightGBM(b)
	case MediaLogistic:
		return LoadLogistic(b)
	default:
		return nil, failure.New(failure.Refused, "media type", "%q is not a model format", mediaType).
			WithHint("known are %s", strings.Join([]string{MediaLightGBM, MediaLogistic}, ", "))
	}
}

// Encode is the inverse of Load: equal models give equal bytes.
func Encode(m Model) (mediaType string, b []byte, err error) {
	switch m := m.(type) {
	case *Forest:
		return MediaLightGBM, m.LightGBM(), nil
	case *Logistic:
		return MediaLogistic, m.JSON(), nil
	default:
		return "", nil, failure.New(failure.Internal, "model", "%T has no encoding", m)
	}
}
