package gbdt

import (
	"fmt"
	"math"
	"math/bits"
	"math/rand/v2"
	"testing"

	"github.com/millrace/millrace/registry/model"
)

// manyCategories has columns of categories beside a number: a few, more, and hundreds of which most are rare. Codes have gaps
// between them, some are missing, below 0 or no whole numbers.
func manyCategories(rows int, seed uint64) Data {
	r := rand.New(rand.NewPCG(seed, 2))
	d := Data{Names: []string{"few", "more", "hundreds", "number"}, Columns: make([][]float64, 4), Categorical: []bool{true, true, true, false}}
	effect := make([]float64, 600)
	for i := range effect {
		effect[i] = r.NormFloat64()
	}
	for i := range rows {
		few, more, hundreds, number := r.IntN(3), r.IntN(12), int(600*math.Pow(r.Float64(), 3)), r.NormFloat64()
		row := []float64{float64(7 * few), float64(5 * more), float64(100 + hundreds), number}
		odds := effect[few] + 1.5*effect[10+more] + effect[hundreds] + 0.5*number
		if r.IntN(10) == 0 {
			row[1] = []float64{math.NaN(), -3, 1e9, math.Inf(1)}[i%4]
			odds += 1
		}
		if r.IntN(10) == 0 {
			row[0] += 0.5
		}
		y := 0.0
		if r.Float64() < 1/(1+math.Exp(-odds)) {
			y = 1
		}
		for c, v := range row {
			d.Columns[c] = append(d.Columns[c], v)
		}
		d.Labels = append(d.Labels, y)
	}
	return d
}

// TestFindsTheBestSetOfCategories compares a stump with every set of categories that could go left.
func TestFindsTheBestSetOfCategories(t *testing.T) {
	for seed := range uint64(60) {
		r := rand.New(rand.NewPCG(seed, 3))
		categories := 2 + r.IntN(8)
		d := Data{Names: []string{"c"}, Columns: [][]float64{nil}, Categorical: []bool{true}}
		rate := make([]float64, categories)
		for i := range rate {
			rate[i] = r.Float64()
		}
		for range 200 {
			c, y := r.IntN(categories), 0.0
			if r.Float64() < rate[c] {
				y = 1
			}
			x := float64(3 * c)
			if r.IntN(8) == 0 {
				x = math.NaN()
			}
			d.Columns[0], d.Labels, d.Weights = append(d.Columns[0], x), append(d.Labels, y), append(d.Weights, 0.5+float64(r.IntN(3)))
		}
		p := Default()
		p.Trees, p.Leaves, p.MinRows, p.MinHessian = 1, 2, 0, 0
		p.CategoryL2, p.CategorySmoothing, p.MinCategoryRows, p.OneHot = 0, 0, 0, 0
		best := 0.0
		for set := range uint(1) << categories {
			best = max(best, weightedGain(d, p.L2, func(i int) bool {
				x := d.Columns[0][i]
				return x == x && set>>(int(x)/3)&1 == 1
			}))
		}
		tree := fit(t, d, p).Trees()[0]
		reached := weightedGain(d, p.L2, func(i int) bool { return leafOf(tree, rowOf(d, i)) == 0 })
		if math.Abs(reached-best) > 1e-5*best {
			t.Errorf("seed %d: gain %v by %v of %d categories, the best is %v", seed, reached, tree.Splits, categories, best)
		}
		// One against the rest, where a column has few enough.
		p.OneHot = categories
		best = 0
		for c := range categories {
			best = max(best, weightedGain(d, p.L2, func(i int) bool { return d.Columns[0][i] == float64(3*c) }))
		}
		tree = fit(t, d, p).Trees()[0]
		reached = weightedGain(d, p.L2, func(i int) bool { return leafOf(tree, rowOf(d, i)) == 0 })
		if math.Abs(reached-best) > 1e-5*best || setSize(tree.Splits[0].Categories) != 1 {
			t.Errorf("seed %d: gain %v by %v of one category, the best is %v", seed, reached, tree.Splits, best)
		}
	}
}

func setSize(set model.Categories) (n int) {
	for _, word := range set {
		n += bits.OnesCount32(word)
	}
	return n
}

// weightedGain is the gain of a first split, by its definition.
func weightedGain(d Data, l2 float64, left func(i int) bool) float64 {
	mean, weight := 0.0, 0.0
	for i, y := range d.Labels {
		mean += d.Weights[i] * y
		weight += d.Weights[i]
	}
	mean /= weight
	var g, h [2]float64
	for i, y := range d.Labels {
		side := 0
		if left(i) {
			side = 1
		}
		g[side] += d.Weights[i] * (mean - y)
		h[side] += d.Weights[i] * mean * (1 - mean)
	}
	if h[0] == 0 || h[1] == 0 {
		return 0
	}
	score := func(g, h float64) float64 { return g * g / (h + l2) }
	return score(g[0], h[0]) + score(g[1], h[1]) - score(g[0]+g[1], h[0]+h[1])
}

// TestFindsTheBestSplitWithinItsRules tries every threshold with missing values on either side, under weights, L2 and the least
// hessian of a leaf.
func TestFindsTheBestSplitWithinItsRules(t *testing.T) {
	split := 0
	for seed := range uint64(80) {
		r := rand.New(rand.NewPCG(seed, 4))
		d := Data{Names: []string{"a", "b", "c"}, Columns: make([][]float64, 3)}
		for range 60 {
			for c := range d.Columns {
				x := float64(r.IntN(6))
				if r.IntN(6) == 0 && c > 0 {
					x = math.NaN()
				}
				d.Columns[c] = append(d.Columns[c], x)
			}
			d.Labels, d.Weights = append(d.Labels, float64(r.IntN(2))), append(d.Weights, 0.25+float64(r.IntN(4)))
		}
		p := Default()
		p.Trees, p.Leaves, p.MinRows = 1, 2, 0
		p.L2, p.MinHessian = float64(seed%5), []float64{0, 3, 6, 9}[seed%4]
		best := 0.0
		for _, column := range d.Columns {
			for _, threshold := range []float64{0, 1, 2, 3, 4, 5} {
				for _, missingLeft := range []bool{false, true} {
					left := func(i int) bool { return column[i] <= threshold || math.IsNaN(column[i]) && missingLeft }
					if a, b := hessians(d, left); min(a, b) >= p.MinHessian && min(a, b) > 0 {
						best = max(best, weightedGain(d, p.L2, left))
					}
				}
			}
		}
		tree := fit(t, d, p).Trees()[0]
		if len(tree.Splits) == 0 {
			if best > 1e-9 {
				t.Errorf("seed %d: no split, the best gains %v", seed, best)
			}
			continue
		}
		split++
		left := func(i int) bool { return leafOf(tree, rowOf(d, i)) == 0 }
		if reached := weightedGain(d, p.L2, left); math.Abs(reached-best) > 1e-5*best+1e-9 {
			t.Errorf("seed %d: gain %v by %+v, the best is %v", seed, reached, tree.Splits[0], best)
		}
		if a, b := hessians(d, left); min(a, b) < p.MinHessian-1e-5 {
			t.Errorf("seed %d: leaves of hessian %v and %v, below %v", seed, a, b, p.MinHessian)
		}
	}
	if split < 40 {
		t.Errorf("only %d of 80 were split", split)
	}
}

func hessians(d Data, left func(i int) bool) (yes, no float64) {
	mean, weight := 0.0, 0.0
	for i, y := range d.Labels {
		mean += d.Weights[i] * y
		weight += d.Weights[i]
	}
	mean /= weight
	for i, w := range d.Weights {
		if left(i) {
			yes += w * mean * (1 - mean)
		} else {
			no += w * mean * (1 - mean)
		}
	}
	return yes, no
}

// TestCategoriesTrainAsTheyScore boosts along by hand, as TestTrainsAsItScores does, where most splits are by category.
func TestCategoriesTrainAsTheyScore(t *testing.T) {
	d := manyCategories(4000, 5)
	d.Weights = make([]float64, len(d.Labels))
	for i := range d.Weights {
		d.Weights[i] = 0.5 + float64(i%3)
	}
	p := Default()
	p.Trees, p.L2, p.CategoryL2, p.MinCategoryRows = 5, 1, 0, 20 // one L2 for all leaves
	f := fit(t, d, p)
	margins := make([]float64, len(d.Labels))
	for i := range margins {
		margins[i] = start(&d, &p)[0]
	}
	byCategory := 0
	for n, tree := range f.Trees() {
		checkTree(t, d, p, tree, margins, n == 0)
		for _, s := range tree.Splits {
			if s.Categories != nil {
				byCategory++
			}
		}
	}
	if byCategory < 40 {
		t.Errorf("%d splits by category", byCategory)
	}
	again, err := model.LoadLightGBM(f.LightGBM())
	if err != nil {
		t.Fatal(err)
	}
	for i, m := range margins {
		row := rowOf(d, i)
		if a, b := f.Margin(row), again.Margin(row); math.Abs(a-m) > 1e-12 || a != b {
			t.Fatalf("row %d: margin %v, by hand %v, read back %v", i, a, m, b)
		}
	}
	unseen := []float64{1000, 1000, 5, 0}
	missing := []float64{math.NaN(), math.NaN(), math.NaN(), 0}
	if a, b := f.Margin(unseen), f.Margin(missing); a != b {
		t.Errorf("a category never seen scores %v, a missing one %v", a, b)
	}
}

// TestCategoryL2 adds it to the leaves below a split of many categories, and to no others.
func TestCategoryL2(t *testing.T) {
	d := manyCategories(3000, 6)
	for column, wide := range []bool{false, true, true, false} {
		one := Data{Names: d.Names[column : column+1], Columns: d.Columns[column : column+1], Labels: d.Labels, Categorical: d.Categorical[column : column+1]}
		p := Default()
		p.Trees, p.Leaves, p.LearningRate, p.L2, p.CategoryL2 = 1, 2, 1, 2, 30
		tree := fit(t, one, p).Trees()[0]
		l2 := p.L2
		if wide {
			l2 += p.CategoryL2
		}
		bias := start(&one, &p)[0]
		score := 1 / (1 + math.Exp(-bias))
		var g, h float64
		for i, y := range one.Labels {
			if leafOf(tree, rowOf(one, i)) == 0 {
				g, h = g+score-y, h+score*(1-score)
			}
		}
		if want := bias - g/(h+l2); math.Abs(tree.Leaves[0].Value-want) > 1e-9 {
			t.Errorf("column %s: leaf value %v, want %v", d.Names[column], tree.Leaves[0].Value, want)
		}
	}
}

func TestRulesOfCategories(t *testing.T) {
	d := manyCategories(5000, 7)
	for name, limit := range map[string]func(*Params){
		"max categories": func(p *Params) { p.MaxCategories = 2 },
		"group rows":     func(p *Params) { p.MinCategoryRows = 400 },
		"smoothing":      func(p *Params) { p.CategorySmoothing = 500 },
	} {
		p := Default()
		p.Trees, p.MinCategoryRows = 3, 0
		limit(&p)
		counts := make([]map[int]int, 4)
		for c := range counts {
			counts[c] = map[int]int{}
			for _, x := range d.Columns[c] {
				counts[c][int(x)]++
			}
		}
		found := 0
		for _, tree := range fit(t, d, p).Trees()[:1] {
			for i, s := range tree.Splits {
				if s.Categories == nil || s.Input == 0 {
					continue
				}
				found++
				if n := setSize(s.Categories); n > p.MaxCategories {
					t.Errorf("%s: %d categories on one side", name, n)
				}
				if name == "smoothing" && i == 0 {
					for code, n := range counts[s.Input] {
						if s.Categories.Has(code) && n < 400 {
							t.Errorf("%s: category %d of %d rows is split by", name, code, n)
						}
					}
				}
			}
		}
		if found == 0 && name != "smoothing" {
			t.Errorf("%s: no split by category", name)
		}
	}
}

// TestRareCategoriesShareABin has more categories than bins.
func TestRareCategoriesShareABin(t *testing.T) {
	var column []float64
	for code := range 300 {
		for range 1 + code%100 {
			column = append(column, float64(code))
		}
	}
	b := findCategories(column, 255)
	if len(b.codes) != 254 || !b.missing || b.codes[0] != 99 || b.text()[:10] != "99:199:299" {
		t.Fatalf("%d categories, the first is %d: %s", len(b.codes), b.codes[0], b.text())
	}
	bins := map[float64]uint8{}
	b.encode(column, func(row int, bin uint8) { bins[column[row]] = bin })
	if bins[99] != 0 || bins[0] != 254 || bins[299] != 2 {
		t.Errorf("bins %v", bins)
	}
	for x, want := range map[float64]string{math.NaN(): "false", -1: "false", -0.5: "0 true", 3.9: "3 true", 65535: "65535 true", 65536: "false", math.Inf(1): "false"} {
		code, ok := category(x)
		if got := fmt.Sprint(code, " ", ok); got != want && got != "0 "+want {
			t.Errorf("%v is category %s, want %s", x, got, want)
		}
	}
}

// TestASplitMovesEnoughRows has one category that tells everything, of fewer rows than a split must move.
func TestASplitMovesEnoughRows(t *testing.T) {
	d := Data{Names: []string{"c"}, Columns: [][]float64{nil}, Categorical: []bool{true}}
	for i := range 4000 {
		code, y := float64(i%20), 0.0
		if code == 7 || i%11 == 0 {
			y = 1
		}
		d.Columns[0], d.Labels = append(d.Columns[0], code), append(d.Labels, y)
	}
	for _, least := range []int{0, 201, 500} {
		p := Default()
		p.Trees, p.Leaves, p.MinCategoryRows = 1, 2, least
		tree := fit(t, d, p).Trees()[0]
		moved := min(tree.Leaves[0].Rows, tree.Leaves[1].Rows)
		if moved < least || least == 0 && moved != 200 {
			t.Errorf("at least %d: %d rows are moved", least, moved)
		}
	}
}
