package onnx

import (
	"bytes"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/millrace/millrace/internal/failure"
)

// NoteScores is the metadata property that names the output to take, for a file with several that could be.
const NoteScores = "millrace.output"

// Read reads a ModelProto (onnx.proto of ONNX 1.20). Its errors are of kind Corrupt when the bytes are damaged, and of kind Refused
// when they are whole but not a model of rows of numbers.
//
// A ZipMap, with which converters of scikit-learn's and LightGBM's classifiers end, is taken off: the probabilities are read before
// they become a list of maps, and its labels name the classes.
func Read(b []byte) (*File, error) {
	r := reader{file: &File{Notes: map[string]string{}}, content: b, initialized: map[string]bool{}}
	if err := r.model(b); err != nil {
		return nil, err
	}
	if err := r.inputs(); err != nil {
		return nil, err
	}
	if err := r.outputs(); err != nil {
		return nil, err
	}
	r.file.content = b
	if r.zipMap != nil {
		r.file.content = r.withoutZipMap()
	}
	return r.file, nil
}

type reader struct {
	file        *File
	content     []byte
	graph       []byte
	versions    map[string]int64 // of the operators, by domain
	initialized map[string]bool  // tensors that are in the file
	given       []value          // graph.input
	taken       []value          // graph.output
	nodes       int
	zipMap      *zipMap
}

// value is a ValueInfoProto.
type value struct {
	name     string
	kind     string // "tensor", or what it is instead
	element  Type
	ranked   bool
	dims     []dim
	encoding []byte
}

type dim struct {
	size int64  // 0 without
	name string // of one that is not fixed
}

// zipMap is the node that makes a list of maps of a tensor of probabilities.
type zipMap struct {
	from, to string
	labels   []string
	encoding []byte
}

// field is one field of a message.
type field struct {
	number protowire.Number
	kind   protowire.Type
	bytes  []byte
	varint uint64
	whole  []byte // with its tag
}

// fields goes over the fields of a message.
func fields(b []byte, each func(field) error) error {
	for len(b) > 0 {
		number, kind, n := protowire.ConsumeTag(b)
		if n < 0 {
			return protowire.ParseError(n)
		}
		f := field{number: number, kind: kind}
		var m int
		switch kind {
		case protowire.BytesType:
			f.bytes, m = protowire.ConsumeBytes(b[n:])
		case protowire.VarintType:
			f.varint, m = protowire.ConsumeVarint(b[n:])
		default:
			m = protowire.ConsumeFieldValue(number, kind, b[n:])
		}
		if m < 0 {
			return protowire.ParseError(m)
		}
		f.whole, b = b[:n+m], b[n+m:]
		if err := each(f); err != nil {
			return err
		}
	}
	return nil
}

func corrupt(where string, err error) error {
	return failure.Wrap(failure.Corrupt, where, "reading ONNX", err)
}

func refused(where, format string, args ...any) *failure.Error {
	return failure.New(failure.Refused, where, format, args...)
}

// model reads a ModelProto.
func (r *reader) model(b []byte) error {
	r.versions = map[string]int64{}
	err := fields(b, func(f field) error {
		switch {
		case f.number == 7 && f.kind == protowire.BytesType:
			if r.graph != nil {
				return fmt.Errorf("there are two graphs")
			}
			r.graph = f.bytes
		case f.number == 8 && f.kind == protowire.BytesType:
			return r.opset(f.bytes)
		case f.number == 14 && f.kind == protowire.BytesType:
			return r.note(f.bytes)
		}
		return nil
	})
	if err != nil {
		return corrupt("onnx model", err)
	}
	if len(r.graph) == 0 || len(r.versions) == 0 {
		return failure.New(failure.Corrupt, "onnx model", "it has no graph, or does not say of which opset its operators are")
	}
	for _, f := range []struct {
		number protowire.Number
		what   string
	}{{20, "training_info"}, {25, "functions of its own"}} {
		if has(b, f.number) {
			return refused("onnx model", "it has %s, which are not run", f.what)
		}
	}
	for domain := range r.versions {
		if domain != "" && domain != "ai.onnx" && domain != "ai.onnx.ml" && r.uses(domain) {
			return refused("opset_import", "its operators of domain %q are not those of ONNX (ai.onnx, ai.onnx.ml)", domain)
		}
	}
	return r.readGraph()
}

func has(b []byte, number protowire.Number) bool {
	found := false
	_ = fields(b, func(f field) error { // it was read before
		found = found || f.number == number
		return nil
	})
	return found
}

// uses reports whether a node is of the domain: exporters declare some that they do not use.
func (r *reader) uses(domain string) bool {
	used := false
	_ = fields(r.graph, func(f field) error { // a fault is told by readGraph
		if f.number == 1 && f.kind == protowire.BytesType {
			return fields(f.bytes, func(f field) error {
				used = used || f.number == 7 && string(f.bytes) == domain
				return nil
			})
		}
		return nil
	})
	return used
}

func (r *reader) opset(b []byte) error {
	domain, version := "", int64(0)
	err := fields(b, func(f field) error {
		switch f.number {
		case 1:
			domain = string(f.bytes)
		case 2:
			version = int64(f.varint)
		}
		return nil
	})
	r.versions[domain] = version
	return err
}

func (r *reader) note(b []byte) error {
	var key, text string
	err := fields(b, func(f field) error {
		switch f.number {
		case 1:
			key = string(f.bytes)
		case 2:
			text = string(f.bytes)
		}
		return nil
	})
	r.file.Notes[key] = text
	return err
}

// readGraph reads a GraphProto.
func (r *reader) readGraph() error {
	var stop error // one of kind Refused
	err := fields(r.graph, func(f field) (err error) {
		switch {
		case f.kind != protowire.BytesType || stop != nil:
		case f.number == 1:
			if r.nodes++; r.nodes > MaxNodes {
				stop = refused("onnx graph", "it has more operators than MaxNodes = %d", MaxNodes)
				return nil
			}
			stop, err = r.node(f)
		case f.number == 5:
			var name string
			name, stop, err = tensor(f.bytes)
			r.initialized[name] = true
		case f.number == 15:
			stop = refused("onnx graph", "it has sparse tensors, which are not read")
		case f.number == 11, f.number == 12:
			var v value
			v, err = readValue(f)
			if f.number == 11 {
				r.given = append(r.given, v)
			} else {
				r.taken = append(r.taken, v)
			}
		}
		return err
	})
	if err != nil {
		return corrupt("onnx graph", err)
	}
	return stop
}

// Operators that are refused, and why.
const (
	random  = "draws random numbers, and a row must always score the same"
	sized   = "makes tensors of a size that is not bounded by the file's"
	control = "runs a graph of its own, whose time is not bounded by the file's size"
)

var refusedOperators = map[string]string{
	"RandomNormal": random, "RandomNormalLike": random, "RandomUniform": random, "RandomUniformLike": random, "Multinomial": random, "Bernoulli": random,
	"ConstantOfShape": sized, "Expand": sized, "Tile": sized, "Range": sized, "Resize": sized, "Upsample": sized, "Pad": sized, "CenterCropPad": sized,
	"OneHot": sized, "EyeLike": sized, "Col2Im": sized, "AffineGrid": sized, "MelWeightMatrix": sized, "HannWindow": sized, "HammingWindow": sized, "BlackmanWindow": sized,
	"MaxUnpool": sized, "ImageDecoder": sized, "GridSample": sized,
}

// node reads a NodeProto. stop is what it is refused for.
func (r *reader) node(node field) (stop, err error) {
	var inputs, outputs []string
	var operator, domain string
	var attributes [][]byte
	err = fields(node.bytes, func(f field) error {
		switch f.number {
		case 1:
			inputs = append(inputs, string(f.bytes))
		case 2:
			outputs = append(outputs, string(f.bytes))
		case 4:
			operator = string(f.bytes)
		case 5:
			attributes = append(attributes, f.bytes)
		case 7:
			domain = string(f.bytes)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	if domain == "ai.onnx" {
		domain = ""
	}
	if _, declared := r.versions[domain]; !declared && (domain != "" || r.versions["ai.onnx"] == 0) {
		return refused(operator, "the file does not say of which opset of domain %q it is", domain), nil
	}
	if why := refusedOperators[operator]; why != "" {
		return refused(operator, "the operator %s", why), nil
	}
	z := &zipMap{encoding: node.whole}
	for _, a := range attributes {
		if stop, err = attribute(operator, a, z); stop != nil || err != nil {
			return stop, err
		}
	}
	if operator != "ZipMap" {
		return nil, nil
	}
	if domain != "ai.onnx.ml" || len(inputs) != 1 || len(outputs) != 1 {
		return nil, fmt.Errorf("the ZipMap of domain %q has %d inputs and %d outputs", domain, len(inputs), len(outputs))
	}
	if r.zipMap != nil {
		return refused(operator, "there are two"), nil
	}
	z.from, z.to = inputs[0], outputs[0]
	r.zipMap = z
	return nil, nil
}

// attribute reads an AttributeProto; z takes the labels of a ZipMap.
func attribute(operator string, b []byte, z *zipMap) (stop, err error) {
	name := ""
	err = fields(b, func(f field) (err error) {
		switch {
		case stop != nil:
		case f.number == 1:
			name = string(f.bytes)
		case f.number == 6 || f.number == 11:
			stop = refused(operator, "the operator %s", control)
		case (f.number == 5 || f.number == 10) && f.kind == protowire.BytesType:
			_, stop, err = tensor(f.bytes)
		case f.number == 22 || f.number == 23:
			stop = refused(operator, "it has sparse tensors, which are not read")
		case operator == "ZipMap" && f.number == 9 && name == "classlabels_strings":
			z.labels = append(z.labels, string(f.bytes))
		case operator == "ZipMap" && f.number == 8 && name == "classlabels_int64s":
			err = z.numbers(f)
		}
		return err
	})
	return stop, err
}

// numbers reads labels, packed or not.
func (z *zipMap) numbers(f field) error {
	if f.kind == protowire.VarintType {
		z.labels = append(z.labels, strconv.FormatInt(int64(f.varint), 10))
		return nil
	}
	for b := f.bytes; len(b) > 0; {
		v, n := protowire.ConsumeVarint(b)
		if n < 0 {
			return protowire.ParseError(n)
		}
		z.labels, b = append(z.labels, strconv.FormatInt(int64(v), 10)), b[n:]
	}
	return nil
}

// tensor checks a TensorProto: its numbers are in the file, and no more are announced than there are.
func tensor(b []byte) (name string, stop, err error) {
	elements := int64(1)
	err = fields(b, func(f field) error {
		switch {
		case stop != nil:
		case f.number == 1:
			stop = announce(f, &elements, int64(len(b)))
		case f.number == 8:
			name = string(f.bytes)
		case f.number == 13, f.number == 14 && f.varint != 0:
			stop = refused(name, "its numbers are in another file").WithHint("save the model as one file (onnx.save_model with save_as_external_data=False)")
		}
		return nil
	})
	return name, stop, err
}

// announce multiplies elements by dimensions. Elements take half a byte at least.
func announce(f field, elements *int64, size int64) error {
	multiply := func(d uint64) error {
		if d > uint64(2*size) || *elements*int64(d) > 2*size {
			return failure.New(failure.Corrupt, "onnx tensor", "it announces more numbers than its %d bytes hold", size)
		}
		*elements *= int64(d)
		return nil
	}
	if f.kind == protowire.VarintType {
		return multiply(f.varint)
	}
	for b := f.bytes; len(b) > 0; {
		d, n := protowire.ConsumeVarint(b)
		if n < 0 {
			return corrupt("onnx tensor", protowire.ParseError(n))
		}
		if err := multiply(d); err != nil {
			return err
		}
		b = b[n:]
	}
	return nil
}

// readValue reads a ValueInfoProto.
func readValue(from field) (v value, err error) {
	v = value{kind: "something without a type", encoding: from.whole}
	err = fields(from.bytes, func(f field) error {
		switch f.number {
		case 1:
			v.name = string(f.bytes)
		case 2:
			return v.readType(f.bytes)
		}
		return nil
	})
	return v, err
}

// kinds are the fields of a TypeProto.
var kinds = map[protowire.Number]string{1: "tensor", 4: "sequence", 5: "map", 7: "opaque type", 8: "sparse tensor", 9: "optional"}

func (v *value) readType(b []byte) error {
	return fields(b, func(f field) error {
		if kind := kinds[f.number]; kind != "" {
			v.kind = kind
		}
		if f.number != 1 {
			return nil
		}
		return fields(f.bytes, func(f field) error {
			switch f.number {
			case 1:
				v.element = Type(f.varint)
			case 2:
				v.ranked = true
				return fields(f.bytes, v.readDim)
			}
			return nil
		})
	})
}

func (v *value) readDim(f field) error {
	if f.number != 1 {
		return nil
	}
	var d dim
	err := fields(f.bytes, func(f field) error {
		switch f.number {
		case 1:
			d.size = int64(f.varint)
		case 2:
			d.name = string(f.bytes)
		}
		return nil
	})
	v.dims = append(v.dims, d)
	return err
}

// inputs checks what the graph takes.
func (r *reader) inputs() error {
	for _, v := range r.given {
		if r.initialized[v.name] { // before IR 4 those are listed, too
			continue
		}
		in, err := v.input()
		if err != nil {
			return err
		}
		r.file.Inputs = append(r.file.Inputs, in)
		if r.file.Columns += in.Width; r.file.Columns > MaxColumns {
			return refused(v.name, "the inputs have more columns than MaxColumns = %d", MaxColumns)
		}
	}
	if len(r.file.Inputs) == 0 {
		return refused("onnx graph", "it takes no input")
	}
	return nil
}

const shapeHint = "export it with a first dimension that is not fixed (the batch) and a second that is, or without a second"

func (v *value) input() (Input, error) {
	in := Input{Name: v.name, Type: v.element, Width: 1, Flat: len(v.dims) == 1}
	switch {
	case v.kind != "tensor":
		return in, refused(v.name, "the input is a %s, not a tensor", v.kind)
	case !slices.Contains([]Type{Float, Double, Int32, Int64, Bool}, v.element):
		return in, refused(v.name, "the input is of %s, and a row has numbers", v.element).WithHint("take inputs of float, double, int32, int64 or bool; encode texts before the model")
	case !v.ranked || len(v.dims) < 1 || len(v.dims) > 2:
		return in, refused(v.name, "the input has %d dimensions, and rows have two", len(v.dims)).WithHint(shapeHint)
	case v.dims[0].size != 0:
		return in, refused(v.name, "the input takes %d rows, no more and no less", v.dims[0].size).WithHint(shapeHint)
	}
	if len(v.dims) == 2 {
		if d := v.dims[1]; d.size < 1 || d.size > MaxColumns {
			return in, refused(v.name, "its second dimension is %s", d).WithHint(shapeHint)
		}
		in.Width = int(v.dims[1].size)
	}
	return in, nil
}

func (d dim) String() string {
	switch {
	case d.name != "":
		return "dynamic (" + d.name + ")"
	case d.size == 0:
		return "dynamic"
	default:
		return strconv.FormatInt(d.size, 10)
	}
}

// outputs finds the one that is the score.
func (r *reader) outputs() error {
	var could []*value
	for i := range r.taken {
		v := &r.taken[i]
		switch {
		case r.zipMap != nil && v.name == r.zipMap.to:
			*v = value{name: r.zipMap.from, kind: "tensor", element: Float, encoding: v.encoding}
			could = append(could, v)
		case v.kind != "tensor":
			return refused(v.name, "the output is a %s, not a tensor", v.kind)
		case v.element == Float || v.element == Double:
			could = append(could, v)
		case v.element == Int64 || v.element == Int32 || v.element == Text:
			r.file.Labels = true
		}
	}
	if name := r.file.Notes[NoteScores]; name != "" {
		if r.zipMap != nil && name == r.zipMap.to {
			name = r.zipMap.from
		}
		could = slices.DeleteFunc(could, func(v *value) bool { return v.name != name })
	}
	if len(could) != 1 {
		names := make([]string, len(could))
		for i, v := range could {
			names[i] = v.name
		}
		return refused("onnx graph", "%d of its %d outputs could be the score (%s)", len(could), len(r.taken), strings.Join(names, ", ")).
			WithHint("it must have one output of float or double, or name it in the metadata property %s", NoteScores)
	}
	r.file.Scores, r.file.Type = could[0].name, could[0].element
	if r.zipMap != nil && r.file.Scores == r.zipMap.from {
		r.file.Classes = r.zipMap.labels
	}
	return nil
}

// withoutZipMap is the model without that node, its input in the place of its output.
func (r *reader) withoutZipMap() []byte {
	var graph []byte
	_ = fields(r.graph, func(f field) error { // it was read before
		switch {
		case f.number == 1 && bytes.Equal(f.whole, r.zipMap.encoding):
		case f.number == 12 && r.isZipped(f.bytes):
			graph = appendFloats(graph, r.zipMap.from)
		default:
			graph = append(graph, f.whole...)
		}
		return nil
	})
	var model []byte
	_ = fields(r.content, func(f field) error {
		if f.number == 7 {
			model = protowire.AppendBytes(protowire.AppendTag(model, 7, protowire.BytesType), graph)
			return nil
		}
		model = append(model, f.whole...)
		return nil
	})
	return model
}

func (r *reader) isZipped(output []byte) bool {
	zipped := false
	_ = fields(output, func(f field) error {
		zipped = zipped || f.number == 1 && string(f.bytes) == r.zipMap.to
		return nil
	})
	return zipped
}

// appendFloats appends an output that is a tensor of float, of any shape.
func appendFloats(b []byte, name string) []byte {
	tensor := protowire.AppendVarint(protowire.AppendTag(nil, 1, protowire.VarintType), uint64(Float))
	typ := protowire.AppendBytes(protowire.AppendTag(nil, 1, protowire.BytesType), tensor)
	v := protowire.AppendString(protowire.AppendTag(nil, 1, protowire.BytesType), name)
	v = protowire.AppendBytes(protowire.AppendTag(v, 2, protowire.BytesType), typ)
	return protowire.AppendBytes(protowire.AppendTag(b, 12, protowire.BytesType), v)
}
