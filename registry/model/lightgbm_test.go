package model

import (
	"bytes"
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/millrace/millrace/internal/failure"
)

// golden is what LightGBM said about a model: testdata/make.py writes it.
type golden struct {
	Rows          [][]value
	Margins       []float64
	Scores        []float64
	Bias          float64
	Contributions [][]float64
}

// value is a number, or the text of one that JSON lacks.
type value float64

func (v *value) UnmarshalJSON(b []byte) error {
	x, err := strconv.ParseFloat(strings.Trim(string(b), `"`), 64)
	*v = value(x)
	return err
}

func row(values []value) []float64 {
	out := make([]float64, len(values))
	for i, v := range values {
		out[i] = float64(v)
	}
	return out
}

func readFile(t testing.TB, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func models(t testing.TB, folder string) []string {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join("testdata", folder, "*.txt"))
	if err != nil || len(paths) == 0 {
		t.Fatalf("no models in testdata/%s (%v)", folder, err)
	}
	return paths
}

func load(t testing.TB, path string) *Forest {
	t.Helper()
	f, err := LoadLightGBM(readFile(t, path))
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// TestGolden holds us to LightGBM's own answers: margins to the bit, scores to what exp may differ by, and reasons to an
// independent walk over LightGBM's dump.
func TestGolden(t *testing.T) {
	for _, path := range models(t, "good") {
		t.Run(filepath.Base(path), func(t *testing.T) {
			var want golden
			if err := json.Unmarshal(readFile(t, strings.TrimSuffix(path, "txt")+"json"), &want); err != nil {
				t.Fatal(err)
			}
			first := load(t, path)
			second, err := LoadLightGBM(first.LightGBM())
			if err != nil {
				t.Fatalf("reading back what was written: %v", err)
			}
			checkGolden(t, first, want)
			checkGolden(t, second, want)
			if !bytes.Equal(first.LightGBM(), second.LightGBM()) {
				t.Error("what was written is written otherwise the second time")
			}
		})
	}
}

func checkGolden(t *testing.T, f *Forest, want golden) {
	t.Helper()
	if len(want.Rows) == 0 {
		t.Fatal("no golden rows")
	}
	for i := range want.Rows {
		x := row(want.Rows[i])
		if got := f.Margin(x); got != want.Margins[i] {
			t.Errorf("row %d %v: margin %v, LightGBM says %v", i, x, got, want.Margins[i])
		}
		if got := f.Predict(x); math.Abs(got-want.Scores[i]) > 1e-15 {
			t.Errorf("row %d %v: score %v, LightGBM says %v", i, x, got, want.Scores[i])
		}
		out := make([]float64, len(x))
		bias, method := f.Explain(x, 0, "", out)
		if method != Saabas || math.Abs(bias-want.Bias) > 1e-12 {
			t.Errorf("row %d: %s bias %v, LightGBM says %v", i, method, bias, want.Bias)
		}
		for j := range out {
			if math.Abs(out[j]-want.Contributions[i][j]) > 1e-12 {
				t.Errorf("row %d input %d: contribution %v, want %v", i, j, out[j], want.Contributions[i][j])
			}
		}
	}
}

// TestGoldenCatchesFaults plants the faults that a loader of this format is prone to, in the text, and expects that the
// golden rows of at least one model notice each. The golden rows would not be worth much otherwise.
func TestGoldenCatchesFaults(t *testing.T) {
	faults := map[string]func(*Split){
		"default side swapped":        func(s *Split) { s.DefaultLeft = !s.DefaultLeft },
		"less instead of at most":     func(s *Split) { s.Threshold = math.Nextafter(s.Threshold, math.Inf(-1)) },
		"threshold rounded to single": func(s *Split) { s.Threshold = float64(float32(s.Threshold)) },
		"zero not taken as missing": func(s *Split) {
			if s.Missing == MissingZero {
				s.Missing = MissingNaN
			}
		},
		"missing not taken as zero": func(s *Split) {
			if s.Missing == MissingNone {
				s.Missing = MissingNaN
			}
		},
		"children swapped": func(s *Split) { s.Left, s.Right = s.Right, s.Left },
	}
	for name, plant := range faults {
		t.Run(name, func(t *testing.T) {
			wrong := 0
			for _, path := range models(t, "good") {
				var want golden
				if err := json.Unmarshal(readFile(t, strings.TrimSuffix(path, "txt")+"json"), &want); err != nil {
					t.Fatal(err)
				}
				spec, err := readLightGBM(readFile(t, path))
				if err != nil {
					t.Fatal(err)
				}
				for i := range spec.Trees {
					for j := range spec.Trees[i].Splits {
						plant(&spec.Trees[i].Splits[j])
					}
				}
				f, err := NewForest(spec)
				if err != nil {
					t.Fatal(err)
				}
				for i := range want.Rows {
					if f.Margin(row(want.Rows[i])) != want.Margins[i] {
						wrong++
					}
				}
			}
			if wrong == 0 {
				t.Error("no golden row noticed")
			}
		})
	}
}

// TestRefused reads models that LightGBM wrote and that are not scored here. Each must be refused by what is wrong with
// it.
func TestRefused(t *testing.T) {
	for _, path := range models(t, "bad") {
		t.Run(filepath.Base(path), func(t *testing.T) {
			message, text, _ := bytes.Cut(readFile(t, path), []byte("\n"))
			_, err := LoadLightGBM(text)
			if err == nil || !strings.Contains(err.Error(), string(message)) {
				t.Fatalf("error %v, want one that says %q", err, message)
			}
			if failure.Of(err) != failure.Refused {
				t.Errorf("kind %v, want refused", failure.Of(err))
			}
		})
	}
}

// TestDamaged changes one thing in a whole model. Each must be an error of kind Corrupt.
func TestDamaged(t *testing.T) {
	whole := string(readFile(t, "testdata/good/binary_v3.txt"))
	field := func(name, value string) func(string) string {
		return func(s string) string {
			at := strings.Index(s, "\n"+name+"=") + 1
			end := at + strings.IndexByte(s[at:], '\n')
			return s[:at] + name + "=" + value + s[end:]
		}
	}
	for name, damage := range map[string]func(string) string{
		"cut off":                func(s string) string { return s[:strings.Index(s, "end of trees")] },
		"a tree is gone":         func(s string) string { return s[:strings.Index(s, "Tree=1")] + s[strings.Index(s, "end of trees"):] },
		"many leaves":            field("num_leaves", "1000000000"),
		"no leaves":              field("num_leaves", "0"),
		"fewer values":           field("leaf_value", "1 2"),
		"leaf is not a number":   field("leaf_value", "1 2 3 4 5 NaN"),
		"leaf is infinite":       field("leaf_value", "1 2 3 4 5 1e999"),
		"unknown input":          field("split_feature", "0 1 0 1 3"),
		"negative input":         field("split_feature", "0 1 0 1 -1"),
		"cycle":                  field("left_child", "0 0 0 0 0"),
		"child does not exist":   field("right_child", "99 99 99 99 99"),
		"child out of range":     field("right_child", "-9223372036854775808 1 2 3 4"),
		"field twice":            func(s string) string { return strings.Replace(s, "num_cat=0", "num_cat=0\nnum_cat=0", 1) },
		"fewer names":            field("feature_names", "whole gaps.mean_1h"),
		"a name twice":           field("feature_names", "whole whole zeros"),
		"steepness of nothing":   field("objective", "binary sigmoid:0"),
		"tree out of order":      func(s string) string { return strings.Replace(s, "Tree=1", "Tree=2", 1) },
		"threshold is no number": field("threshold", "nan nan nan nan nan"),
	} {
		t.Run(name, func(t *testing.T) {
			text := damage(whole)
			if text == whole {
				t.Fatal("nothing was damaged")
			}
			_, err := LoadLightGBM([]byte(text))
			if err == nil || failure.Of(err) != failure.Corrupt {
				t.Fatalf("error %v, want one of kind corrupt", err)
			}
		})
	}
}

// FuzzLoadLightGBM expects an error or a model that scores and that reads back as itself.
func FuzzLoadLightGBM(f *testing.F) {
	for _, b := range zooFiles(f, "txt") {
		f.Add(b)
	}
	for _, folder := range []string{"good", "bad"} {
		for _, path := range models(f, folder) {
			f.Add(readFile(f, path))
		}
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		first, err := LoadLightGBM(text)
		if err != nil {
			return
		}
		x := make([]float64, len(first.Inputs()))
		for i := range x {
			x[i] = float64(i%5) - 2
			if i%3 == 1 {
				x[i] = math.NaN()
			}
		}
		first.Explain(x, 0, "", make([]float64, len(x)))
		second, err := LoadLightGBM(first.LightGBM())
		if err != nil {
			t.Fatalf("what was written cannot be read: %v", err)
		}
		if a, b := first.Margin(x), second.Margin(x); a != b && !(a != a && b != b) {
			t.Fatalf("margin %v, and %v when read back", a, b)
		}
	})
}

// TestZeroBand has what LightGBM says of numbers about zero: its predict takes those up to 1e-35 for zero, so that one at the lower end is
// above the threshold that is the same number.
func TestZeroBand(t *testing.T) {
	f := load(t, "testdata/good/binary.txt")
	const end = 1.0000000180025095e-35
	for _, c := range []struct{ x, margin float64 }{
		{math.Nextafter(-end, -1), -1.0082199819262088}, {-end, 0.013726073463401045}, {-1e-40, 0.013726073463401045}, {0, 0.013726073463401045},
		{end, 0.013726073463401045}, {math.Nextafter(end, 1), -0.6089468972936543},
	} {
		row := []float64{0.126, -0.132, c.x}
		if got := f.Margin(row); got != c.margin {
			t.Errorf("%v: margin %v, LightGBM says %v", c.x, got, c.margin)
		}
	}
}
