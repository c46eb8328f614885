package training

import (
	"math"
	"slices"
	"testing"

	"github.com/millrace/millrace/project"
	"github.com/millrace/millrace/registry/model"
)

// TestTheForestIsTrainedAsTheProjectSays sets everything that the project can, and looks for it in the forest.
func TestTheForestIsTrainedAsTheProjectSays(t *testing.T) {
	w := newWorld(t, 12, 480)
	s, _ := w.stage(t)
	data := w.build(t)
	train, held, err := Split(testConfig(), data)
	if err != nil {
		t.Fatal(err)
	}
	fitted := func(change func(*project.Train)) *model.Forest {
		t.Helper()
		m := *w.model
		change(&m.Train)
		got, err := s.fit(t.Context(), project.Candidate{Name: project.CandidateGBDT}, s.newFitting(&m, train, false))
		if err != nil {
			t.Fatal(err)
		}
		return got.Model.(*model.Forest)
	}
	hour := slices.Index(data.Names, "hour")
	delay := slices.Index(data.Names, "origin_delays.delay_mean_1h")
	plain := fitted(func(*project.Train) {})
	f := fitted(func(t *project.Train) {
		t.Categorical = []string{"hour"}
		t.Monotone = map[string]int{data.Names[delay]: 1}
		t.GBDT = project.GBDT{Trees: 40, Leaves: 12, Depth: 4, Growth: project.GrowthDepth, LearningRate: 0.3, MinRows: 30, L2: 3, RowFraction: 0.9, FeatureFraction: 0.8, EarlyStopping: 4}
	})
	if n := len(f.Trees()); n < 2 || n > 39 || len(plain.Trees()) != 15 {
		t.Errorf("%d trees with early stopping, %d without settings", n, len(plain.Trees()))
	}
	categories := 0
	for _, tree := range f.Trees() {
		if len(tree.Leaves) > 12 {
			t.Errorf("%d leaves", len(tree.Leaves))
		}
		for _, split := range tree.Splits {
			if (split.Categories != nil) != (split.Input == hour) {
				t.Fatalf("split %+v", split)
			}
			if split.Categories != nil {
				categories++
			}
		}
	}
	if categories == 0 {
		t.Error("no split by category")
	}
	fell := func(f *model.Forest) (n int) {
		for r := range min(300, len(held.Labels)) {
			row := held.row(r, nil)
			before := math.Inf(-1)
			for x := -20.0; x < 60; x += 4 {
				row[delay] = x
				if f.Margin(row) < before-1e-12 {
					n++
				}
				before = f.Margin(row)
			}
		}
		return n
	}
	if n := fell(f); n > 0 || fell(plain) == 0 {
		t.Errorf("the score falls %d times as delays rise, without the rule %d times", n, fell(plain))
	}
	for name, change := range map[string]func(*project.GBDT){
		"depth": func(g *project.GBDT) { g.Depth = 2 }, "growth": func(g *project.GBDT) { g.Growth = project.GrowthDepth },
		"learning rate": func(g *project.GBDT) { g.LearningRate = 0.01 }, "min rows": func(g *project.GBDT) { g.MinRows = 500 },
		"min hessian": func(g *project.GBDT) { g.MinHessian = 100 }, "l2": func(g *project.GBDT) { g.L2 = 50 },
		"row fraction": func(g *project.GBDT) { g.RowFraction = 0.5 }, "feature fraction": func(g *project.GBDT) { g.FeatureFraction = 0.5 },
		"trees": func(g *project.GBDT) { g.Trees = 3 }, "leaves": func(g *project.GBDT) { g.Leaves = 3 },
	} {
		if string(fitted(func(t *project.Train) { change(&t.GBDT) }).LightGBM()) == string(plain.LightGBM()) {
			t.Errorf("%s changes nothing", name)
		}
	}
}

// The later slice begins with a time of its own, so that rows of one moment are on one side.
func TestTheLaterSliceBeginsWithATime(t *testing.T) {
	for _, c := range []struct {
		times []int64
		want  int
	}{
		{[]int64{1, 2, 3, 4, 5, 6, 7, 8, 9, 10}, 8},
		{[]int64{1, 2, 3, 4, 5, 6, 7, 7, 7, 7}, 6},
		{[]int64{5, 5, 5, 5, 5, 5}, 5},
		{nil, 0},
	} {
		if got := later(c.times, 0.2); got != c.want {
			t.Errorf("of %v the later slice begins at %d, want %d", c.times, got, c.want)
		}
	}
}
