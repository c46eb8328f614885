package main

import (
	"cmp"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the table of docs/metrics.md anew")

const (
	metricsFile = "../../docs/metrics.md"
	tableBegins = "<!-- the table is written by: go test ./cmd/millrace -run TestMetricsAreDocumented -update -->\n"
	tableEnds   = "<!-- end of the table -->\n"
)

// TestMetricsAreDocumented holds the table of docs/metrics.md to what the roles register, both ways.
func TestMetricsAreDocumented(t *testing.T) {
	content, err := os.ReadFile(metricsFile)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(content), tableBegins)
	table, after, ends := strings.Cut(rest, tableEnds)
	if !ok || !ends {
		t.Fatalf("%s has no table between %q and %q", metricsFile, tableBegins, tableEnds)
	}
	all := registered(t)
	slices.SortFunc(all, func(a, b metric) int { return cmp.Compare(a.name, b.name) })
	want := "| metric | type | labels | meaning |\n|---|---|---|---|\n"
	for _, m := range all {
		want += fmt.Sprintf("| `%s` | %s | %s | %s |\n", m.name, m.kind, m.labels, strings.ReplaceAll(m.help, "|", "\\|"))
	}
	if *update {
		if err := os.WriteFile(metricsFile, []byte(before+tableBegins+want+tableEnds+after), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	documented := strings.Split(table, "\n")
	for _, line := range strings.Split(want, "\n") {
		if !slices.Contains(documented, line) {
			t.Errorf("%s has no line %s", metricsFile, line)
		}
	}
	for _, line := range documented {
		if !strings.Contains(want, line) {
			t.Errorf("%s has the line %s, of which nothing is registered", metricsFile, line)
		}
	}
}

// TestEveryMetricOfTheCodeIsRegistered finds the metrics that the code names whole and that no role of the example registers: they would be in no
// table.
func TestEveryMetricOfTheCodeIsRegistered(t *testing.T) {
	known := map[string]bool{}
	for _, m := range registered(t) {
		known[m.name] = true
	}
	name, found := regexp.MustCompile(`(?:Name: |prometheus\.NewDesc\()"(millrace_[a-z0-9_]+)"`), 0
	err := filepath.WalkDir("../..", func(path string, e fs.DirEntry, err error) error {
		if err != nil || filepath.Ext(path) != ".go" || strings.HasSuffix(path, "_test.go") {
			return err
		}
		text, err := os.ReadFile(path)
		for _, m := range name.FindAllStringSubmatch(string(text), -1) {
			if found++; !known[m[1]] {
				t.Errorf("%s has %s, which no role registers here: let registered do it", path, m[1])
			}
		}
		return err
	})
	if err != nil || found < 10 {
		t.Errorf("%d metrics found in the code, %v", found, err)
	}
}

// TestMetricsAreNamedWell holds the names to the rules of Prometheus: our prefix, base units, _total on counters and on nothing else.
func TestMetricsAreNamedWell(t *testing.T) {
	name := regexp.MustCompile(`^millrace_[a-z0-9]+(_[a-z0-9]+)*$`)
	for _, m := range registered(t) {
		if !name.MatchString(m.name) {
			t.Errorf("%s is no name of ours", m.name)
		}
		if total := strings.HasSuffix(m.name, "_total"); total != (m.kind == "counter") {
			t.Errorf("%s is a %s", m.name, m.kind)
		}
		for _, unit := range []string{"_ms", "_millis", "_milliseconds", "_minutes", "_percent", "_kb", "_kilobytes", "_micros"} {
			if strings.Contains(m.name+"_", unit+"_") {
				t.Errorf("%s is not in a base unit", m.name)
			}
		}
		if !strings.HasSuffix(m.help, ".") {
			t.Errorf("the help of %s is no sentence: %q", m.name, m.help)
		}
	}
}

// TestDocumentedExpressions checks the PromQL in docs/metrics.md.
func TestDocumentedExpressions(t *testing.T) {
	content, err := os.ReadFile(metricsFile)
	if err != nil {
		t.Fatal(err)
	}
	names, checked := exported(t), 0
	for _, block := range regexp.MustCompile("(?s)```promql\n(.*?)```").FindAllStringSubmatch(string(content), -1) {
		for _, line := range strings.Split(strings.TrimSpace(block[1]), "\n") {
			expr, _, _ := strings.Cut(line, " # ")
			if expr != "" && !strings.HasPrefix(expr, "#") {
				checked += checkExpression(t, metricsFile, expr, names)
			}
		}
	}
	if checked < 8 {
		t.Errorf("only %d metrics found in the expressions", checked)
	}
}
