package model

import (
	"bytes"
	"math"
	"strings"
	"testing"

	"github.com/millrace/millrace/internal/failure"
)

func someBundle(t testing.TB) Bundle {
	t.Helper()
	signature := []SignatureInput{
		{Name: "whole", Source: "distance", Kind: "int", Required: true},
		{Name: "gaps.mean_1h", Source: "gaps@0123456789ab/mean_1h", Kind: "float"},
		{Name: "zeros"},
	}
	golden := [][]float64{{0.5, math.NaN(), 0}, {-1, 2, 3}, {math.Copysign(0, -1), 1e-310, math.MaxFloat64}}
	b, err := NewBundle(signature, load(t, "testdata/good/binary.txt"), golden)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func encode(t testing.TB, b Bundle) []byte {
	t.Helper()
	text, err := b.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func TestBundleReadsBack(t *testing.T) {
	first := someBundle(t)
	text := encode(t, first)
	second, err := DecodeBundle(text)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(encode(t, second), text) || !bytes.Equal(encode(t, someBundle(t)), text) {
		t.Error("the same bundle has other bytes")
	}
	for i, row := range first.Golden {
		for j, v := range row {
			if math.Float64bits(v) != math.Float64bits(second.Golden[i][j]) && !math.IsNaN(v) {
				t.Errorf("golden value %d of row %d is %v, was %v", j, i, second.Golden[i][j], v)
			}
		}
	}
	m, err := second.Check()
	if err != nil {
		t.Fatal(err)
	}
	if got := m.Predict(first.Golden[0]); got != first.Scores[0] {
		t.Errorf("score %v, was %v", got, first.Scores[0])
	}
}

// TestBundleCatchesFaults changes one thing at a time in a good bundle.
func TestBundleCatchesFaults(t *testing.T) {
	for name, plant := range map[string]func(*Bundle){
		"first leaves are others": func(b *Bundle) { b.Model = bytes.ReplaceAll(b.Model, []byte("leaf_value="), []byte("leaf_value=1")) },
		"a score is another":      func(b *Bundle) { b.Scores[1] += 1e-8 },
		"a score is not a number": func(b *Bundle) { b.Scores[1] = math.NaN() },
		"a score is missing":      func(b *Bundle) { b.Scores = b.Scores[:2] },
		"a golden value is gone":  func(b *Bundle) { b.Golden[1][0] = math.NaN() },
		"a golden row is short":   func(b *Bundle) { b.Golden[1] = b.Golden[1][:2] },
		"no golden rows":          func(b *Bundle) { b.Golden, b.Scores = nil, nil },
		"inputs in other order":   func(b *Bundle) { b.Signature[0], b.Signature[2] = b.Signature[2], b.Signature[0] },
		"an input is missing":     func(b *Bundle) { b.Signature = b.Signature[:2] },
	} {
		t.Run(name, func(t *testing.T) {
			b := someBundle(t)
			plant(&b)
			if _, err := b.Check(); err == nil || failure.Of(err) != failure.Corrupt {
				t.Fatalf("error %v, want one of kind corrupt", err)
			}
		})
	}
	other := someBundle(t)
	other.Format = "application/x-onnx"
	if _, err := other.Check(); failure.Of(err) != failure.Refused {
		t.Errorf("unknown format: error %v, want one of kind refused", err)
	}
}

func TestBundleTextIsStrict(t *testing.T) {
	whole := string(encode(t, someBundle(t)))
	for old, new := range map[string]string{
		"millrace-bundle/1": "millrace-bundle/4",
		`"golden"`:          `"gilded"`,
		`"scores": [`:       `"scores": [ "x",`,
	} {
		if _, err := DecodeBundle([]byte(strings.Replace(whole, old, new, 1))); err == nil {
			t.Errorf("%s for %s was accepted", new, old)
		}
	}
	b := someBundle(t)
	b.Golden[0][0] = math.Inf(1)
	if _, err := b.Encode(); failure.Of(err) != failure.Corrupt {
		t.Errorf("infinite golden value: error %v", err)
	}
}

// TestBundleOfClasses packs a binary model of several classes, under names of its own.
func TestBundleOfClasses(t *testing.T) {
	encoded := readFile(t, "testdata/zoo/xgboost-3.4-classes.ubj")
	rows := split(numbers(t, "testdata/zoo/rows-60.f64"), 7)[:5]
	for _, row := range rows { // a golden row has no infinity
		for i, v := range row {
			if math.IsInf(v, 0) {
				row[i] = 0
			}
		}
	}
	var signature []SignatureInput
	for _, name := range []string{"normal", "gaps", "zeros", "whole", "skewed", "city", "kind"} {
		signature = append(signature, SignatureInput{Name: name})
	}
	first, err := PackBundle(signature, MediaXGBoostUBJ, encoded, []string{"low", "middle", "high"}, rows)
	if err != nil {
		t.Fatal(err)
	}
	second, err := DecodeBundle(encode(t, first))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(second.Model, encoded) || len(second.Scores) != 15 {
		t.Fatalf("%d bytes of %d, and %d scores", len(second.Model), len(encoded), len(second.Scores))
	}
	m, err := second.Check()
	if err != nil {
		t.Fatal(err)
	}
	if m.Task() != TaskMulticlass || strings.Join(m.Outputs(), " ") != "low middle high" {
		t.Errorf("a %s model of %v", m.Task(), m.Outputs())
	}
	if media, err := Detect(encode(t, first)); err != nil || media != MediaBundle {
		t.Errorf("detected as %q (%v)", media, err)
	}
	second.Scores[7] += 1e-8 // not of the first output
	if _, err := second.Check(); failure.Of(err) != failure.Corrupt {
		t.Errorf("another score of the second class: error %v", err)
	}
	for _, classes := range [][]string{{"low", "high"}, {"low", "low", "high"}, {"low", "", "high"}} {
		if _, err := PackBundle(signature, MediaXGBoostUBJ, encoded, classes, rows); failure.Of(err) != failure.Corrupt {
			t.Errorf("classes %q: error %v", classes, err)
		}
	}
	binary := someBundle(t)
	binary.Classes = []string{"no", "yes"}
	if _, err := binary.Check(); failure.Of(err) != failure.Corrupt {
		t.Errorf("classes of a binary model: error %v", err)
	}
}

func FuzzDecodeBundle(f *testing.F) {
	f.Add(encode(f, someBundle(f)))
	f.Fuzz(func(t *testing.T, text []byte) {
		b, err := DecodeBundle(text)
		if err != nil {
			return
		}
		if m, err := b.Check(); err == nil && len(m.Inputs()) != len(b.Signature) {
			t.Fatal("a checked bundle's signature is not its model's")
		}
		if _, err := b.Encode(); err != nil {
			t.Fatalf("what was read cannot be written: %v", err)
		}
	})
}
