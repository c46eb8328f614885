package logistic

import (
	"bytes"
	"encoding/csv"
	"math"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/millrace/millrace/internal/failure"
	"github.com/millrace/millrace/registry/model"
)

var threeClasses = []string{"on_time", "late", "very_late"}

// scikitRows are rows with what scikit-learn says of them (testdata/multinomial.py).
func scikitRows(t *testing.T) (data Data, probabilities [][]float64) {
	t.Helper()
	f, err := os.Open("testdata/multinomial.csv")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	records, err := csv.NewReader(f).ReadAll()
	if err != nil || len(records) != 300 {
		t.Fatalf("%d rows, %v", len(records), err)
	}
	data = Data{Names: []string{"a", "b", "c"}, Columns: make([][]float64, 3)}
	for _, record := range records {
		var v [8]float64
		for i, text := range record {
			if v[i], err = strconv.ParseFloat(text, 64); err != nil {
				t.Fatal(err)
			}
		}
		for c := range data.Columns {
			data.Columns[c] = append(data.Columns[c], v[c])
		}
		data.Labels, data.Weights, probabilities = append(data.Labels, v[3]), append(data.Weights, v[4]), append(probabilities, v[5:])
	}
	return data, probabilities
}

// TestMultinomialAgainstScikitLearn compares every probability with those of scikit-learn at the same penalty.
func TestMultinomialAgainstScikitLearn(t *testing.T) {
	data, want := scikitRows(t)
	p := Default()
	p.Tolerance, p.Iterations = 1e-10, 1000
	m, err := FitMultinomial(t.Context(), data, threeClasses, p)
	if err != nil {
		t.Fatal(err)
	}
	out := make([]float64, 3)
	for i := range data.Labels {
		m.PredictInto([]float64{data.Columns[0][i], data.Columns[1][i], data.Columns[2][i]}, out)
		for k := range out {
			if math.Abs(out[k]-want[i][k]) > 1e-6 {
				t.Fatalf("row %d has the probabilities %v, scikit-learn says %v", i, out, want[i])
			}
		}
	}
	again, err := FitMultinomial(t.Context(), data, threeClasses, p)
	if err != nil || !bytes.Equal(again.JSON(), m.JSON()) {
		t.Errorf("another run gives another model, %v", err)
	}
}

// The gradient is what differences of the value say, with missing values.
func TestMultinomialGradient(t *testing.T) {
	data, _ := scikitRows(t)
	for i := range data.Labels {
		if i%7 == 0 {
			data.Columns[1][i] = math.NaN()
		}
	}
	l := newMultinomialLoss(&data, 3, 1)
	x := l.begin()
	for i := range x {
		x[i] += math.Sin(float64(i)) / 3
	}
	l.evaluate(x)
	gradient := append([]float64(nil), l.gradient...)
	for i := range x {
		const step = 1e-5
		at := x[i]
		x[i] = at + step
		l.evaluate(x)
		above := l.value
		x[i] = at - step
		l.evaluate(x)
		x[i] = at
		if want := (above - l.value) / (2 * step); math.Abs(gradient[i]-want) > 1e-7 {
			t.Errorf("derivative %d is %v, differences say %v", i, gradient[i], want)
		}
	}
}

// With two classes it is the logistic regression, apart from the penalty, which two halves share.
func TestMultinomialOfTwoIsLogistic(t *testing.T) {
	data, _ := scikitRows(t)
	for i, y := range data.Labels {
		data.Labels[i] = min(y, 1)
	}
	p := Default()
	p.Tolerance, p.Iterations, p.L2 = 1e-10, 1000, 0
	one, err := Fit(t.Context(), data, p)
	if err != nil {
		t.Fatal(err)
	}
	two, err := FitMultinomial(t.Context(), data, []string{"no", "yes"}, p)
	if err != nil {
		t.Fatal(err)
	}
	out := make([]float64, 2)
	for i := range data.Labels {
		row := []float64{data.Columns[0][i], data.Columns[1][i], data.Columns[2][i]}
		if two.PredictInto(row, out); math.Abs(out[1]-one.Predict(row)) > 1e-6 {
			t.Fatalf("row %d: %v of two classes, %v of a yes or no", i, out[1], one.Predict(row))
		}
	}
}

func TestMultinomialRefuses(t *testing.T) {
	for says, spoil := range map[string]func(d *Data){
		"no label is of class 2": func(d *Data) {
			for i := range d.Labels {
				d.Labels[i] = min(d.Labels[i], 1)
			}
		},
		"label 5 is 3":   func(d *Data) { d.Labels[5] = 3 },
		"label 0 is 0.5": func(d *Data) { d.Labels[0] = 0.5 },
		"label 0 is -1":  func(d *Data) { d.Labels[0] = -1 },
		"weight 1 is 0":  func(d *Data) { d.Weights[1] = 0 },
	} {
		data, _ := scikitRows(t)
		spoil(&data)
		if _, err := FitMultinomial(t.Context(), data, threeClasses, Default()); failure.Of(err) != failure.BadRequest || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v", says, err)
		}
	}
	data, _ := scikitRows(t)
	if _, err := FitMultinomial(t.Context(), data, threeClasses[:1], Default()); failure.Of(err) != failure.BadRequest {
		t.Errorf("one class: %v", err)
	}
	var _ model.Model = (*model.Multinomial)(nil)
}
