package project

import (
	"slices"
	"strings"
	"testing"
	"time"
)

// served is how the small project's model is served with other settings.
func served(t *testing.T, settings string) Serve {
	t.Helper()
	text := strings.Replace(smallProject, "serve: {otherwise: default, default: 0.2, required: [flights.*]}", "serve: {"+settings+"}", 1)
	return loadText(t, text).Model("late").Serve
}

func TestFallbackSpellings(t *testing.T) {
	for settings, want := range map[string]string{
		"":                                 "previous",
		"fallback: previous":               "previous",
		"fallback: simpler":                "simpler",
		"fallback: none":                   "",
		"fallback: []":                     "",
		"otherwise: refuse":                "previous",
		"otherwise: default, default: 0.2": "previous, default: 0.2",
		"fallback: none, otherwise: default, default: 0.2":                                          "default: 0.2",
		`fallback: [simpler, previous, {rule: "hour(scheduled) > 0 ? 0.3 : nil"}, {default: 0.02}]`: "simpler, previous, rule: hour(scheduled) > 0 ? 0.3 : nil, default: 0.02",
	} {
		var rungs []string
		for _, r := range served(t, settings).Fallback {
			rungs = append(rungs, r.String())
		}
		if got := strings.Join(rungs, ", "); got != want {
			t.Errorf("{%s}: %q, want %q", settings, got, want)
		}
	}
}

func TestLogSampleIsAPercentage(t *testing.T) {
	for settings, want := range map[string]float64{"": 0, "log: {}": 0, "log: {sample: 10%}": 0.1, "log: {sample: 0.5%}": 0.005, "log: {sample: 100%}": 1} {
		if got := served(t, settings).LogSample; got != want {
			t.Errorf("{%s}: %v, want %v", settings, got, want)
		}
	}
	text := strings.Replace(smallProject, "serve: {otherwise", "serve: {log: {sample: 10%}, otherwise", 1)
	if settings := loadText(t, text).State().Models["late"].Settings; !strings.HasSuffix(settings[1], ", log of 10%") {
		t.Errorf("%q", settings)
	}
}

func TestOptionalIsRequiredTurnedRound(t *testing.T) {
	if got := served(t, "optional: [airports.n], fetch_timeout: 20ms"); !slices.Equal(got.Required, []string{"flights.late_90s"}) || got.FetchTimeout != 20*time.Millisecond {
		t.Errorf("%+v", got)
	}
	if got := served(t, "optional: []"); !slices.Equal(got.Required, []string{"flights.late_90s", "airports.n"}) {
		t.Errorf("%+v", got)
	}
}
