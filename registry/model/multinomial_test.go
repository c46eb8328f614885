package model

import (
	"bytes"
	"fmt"
	"math"
	"reflect"
	"strings"
	"testing"

	"github.com/millrace/millrace/internal/failure"
)

func someMultinomial(t testing.TB) *Multinomial {
	t.Helper()
	m, err := NewMultinomial([]MultinomialClass{
		{Class: "early", Intercept: 1, Inputs: []LogisticInput{{Name: "delay", Weight: -2, Mean: 10, Scale: 20, Missing: 0.5}, {Name: "distance", Weight: 1, Scale: 100}}},
		{Class: "late", Intercept: -1, Inputs: []LogisticInput{{Name: "delay", Weight: 2, Mean: 10, Scale: 20, Missing: -0.5}, {Name: "distance", Weight: 0, Scale: 100}}},
		{Class: "lost", Intercept: 0, Inputs: []LogisticInput{{Name: "delay", Scale: 20}, {Name: "distance", Weight: 3, Scale: 100}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// TestMultinomial compares with sums done by hand.
func TestMultinomial(t *testing.T) {
	m := someMultinomial(t)
	for _, c := range []struct {
		row     []float64
		margins []float64
		best    int
		reasons []float64
	}{
		{[]float64{30, 0}, []float64{-1, 1, 0}, 1, []float64{2, 0}},
		{[]float64{math.NaN(), 100}, []float64{2.5, -1.5, 3}, 2, []float64{0, 3}},
		{[]float64{10, math.Inf(1)}, []float64{1, -1, 0}, 0, []float64{0, 0}},
		{[]float64{-20010, 0}, []float64{2003, -2003, 0}, 0, []float64{2002, 0}},
	} {
		sum := 0.0
		for _, margin := range c.margins {
			sum += math.Exp(margin - c.margins[c.best])
		}
		out, margins, reasons := make([]float64, 3), make([]float64, 3), make([]float64, 2)
		best, method := m.PredictExplained(c.row, out, reasons)
		m.Margins(c.row, margins)
		if best != c.best || method != Linear || !reflect.DeepEqual(margins, c.margins) || !reflect.DeepEqual(reasons, c.reasons) {
			t.Errorf("%v: class %d by %s, margins %v, reasons %v, want %+v", c.row, best, method, margins, reasons, c)
		}
		for k, margin := range c.margins {
			if want := math.Exp(margin-c.margins[c.best]) / sum; math.Abs(out[k]-want) > 1e-15 {
				t.Errorf("%v: class %d has %v, want %v", c.row, k, out[k], want)
			}
		}
		if m.Predict(c.row) != out[best] {
			t.Errorf("%v: the score is %v of %v", c.row, m.Predict(c.row), out)
		}
	}
	bundle, err := NewBundle([]SignatureInput{{Name: "delay"}, {Name: "distance"}}, m, [][]float64{{1, 2}, {math.NaN(), 3}})
	if err != nil {
		t.Fatal(err)
	}
	if again, err := bundle.Check(); err != nil || fmt.Sprint(again.Outputs()) != "[early late lost]" || again.Task() != TaskMulticlass {
		t.Errorf("%v, %v", again, err)
	}
	bundle.Classes = []string{"a", "b", "c"}
	if _, err := bundle.Check(); failure.Of(err) != failure.Corrupt {
		t.Errorf("a bundle with other names: %v", err)
	}
}

func TestMultinomialText(t *testing.T) {
	m := someMultinomial(t)
	if mediaType, err := Detect(m.JSON()); err != nil || mediaType != MediaMultinomial {
		t.Errorf("%s, %v", mediaType, err)
	}
	again, err := Load(MediaMultinomial, m.JSON())
	if err != nil || !bytes.Equal(again.(*Multinomial).JSON(), m.JSON()) {
		t.Fatalf("what was read back is written otherwise, %v", err)
	}
	whole := string(m.JSON())
	for _, c := range []struct {
		old, new string
		kind     failure.Kind
	}{
		{"multinomial/1", "multinomial/2", failure.Refused},
		{`"class": "late"`, `"class": "early"`, failure.Corrupt},
		{`"class": "late"`, `"class": ""`, failure.Corrupt},
		{`"class": "late"`, `"class": "late", "more": 1`, failure.Corrupt},
		{`"name": "delay"`, `"name": "delays"`, failure.Corrupt},
		{`"scale": 20`, `"scale": 0`, failure.Corrupt},
	} {
		changed := strings.Replace(whole, c.old, c.new, 1)
		if changed == whole {
			t.Fatalf("no %s", c.old)
		}
		if _, err := Load(MediaMultinomial, []byte(changed)); failure.Of(err) != c.kind {
			t.Errorf("%s: %v", c.new, err)
		}
	}
	if _, err := NewMultinomial(nil); failure.Of(err) != failure.Corrupt {
		t.Errorf("no classes: %v", err)
	}
}

func FuzzLoadMultinomial(f *testing.F) {
	f.Add(someMultinomial(f).JSON())
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := LoadMultinomial(b)
		if err != nil {
			return
		}
		if again, err := LoadMultinomial(m.JSON()); err != nil || !bytes.Equal(again.JSON(), m.JSON()) {
			t.Fatalf("what was read back is another model, %v", err)
		}
	})
}
