package model

import (
	"math"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/millrace/millrace/internal/failure"
	"github.com/millrace/millrace/registry/model/onnx"
)

// onnxCase is a model of the zoo, as zoo/onnx_zoo.py describes it.
type onnxCase struct {
	Refused string // part of the message; of ONNX Runtime's behind "runtime:"
	Rows    string
	Count   int
	Singles int
	Inputs  []string
	Unnamed bool
	Task    Task
	Outputs []string
}

// TestONNX compares with what ONNX Runtime's Python says, to the bit, of small models here and, where MILLRACE_TEST_ONNX is a folder
// that onnx_zoo.py wrote, of those on 10,000 rows each. In a build without the tag onnx it sees that files are read, or refused, as
// well, and that the remedy is named.
func TestONNX(t *testing.T) {
	eachCase(t, "onnx", "MILLRACE_TEST_ONNX", func(t *testing.T, folder, name string, c *onnxCase) { c.check(t, folder, name) })
}

func (c *onnxCase) check(t *testing.T, folder, name string) {
	content := readFile(t, filepath.Join(folder, name+".onnx"))
	media, err := Detect(content)
	if err != nil || media != MediaONNX {
		t.Fatalf("detected %q, %v", media, err)
	}
	m, err := Load(media, content)
	want, ofRuntime := strings.CutPrefix(c.Refused, "runtime:")
	if !onnx.Built && (ofRuntime || want == "") {
		want = "built without ONNX"
	}
	if want != "" {
		if kind := failure.Of(err); err == nil || !strings.Contains(err.Error(), want) || kind != failure.Refused && kind != failure.Corrupt {
			t.Fatalf("error %v, want one of kind refused that says %q", err, want)
		}
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	if strings.Join(m.Inputs(), " ") != strings.Join(c.Inputs, " ") || strings.Join(m.Outputs(), " ") != strings.Join(c.Outputs, " ") || m.Task() != c.Task || Numbered(m) != c.Unnamed {
		t.Fatalf("inputs %v (numbered: %v), outputs %v, task %s; want %+v", m.Inputs(), Numbered(m), m.Outputs(), m.Task(), c)
	}
	rows := split(numbers(t, filepath.Join(folder, c.Rows)), 5)
	golden := numbers(t, filepath.Join(folder, name+".f64"))
	width := len(c.Outputs)
	got := make([]float64, c.Count*width)
	m.PredictRows(rows, got)
	same(t, "of all rows", got, golden[:len(got)])
	for i := range c.Singles {
		m.PredictInto(rows[i], got[i*width:])
	}
	same(t, "row by row", got[:c.Singles*width], golden[c.Count*width:])
	c.bundle(t, content, rows)
}

// same compares to the bit.
func same(t *testing.T, what string, got, want []float64) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%s: %d scores, want %d", what, len(got), len(want))
	}
	for i := range got {
		if math.Float64bits(got[i]) != math.Float64bits(want[i]) {
			t.Fatalf("%s: score %d is %v, want %v", what, i, got[i], want[i])
		}
	}
}

// bundle packs the model under other names, and sees that a bundle that says other scores does not load.
func (c *onnxCase) bundle(t *testing.T, content []byte, rows [][]float64) {
	names := c.Inputs
	if c.Unnamed {
		names = []string{"normal", "gaps", "zeros", "whole", "skewed"}[:len(c.Inputs)]
	}
	signature := make([]SignatureInput, len(names))
	for i, name := range names {
		signature[i].Name = name
	}
	golden := make([][]float64, 20)
	for i := range golden {
		golden[i] = rows[i][:len(names)]
	}
	var classes []string
	if c.Task == TaskMulticlass {
		classes = []string{"a", "b", "c"}
	}
	b, err := PackBundle(signature, MediaONNX, content, classes, golden)
	if err != nil {
		t.Fatal(err)
	}
	packed, err := b.Encode()
	if err != nil {
		t.Fatal(err)
	}
	if b, err = DecodeBundle(packed); err != nil {
		t.Fatal(err)
	}
	m, err := b.Check()
	if err != nil {
		t.Fatal(err)
	}
	if strings.Join(m.Inputs(), " ") != strings.Join(names, " ") || classes != nil && strings.Join(m.Outputs(), " ") != "a b c" {
		t.Errorf("the bundle's model has inputs %v and outputs %v", m.Inputs(), m.Outputs())
	}
	contributions := make([]float64, len(names))
	bias, used := m.Explain(rows[0], 0, TreeSHAP, contributions)
	margins := make([]float64, len(m.Outputs()))
	m.Margins(rows[0], margins)
	if used != NoReasons || bias != margins[0] || len(m.Methods()) > 0 {
		t.Errorf("explained by %q with bias %v of margin %v; methods %v", used, bias, margins[0], m.Methods())
	}
	b.Scores[len(b.Scores)-1] += 3e-5 * max(1, math.Abs(b.Scores[len(b.Scores)-1]))
	if _, err := b.Check(); failure.Of(err) != failure.Corrupt || !strings.Contains(err.Error(), "golden rows") {
		t.Errorf("a golden row with another score: %v", err)
	}
}

// A whole-numbered input holds neither a missing value nor a fraction: such a row has no score, and its neighbours have theirs.
func TestONNXUnheld(t *testing.T) {
	m := builtONNX(t, "sklearn-columns")
	rows := split(numbers(t, filepath.Join("testdata", "onnx", "rows.f64")), 5)[:4]
	want := make([]float64, 4)
	m.PredictRows(rows, want)
	for _, unheld := range []float64{math.NaN(), 2.5, 1e300, math.Inf(1)} {
		rows[2][3] = unheld
		got := make([]float64, 4)
		m.PredictRows(rows, got)
		for i := range got {
			if i == 2 && !math.IsNaN(got[i]) || i != 2 && got[i] != want[i] {
				t.Errorf("%v in row 2: row %d scores %v, by itself %v", unheld, i, got[i], want[i])
			}
		}
		if one := m.Predict(rows[2]); !math.IsNaN(one) {
			t.Errorf("%v by itself scores %v", unheld, one)
		}
	}
}

// Scores that are said to be probabilities, and are none, are refused when they are packed.
func TestONNXNoProbability(t *testing.T) {
	m := builtONNX(t, "made-flat")
	m.(*ONNX).task = TaskBinary
	if err := probabilities(m, []float64{0.5, 1.5}); failure.Of(err) != failure.Refused {
		t.Errorf("error %v", err)
	}
	if err := probabilities(m, []float64{0, 1, 1 + 1e-7}); err != nil {
		t.Error(err)
	}
}

// One model answers many at once.
func TestONNXConcurrently(t *testing.T) {
	m := builtONNX(t, "xgboost-binary")
	rows := split(numbers(t, filepath.Join("testdata", "onnx", "rows-gaps.f64")), 5)
	want := make([]float64, len(rows))
	m.PredictRows(rows, want)
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			for n := range 200 {
				i := (n + w) % len(rows)
				if got := m.Predict(rows[i]); got != want[i] {
					t.Errorf("row %d scores %v, want %v", i, got, want[i])
					return
				}
			}
		})
	}
	wg.Wait()
}

// builtONNX is a model of testdata, in a build that scores it. In any other, what can be tested is in TestONNX.
func builtONNX(t *testing.T, name string) Model {
	t.Helper()
	m, err := LoadONNX(readFile(t, filepath.Join("testdata", "onnx", name+".onnx")))
	if !onnx.Built && strings.Contains(err.Error(), onnx.LibraryVariable) {
		t.SkipNow()
	}
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// FuzzONNX sees that whatever bytes are read, or refused by kind: without the library, which is given only what was read.
func FuzzONNX(f *testing.F) {
	files, err := filepath.Glob(filepath.Join("testdata", "onnx", "*.onnx"))
	if err != nil || len(files) == 0 {
		f.Fatal("no models", err)
	}
	for _, file := range files {
		f.Add(readFile(f, file))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		file, err := onnx.Read(b)
		if err != nil {
			if kind := failure.Of(err); kind != failure.Refused && kind != failure.Corrupt {
				t.Errorf("kind %s of %v", kind, err)
			}
			return
		}
		if file.Columns < 1 || file.Columns > onnx.MaxColumns || file.Scores == "" {
			t.Errorf("%+v", file)
		}
	})
}
