package main

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/compose-spec/compose-go/v2/cli"
	"github.com/goccy/go-yaml"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/redis/go-redis/v9"

	"github.com/millrace/millrace/consistency"
	"github.com/millrace/millrace/enrich"
	"github.com/millrace/millrace/project"
	"github.com/millrace/millrace/registry"
	"github.com/millrace/millrace/serving/access"
	"github.com/millrace/millrace/streams"
)

const deploy = "../../deploy"

// exported is the names of all metrics that the roles register, with the series that a histogram becomes.
func exported(t *testing.T) map[string]bool {
	t.Helper()
	names := map[string]bool{}
	for _, m := range registered(t) {
		names[m.name] = true
		if m.kind == "histogram" {
			for _, suffix := range []string{"_bucket", "_sum", "_count"} {
				names[m.name+suffix] = true
			}
		}
	}
	return names
}

// registered is all metrics that the roles register.
func registered(t *testing.T) []metric {
	t.Helper()
	p, err := project.Load("../../examples/flights")
	if err != nil {
		t.Fatal(err)
	}
	r, err := registry.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	notes := &recorder{Registerer: prometheus.NewRegistry()}
	rt := &runtime{
		project: p, own: p.Own(), dataDir: t.TempDir(), kafka: streams.Config{Brokers: []string{"127.0.0.1:1"}}, registry: r,
		redis:       redis.NewClient(&redis.Options{Addr: "127.0.0.1:1"}),
		consistency: consistency.Default(), registerer: notes, log: slog.New(slog.DiscardHandler), mux: http.NewServeMux(),
	}
	for _, role := range allRoles {
		if _, err := rt.stage(role); err != nil {
			t.Fatalf("%s: %v", role, err)
		}
	}
	access.NewMeters(notes)
	// The example looks nothing up: a project with tables has their loader's metrics, too.
	if err := notes.Register(&enrich.Loader{}); err != nil {
		t.Fatal(err)
	}
	return notes.metrics
}

// metric is one metric as it was registered.
type metric struct{ name, kind, help, labels string }

// recorder notes what is registered: a vector without a series yet is not in what a registry gathers.
type recorder struct {
	prometheus.Registerer
	metrics []metric
}

var description = regexp.MustCompile(`^Desc\{fqName: ("[^"]+"), help: (".*"), unit: "", constLabels: \{\}, variableLabels: \{(.*)\}\}$`)

func (r *recorder) Register(c prometheus.Collector) error {
	descs := make(chan *prometheus.Desc, 100)
	go func() {
		c.Describe(descs)
		close(descs)
	}()
	for d := range descs {
		found := description.FindStringSubmatch(d.String())
		if found == nil {
			return errors.New("a description of another form: " + d.String())
		}
		name, err := strconv.Unquote(found[1])
		help, helpErr := strconv.Unquote(found[2])
		if err := errors.Join(err, helpErr); err != nil {
			return err
		}
		r.metrics = append(r.metrics, metric{name, kindOf(c), help, strings.ReplaceAll(found[3], ",", ", ")})
	}
	return r.Registerer.Register(c)
}

// kindOf is what Prometheus calls a collector. A collector of our own collects gauges.
func kindOf(c prometheus.Collector) string {
	switch c.(type) {
	case *prometheus.HistogramVec, prometheus.Histogram:
		return "histogram"
	case *prometheus.CounterVec:
		return "counter"
	case prometheus.Gauge, *prometheus.GaugeVec:
		return "gauge"
	case prometheus.Counter:
		return "counter"
	default:
		return "gauge"
	}
}

func (r *recorder) MustRegister(cs ...prometheus.Collector) {
	for _, c := range cs {
		if err := r.Register(c); err != nil {
			panic(err)
		}
	}
}

// checkExpression fails unless an expression parses and names only what is exported.
func checkExpression(t *testing.T, where, text string, names map[string]bool) int {
	t.Helper()
	expr, err := parser.NewParser(parser.Options{}).ParseExpr(strings.ReplaceAll(text, "$model", "late"))
	if err != nil {
		t.Errorf("%s: %q: %v", where, text, err)
		return 0
	}
	found := 0
	for _, selectors := range parser.ExtractSelectors(expr) {
		for _, m := range selectors {
			if m.Name != "__name__" {
				continue
			}
			found++
			if !names[m.Value] {
				t.Errorf("%s names %s, which no role exports", where, m.Value)
			}
		}
	}
	return found
}

func TestDashboardsNameWhatIsExported(t *testing.T) {
	names := exported(t)
	checked := 0
	err := filepath.WalkDir(filepath.Join(deploy, "grafana", "dashboards"), func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		var dashboard struct {
			UID, Title string
			Panels     []struct {
				Title   string
				Targets []struct{ Expr string }
			}
		}
		if err := json.Unmarshal(text, &dashboard); err != nil {
			return err
		}
		if dashboard.UID == "" || len(dashboard.Panels) == 0 {
			t.Errorf("%s has no uid or no panels", path)
		}
		for _, p := range dashboard.Panels {
			for _, target := range p.Targets {
				checked += checkExpression(t, path+": "+p.Title, target.Expr, names)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if checked < 30 {
		t.Errorf("only %d metrics found in the dashboards", checked)
	}
}

func TestAlertsNameWhatIsExported(t *testing.T) {
	names := exported(t)
	text, err := os.ReadFile(filepath.Join(deploy, "prometheus", "alerts.yml"))
	if err != nil {
		t.Fatal(err)
	}
	var rules struct {
		Groups []struct {
			Rules []struct{ Alert, Expr string }
		}
	}
	if err := yaml.Unmarshal(text, &rules); err != nil {
		t.Fatal(err)
	}
	checked := 0
	for _, g := range rules.Groups {
		for _, r := range g.Rules {
			checked += checkExpression(t, r.Alert, r.Expr, names)
		}
	}
	if checked < 10 {
		t.Errorf("only %d metrics found in the alerts", checked)
	}
}

// TestComposeFile checks docker-compose.yml as docker compose would, and that what it mounts and runs is there.
func TestComposeFile(t *testing.T) {
	options, err := cli.NewProjectOptions([]string{"../../docker-compose.yml"}, cli.WithProfiles([]string{"*"}))
	if err != nil {
		t.Fatal(err)
	}
	p, err := options.LoadProject(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"kafka", "redis", "prometheus", "grafana", "stream", "serve", "monitor", "train", "console"} {
		service, err := p.GetService(name)
		if err != nil {
			t.Error(err)
			continue
		}
		for _, v := range service.Volumes {
			if v.Type != "bind" {
				continue
			}
			if _, err := os.Stat(v.Source); err != nil {
				t.Errorf("service %s mounts %s: %v", name, v.Source, err)
			}
		}
		if service.Image == "millrace:local" && run(context.Background(), append(service.Command, "--help"), discard{}, discard{}) != 0 {
			t.Errorf("service %s runs millrace %s, which is no command", name, service.Command)
		}
	}
	prometheusConfig, err := os.ReadFile(filepath.Join(deploy, "prometheus", "prometheus.yml"))
	if err != nil {
		t.Fatal(err)
	}
	for name, service := range p.Services {
		if service.Image == "millrace:local" && name != "produce" && !strings.Contains(string(prometheusConfig), name+":8080") {
			t.Errorf("Prometheus does not scrape %s", name)
		}
	}
}

type discard struct{}

func (discard) Write(b []byte) (int, error) { return len(b), nil }
