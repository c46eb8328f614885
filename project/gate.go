package project

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
)

// gates reads bounds such as auc: ">= 0.60", each metric once.
func (l *loader) gates(declared object, m *Model) []Gate {
	metrics := append(metricsOf(m.Task), MetricVersusChampion, MetricRows)
	if m.Binary() {
		metrics = append(metrics, MetricCalibrationError)
	}
	o := l.object(declared.get("gates"), declared.what+": gates", metrics...)
	var gates []Gate
	for _, e := range o.value.entries {
		if !slices.Contains(metrics, e.key) {
			continue
		}
		if g, ok := parseGate(e.key, e.value.text); ok && e.value.shape == text {
			g.Line = e.line
			gates = append(gates, g)
			continue
		}
		l.faultAt(e.value, `write a bound like ">= 0.60"`, "%s: %s: %q is no bound", o.what, e.key, e.value.text)
	}
	return gates
}

func parseGate(metric, source string) (Gate, bool) {
	source = strings.TrimSpace(source)
	for _, op := range []string{">=", "<=", ">", "<"} {
		if rest, ok := strings.CutPrefix(source, op); ok {
			bound, err := strconv.ParseFloat(strings.TrimSpace(rest), 64)
			return Gate{Metric: metric, Op: op, Bound: bound}, err == nil && !math.IsNaN(bound) && !math.IsInf(bound, 0)
		}
	}
	return Gate{}, false
}

// Check reports whether a value keeps the bound. NaN keeps none.
func (g Gate) Check(v float64) bool {
	switch g.Op {
	case ">=":
		return v >= g.Bound
	case ">":
		return v > g.Bound
	case "<=":
		return v <= g.Bound
	case "<":
		return v < g.Bound
	default:
		return false
	}
}

// String is the gate as the project file writes it: "auc >= 0.6".
func (g Gate) String() string {
	return fmt.Sprintf("%s %s %s", g.Metric, g.Op, strconv.FormatFloat(g.Bound, 'g', -1, 64))
}
