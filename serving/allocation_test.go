//go:build !race

package serving

import "testing"

// The memory that a request may take, so that a change that takes more shows. What net/http takes for itself is not in it; what the Redis
// client and the embedded Redis do is. Under the race detector pools let go of what they have at random.
func TestAllocationBudget(t *testing.T) {
	for _, c := range []struct {
		name, path, body string
		most             float64
	}{
		{"score", scorePath, scoreBody(), 41},
		{"fetch", fetchPath, fetchBody, 170},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := servedStage(t)
			a := newAsker(s, c.path, c.body)
			a.complete(t)
			drain := func() {
				a.ask(t)
				<-s.log.queue
			}
			<-s.log.queue
			if allocations := testing.AllocsPerRun(200, drain); allocations > c.most {
				t.Errorf("%v allocations a request, the budget is %v", allocations, c.most)
			}
		})
	}
}
