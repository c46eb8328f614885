package model

import (
	"bytes"
	"math"
	"strings"
	"testing"

	"github.com/millrace/millrace/internal/failure"
)

func someLogistic(t testing.TB) *Logistic {
	t.Helper()
	m, err := NewLogistic(-1, []LogisticInput{
		{Name: "delay_mean_1h", Weight: 0.5, Mean: 10, Scale: 20, Missing: 0.25},
		{Name: "distance", Weight: -2, Mean: 700, Scale: 500},
	})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// TestLogistic compares with sums done by hand.
func TestLogistic(t *testing.T) {
	m := someLogistic(t)
	for _, c := range []struct{ row, reasons []float64 }{
		{[]float64{10, 700}, []float64{0, 0}},
		{[]float64{50, 200}, []float64{1, 2}},
		{[]float64{math.NaN(), 1200}, []float64{0.25, -2}},
		{[]float64{math.Inf(1), math.NaN()}, []float64{0.25, 0}},
	} {
		margin := -1 + c.reasons[0] + c.reasons[1]
		if got := m.Margin(c.row); got != margin {
			t.Errorf("row %v: margin %v, want %v", c.row, got, margin)
		}
		if got, want := m.Predict(c.row), 1/(1+math.Exp(-margin)); got != want {
			t.Errorf("row %v: score %v, want %v", c.row, got, want)
		}
		out := make([]float64, 2)
		if bias, method := m.Explain(c.row, 0, "", out); bias != -1 || method != Linear || out[0] != c.reasons[0] || out[1] != c.reasons[1] {
			t.Errorf("row %v: %s reasons %v over %v, want %v over -1", c.row, method, out, bias, c.reasons)
		}
	}
}

func TestLogisticText(t *testing.T) {
	m := someLogistic(t)
	again, err := Load(MediaLogistic, m.JSON())
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(again.(*Logistic).JSON(), m.JSON()) {
		t.Error("what was read back is written otherwise")
	}
	whole := string(m.JSON())
	for _, c := range []struct {
		old, new string
		kind     failure.Kind
	}{
		{"millrace-logistic/1", "millrace-logistic/2", failure.Refused},
		{`"scale": 20`, `"scale": 0`, failure.Corrupt},
		{`"scale": 20`, `"scale": -1`, failure.Corrupt},
		{`"mean": 10`, `"mean": 1e999`, failure.Corrupt},
		{`"distance"`, `"delay_mean_1h"`, failure.Corrupt},
		{`"intercept"`, `"intercpet"`, failure.Corrupt},
		{"}\n", "}\n{}", failure.Corrupt},
		{"}\n", "", failure.Corrupt},
	} {
		text := strings.Replace(whole, c.old, c.new, 1)
		if c.old == "}\n" {
			text = strings.TrimSuffix(whole, c.old) + c.new
		}
		if text == whole {
			t.Fatalf("%q is not in the text", c.old)
		}
		if _, err := LoadLogistic([]byte(text)); err == nil || failure.Of(err) != c.kind {
			t.Errorf("%q for %q: error %v, want one of kind %v", c.new, c.old, err, c.kind)
		}
	}
}

func FuzzLoadLogistic(f *testing.F) {
	f.Add(someLogistic(f).JSON())
	f.Fuzz(func(t *testing.T, text []byte) {
		m, err := LoadLogistic(text)
		if err != nil {
			return
		}
		row := make([]float64, len(m.Inputs()))
		m.Explain(row, 0, "", make([]float64, len(row)))
		if _, err := LoadLogistic(m.JSON()); err != nil {
			t.Fatalf("what was written cannot be read: %v", err)
		}
	})
}
