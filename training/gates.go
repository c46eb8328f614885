package training

import (
	"math"
	"strconv"
	"strings"

	"github.com/millrace/millrace/project"
)

// Verdict is what a gate said.
type Verdict struct {
	Gate   string   `json:"gate"`            // as the project writes it: "auc >= 0.6"
	Value  *float64 `json:"value,omitempty"` // nil when there was none
	Passed bool     `json:"passed"`
	Note   string   `json:"note,omitempty"`
}

// String is the gate and the number.
func (v Verdict) String() string {
	text := "gate " + v.Gate + ": "
	if v.Value == nil {
		text += "there is no number"
	} else {
		text += strconv.FormatFloat(*v.Value, 'f', 4, 64)
	}
	if v.Note != "" {
		text += " (" + v.Note + ")"
	}
	return text
}

// pass asks every gate. One on the champion is open as long as there is no champion; any other that has no number to go
// by stays shut, and so does one whose champion cannot be compared, for the reason given.
func pass(gates []project.Gate, values map[string]float64, champion bool, incomparable string) []Verdict {
	verdicts := make([]Verdict, len(gates))
	for i, g := range gates {
		v := Verdict{Gate: g.String()}
		x, ok := values[g.Metric]
		switch {
		case ok && !math.IsNaN(x):
			v.Value, v.Passed = &x, g.Check(x)
		case g.Metric == project.MetricVersusChampion && !champion:
			v.Passed, v.Note = true, "there is no champion yet"
		case g.Metric == project.MetricVersusChampion:
			v.Note = incomparable
		}
		verdicts[i] = v
	}
	return verdicts
}

// refusal is why a candidate is not promoted: every gate that did not pass; empty when all did.
func refusal(verdicts []Verdict) string {
	var failed []string
	for _, v := range verdicts {
		if !v.Passed {
			failed = append(failed, v.String())
		}
	}
	return strings.Join(failed, "; ")
}
