package model

import (
	"encoding/binary"
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/millrace/millrace/internal/failure"
)

// zooCase is a model of the zoo, as zoo/zoo.py describes it.
type zooCase struct {
	Files        []string
	Refused      string // part of the message
	Rows         string
	Count        int
	Inputs       []string
	Outputs      int
	Explained    int
	Scored       bool
	Approximated bool
}

// TestZoo compares with what XGBoost and LightGBM themselves say, of small models of each format here and, where
// MILLRACE_TEST_ZOO is a list of folders that zoo.py wrote, of those on 10,000 rows each.
func TestZoo(t *testing.T) {
	eachCase(t, "zoo", "MILLRACE_TEST_ZOO", func(t *testing.T, folder, name string, c *zooCase) {
		for _, file := range c.Files {
			t.Run(filepath.Ext(file), func(t *testing.T) { c.check(t, folder, name, file) })
		}
	})
}

// eachCase runs what is described in a folder of testdata and, where the variable lists folders, in those.
func eachCase[C any](t *testing.T, own, variable string, check func(t *testing.T, folder, name string, c *C)) {
	const suffix = ".meta.json"
	for _, folder := range append([]string{filepath.Join("testdata", own)}, filepath.SplitList(os.Getenv(variable))...) {
		cases, err := filepath.Glob(filepath.Join(folder, "*"+suffix))
		if err != nil || len(cases) == 0 {
			t.Fatalf("no models in %s (%v)", folder, err)
		}
		for _, path := range cases {
			name := strings.TrimSuffix(filepath.Base(path), suffix)
			t.Run(filepath.Base(folder)+"/"+name, func(t *testing.T) {
				var c C
				if err := json.Unmarshal(readFile(t, path), &c); err != nil {
					t.Fatal(err)
				}
				check(t, folder, name, &c)
			})
		}
	}
}

func (c *zooCase) check(t *testing.T, folder, name, file string) {
	b := readFile(t, filepath.Join(folder, file))
	media, err := Detect(b)
	if err != nil {
		t.Fatal(err)
	}
	m, err := Load(media, b)
	if c.Refused != "" {
		if err == nil || !strings.Contains(err.Error(), c.Refused) || failure.Of(err) != failure.Refused {
			t.Fatalf("error %v, want one of kind refused that says %q", err, c.Refused)
		}
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	if len(m.Outputs()) != c.Outputs || strings.Join(m.Inputs(), " ") != strings.Join(c.Inputs, " ") {
		t.Fatalf("inputs %v and outputs %v, want %v and %d", m.Inputs(), m.Outputs(), c.Inputs, c.Outputs)
	}
	rows := split(numbers(t, filepath.Join(folder, c.Rows)), len(c.Inputs))
	want := numbers(t, filepath.Join(folder, name+".f64"))
	// XGBoost adds up float32, its exp is float32, too; LightGBM's arithmetic is ours.
	near, nearReason := 1e-12, 1e-9
	if m.(*Forest).spec.Float32 {
		near, nearReason = 1e-6, 2e-5
	}
	got, one := make([]float64, c.Count*c.Outputs), make([]float64, c.Outputs)
	for i, row := range rows {
		m.Margins(row, got[i*c.Outputs:])
	}
	want = compare(t, "margin", got, want, near)
	m.PredictRows(rows, got)
	for i, row := range rows {
		m.PredictInto(row, one)
		for j := range one {
			if one[j] != got[i*c.Outputs+j] {
				t.Fatalf("row %d: score %v by itself, %v among many", i, one, got[i*c.Outputs:][:c.Outputs])
			}
		}
	}
	if c.Scored {
		want = compare(t, "score", got, want, near)
	}
	want = c.checkReasons(t, m, TreeSHAP, rows, want, nearReason)
	if c.Approximated {
		want = c.checkReasons(t, m, Saabas, rows, want, nearReason)
	}
	if len(want) > 0 {
		t.Fatalf("%d numbers are left over", len(want))
	}
}

// checkReasons compares contributions and biases, and takes them off want.
func (c *zooCase) checkReasons(t *testing.T, m Model, method string, rows [][]float64, want []float64, near float64) []float64 {
	var got []float64
	for _, row := range rows[:c.Explained] {
		for o := range c.Outputs {
			out := make([]float64, len(c.Inputs)+1)
			bias, used := m.Explain(row, o, method, out[:len(c.Inputs)])
			if used != method {
				t.Fatalf("explained by %s, not by %s", used, method)
			}
			out[len(c.Inputs)] = bias
			got = append(got, out...)
		}
	}
	return compare(t, method, got, want, near)
}

// compare takes as many numbers off want as there are in got. They may differ by near, as a share of the largest.
func compare(t *testing.T, what string, got, want []float64, near float64) []float64 {
	t.Helper()
	if len(got) > len(want) {
		t.Fatalf("%s: %d numbers, want more than %d", what, len(want), len(got))
	}
	scale, worst := 1.0, 0.0
	for _, w := range want[:len(got)] {
		scale = max(scale, math.Abs(w))
	}
	for i, g := range got {
		difference := math.Abs(g - want[i])
		if !(difference <= near*scale) {
			t.Fatalf("%s %d of %d: %v, want %v (scale %v)", what, i, len(got), g, want[i], scale)
		}
		worst = max(worst, difference/scale)
	}
	t.Logf("%s: %d numbers, largest difference %.2g", what, len(got), worst)
	return want[len(got):]
}

func numbers(t testing.TB, path string) []float64 {
	t.Helper()
	b := readFile(t, path)
	out := make([]float64, len(b)/8)
	if _, err := binary.Decode(b, binary.LittleEndian, out); err != nil {
		t.Fatal(err)
	}
	return out
}

func split(flat []float64, wide int) [][]float64 {
	rows := make([][]float64, len(flat)/wide)
	for i := range rows {
		rows[i] = flat[i*wide : (i+1)*wide]
	}
	return rows
}
