package logistic

import (
	"bytes"
	"context"
	"errors"
	"math"
	"math/rand/v2"
	"runtime"
	"testing"

	"github.com/millrace/millrace/internal/failure"
	"github.com/millrace/millrace/registry/model"
)

// someData is drawn from a known logistic law: log odds -1 + 2*a - b/100, and +1.5 where c is missing.
func someData(rows int) Data {
	r := rand.New(rand.NewPCG(7, 8))
	d := Data{Names: []string{"a", "b", "c", "constant"}, Columns: make([][]float64, 4)}
	for range rows {
		a, b, c := r.NormFloat64(), 5000+100*r.NormFloat64(), r.NormFloat64()
		odds := -1 + 2*a - (b-5000)/100
		if r.IntN(4) == 0 {
			c = math.NaN()
			odds += 1.5
		}
		y := 0.0
		if r.Float64() < 1/(1+math.Exp(-odds)) {
			y = 1
		}
		for i, v := range []float64{a, b, c, 3} {
			d.Columns[i] = append(d.Columns[i], v)
		}
		d.Labels = append(d.Labels, y)
	}
	return d
}

func fit(t *testing.T, d Data, p Params) *model.Logistic {
	t.Helper()
	m, err := Fit(context.Background(), d, p)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func rowOf(d Data, i int) []float64 {
	row := make([]float64, len(d.Columns))
	for j := range row {
		row[j] = d.Columns[j][i]
	}
	return row
}

// TestRecoversTheLaw fits data drawn from known coefficients and looks at margins, within what so many rows allow.
func TestRecoversTheLaw(t *testing.T) {
	m := fit(t, someData(60_000), Default())
	for _, c := range []struct {
		row  []float64
		want float64
	}{
		{[]float64{0, 5000, 0, 3}, -1},
		{[]float64{1, 5000, 1, 3}, 1},
		{[]float64{0, 5100, 0, 3}, -2},
		{[]float64{0, 5000, math.NaN(), 3}, 0.5},
	} {
		if got := m.Margin(c.row); math.Abs(got-c.want) > 0.08 {
			t.Errorf("row %v: margin %.3f, the law says %v", c.row, got, c.want)
		}
	}
}

// TestIsTheMinimum moves each fitted coefficient both ways and expects the penalized loss, summed here anew from the
// model's own margins, to rise: what a wrong gradient, scale or penalty would not give.
func TestIsTheMinimum(t *testing.T) {
	d := someData(2000)
	d.Weights = make([]float64, len(d.Labels))
	for i := range d.Weights {
		d.Weights[i] = 0.5 + float64(i%3)
	}
	p := Params{L2: 30, Iterations: 500, Tolerance: 1e-9}
	m := fit(t, d, p)
	var inputs []model.LogisticInput
	for i, name := range d.Names {
		at, past, gap := rowOf(d, 0), rowOf(d, 0), rowOf(d, 0)
		at[i], past[i], gap[i] = 0, 1, math.NaN()
		out := make([]float64, 4)
		m.Explain(at, 0, "", out)
		zero := out[i]
		m.Explain(past, 0, "", out)
		slope := out[i] - zero
		m.Explain(gap, 0, "", out)
		mean, scale := meanAndScale(d, i)
		inputs = append(inputs, model.LogisticInput{Name: name, Weight: slope * scale, Mean: mean, Scale: scale, Missing: out[i]})
	}
	intercept, _ := m.Explain(rowOf(d, 0), 0, "", make([]float64, 4))
	least := penalized(t, d, p, intercept, inputs)
	const step = 1e-3
	for _, move := range []float64{-step, step} {
		if got := penalized(t, d, p, intercept+move, inputs); got <= least {
			t.Errorf("intercept moved by %v: loss %v, at the minimum %v", move, got, least)
		}
		for i := range inputs {
			moved := append([]model.LogisticInput(nil), inputs...)
			moved[i].Weight += move
			if got := penalized(t, d, p, intercept, moved); got <= least {
				t.Errorf("weight of %s moved by %v: loss %v, at the minimum %v", inputs[i].Name, move, got, least)
			}
			moved[i] = inputs[i]
			moved[i].Missing += move
			if got := penalized(t, d, p, intercept, moved); got <= least {
				t.Errorf("missing weight of %s moved by %v: loss %v, at the minimum %v", inputs[i].Name, move, got, least)
			}
		}
	}
}

func meanAndScale(d Data, column int) (mean, scale float64) {
	var n, sum, squares float64
	for i, x := range d.Columns[column] {
		if !math.IsNaN(x) {
			n += d.Weights[i]
			sum += d.Weights[i] * x
		}
	}
	mean = sum / n
	for i, x := range d.Columns[column] {
		if !math.IsNaN(x) {
			squares += d.Weights[i] * (x - mean) * (x - mean)
		}
	}
	if scale = math.Sqrt(squares / n); scale == 0 {
		scale = 1
	}
	return mean, scale
}

func penalized(t *testing.T, d Data, p Params, intercept float64, inputs []model.LogisticInput) float64 {
	t.Helper()
	m, err := model.NewLogistic(intercept, inputs)
	if err != nil {
		t.Fatal(err)
	}
	sum := 0.0
	for i, y := range d.Labels {
		score := m.Predict(rowOf(d, i))
		sum -= d.Weights[i] * (y*math.Log(score) + (1-y)*math.Log(1-score))
	}
	for _, in := range inputs {
		sum += p.L2 / 2 * (in.Weight*in.Weight + in.Missing*in.Missing)
	}
	return sum
}

func TestSameOnAnyNumberOfCores(t *testing.T) {
	d := someData(3*chunkRows + 17)
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(0))
	var want []byte
	for _, cores := range []int{1, 2, 5} {
		runtime.GOMAXPROCS(cores)
		got := fit(t, d, Default()).JSON()
		if want == nil {
			want = got
		}
		if !bytes.Equal(got, want) {
			t.Errorf("on %d cores the model is another", cores)
		}
	}
}

// TestSeparable fits labels that a line tells apart: only the penalty keeps the weights finite.
func TestSeparable(t *testing.T) {
	d := Data{Names: []string{"x"}, Columns: [][]float64{{1, 2, 3, 4}}, Labels: []float64{0, 0, 1, 1}}
	m := fit(t, d, Default())
	if low, high := m.Predict([]float64{1}), m.Predict([]float64{4}); !(low < 0.3 && high > 0.7) {
		t.Errorf("scores %v and %v", low, high)
	}
}

func TestRefuses(t *testing.T) {
	for name, spoil := range map[string]func(*Data){
		"no rows":          func(d *Data) { *d = Data{Names: d.Names, Columns: make([][]float64, 4)} },
		"a label of 2":     func(d *Data) { d.Labels[3] = 2 },
		"a label missing":  func(d *Data) { d.Labels[3] = math.NaN() },
		"labels all alike": func(d *Data) { clear(d.Labels) },
		"a short column":   func(d *Data) { d.Columns[1] = d.Columns[1][1:] },
		"a name missing":   func(d *Data) { d.Names = d.Names[1:] },
		"a weight of 0":    func(d *Data) { d.Weights = make([]float64, len(d.Labels)) },
	} {
		d := someData(100)
		spoil(&d)
		if _, err := Fit(context.Background(), d, Default()); err == nil || failure.Of(err) != failure.BadRequest {
			t.Errorf("%s: error %v, want one of kind bad_request", name, err)
		}
	}
	if _, err := Fit(context.Background(), someData(100), Params{L2: -1}); failure.Of(err) != failure.BadProject {
		t.Errorf("bad settings: error %v, want one of kind bad_project", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := Fit(ctx, someData(100), Default()); !errors.Is(err, context.Canceled) {
		t.Errorf("ended context: error %v", err)
	}
}
