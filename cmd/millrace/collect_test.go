package main

import (
	"math"
	"testing"
)

// The bound leaves the collector half of what lives as room, and goes where it could not: a collector without room does nothing else.
func TestMemoryBoundLeavesRoom(t *testing.T) {
	for live := uint64(0); live < 1<<30; live += 1 << 20 {
		bound := memoryBoundFor(live)
		if bound != math.MaxInt64 && uint64(bound) < live*3/2 {
			t.Fatalf("while %d MiB live, memory is bounded to %d MiB", live>>20, bound>>20)
		}
	}
	if memoryBoundFor(100<<20) != memoryBound {
		t.Errorf("while 100 MiB live, memory is bounded to %d", memoryBoundFor(100<<20))
	}
}
