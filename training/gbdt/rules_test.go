package gbdt

import (
	"bytes"
	"math"
	"math/rand/v2"
	"runtime"
	"slices"
	"testing"

	"github.com/millrace/millrace/internal/failure"
	"github.com/millrace/millrace/registry/model"
)

// TestMonotone probes forests whose columns must not let the score fall, or rise: from any row, moved along such a column.
func TestMonotone(t *testing.T) {
	d := someData(6000, 31)
	d.Monotone = make([]int, len(d.Columns))
	ways := map[string]int{"smooth": 1, "hour": -1, "spikes": 1, "noise": -1} // most of them against what the data say
	for c, name := range d.Names {
		d.Monotone[c] = ways[name]
	}
	for _, depthWise := range []bool{false, true} {
		p := Default()
		p.Trees, p.MinRows, p.DepthWise, p.RowFraction = 40, 5, depthWise, 0.8
		f := fit(t, d, p)
		r := rand.New(rand.NewPCG(9, 9))
		moved, split := 0, map[int]bool{}
		for _, tree := range f.Trees() {
			for _, s := range tree.Splits {
				split[s.Input] = true
			}
		}
		for range 3000 {
			row := rowOf(d, r.IntN(len(d.Labels)))
			for c, way := range d.Monotone {
				if way == 0 {
					continue
				}
				low, high := d.Columns[c][r.IntN(len(d.Labels))], d.Columns[c][r.IntN(len(d.Labels))]
				if low > high {
					low, high = high, low
				}
				row := slices.Clone(row)
				row[c] = low
				before := f.Margin(row)
				row[c] = high
				after := f.Margin(row)
				if float64(way)*(after-before) < -1e-12 {
					t.Fatalf("%s from %v to %v moves the margin from %v to %v", d.Names[c], low, high, before, after)
				}
				if after != before {
					moved++
				}
			}
		}
		if moved < 1000 || !split[0] {
			t.Errorf("the probes moved the margin %d times, columns split by: %v", moved, split)
		}
	}
	d.Monotone[0] = 0
	free := fit(t, d, Default())
	up := slices.IndexFunc(d.Labels, func(float64) bool { return true })
	row, least, fell := rowOf(d, up), math.Inf(-1), false
	for x := -2.0; x < 2; x += 0.1 {
		row[0] = x
		fell = fell || free.Margin(row) < least-0.1
		least = max(least, free.Margin(row))
	}
	if !fell {
		t.Error("without the rule the margin rises all the same: the test says nothing")
	}
}

// TestNothingIsSplitAgainstTheRule has a column that only tells by falling where it must rise.
func TestNothingIsSplitAgainstTheRule(t *testing.T) {
	d := Data{Names: []string{"x"}, Columns: [][]float64{nil}}
	for i := range 1000 {
		y := 1.0
		if i%100 > 30 {
			y = 0
		}
		d.Columns[0], d.Labels = append(d.Columns[0], float64(i%100)), append(d.Labels, y)
	}
	for way, want := range map[int]bool{-1: true, 0: true, 1: false} {
		d.Monotone = []int{way}
		if got := len(fit(t, d, Default()).Trees()[0].Splits) > 0; got != want {
			t.Errorf("monotone by %d: split %v", way, got)
		}
	}
}

// TestStopsAtTheBestTree compares where boosting stopped with the loss of every length of the whole forest.
func TestStopsAtTheBestTree(t *testing.T) {
	for _, objective := range []model.Objective{model.Binary, model.Regression} {
		train, valid := someData(1500, 41), someData(1000, 42)
		for c := range train.Columns { // the gap between +Inf and the largest float is one that training does not see
			for i := range train.Columns[c] {
				train.Columns[c][i] = clamp(train.Columns[c][i])
			}
		}
		p := Default()
		p.Trees, p.LearningRate, p.Objective = 120, 0.3, objective
		whole := fit(t, train, p)
		weights := make([]float64, len(valid.Labels))
		for i := range weights {
			weights[i] = 0.01
			if valid.Labels[i] == 1 { // weighed so, another number of trees is best
				weights[i] = 3
			}
		}
		losses := make([]float64, len(whole.Trees()))
		for i, y := range valid.Labels {
			margin := 0.0
			for n, tree := range whole.Trees() {
				margin += tree.Leaves[leafOf(tree, rowOf(valid, i))].Value
				if objective == model.Binary {
					score := 1 / (1 + math.Exp(-margin))
					losses[n] -= weights[i] * (y*math.Log(score) + (1-y)*math.Log(1-score))
				} else {
					losses[n] += weights[i] * (y - margin) * (y - margin)
				}
			}
		}
		train.Valid = &Rows{valid.Columns, valid.Labels, weights}
		for _, patience := range []int{1, 5, 200} {
			best := 0
			for n := range losses {
				if n-best > patience {
					break
				}
				if losses[n] < losses[best] {
					best = n
				}
			}
			p.EarlyStopping = patience
			got := fit(t, train, p).Trees()
			if len(got) != best+1 || best < 2 || best > 100 {
				t.Errorf("%s, patience %d: %d trees, the least loss is with %d", objective, patience, len(got), best+1)
			}
			for n := range got {
				if !slices.Equal(got[n].Leaves, whole.Trees()[n].Leaves) {
					t.Fatalf("%s: tree %d is another when it stops early", objective, n)
				}
			}
		}
	}
}

// TestEverythingIsTheSameOnAnyNumberOfCores uses all there is at once.
func TestEverythingIsTheSameOnAnyNumberOfCores(t *testing.T) {
	d := manyCategories(3*parallelRows+17, 1)
	later := manyCategories(2*chunkRows+5, 2)
	d.Valid = &Rows{Columns: later.Columns, Labels: later.Labels}
	d.Monotone = []int{0, 0, 0, 1}
	p := Default()
	p.Trees, p.RowFraction, p.FeatureFraction, p.EarlyStopping, p.DepthWise = 25, 0.7, 0.75, 5, true
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(0))
	var want []byte
	for _, cores := range []int{1, 2, 4} {
		runtime.GOMAXPROCS(cores)
		got := fit(t, d, p).LightGBM()
		if want == nil {
			want = got
		}
		if !bytes.Equal(got, want) {
			t.Errorf("on %d cores the forest is another", cores)
		}
	}
	p.Seed++
	if bytes.Equal(fit(t, d, p).LightGBM(), want) {
		t.Error("another seed draws the same")
	}
}

// TestSamplesAreFair looks at what trees are grown on.
func TestSamplesAreFair(t *testing.T) {
	d := someData(20_000, 51)
	p := Default()
	p.RowFraction, p.FeatureFraction = 0.6, 0.5
	w := newGrower(newTable(&d, &p, newPool()), &p, newGradients(len(d.Labels), 1), newPool())
	drawn, skipped := make([]int, len(d.Labels)), make([]int, len(w.skipped))
	const trees = 200
	for tree := range trees {
		w.sample(tree)
		if !slices.IsSorted(w.rows) || len(w.rows)+len(w.left) != len(d.Labels) || math.Abs(float64(len(w.rows))-12_000) > 400 {
			t.Fatalf("tree %d: %d rows drawn, %d not", tree, len(w.rows), len(w.left))
		}
		for _, r := range w.rows {
			drawn[r]++
		}
		all := 0
		for c, s := range w.skipped {
			if s {
				skipped[c]++
				all++
			}
		}
		if all != len(w.skipped)/2 {
			t.Fatalf("tree %d: %d of %d columns skipped", tree, all, len(w.skipped))
		}
	}
	// Each row is drawn by a binomial law: 7 of its standard deviations leave room for 20,000 of them.
	deviation := math.Sqrt(trees * 0.6 * 0.4)
	for r, n := range drawn {
		if math.Abs(float64(n)-0.6*trees) > 7*deviation {
			t.Errorf("row %d is drawn %d times of %d", r, n, trees)
		}
	}
	for c, n := range skipped {
		if math.Abs(float64(n)-0.5*trees) > 50 {
			t.Errorf("column %d is skipped %d times of %d", c, n, trees)
		}
	}
}

// TestSampledRowsTrainAsTheyScore has the margins of rows that a tree was not grown on follow it, too: a forest without any
// gain from sampling would differ in its second tree otherwise.
func TestSampledRowsTrainAsTheyScore(t *testing.T) {
	d := someData(3000, 52)
	for c := range d.Columns {
		for i := range d.Columns[c] {
			d.Columns[c][i] = clamp(d.Columns[c][i])
		}
	}
	p := Default()
	p.RowFraction, p.MinRows, p.Trees = 0.5, 5, 6
	f := fit(t, d, p)
	w := newGrower(newTable(&d, &p, newPool()), &p, newGradients(len(d.Labels), 1), newPool())
	margins := slices.Repeat([]float64{start(&d, &p)[0]}, len(d.Labels))
	bias := margins[0]
	for n, tree := range f.Trees() {
		w.sample(n)
		g, h := make([]float64, len(tree.Leaves)), make([]float64, len(tree.Leaves))
		for _, r := range w.rows {
			at := leafOf(tree, rowOf(d, int(r)))
			score := 1 / (1 + math.Exp(-margins[r]))
			g[at], h[at] = g[at]+score-d.Labels[r], h[at]+score*(1-score)
		}
		for i := range d.Labels {
			at := leafOf(tree, rowOf(d, i))
			margins[i] += tree.Leaves[at].Value
			if n == 0 {
				margins[i] -= bias
			}
		}
		for at, leaf := range tree.Leaves {
			want := -g[at] / h[at] * p.LearningRate
			if n == 0 {
				want += bias
			}
			if math.Abs(leaf.Value-want) > 1e-9 {
				t.Fatalf("tree %d, leaf %d: value %v, the rows drawn say %v", n, at, leaf.Value, want)
			}
		}
	}
}

// TestSkippedColumnsAreNotSplitBy checks each tree against what was drawn for it.
func TestSkippedColumnsAreNotSplitBy(t *testing.T) {
	d := someData(3000, 53)
	p := Default()
	p.Trees, p.FeatureFraction = 20, 0.3
	f := fit(t, d, p)
	w := newGrower(newTable(&d, &p, newPool()), &p, newGradients(len(d.Labels), 1), newPool())
	for n, tree := range f.Trees() {
		w.sample(n)
		for _, s := range tree.Splits {
			if c := slices.Index(w.table.columns, s.Input); w.skipped[c] {
				t.Errorf("tree %d is split by %s, which it does without", n, d.Names[s.Input])
			}
		}
	}
}

// TestLevelByLevel has no leaf deeper than another may still become, except where nothing gains.
func TestLevelByLevel(t *testing.T) {
	d := someData(8000, 54)
	p := Default()
	p.Trees, p.Leaves, p.MinRows, p.DepthWise = 3, 16, 50, true
	for _, tree := range fit(t, d, p).Trees() {
		if got := depth(tree, 0); len(tree.Leaves) != 16 || got > 5 {
			t.Errorf("%d leaves at a depth of %d", len(tree.Leaves), got)
		}
	}
	p.DepthWise = false
	if got := depth(fit(t, d, p).Trees()[0], 0); got <= 5 {
		t.Errorf("leaf by leaf the tree is as flat (%d): the test says nothing", got)
	}
}

func TestRefusesRules(t *testing.T) {
	for name, spoil := range map[string]func(*Data, *Params){
		"too few ways":        func(d *Data, _ *Params) { d.Monotone = []int{1} },
		"a way of 2":          func(d *Data, _ *Params) { d.Monotone = slices.Repeat([]int{2}, len(d.Names)) },
		"too few categorical": func(d *Data, _ *Params) { d.Categorical = []bool{true} },
		"both": func(d *Data, _ *Params) {
			d.Categorical, d.Monotone = slices.Repeat([]bool{true}, len(d.Names)), slices.Repeat([]int{1}, len(d.Names))
		},
		"nothing to stop by": func(_ *Data, p *Params) { p.EarlyStopping = 3 },
		"no patience":        func(d *Data, _ *Params) { d.Valid = &Rows{Columns: d.Columns, Labels: d.Labels} },
		"valid labels of 2": func(d *Data, p *Params) {
			p.EarlyStopping, d.Valid = 1, &Rows{Columns: d.Columns, Labels: slices.Repeat([]float64{2}, len(d.Labels))}
		},
		"a valid column too few": func(d *Data, p *Params) {
			p.EarlyStopping, d.Valid = 1, &Rows{Columns: d.Columns[1:], Labels: d.Labels}
		},
		"no valid rows": func(d *Data, p *Params) {
			p.EarlyStopping, d.Valid = 1, &Rows{Columns: make([][]float64, len(d.Names))}
		},
		"a valid weight too few": func(d *Data, p *Params) { p.EarlyStopping, d.Valid = 1, &Rows{d.Columns, d.Labels, []float64{1}} },
		"a short column of valid": func(d *Data, p *Params) {
			p.EarlyStopping, d.Valid = 1, &Rows{Columns: d.Columns, Labels: d.Labels[1:]}
		},
	} {
		d, p := someData(100, 5), Default()
		spoil(&d, &p)
		if _, err := Fit(t.Context(), d, p); failure.Of(err) != failure.BadRequest {
			t.Errorf("%s: error %v, want one of kind bad_request", name, err)
		}
	}
}
