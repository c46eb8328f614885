package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/millrace/millrace/internal/clock"
)

// bar is a line that tells how far something is: drawn over itself on a terminal, else written every few seconds.
type bar struct {
	out      io.Writer
	terminal bool
	clock    clock.Clock
	began    time.Time
	shown    time.Time
}

func newBar(out io.Writer, c clock.Clock) *bar {
	b := &bar{out: out, clock: c, began: c()}
	if f, ok := out.(*os.File); ok {
		info, err := f.Stat()
		b.terminal = err == nil && info.Mode()&os.ModeCharDevice != 0
	}
	return b
}

const (
	barWidth    = 40
	drawnEvery  = 100 * time.Millisecond
	writtenEach = 5 * time.Second
)

// show may be called as often as one likes. A total of 0 is not known.
func (b *bar) show(what string, done, total int64) {
	now, every := b.clock(), writtenEach
	if b.terminal {
		every = drawnEvery
	}
	if now.Sub(b.shown) < every && done < total {
		return
	}
	b.shown = now
	line := fmt.Sprintf("%s: %d", what, done)
	if total > 0 {
		line += fmt.Sprintf(" of %d", total)
	}
	line += fmt.Sprintf(", %.0f/s", float64(done)/max(now.Sub(b.began).Seconds(), 1e-3))
	if !b.terminal {
		fmt.Fprintln(b.out, line)
		return
	}
	if total > 0 {
		n := int(min(barWidth*done/total, barWidth))
		line = "[" + strings.Repeat("#", n) + strings.Repeat(".", barWidth-n) + "] " + line
	}
	fmt.Fprintf(b.out, "\r\x1b[K%s", line)
}

// clear takes the line away.
func (b *bar) clear() {
	if b.terminal && !b.shown.IsZero() {
		fmt.Fprint(b.out, "\r\x1b[K")
	}
}
