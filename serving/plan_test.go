package serving

import (
	"slices"
	"testing"

	"github.com/millrace/millrace/project"
)

// TestOneGroupOfTwoEntities has a model read one group of the airport that a flight leaves and of the one that it goes to.
func TestOneGroupOfTwoEntities(t *testing.T) {
	w := newWorld(t)
	m := *w.model()
	at := slices.IndexFunc(m.Inputs, func(in project.Input) bool { return in.Group != nil })
	if at < 0 {
		t.Fatal("the model reads no group")
	}
	first, second := m.Inputs[at], m.Inputs[at]
	second.Name, second.Entity = "other", slices.Clone(first.Entity)
	second.Entity[0]++
	m.Inputs = []project.Input{first, second, first}
	m.Inputs[2].Name = "again"
	p := must[*plan](t)(compilePlan(&m, w.project.Groups, nil))
	if len(p.groups) != 2 {
		t.Fatalf("%d reads, want one for each entity", len(p.groups))
	}
	for i, want := range [][]int{{0, 2}, {1}} {
		if g := p.groups[i]; !slices.Equal(g.inputs, want) || !slices.Equal(g.entity, m.Inputs[want[0]].Entity) {
			t.Errorf("read %d is of columns %v for inputs %v", i, g.entity, g.inputs)
		}
	}
}
