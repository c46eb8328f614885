//go:build !onnx

package onnx

import "github.com/millrace/millrace/internal/failure"

// Built is whether this build scores ONNX.
const Built = false

// Session scores rows with ONNX Runtime, in builds with the tag onnx. There is none in this build.
type Session struct{}

// Open says how to get a build that scores ONNX.
func Open(*File) (*Session, error) {
	return nil, failure.New(failure.Refused, "onnx model", "millrace was built without ONNX").
		WithHint("build with CGO_ENABLED=1 go build -tags onnx ./cmd/millrace and set %s to the path of ONNX Runtime's shared library, or save the model as XGBoost JSON or LightGBM text", LibraryVariable)
}

// Width is how many numbers a row's scores are.
func (*Session) Width() int { panic("there is no session in this build") }

// Score writes the scores of rows to out.
func (*Session) Score([][]float64, []float64) error { panic("there is no session in this build") }
