package gbdt

import (
	"runtime"
	"sync"
	"sync/atomic"
)

// pool spreads tasks over the cores. What a task writes must not depend on which worker runs it or when.
type pool struct{ workers int }

func newPool() pool { return pool{runtime.GOMAXPROCS(0)} }

// each runs tasks 0 to n-1 and waits for them.
func (p pool) each(n int, task func(int)) {
	workers := min(p.workers, n)
	if workers <= 1 {
		for i := range n {
			task(i)
		}
		return
	}
	var next atomic.Int64
	run := func() {
		for i := int(next.Add(1)) - 1; i < n; i = int(next.Add(1)) - 1 {
			task(i)
		}
	}
	var wait sync.WaitGroup
	for range workers - 1 {
		wait.Go(run)
	}
	run()
	wait.Wait()
}
