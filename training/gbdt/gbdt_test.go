package gbdt

import (
	"bytes"
	"context"
	"errors"
	"math"
	"math/rand/v2"
	"runtime"
	"slices"
	"testing"

	"github.com/millrace/millrace/internal/failure"
	"github.com/millrace/millrace/registry/model"
)

// someData has what real columns have: gaps, few values, many values, a constant, nothing at all, extremes.
func someData(rows int, seed uint64) Data {
	r := rand.New(rand.NewPCG(seed, 1))
	d := Data{Names: []string{"smooth", "gaps", "hour", "spikes", "constant", "empty", "extreme", "rare", "all", "noise"}}
	d.Columns = make([][]float64, len(d.Names))
	for range rows {
		smooth, gaps, hour, spikes := r.NormFloat64(), r.NormFloat64(), float64(r.IntN(24)), 0.0
		odds := -1 + math.Sin(2*smooth) + hour/12
		if r.IntN(3) == 0 {
			gaps = math.NaN()
			odds += 2
		}
		if r.IntN(3) == 0 {
			spikes = r.ExpFloat64()
			odds -= spikes * gapless(gaps)
		}
		extreme := []float64{math.Inf(-1), -math.MaxFloat64, 0, 2e-35, math.MaxFloat64, math.Inf(1)}[r.IntN(6)]
		rare := math.NaN()
		if r.IntN(50) == 0 {
			rare = 1
			odds += 3
		}
		for i, v := range []float64{smooth, gaps, hour, spikes, 3, math.NaN(), extreme, rare, float64(r.IntN(2)), r.Float64()} {
			d.Columns[i] = append(d.Columns[i], v)
		}
		y := 0.0
		if r.Float64() < 1/(1+math.Exp(-odds)) {
			y = 1
		}
		d.Labels = append(d.Labels, y)
	}
	return d
}

func gapless(x float64) float64 {
	if math.IsNaN(x) {
		return 0
	}
	return x
}

func fit(t testing.TB, d Data, p Params) *model.Forest {
	t.Helper()
	f, err := Fit(context.Background(), d, p)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func rowOf(d Data, i int) []float64 {
	row := make([]float64, len(d.Columns))
	for j := range row {
		row[j] = d.Columns[j][i]
	}
	return row
}

// leafOf walks a tree by thresholds, as it is described.
func leafOf(t model.Tree, row []float64) int {
	at := 0
	if len(t.Splits) == 0 {
		at = ^0
	}
	for at >= 0 {
		s := t.Splits[at]
		x := row[s.Input]
		if math.Abs(x) <= float64(float32(1e-35)) { // LightGBM's predict has such numbers as zero
			x = 0
		}
		left := x <= s.Threshold || math.IsNaN(x) && s.DefaultLeft
		if s.Categories != nil {
			left = x >= 0 && s.Categories.Has(int(x))
		}
		if left {
			at = s.Left
		} else {
			at = s.Right
		}
	}
	return ^at
}

func TestSameOnAnyNumberOfCores(t *testing.T) {
	d := someData(3*parallelRows+17, 1) // large enough for leaves to be shared out
	p := Default()
	p.Trees = 10
	p.BinRows = 5000
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(0))
	var want []byte
	for _, cores := range []int{1, 2, 3, 8} {
		runtime.GOMAXPROCS(cores)
		got := fit(t, d, p).LightGBM()
		if want == nil {
			want = got
		}
		if !bytes.Equal(got, want) {
			t.Errorf("on %d cores the forest is another", cores)
		}
	}
}

// TestTrainsAsItScores boosts along by hand: each tree's leaves must hold the training rows that its thresholds send
// there, and have the Newton step of just these rows, at the margins that the trees before give. Binning, partitioning,
// histograms and thresholds must all agree for that.
func TestTrainsAsItScores(t *testing.T) {
	for _, objective := range []model.Objective{model.Binary, model.Regression} {
		t.Run(string(objective), func(t *testing.T) {
			d := someData(3000, 2)
			d.Weights = make([]float64, len(d.Labels))
			for i := range d.Weights {
				d.Weights[i] = 0.25 + float64(i%4)
				// The gap between +Inf and the largest float is the one that training does not see.
				d.Columns[6][i] = clamp(d.Columns[6][i])
				if d.Columns[6][i] == 0 && i%2 == 0 {
					d.Columns[6][i] = 5e-324 // scored as zero, and so trained as zero
				}
			}
			p := Default()
			p.Trees, p.Objective, p.L2, p.MinRows = 5, objective, 2, 5
			f := fit(t, d, p)
			if len(f.Trees()) != p.Trees {
				t.Fatalf("%d trees", len(f.Trees()))
			}
			margins := slices.Repeat([]float64{start(&d, &p)[0]}, len(d.Labels))
			for n, tree := range f.Trees() {
				checkTree(t, d, p, tree, margins, n == 0)
			}
			for i, m := range margins {
				if got := f.Margin(rowOf(d, i)); math.Abs(got-m) > 1e-12 {
					t.Fatalf("row %d: margin %v, by hand %v", i, got, m)
				}
			}
		})
	}
}

// checkTree compares a tree's leaves with the rows that reach them, and adds it to the margins.
func checkTree(t *testing.T, d Data, p Params, tree model.Tree, margins []float64, first bool) {
	t.Helper()
	type sums struct {
		rows int
		g, h float64
	}
	held := make([]sums, len(tree.Leaves))
	for i, m := range margins {
		s := &held[leafOf(tree, rowOf(d, i))]
		g, h := m-d.Labels[i], 1.0
		if p.Objective == model.Binary {
			score := 1 / (1 + math.Exp(-m))
			g, h = score-d.Labels[i], score*(1-score)
		}
		s.rows++
		s.g += g * d.Weights[i]
		s.h += h * d.Weights[i]
	}
	bias := margins[0]
	for i, leaf := range tree.Leaves {
		want := -held[i].g / (held[i].h + p.L2) * p.LearningRate
		if first {
			want += bias
		}
		if leaf.Rows != held[i].rows || math.Abs(leaf.Value-want) > 1e-9 || math.Abs(leaf.Weight-held[i].h) > 1e-6 {
			t.Errorf("leaf %d is %+v, its rows say %+v and value %v", i, leaf, held[i], want)
		}
	}
	for i := range margins {
		margins[i] += tree.Leaves[leafOf(tree, rowOf(d, i))].Value
		if first {
			margins[i] -= bias
		}
	}
}

// TestFindsTheBestSplit compares a stump with all splits there are, tried one by one on the values themselves: the gain
// that it reached must be the largest, and must be what it says.
func TestFindsTheBestSplit(t *testing.T) {
	for seed := range uint64(40) {
		d := someData(300, 100+seed)
		for c, column := range d.Columns { // few enough values, of enough rows, for each to have a bin: no split is out of reach
			for i, x := range column {
				if d.Names[c] != "hour" {
					column[i] = max(-1.5, min(math.Round(2*x)/2, 1.5))
				}
			}
		}
		p := Default()
		p.Trees, p.Leaves, p.MinRows, p.MinHessian = 1, 2, 0, 0
		p.Bins = 255
		p.L2 = 0.5
		tree := fit(t, d, p).Trees()[0]
		if len(tree.Splits) != 1 {
			t.Fatalf("seed %d: %d splits", seed, len(tree.Splits))
		}
		s := tree.Splits[0]
		reached := gainOf(d, p, func(i int) bool { return leafOf(tree, rowOf(d, i)) == 0 })
		best := 0.0
		for _, column := range d.Columns {
			for _, threshold := range column {
				if math.IsNaN(threshold) {
					continue
				}
				for _, missingLeft := range []bool{false, true} {
					best = max(best, gainOf(d, p, func(i int) bool {
						return column[i] <= threshold || math.IsNaN(column[i]) && missingLeft
					}))
				}
			}
		}
		// Gradients are rounded to choose a split: of two that differ by less, either may be chosen.
		if math.Abs(reached-best) > 1e-5*best {
			t.Errorf("seed %d: gain %v by %+v, the best is %v", seed, reached, s, best)
		}
		if math.Abs(s.Gain-reached) > 1e-5*reached {
			t.Errorf("seed %d: the split says it gained %v, it did %v", seed, s.Gain, reached)
		}
	}
}

func gainOf(d Data, p Params, left func(i int) bool) float64 {
	mean := 0.0
	for _, y := range d.Labels {
		mean += y / float64(len(d.Labels))
	}
	var g, h [2]float64
	for i, y := range d.Labels {
		side := 0
		if left(i) {
			side = 1
		}
		g[side] += mean - y
		h[side] += mean * (1 - mean)
	}
	score := func(g, h float64) float64 { return g * g / (h + p.L2) }
	return score(g[0], h[0]) + score(g[1], h[1]) - score(g[0]+g[1], h[0]+h[1])
}

// TestMissingSideIsLearned has missing values behave as low, as high, and as neither of the present ones.
func TestMissingSideIsLearned(t *testing.T) {
	p := Default()
	p.Trees, p.Leaves, p.MinRows = 1, 2, 1
	predict := func(f *model.Forest, x float64) bool { return f.Predict([]float64{x}) > 0.5 }
	build := func(missing float64, label func(x float64) float64) Data {
		d := Data{Names: []string{"x"}, Columns: [][]float64{nil}}
		for i := range 300 {
			x := float64(i%30) - 15
			d.Labels = append(d.Labels, label(x))
			d.Columns[0] = append(d.Columns[0], x)
			if i%5 == 0 {
				d.Labels[i], d.Columns[0][i] = missing, math.NaN()
			}
		}
		return d
	}
	positive := func(x float64) float64 {
		if x > 0 {
			return 1
		}
		return 0
	}
	p.LearningRate = 1
	for _, missing := range []float64{0, 1} {
		f := fit(t, build(missing, positive), p)
		if predict(f, -5) || !predict(f, 5) || predict(f, math.NaN()) != (missing == 1) {
			t.Errorf("missing is %v: scores %v %v %v", missing, f.Predict([]float64{-5}), f.Predict([]float64{5}), f.Predict([]float64{math.NaN()}))
		}
	}
	f := fit(t, build(1, func(float64) float64 { return 0 }), p)
	if predict(f, -15) || predict(f, 0) || predict(f, 1e300) || !predict(f, math.NaN()) {
		t.Errorf("missing alone is late: split %+v", f.Trees()[0].Splits[0])
	}
	// Where nothing was missing, the larger half has it: here 3 of 4 are low.
	d := build(0, positive)
	for i := range d.Labels {
		d.Columns[0][i], d.Labels[i] = float64(i%4), positive(float64(i%4)-2)
	}
	if f := fit(t, d, p); predict(f, math.NaN()) || !predict(f, 3) {
		t.Errorf("nothing was missing: split %+v", f.Trees()[0].Splits[0])
	}
}

// TestLearns expects the forest to tell held-out rows apart nearly as well as the law that they are drawn from.
func TestLearns(t *testing.T) {
	train, held := someData(20_000, 11), someData(5000, 12)
	p := Default()
	p.Trees, p.Leaves = 60, 15
	f := fit(t, train, p)
	scores := make([]float64, len(held.Labels))
	for i := range scores {
		scores[i] = f.Predict(rowOf(held, i))
	}
	// The law itself has 0.8133, LightGBM 4.6.0 with the same settings 0.8070.
	if got := auc(scores, held.Labels); got < 0.803 {
		t.Errorf("AUC %.4f", got)
	}
}

// auc counts the pairs in the right order, ties for half.
func auc(scores, labels []float64) float64 {
	var right, pairs float64
	for i, y := range labels {
		for j, z := range labels {
			if y > z {
				pairs++
				switch {
				case scores[i] > scores[j]:
					right++
				case scores[i] == scores[j]:
					right += 0.5
				}
			}
		}
	}
	return right / pairs
}

func TestLimitsHold(t *testing.T) {
	d := someData(4000, 3)
	for name, limit := range map[string]func(*Params){
		"leaves":      func(p *Params) { p.Leaves = 4 },
		"max depth":   func(p *Params) { p.MaxDepth = 3 },
		"min rows":    func(p *Params) { p.Leaves, p.MinRows = 1000, 200 },
		"min hessian": func(p *Params) { p.MinHessian = 50 },
		"min gain":    func(p *Params) { p.MinGain = 40 },
		"two bins":    func(p *Params) { p.Bins = 2 },
		"bin rows":    func(p *Params) { p.Bins, p.BinRows = 7, 50 },
	} {
		q := Default()
		q.Trees, q.MinRows = 5, 1
		limit(&q)
		t.Run(name, func(t *testing.T) {
			for _, tree := range fit(t, d, q).Trees() {
				if len(tree.Leaves) > q.Leaves || len(tree.Splits) == 0 {
					t.Errorf("%d leaves, %d splits", len(tree.Leaves), len(tree.Splits))
				}
				if q.MaxDepth > 0 && depth(tree, 0) > q.MaxDepth {
					t.Errorf("depth %d", depth(tree, 0))
				}
				for _, leaf := range tree.Leaves {
					// Rows are estimated from the hessian, which differs little between rows of so young a forest.
					if leaf.Weight < q.MinHessian*0.999 || float64(leaf.Rows) < 0.5*float64(q.MinRows) {
						t.Errorf("leaf %+v", leaf)
					}
				}
				for _, s := range tree.Splits {
					if s.Gain <= 0 {
						t.Errorf("split gains %v", s.Gain)
					}
				}
			}
		})
	}
}

func depth(t model.Tree, child int) int {
	if child < 0 {
		return 0
	}
	return 1 + max(depth(t, t.Splits[child].Left), depth(t, t.Splits[child].Right))
}

// TestWeightsAreRepetitions trains on rows of weight 2 and on the same rows twice.
func TestWeightsAreRepetitions(t *testing.T) {
	once := someData(1000, 4)
	twice := Data{Names: once.Names, Labels: slices.Repeat(once.Labels, 2)}
	for _, c := range once.Columns {
		twice.Columns = append(twice.Columns, slices.Repeat(c, 2))
	}
	once.Weights = slices.Repeat([]float64{2}, len(once.Labels))
	p := Default()
	p.Trees, p.MinRows, p.Bins = 3, 0, 16
	p.MinHessian = 5
	a, b := fit(t, once, p), fit(t, twice, p)
	for i := range once.Labels {
		row := rowOf(once, i)
		if x, y := a.Margin(row), b.Margin(row); math.Abs(x-y) > 1e-9 {
			t.Fatalf("row %d: margin %v, with repetitions %v", i, x, y)
		}
	}
}

// TestNothingToSplit expects the constant that fits best.
func TestNothingToSplit(t *testing.T) {
	d := Data{Names: []string{"constant", "empty"}, Columns: [][]float64{{1, 1, 1, 1}, {math.NaN(), math.NaN(), math.NaN(), math.NaN()}}, Labels: []float64{1, 0, 0, 0}}
	f := fit(t, d, Default())
	if got := f.Predict([]float64{9, 9}); math.Abs(got-0.25) > 1e-15 || len(f.Trees()) != 1 {
		t.Errorf("score %v of %d trees", got, len(f.Trees()))
	}
	if _, err := model.LoadLightGBM(f.LightGBM()); err != nil {
		t.Error(err)
	}
}

func TestRefuses(t *testing.T) {
	for name, spoil := range map[string]func(*Data){
		"no rows":           func(d *Data) { *d = Data{Names: d.Names, Columns: make([][]float64, len(d.Names))} },
		"a label of 2":      func(d *Data) { d.Labels[3] = 2 },
		"a label missing":   func(d *Data) { d.Labels[3] = math.NaN() },
		"labels all alike":  func(d *Data) { clear(d.Labels) },
		"a short column":    func(d *Data) { d.Columns[1] = d.Columns[1][1:] },
		"a name missing":    func(d *Data) { d.Names = d.Names[1:] },
		"a weight of 0":     func(d *Data) { d.Weights = make([]float64, len(d.Labels)) },
		"too few weights":   func(d *Data) { d.Weights = []float64{1} },
		"an endless weight": func(d *Data) { d.Weights = slices.Repeat([]float64{math.Inf(1)}, len(d.Labels)) },
	} {
		d := someData(100, 5)
		spoil(&d)
		if _, err := Fit(context.Background(), d, Default()); err == nil || failure.Of(err) != failure.BadRequest {
			t.Errorf("%s: error %v, want one of kind bad_request", name, err)
		}
	}
	if _, err := Fit(context.Background(), someData(100, 5), Params{}); failure.Of(err) != failure.BadProject {
		t.Errorf("no settings: error %v, want one of kind bad_project", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := Fit(ctx, someData(100, 5), Default()); !errors.Is(err, context.Canceled) {
		t.Errorf("ended context: error %v", err)
	}
}

func BenchmarkFit(b *testing.B) {
	d := someData(50_000, 6)
	p := Default()
	p.Trees = 20
	for b.Loop() {
		fit(b, d, p)
	}
}
