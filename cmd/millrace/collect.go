package main

import (
	"context"
	"math"
	"os"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

// gcPercent is the garbage collector's, unless GOGC says otherwise: of what lives, most is entities and batches without pointers, cheap to
// visit. Measured on a stream of payments, a fifth less memory for no more CPU (docs/bench/peers.md).
const gcPercent = 60

// serveGCPercent is that of a process that only serves: what lives is small, what each request leaves behind is not, and a collection takes
// the time of requests that are under way. It is some 50 MiB more (docs/bench/serving.md).
const serveGCPercent = 200

// collectAt sets the garbage collector's percentage, unless GOGC does.
func collectAt(percent int) {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(percent)
	}
}

// memoryBound is what the program's memory is kept below while what lives of it leaves the collector room enough: it then collects a little
// earlier than its percentage says, and returns what it does not use.
const memoryBound = 256 << 20

// memoryBoundFor is the bound while so many bytes live. Above two thirds of memoryBound there is none: a collector that has too little room
// does nothing else.
func memoryBoundFor(live uint64) int64 {
	if live > memoryBound*2/3 {
		return math.MaxInt64
	}
	return memoryBound
}

// boundMemory keeps the program's memory below its bound until ctx ends, unless GOMEMLIMIT says otherwise.
func boundMemory(ctx context.Context) {
	if os.Getenv("GOMEMLIMIT") != "" {
		return
	}
	live := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	bound := int64(math.MaxInt64)
	for tick := time.NewTicker(250 * time.Millisecond); ; {
		metrics.Read(live)
		if now := memoryBoundFor(live[0].Value.Uint64()); now != bound {
			bound = now
			debug.SetMemoryLimit(bound)
		}
		select {
		case <-ctx.Done():
			tick.Stop()
			return
		case <-tick.C:
		}
	}
}
