package features

import (
	"cmp"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/millrace/millrace/internal/duration"
)

// Lifetime is the window without an end.
const Lifetime = "lifetime"

// Bounds of a window's error and of what exact windows keep.
const (
	TilesPerWindow     = 60      // a window's tile is at most this fraction of it, unless declared otherwise
	MinTiles           = 4       // the coarsest error that can be declared is 1/MinTiles
	MaxTilesPerWindow  = 10_000  // the finest is 1/MaxTilesPerWindow
	DefaultExactEvents = 1_000   // distinct event times that an entity keeps for exact windows
	MaxExactEvents     = 1 << 14 //
)

// span is a declared window. A length of 0 is lifetime.
type span struct {
	name   string // "7d", "7d_ending_1d_ago": the output's suffix
	length time.Duration
	delay  time.Duration // between the window's end and its edge
	tiles  int           // the error is length/tiles
	exact  bool
}

// parseSpan reads LENGTH [ending DELAY ago] [exact | error 1/N]. tiles and exact are what holds unless the text says.
func parseSpan(text string, tiles int, exact bool) (span, error) {
	words := strings.Fields(text)
	s := span{tiles: cmp.Or(tiles, TilesPerWindow), exact: exact}
	if len(words) == 0 {
		return s, fmt.Errorf("%q is empty", text)
	}
	var err error
	if s.name = words[0]; s.name == Lifetime {
		if len(words) > 1 {
			return s, fmt.Errorf("%q: %s has neither an end nor an error", text, Lifetime)
		}
		s.exact = false
		return s, nil
	}
	malformed := fmt.Errorf("%q: write it like 7d, 7d ending 1d ago, 10m exact or 24h error 1/240", text)
	if len(words) > 1 && words[1] != "ending" && words[1] != "exact" && words[1] != "error" {
		return s, malformed
	}
	if s.length, err = positive(words[0]); err != nil {
		return s, err
	}
	words = words[1:]
	if len(words) >= 3 && words[0] == "ending" && words[2] == "ago" {
		if s.delay, err = positive(words[1]); err != nil {
			return s, err
		}
		s.name += "_ending_" + words[1] + "_ago"
		words = words[3:]
	}
	switch {
	case len(words) == 1 && words[0] == "exact":
		s.exact = true
	case len(words) == 2 && words[0] == "error":
		s.exact = false
		if s.tiles, err = ParseError(words[1]); err != nil {
			err = fmt.Errorf("%q: %w", text, err)
		}
	case len(words) > 0:
		err = malformed
	}
	return s, err
}

func positive(text string) (time.Duration, error) {
	d, err := duration.Parse(text)
	if err == nil {
		_, err = milliseconds("window", d)
	}
	if err == nil && d == 0 {
		err = fmt.Errorf("%s is empty", text)
	}
	return d, err
}

// ParseError reads a window's error, a fraction of its length such as 1/60, and returns the number under the bar.
func ParseError(text string) (tiles int, err error) {
	under, ok := strings.CutPrefix(text, "1/")
	if tiles, err = strconv.Atoi(under); !ok || err != nil || tiles < MinTiles || tiles > MaxTilesPerWindow {
		return 0, fmt.Errorf("an error of %q: write a fraction from 1/%d to 1/%d", text, MaxTilesPerWindow, MinTiles)
	}
	return tiles, nil
}

// window is a span that outputs are read over, in milliseconds.
type window struct {
	length   int64 // of a lifetime window, nothing
	delay    int64
	width    int64 // of the tile that its ends are aligned down to
	level    int   // the last level whose tiles it reads, len(levels) with the remainder
	tiles    int
	lifetime bool
	exact    bool
	fresh    bool // it holds not all that the window before it holds, so that folding starts anew
}

func (s span) window() window {
	return window{length: s.length.Milliseconds(), delay: s.delay.Milliseconds(), tiles: s.tiles, exact: s.exact, lifetime: s.length == 0}
}

// windowIs reports whether a window is the declared one.
func (s span) windowIs(w window) bool {
	declared := s.window()
	return declared.same(w)
}

// compareWindows puts those that hold one another behind each other, the longest last.
func compareWindows(a, b window) int {
	return cmp.Or(cmp.Compare(a.delay, b.delay), compareBool(a.exact, b.exact), compareBool(a.lifetime, b.lifetime),
		cmp.Compare(a.length, b.length), cmp.Compare(b.tiles, a.tiles))
}

func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	default:
		return 1
	}
}

// same reports whether two declared windows are one.
func (w *window) same(other window) bool {
	return w.length == other.length && w.delay == other.delay && w.exact == other.exact && w.lifetime == other.lifetime && (w.tiles == other.tiles || w.exact || w.lifetime)
}

// reach is how far back the window goes.
func (w *window) reach() int64 { return w.length + w.delay }

// tail is where the window begins, read at an edge: aligned down to a tile.
func (w *window) tail(edge int64) int64 {
	t := edge - w.length - w.delay
	return t - floorMod(t, w.width)
}

// head is where a window with a delay ends, aligned down to a tile. One without ends at the edge.
func (w *window) head(edge int64) int64 {
	t := edge - w.delay
	return t - floorMod(t, w.width)
}

// holds reports whether an event of a time lies in the window, read at an edge.
func (w *window) holds(time, edge int64) bool {
	head := edge
	if w.delay > 0 {
		head = w.head(edge)
	}
	return time < head && (w.lifetime || time >= w.tail(edge))
}
