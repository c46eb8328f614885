package gbdt

import (
	"bytes"
	"context"
	"math"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/millrace/millrace/internal/failure"
	"github.com/millrace/millrace/registry/model"
)

// counted has labels that are counts, by a law of two columns; classed has labels that are classes of three.
func counted(rows int, seed uint64) Data {
	d := someData(rows, seed)
	r := rand.New(rand.NewPCG(seed, 2))
	for i := range d.Labels {
		expected, n, p := math.Exp(0.3+d.Columns[0][i]/2+d.Columns[2][i]/24), 0.0, 1.0
		for p *= r.Float64(); p > math.Exp(-expected); p *= r.Float64() { // Knuth's way to draw a Poisson number
			n++
		}
		d.Labels[i] = n
	}
	return d
}

func classed(rows int, seed uint64) Data {
	d := someData(rows, seed)
	r := rand.New(rand.NewPCG(seed, 3))
	d.Classes = []string{"small", "middle", "large"}
	for i := range d.Labels {
		d.Labels[i] = max(0, min(math.Round(1+d.Columns[0][i]+r.NormFloat64()/2), 2))
	}
	return d
}

func weightsOf(rows int) []float64 {
	weights := make([]float64, rows)
	for i := range weights {
		weights[i] = 0.25 + float64(i%4)
	}
	return weights
}

// TestLeavesOfCounts computes the leaves of three trees by hand: the Newton step of the Poisson likelihood, its hessian at a margin 0.7 higher.
func TestLeavesOfCounts(t *testing.T) {
	d := counted(2000, 5)
	d.Weights = weightsOf(len(d.Labels))
	p := Default()
	p.Objective, p.Trees, p.L2 = model.Poisson, 3, 1.5
	f := fit(t, d, p)
	sum, weight := 0.0, 0.0
	for i, y := range d.Labels {
		sum, weight = sum+d.Weights[i]*y, weight+d.Weights[i]
	}
	bias := math.Log(sum / weight)
	margins := slices.Repeat([]float64{bias}, len(d.Labels))
	for n, tree := range f.Trees() {
		g, h := make([]float64, len(tree.Leaves)), make([]float64, len(tree.Leaves))
		for i, m := range margins {
			leaf := leafOf(tree, rowOf(d, i))
			g[leaf] += d.Weights[i] * (math.Exp(m) - d.Labels[i])
			h[leaf] += d.Weights[i] * math.Exp(m+0.7)
		}
		for i := range tree.Leaves {
			want := -g[i] / (h[i] + p.L2) * p.LearningRate
			if n == 0 {
				want += bias
			}
			if math.Abs(tree.Leaves[i].Value-want) > 1e-9 {
				t.Errorf("tree %d, leaf %d: %v, by hand %v", n, i, tree.Leaves[i].Value, want)
			}
		}
		for i := range margins {
			margins[i] += tree.Leaves[leafOf(tree, rowOf(d, i))].Value
			if n == 0 {
				margins[i] -= bias
			}
		}
	}
	row := rowOf(d, 7)
	if f.Task() != model.TaskPoisson || math.Abs(f.Predict(row)-math.Exp(margins[7])) > 1e-9 {
		t.Errorf("task %s, score %v, by hand %v", f.Task(), f.Predict(row), math.Exp(margins[7]))
	}
}

// TestLeavesOfClasses computes the leaves of two rounds by hand: the trees of a round are all grown at the probabilities before it.
func TestLeavesOfClasses(t *testing.T) {
	d := classed(2000, 6)
	d.Weights = weightsOf(len(d.Labels))
	p := Default()
	p.Objective, p.Trees = model.Multiclass, 2
	f := fit(t, d, p)
	trees := f.Trees()
	if len(trees) != 6 || !slices.Equal(f.Outputs(), d.Classes) {
		t.Fatalf("%d trees of %v", len(trees), f.Outputs())
	}
	margins := make([][]float64, 3)
	for k := range margins {
		sum, weight := 0.0, 0.0
		for i, y := range d.Labels {
			if weight += d.Weights[i]; int(y) == k {
				sum += d.Weights[i]
			}
		}
		margins[k] = slices.Repeat([]float64{math.Log(sum / weight)}, len(d.Labels))
	}
	for round := range 2 {
		probabilities := make([][]float64, 3)
		for k := range probabilities {
			for i := range d.Labels {
				all := math.Exp(margins[0][i]) + math.Exp(margins[1][i]) + math.Exp(margins[2][i])
				probabilities[k] = append(probabilities[k], math.Exp(margins[k][i])/all)
			}
		}
		for k := range 3 {
			tree, bias := trees[3*round+k], margins[k][0]
			g, h := make([]float64, len(tree.Leaves)), make([]float64, len(tree.Leaves))
			for i, y := range d.Labels {
				leaf, q := leafOf(tree, rowOf(d, i)), probabilities[k][i]
				if int(y) == k {
					g[leaf]--
				}
				g[leaf] += q + (d.Weights[i]-1)*(q-map[bool]float64{true: 1}[int(y) == k])
				h[leaf] += d.Weights[i] * 1.5 * q * (1 - q)
			}
			for i := range tree.Leaves {
				want := -g[i] / h[i] * p.LearningRate
				if round == 0 {
					want += bias
				}
				if math.Abs(tree.Leaves[i].Value-want) > 1e-9 || tree.Output != k {
					t.Errorf("round %d, class %d, leaf %d: %v, by hand %v", round, k, i, tree.Leaves[i].Value, want)
				}
			}
			for i := range d.Labels {
				margins[k][i] += tree.Leaves[leafOf(tree, rowOf(d, i))].Value
				if round == 0 {
					margins[k][i] -= bias
				}
			}
		}
	}
	got := make([]float64, 3)
	f.PredictInto(rowOf(d, 9), got)
	all := math.Exp(margins[0][9]) + math.Exp(margins[1][9]) + math.Exp(margins[2][9])
	for k := range got {
		if math.Abs(got[k]-math.Exp(margins[k][9])/all) > 1e-9 {
			t.Errorf("probability of %s is %v, by hand %v", d.Classes[k], got[k], math.Exp(margins[k][9])/all)
		}
	}
	read, err := model.LoadLightGBM(f.LightGBM())
	if err != nil {
		t.Fatal(err)
	}
	same := make([]float64, 3)
	if read.PredictInto(rowOf(d, 9), same); !slices.Equal(same, got) {
		t.Errorf("read back it gives %v, it gave %v", same, got)
	}
}

// TestObjectivesOnAnyNumberOfCores, with early stopping and sampling on.
func TestObjectivesOnAnyNumberOfCores(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(0))
	for objective, data := range map[model.Objective]func(int, uint64) Data{model.Poisson: counted, model.Multiclass: classed} {
		d, later := data(parallelRows+chunkRows+17, 1), data(3000, 2)
		d.Valid = &Rows{Columns: later.Columns, Labels: later.Labels}
		p := Default()
		p.Objective, p.Trees, p.EarlyStopping, p.RowFraction, p.FeatureFraction = objective, 60, 3, 0.7, 0.8
		p.LearningRate = 0.5
		var want []byte
		for _, cores := range []int{1, 3} {
			runtime.GOMAXPROCS(cores)
			f := fit(t, d, p)
			if n := len(f.Trees()) / max(1, len(d.Classes)); n < 2 || n > 56 {
				t.Errorf("%s: %d rounds: it did not stop early", objective, n)
			}
			got := f.LightGBM()
			if want == nil {
				want = got
			}
			if !bytes.Equal(got, want) {
				t.Errorf("%s: on %d cores the forest is another", objective, cores)
			}
		}
	}
}

func TestRefusesLabelsOfAnotherObjective(t *testing.T) {
	p := Default()
	for name, c := range map[string]struct {
		objective model.Objective
		data      Data
		spoil     func(*Data)
		says      string
	}{
		"a count below 0":      {model.Poisson, counted(100, 1), func(d *Data) { d.Labels[3] = -1 }, "no count"},
		"counts that are 0":    {model.Poisson, counted(100, 1), func(d *Data) { clear(d.Labels) }, "nothing to tell apart"},
		"a class too many":     {model.Multiclass, classed(100, 1), func(d *Data) { d.Labels[3] = 3 }, "none of 3 classes"},
		"half a class":         {model.Multiclass, classed(100, 1), func(d *Data) { d.Labels[3] = 0.5 }, "none of 3 classes"},
		"no classes":           {model.Multiclass, classed(100, 1), func(d *Data) { d.Classes = nil }, "0 classes"},
		"classes of no use":    {model.Regression, classed(100, 1), func(*Data) {}, "3 classes"},
		"one class for rows":   {model.Multiclass, classed(100, 1), func(d *Data) { clear(d.Labels) }, "nothing to tell apart"},
		"a class in the slice": {model.Multiclass, classed(100, 1), func(d *Data) { d.Valid = &Rows{Columns: d.Columns, Labels: slices.Repeat([]float64{7}, 100)} }, "valid rows"},
	} {
		c.spoil(&c.data)
		p.Objective, p.EarlyStopping = c.objective, 0
		if c.data.Valid != nil {
			p.EarlyStopping = 3
		}
		if _, err := Fit(context.Background(), c.data, p); failure.Of(err) != failure.BadRequest || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
