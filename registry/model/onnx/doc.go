// Package onnx reads ONNX files and scores them with ONNX Runtime.
//
// Reading is pure Go and in every build: Read says what a file takes and gives, and refuses by name what would not be scored as it
// is meant, or whose memory the size of the file does not bound. Scoring is in builds with the tag onnx alone, which need cgo and,
// when they run, the shared library of ONNX Runtime; in any other build Open says so.
//
// The library is the process's own, as shared libraries are, and is loaded by the first Open: from the path that the environment
// variable MILLRACE_ONNXRUNTIME names, else from where the system's loader finds libonnxruntime.so. A Session uses as many threads
// for one call as MILLRACE_ONNX_THREADS says, by default one: requests are what serving has many of, and with several threads the
// order of sums is not fixed.
//
// Package model makes a Model of it. It imports internal/failure alone.
package onnx

import "math"

// Names of the environment variables that the first Open reads.
const (
	LibraryVariable = "MILLRACE_ONNXRUNTIME"  // path of libonnxruntime.so
	ThreadsVariable = "MILLRACE_ONNX_THREADS" // threads of one call, 1 to MaxThreads
)

// Limits on what is read.
const (
	MaxNodes   = 1 << 16 // operators of a graph
	MaxColumns = 1 << 16 // columns of all inputs together
	MaxClasses = 1 << 10 // columns of the scores
	MaxThreads = 256
	// MaxRows is how many rows are scored by one call of the library; of more, so many at a time.
	MaxRows = 4096
)

// Type is the type of a tensor's elements, as onnx.proto numbers them.
type Type int32

// The types that are read.
const (
	Float  Type = 1 // float32
	Int32  Type = 6
	Int64  Type = 7
	Text   Type = 8
	Bool   Type = 9
	Double Type = 11
)

var typeNames = map[Type]string{
	Float: "float", 2: "uint8", 3: "int8", 4: "uint16", 5: "int16", Int32: "int32", Int64: "int64", Text: "string", Bool: "bool", 10: "float16",
	Double: "double", 12: "uint32", 13: "uint64", 14: "complex64", 15: "complex128", 16: "bfloat16",
}

func (t Type) String() string {
	if name, ok := typeNames[t]; ok {
		return name
	}
	return "an unknown type"
}

// Holds reports whether a tensor of the type can hold a value for what it is: a missing value (NaN) in one of floating point alone,
// a fraction not in one of whole numbers.
func (t Type) Holds(v float64) bool {
	switch t {
	case Int32:
		return v == math.Trunc(v) && math.Abs(v) <= math.MaxInt32
	case Int64:
		return v == math.Trunc(v) && math.Abs(v) <= 1<<53
	case Bool:
		return v == 0 || v == 1
	default:
		return true
	}
}

// Input is a tensor that a file takes: a column, or several beside each other, for any number of rows.
type Input struct {
	Name  string
	Type  Type
	Width int
	Flat  bool // of rank 1: without a dimension of columns
}

// File is what is known of an ONNX file before it is scored.
type File struct {
	Inputs  []Input
	Columns int               // of all inputs
	Scores  string            // name of the output that is taken
	Type    Type              // of it: Float or Double
	Labels  bool              // another output is the class: the file is a classifier
	Classes []string          // names of the classes, nil when the file has none
	Notes   map[string]string // metadata_props

	content []byte // as the library gets it
}
