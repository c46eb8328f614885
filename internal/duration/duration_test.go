package duration

import (
	"strings"
	"testing"
	"time"
)

func TestParse(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"0s": 0, "30ms": 30 * time.Millisecond, "90s": 90 * time.Second, "30m": 30 * time.Minute, "1h30m": 90 * time.Minute,
		"24h": 24 * time.Hour, "7d": 168 * time.Hour, "1d12h": 36 * time.Hour, "0.5d": 12 * time.Hour, " 1h ": time.Hour,
		"2d0.5s": 48*time.Hour + 500*time.Millisecond,
	} {
		got, err := Parse(text)
		if err != nil || got != want {
			t.Errorf("Parse(%q) = %v, %v; want %v", text, got, err, want)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	for _, text := range []string{"", "5", "-1h", "+1h", "1d-1h", "1d+1h", "d", ".d", "1.2.3d", "1e3d", "1day", "7 d", "1h2d", "lifetime", "200000d", "106751d24h", "9999999999h", "NaNd"} {
		if got, err := Parse(text); err == nil {
			t.Errorf("Parse(%q) = %v, want an error", text, got)
		} else if !strings.Contains(err.Error(), "duration") {
			t.Errorf("Parse(%q): %q does not say it is about a duration", text, err)
		}
	}
}

func TestFormatReadsBack(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "0s", 30 * time.Millisecond: "30ms", 10 * time.Second: "10s", 10 * time.Minute: "10m", 90 * time.Minute: "1h30m",
		10 * time.Hour: "10h", 24 * time.Hour: "24h", 36 * time.Hour: "36h", 48 * time.Hour: "2d", 60 * time.Hour: "2d12h",
		168 * time.Hour: "7d", 100 * Day: "100d", 2*Day + time.Minute: "48h1m",
	} {
		got := Format(d)
		if got != want {
			t.Errorf("Format(%d) = %q, want %q", d, got, want)
		}
		if back, err := Parse(got); err != nil || back != d {
			t.Errorf("Parse(Format(%v)) = %v, %v", d, back, err)
		}
	}
	if got := Format(-90 * time.Minute); got != "-1h30m" {
		t.Errorf("Format(-90m) = %q", got)
	}
}
