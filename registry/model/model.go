package model

import (
	"strings"

	"github.com/millrace/millrace/internal/failure"
)

// Media types of the encodings that Load reads.
const (
	MediaLightGBM    = "application/vnd.millrace.lightgbm+text" // LightGBM text, v3 or v4
	MediaXGBoostJSON = "application/vnd.millrace.xgboost+json"  // XGBoost 1.7 to 3.x
	MediaXGBoostUBJ  = "application/vnd.millrace.xgboost+ubjson"
	MediaLogistic    = "application/vnd.millrace.logistic+json"
	MediaMultinomial = "application/vnd.millrace.multinomial+json"
	MediaONNX        = "application/vnd.millrace.onnx"        // a ModelProto; scored in builds with the tag onnx
	MediaBundle      = "application/vnd.millrace.bundle+json" // a Bundle; not a Model by itself
)

// Methods of explanation, as Explain names them.
const (
	// Saabas is, per split on the path, the change of the mean training margin (Saabas 2014, treeinterpreter). It is no
	// Shapley value: a split near the root gets less than its due.
	Saabas = "saabas"
	// TreeSHAP is the Shapley values of the path-dependent expectation (Lundberg, Erion and Lee 2018, algorithm 2), what
	// XGBoost's pred_contribs and LightGBM's pred_contrib give. It takes about a hundred times as long.
	TreeSHAP = "tree_shap"
	// Linear is weight times distance from the mean, which is the Shapley value where the inputs are independent.
	Linear = "linear"
	// NoReasons is what a model says that has no method: ONNX.
	NoReasons = "none"
)

// Limits on what is loaded, so that a damaged or hostile file cannot exhaust memory.
const (
	MaxBytes    = 256 << 20 // of an encoded model or bundle
	MaxInputs   = 1 << 16   // inputs of a model
	MaxOutputs  = 1 << 10   // classes of a model
	MaxTrees    = 1 << 17   // trees of a forest
	MaxLeaves   = 1 << 17   // leaves of one tree
	MaxCategory = 1<<24 - 1 // code of a category
	maxSetWords = 1 << 24   // words of all category sets of a forest
)

// Model scores rows. All methods are safe for concurrent use, and none changes the row.
//
// A row holds one number for each of Inputs, in that order; NaN is a missing value, and an input that is a category is
// its code. A shorter row panics, and so does an out that is too short.
type Model interface {
	// Inputs names the columns of a row. The caller must not change the slice.
	Inputs() []string
	// Task is what a score means.
	Task() Task
	// Outputs names what PredictInto gives: the classes of a Multiclass model, else one thing, "score". The caller must
	// not change the slice.
	Outputs() []string
	// Predict is the score: the one output or, of a Multiclass model, the highest probability of a class.
	Predict(row []float64) float64
	// PredictInto writes the score of each output to out: probabilities that add up to 1 for a Multiclass model (except
	// that those of LightGBM's multiclassova are each for itself).
	PredictInto(row, out []float64)
	// PredictRows is PredictInto for many rows, faster: out holds the outputs of the first row, then of the next.
	PredictRows(rows [][]float64, out []float64)
	// Margins writes to out, per output, the sum that the score is the link of: log odds for a probability, the
	// logarithm for Poisson, the value itself for a regression.
	Margins(row, out []float64)
	// Methods are the ways of explaining that the model knows; the first is the cheap one, good for every answer. There may
	// be none.
	Methods() []string
	// Explain writes to out, which has the length of Inputs, what each input adds to the margin of an output, and returns
	// what is there before any input is looked at: bias plus the sum of out is the margin, to rounding. A method that is
	// not among Methods stands for the first of them; used says how the contributions were found, NoReasons where all are 0
	// because the model has no method.
	Explain(row []float64, output int, method string, out []float64) (bias float64, used string)
	// PredictExplained is PredictInto, and Explain by the first of Methods for the output of the highest score, in less time than both.
	PredictExplained(row, out, contributions []float64) (output int, method string)
	// Kind names the family: "forest", "logistic", "multinomial" or "onnx".
	Kind() string
}

// Load reads a model of one of the media types above. Its errors are of kind Corrupt when the bytes are damaged, and
// of kind Refused when they are whole but say something that this package does not score.
func Load(mediaType string, b []byte) (Model, error) {
	switch mediaType {
	case MediaLightGBM:
		return LoadLightGBM(b)
	case MediaXGBoostJSON:
		return LoadXGBoostJSON(b)
	case MediaXGBoostUBJ:
		return LoadXGBoostUBJ(b)
	case MediaLogistic:
		return LoadLogistic(b)
	case MediaMultinomial:
		return LoadMultinomial(b)
	case MediaONNX:
		return LoadONNX(b)
	default:
		return nil, failure.New(failure.Refused, "media type", "%q is not a model format", mediaType).
			WithHint("known are %s", strings.Join([]string{MediaLightGBM, MediaXGBoostJSON, MediaXGBoostUBJ, MediaLogistic, MediaMultinomial, MediaONNX}, ", "))
	}
}

// Encode is the inverse of Load: equal models give equal bytes. A forest of XGBoost's and an ONNX model have no encoding but
// the bytes that they were loaded from (PackBundle takes them); the error is of kind Refused.
func Encode(m Model) (mediaType string, b []byte, err error) {
	switch m := m.(type) {
	case *Forest:
		if m.spec.Float32 {
			return "", nil, unwritten("a forest of XGBoost's")
		}
		return MediaLightGBM, m.LightGBM(), nil
	case *Logistic:
		return MediaLogistic, m.JSON(), nil
	case *Multinomial:
		return MediaMultinomial, m.JSON(), nil
	case *ONNX:
		return "", nil, unwritten("an ONNX model")
	default:
		return "", nil, failure.New(failure.Internal, "model", "%T has no encoding", m)
	}
}

func unwritten(what string) error {
	return failure.New(failure.Refused, "model", "%s is not written here", what).WithHint("keep the file that it was loaded from")
}

// Highest is the output of the highest score; of equals, the first.
func Highest(scores []float64) int {
	output := 0
	for i, score := range scores {
		if score > scores[output] {
			output = i
		}
	}
	return output
}

// oneOutput is what Outputs gives for a model of one.
var oneOutput = []string{"score"}
