// Package duration reads and writes spans of time as people write them in a project file: 30ms, 90s, 30m, 1h30m, 24h, 7d.
//
// It is what time.ParseDuration lacks: days (always 24 hours, since all time inside the program is UTC). It refuses
// negative spans, a bare number (which unit?), and anything longer than a time.Duration holds (about 292 years).
package duration

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// Day is 24 hours.
const Day = 24 * time.Hour

// Parse reads a span such as "7d", "1d12h", "30m" or "30ms". Days come first and may have a fraction; what follows them
// is read by time.ParseDuration.
func Parse(s string) (time.Duration, error) {
	text := strings.TrimSpace(s)
	if text == "" {
		return 0, fmt.Errorf("a duration is empty: write one like 30ms, 30m, 24h or 7d")
	}
	if strings.HasPrefix(text, "-") || strings.HasPrefix(text, "+") {
		return 0, fmt.Errorf("duration %q has a sign: write one like 30ms, 30m, 24h or 7d", s)
	}
	days, rest, found := strings.Cut(text, "d")
	if !found {
		return parseClock(s, text)
	}
	whole, err := parseDays(s, days)
	if err != nil || rest == "" {
		return whole, err
	}
	clock, err := parseClock(s, rest)
	if err != nil {
		return 0, err
	}
	if whole > math.MaxInt64-clock {
		return 0, fmt.Errorf("duration %q is longer than 292 years", s)
	}
	return whole + clock, nil
}

func parseDays(s, days string) (time.Duration, error) {
	if strings.Trim(days, "0123456789.") != "" || strings.Trim(days, ".") == "" {
		return 0, malformed(s)
	}
	n, err := strconv.ParseFloat(days, 64)
	if err != nil {
		return 0, malformed(s)
	}
	if n*float64(Day) >= math.MaxInt64 {
		return 0, fmt.Errorf("duration %q is longer than 292 years", s)
	}
	return time.Duration(math.Round(n * float64(Day))), nil
}

func parseClock(s, text string) (time.Duration, error) {
	d, err := time.ParseDuration(text)
	if err != nil || d < 0 || strings.HasPrefix(text, "+") || strings.HasPrefix(text, "-") {
		return 0, malformed(s)
	}
	return d, nil
}

func malformed(s string) error {
	return fmt.Errorf("%q is not a duration: write a number with its unit, like 30ms, 30m, 24h or 7d", s)
}

// Format writes d so that Parse reads it back, without needless zeros: 7d, 24h, 1h30m, 30ms. One day is written 24h, as
// people write it beside 1h and 7d; negative spans keep their sign and are for messages only.
func Format(d time.Duration) string {
	if d < 0 {
		return "-" + Format(-d)
	}
	if d >= 2*Day && d%time.Hour == 0 {
		days := strconv.FormatInt(int64(d/Day), 10) + "d"
		if rest := d % Day; rest > 0 {
			return days + Format(rest)
		}
		return days
	}
	text := d.String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}
