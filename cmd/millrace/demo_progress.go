package main

import (
	"fmt"
	"io"
	"sync"
	"time"
)

// progress prints what happens, each line with the seconds since the start. It is safe for concurrent use.
type progress struct {
	out     io.Writer
	started time.Time

	mu   sync.Mutex
	last time.Time
}

func newProgress(out io.Writer) *progress { return &progress{out: out, started: time.Now()} }

func (p *progress) line(format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.print(format, args...)
}

// progress is a line at most every two seconds.
func (p *progress) progress(format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if time.Since(p.last) >= 2*time.Second {
		p.print(format, args...)
	}
}

// training tells how far a training run has come.
func (p *progress) training(stage string, done, total int64) {
	if total > 0 {
		p.progress("  training: %s, %d of %d", stage, done, total)
	}
}

func (p *progress) print(format string, args ...any) {
	p.last = time.Now()
	fmt.Fprintf(p.out, "[%5.1fs] %s\n", p.last.Sub(p.started).Seconds(), fmt.Sprintf(format, args...))
}
