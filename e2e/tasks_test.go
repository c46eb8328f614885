package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"math"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/millrace/millrace/consistency"
	"github.com/millrace/millrace/examples/flights"
	"github.com/millrace/millrace/features/dataset"
	"github.com/millrace/millrace/project"
	"github.com/millrace/millrace/schemas"
)

// taskInputs are what the models of every task go by.
const taskInputs = `inputs: [origin_delays.delay_mean_3h, origin_delays.late_rate_24h, destination_delays.delay_mean_3h, destination_delays.last_delay, origin_delays.last_to_3h: {categories: busiest.txt}, distance, hour: hour(scheduled),
      origin: {categories: busiest.txt}, haul: {expr: 'distance > 1500 ? "long" : distance > 400 ? "middle" : "short"', categories: [short, middle, long]}]`

// busiest are the airports that the models tell apart by name; the others are missing to them.
var busiest = []string{"ORD", "DFW", "ATL", "LAX", "PHX", "STL", "DEN", "IAH", "LAS", "SFO", "MSP", "PHL"}

// taskModels is a model for each task, and one whose rows count unequally.
const taskModels = `models:
  minutes:
    on: departures
    task: regression
    ` + taskInputs + `
    label: {source: arrivals, join: flight_id, value: delay, within: 6h}
    train: {metric: rmse, window: 60h, holdout: 24h, gbdt: {trees: 20}}
    gates: {rmse: "<= 1000"}
    serve: {timeout: 5s}
  quarters:
    on: departures
    task: poisson
    ` + taskInputs + `
    label: {source: arrivals, join: flight_id, value: "delay < 0 ? 0 : floor(delay / 15)", within: 6h}
    train: {metric: poisson_deviance, window: 60h, holdout: 24h, gbdt: {trees: 20}}
    gates: {poisson_deviance: "<= 1000"}
    serve: {timeout: 5s}
  lateness:
    on: departures
    task: multiclass
    ` + taskInputs + `
    label: {source: arrivals, join: flight_id, within: 6h, value: 'delay > 40 ? "very_late" : delay > 15 ? "late" : "on_time"', classes: [on_time, late, very_late]}
    train: {metric: log_loss, window: 60h, holdout: 24h, gbdt: {trees: 20}}
    gates: {log_loss: "<= 1000"}
    serve: {timeout: 5s}
  lateness_linear:
    on: departures
    task: multiclass
    ` + taskInputs + `
    label: {source: arrivals, join: flight_id, within: 6h, value: 'delay > 40 ? "very_late" : delay > 15 ? "late" : "on_time"', classes: [on_time, late, very_late]}
    train: {candidates: [logistic], metric: log_loss, window: 60h, holdout: 24h}
    gates: {log_loss: "<= 1000"}
    serve: {timeout: 5s}
  far_late:
    on: departures
    ` + taskInputs + `
    label: {source: arrivals, join: flight_id, value: "delay > 15", within: 6h}
    train: {metric: log_loss, window: 60h, holdout: 24h, weight: "distance > 700 ? 4 : distance < 200 ? 0 : 0.5", gbdt: {trees: 20}}
    gates: {log_loss: "<= 1000"}
    serve: {timeout: 5s}
`

// measured is a metric of held-out rows by its definition: value is of a row's answer and the delay that came of it, weight what the row counts for,
// and show what is made of the mean.
type measured struct {
	value  func(a taskAnswer, delay float64) float64
	weight func(f flights.Flight) float64
	show   func(mean float64) float64
}

func same(x float64) float64 { return x }

func evenly(flights.Flight) float64 { return 1 }

var taskMetrics = map[string]map[string]measured{
	"minutes": {
		"rmse": {func(a taskAnswer, delay float64) float64 { return (a.score - delay) * (a.score - delay) }, evenly, math.Sqrt},
		"mae":  {func(a taskAnswer, delay float64) float64 { return math.Abs(a.score - delay) }, evenly, same},
	},
	"quarters": {
		"poisson_deviance": {func(a taskAnswer, delay float64) float64 {
			count := math.Floor(max(delay, 0) / 15)
			if count == 0 {
				return 2 * a.score
			}
			return 2 * (count*math.Log(count/a.score) - count + a.score)
		}, evenly, same},
	},
	"lateness": ofClasses, "lateness_linear": ofClasses,
	"far_late": {
		"log_loss": {func(a taskAnswer, delay float64) float64 {
			if delay > 15 {
				return -math.Log(a.score)
			}
			return -math.Log(1 - a.score)
		}, countsFor, same},
		"positive_rate": {func(_ taskAnswer, delay float64) float64 {
			if delay > 15 {
				return 1
			}
			return 0
		}, countsFor, same},
	},
}

var ofClasses = map[string]measured{
	"log_loss": {func(a taskAnswer, delay float64) float64 { return -math.Log(a.classes[classOfDelay(delay)]) }, evenly, same},
	"accuracy": {func(a taskAnswer, delay float64) float64 {
		for _, p := range a.classes {
			if p > a.classes[classOfDelay(delay)] {
				return 0
			}
		}
		return 1
	}, evenly, same},
}

func classOfDelay(delay float64) string {
	switch {
	case delay > 40:
		return "very_late"
	case delay > 15:
		return "late"
	default:
		return "on_time"
	}
}

// countsFor is the weight that far_late declares.
func countsFor(f flights.Flight) float64 {
	switch {
	case f.Distance > 700:
		return 4
	case f.Distance < 200:
		return 0
	default:
		return 0.5
	}
}

// taskAnswer is what was answered of a departure: the score and, of a model with classes, whose it is and those of all.
type taskAnswer struct {
	score   float64
	class   string
	classes map[string]float64
}

func (a taskAnswer) equal(b taskAnswer) bool {
	return a.score == b.score && a.class == b.class && maps.Equal(a.classes, b.classes)
}

// TestTasks trains a model of each task from what was streamed, by the program alone: the metrics that training tells of the held-out rows are those
// of the scores that millrace score gives them, measured by hand; and the scores of later departures are the same on their topic, over HTTP, by the
// Open Inference Protocol and by millrace score, to the bit. What was served of the groups, texts among it, is computed again.
func TestTasks(t *testing.T) {
	t.Parallel()
	const history, later = 106 * time.Hour, 90 * time.Minute // later is less than the lateness of the sources
	s := newStandOn(t, kafkaForTest(t), redisForTest(t))
	s.replaceModels(taskModels)
	now := firstDay.Add(history)
	events := thinned(sample(t, firstDay, history+later), 3)
	s.ensureTopics()
	worker := s.start("stream")
	s.produce(eventsWithin(events, firstDay, now))
	s.awaitApplied()
	worker.stop() // what is pending offline is written when a worker ends

	until := now.Add(-3 * time.Hour)
	for _, m := range s.project.Models {
		s.checkTraining(m, s.trainOnce(m.Name, until), until, events)
	}

	worker, serve := s.start("stream"), s.start("serve")
	asked := eventsWithin(events, now, now.Add(later))
	s.produce(asked)
	for _, m := range s.project.Models {
		s.awaitScoredBy(m.Name, serve.text)
	}
	s.awaitApplied()
	over := map[string]map[string]map[string]taskAnswer{}
	for _, m := range s.project.Models {
		over[m.Name] = map[string]map[string]taskAnswer{"JSON": s.askedInJSON(serve, m, asked), "Open Inference": s.askedByProtocol(serve, m, asked)}
	}
	worker.stop()
	serve.stop()
	r, status := s.consistency(s.data)
	texts := slices.IndexFunc(r.Features, func(f *consistency.Feature) bool { return f.Name == "origin_delays.last_to_3h" })
	if status != 0 || r.Skipped.Unnamed != 0 || texts < 0 || r.Features[texts].Compared < 1000 {
		t.Errorf("computed again: %+v, status %d", r, status)
	}
	for _, p := range s.predictions() {
		if p.Source != "http" && p.At >= now.UnixMilli() {
			if over[p.Model]["topic"] == nil {
				over[p.Model]["topic"] = map[string]taskAnswer{}
			}
			if p.Rung != schemas.RungPrimary {
				t.Fatalf("%s is answered by %s of %s", p.JoinKey, p.Rung, p.Model)
			}
			over[p.Model]["topic"][p.JoinKey] = answerOf(p.Score, p.Class, p.Classes)
		}
	}
	for _, m := range s.project.Models {
		batch := s.batchScored(m, now, now.Add(later))
		if len(batch) < 100 {
			t.Fatalf("%s: millrace score has %d rows", m.Name, len(batch))
		}
		different := map[float64]bool{}
		for how, answers := range over[m.Name] {
			if len(answers) != len(batch) {
				t.Errorf("%s: %d answers by %s, %d by millrace score", m.Name, len(answers), how, len(batch))
			}
			for id, want := range batch {
				different[want.score] = true
				if m.Label.Classes != nil {
					want.class = highest(want.classes)
				}
				if got := answers[id]; !got.equal(want) {
					t.Fatalf("%s of %s: %+v by %s, %+v by millrace score", m.Name, id, got, how, want)
				}
			}
		}
		if len(over[m.Name]) != 3 || len(different) < 50 {
			t.Errorf("%s: %d ways, %d different scores", m.Name, len(over[m.Name]), len(different))
		}
		t.Logf("%s: %d departures are scored the same in four ways", m.Name, len(batch))
	}
}

func answerOf(score float64, class string, classes []schemas.ClassScore) taskAnswer {
	a := taskAnswer{score: score, class: class}
	for _, c := range classes {
		a.add(c.Class, c.Score)
	}
	return a
}

func (a *taskAnswer) add(class string, score float64) {
	if a.classes == nil {
		a.classes = map[string]float64{}
	}
	a.classes[class] = score
}

// highest is the class of the highest score.
func highest(classes map[string]float64) string {
	best := ""
	for _, class := range slices.Sorted(maps.Keys(classes)) {
		if best == "" || classes[class] > classes[best] {
			best = class
		}
	}
	return best
}

// replaceModels gives the project other models.
func (s *stand) replaceModels(models string) {
	s.t.Helper()
	path := filepath.Join(s.dir, project.FileName)
	b, err := os.ReadFile(path)
	must(s.t, err)
	before, _, found := strings.Cut(string(b), "\nmodels:\n")
	if !found {
		s.t.Fatal("the project has no models")
	}
	const lastDelay = "      last_delay: {aggregate: last(delay), windows: [lifetime]}\n"
	before = strings.Replace(before, lastDelay, lastDelay+"      last_to: {aggregate: last(destination), windows: [3h]}\n", 1) // of origin_delays
	must(s.t, os.WriteFile(path, []byte(before+"\n"+models), 0o644))
	must(s.t, os.WriteFile(filepath.Join(s.dir, "busiest.txt"), []byte(strings.Join(busiest, "\n")+"\n"), 0o644))
	s.project, err = project.Load(s.dir)
	must(s.t, err)
}

// thinned is the events of one of n flights.
func thinned(events []flights.Event, n int) []flights.Event {
	return slices.DeleteFunc(events, func(e flights.Event) bool {
		number, err := strconv.Atoi(e.Flight.ID[strings.LastIndexByte(e.Flight.ID, '-')+1:])
		return err != nil || number%n != 0
	})
}

var metricLine = regexp.MustCompile(`(?m)^  (\w+) +(\S+)$`)

// trainOnce trains a model on what was known at a time, and gives the metrics that are told.
func (s *stand) trainOnce(model string, until time.Time) map[string]float64 {
	s.t.Helper()
	out, err := exec.Command(binary, "train", "--once", "--model", model, "--until", until.Format(time.RFC3339),
		"--project", s.dir, "--data-dir", s.data, "--kafka", s.kafka, "--redis", s.redis).CombinedOutput()
	if err != nil || !strings.Contains(string(out), "promoted "+model+"@1 ") {
		s.t.Fatalf("training %s: %v: %s", model, err, out)
	}
	metrics := map[string]float64{}
	for _, line := range metricLine.FindAllStringSubmatch(string(out), -1) {
		v, err := strconv.ParseFloat(line[2], 64)
		must(s.t, err)
		metrics[line[1]] = v
	}
	return metrics
}

// checkTraining measures the held-out rows by hand, by the scores that the registered model gives them.
func (s *stand) checkTraining(m *project.Model, told map[string]float64, until time.Time, events []flights.Event) {
	s.t.Helper()
	end := until.Add(-m.Label.Within)
	answers := s.batchScored(m, end.Add(-m.Train.Holdout), end)
	for name, metric := range taskMetrics[m.Name] {
		rows, total, weights := 0, 0.0, 0.0
		for _, e := range events {
			a, held := answers[e.Flight.ID]
			if e.Topic != flights.Departures || !held || e.Flight.Arrived() <= e.Flight.Scheduled || e.Flight.Arrived() > e.Flight.Scheduled+m.Label.Within.Milliseconds() {
				continue
			}
			if weight := metric.weight(e.Flight); weight > 0 {
				rows, total, weights = rows+1, total+weight*metric.value(a, float64(e.Flight.Delay)), weights+weight
			}
		}
		want := metric.show(total / weights)
		if got := told[name]; rows < 500 || int(told["rows"]) != rows || math.Abs(got-want) > 1e-5*math.Abs(want) {
			s.t.Errorf("%s: training tells %s %v of %v held-out rows, by hand %v of %d", m.Name, name, got, told["rows"], want, rows)
		}
	}
}

// batchScored is what millrace score says of the departures in a span of event time.
func (s *stand) batchScored(m *project.Model, from, until time.Time) map[string]taskAnswer {
	s.t.Helper()
	path := filepath.Join(s.t.TempDir(), "scored.parquet")
	s.millrace("score", "--model", m.Name, "--source", flights.Departures, "--from", from.Format(time.RFC3339), "--until", until.Format(time.RFC3339), "--out", path)
	f, err := dataset.Open(context.Background(), path, s.t.TempDir(), nil)
	must(s.t, err)
	defer f.Close()
	answers := map[string]taskAnswer{}
	for r, err := range f.Records(context.Background(), nil) {
		must(s.t, err)
		text := func(name string, row int) string { return r.Column(f.Schema().FieldIndices(name)[0]).ValueStr(row) }
		number := func(name string, row int) float64 {
			v, err := strconv.ParseFloat(text(name, row), 64)
			must(s.t, err)
			return v
		}
		for i := range int(r.NumRows()) {
			a := taskAnswer{score: number("score", i)}
			for _, class := range m.Label.Classes {
				a.add(class, number("score_"+class, i))
			}
			if rung := text("status", i); rung != schemas.RungPrimary {
				s.t.Fatalf("%s: a row is answered by %s", m.Name, rung)
			}
			answers[text("flight_id", i)] = a
		}
	}
	return answers
}

// departuresOf is the flights of the departures among events.
func departuresOf(events []flights.Event) []flights.Flight {
	var departures []flights.Flight
	for _, e := range events {
		if e.Topic == flights.Departures {
			departures = append(departures, e.Flight)
		}
	}
	return departures
}

// taskFeature is an input as an answer shows it.
type taskFeature struct {
	Name  string
	Value *float64
}

// askedInJSON asks about departures as of when they were scheduled, in Millrace's own JSON.
func (s *stand) askedInJSON(serve *proc, m *project.Model, events []flights.Event) map[string]taskAnswer {
	s.t.Helper()
	answers, named := map[string]taskAnswer{}, 0
	for asked := range slices.Chunk(departuresOf(events), 200) {
		rows := make([]string, len(asked))
		for i, f := range asked {
			rows[i] = fmt.Sprintf(`{"flight_id":%q,"scheduled":%d,"origin":%q,"destination":%q,"distance":%d,"at":%d}`, f.ID, f.Scheduled, f.Origin, f.Destination, f.Distance, f.Scheduled)
		}
		var answer struct {
			Predictions []struct {
				Score   *float64
				Rung    string
				Class   string
				Classes []schemas.ClassScore

				Features []taskFeature
			}
		}
		s.postFor(serve.endpoint+"/v1/models/"+m.Name+":score", `{"rows":[`+strings.Join(rows, ",")+`]}`, &answer)
		if len(answer.Predictions) != len(asked) {
			s.t.Fatalf("%d answers to %d questions", len(answer.Predictions), len(asked))
		}
		for i, p := range answer.Predictions {
			if p.Rung != schemas.RungPrimary {
				s.t.Fatalf("%s: %s is answered by %s", m.Name, asked[i].ID, p.Rung)
			}
			for _, f := range p.Features {
				if code := slices.Index(busiest, asked[i].Origin); f.Name == "origin" && (code < 0) != (f.Value == nil) || code >= 0 && f.Name == "origin" && *f.Value != float64(code) {
					s.t.Fatalf("%s: %s is the category %v", m.Name, asked[i].Origin, shown(f.Value))
				}
			}
			last := slices.IndexFunc(p.Features, func(f taskFeature) bool { return f.Name == "origin_delays.last_to_3h" })
			if p.Features[last].Value != nil {
				named++
			}
			answers[asked[i].ID] = answerOf(*p.Score, p.Class, p.Classes)
		}
	}
	if named < 10 || named == len(answers) {
		s.t.Errorf("%s: of %d departures %d have a category by what the group says of their origin", m.Name, len(answers), named)
	}
	return answers
}

// askedByProtocol asks the same by the Open Inference Protocol, a tensor for each column.
func (s *stand) askedByProtocol(serve *proc, m *project.Model, events []flights.Event) map[string]taskAnswer {
	s.t.Helper()
	answers := map[string]taskAnswer{}
	for asked := range slices.Chunk(departuresOf(events), 200) {
		var tensors []string
		tensor := func(name, datatype string, element func(flights.Flight) string) {
			elements := make([]string, len(asked))
			for i, f := range asked {
				elements[i] = element(f)
			}
			tensors = append(tensors, fmt.Sprintf(`{"name":%q,"datatype":%q,"shape":[%d],"data":[%s]}`, name, datatype, len(asked), strings.Join(elements, ",")))
		}
		tensor("flight_id", "BYTES", func(f flights.Flight) string { return strconv.Quote(f.ID) })
		tensor("scheduled", "INT64", func(f flights.Flight) string { return fmt.Sprint(f.Scheduled) })
		tensor("at", "INT64", func(f flights.Flight) string { return fmt.Sprint(f.Scheduled) })
		tensor("origin", "BYTES", func(f flights.Flight) string { return strconv.Quote(f.Origin) })
		tensor("destination", "BYTES", func(f flights.Flight) string { return strconv.Quote(f.Destination) })
		tensor("distance", "INT32", func(f flights.Flight) string { return fmt.Sprint(f.Distance) })
		var answer struct {
			Outputs []struct {
				Name string
				Data json.RawMessage
			}
		}
		s.postFor(serve.endpoint+"/v2/models/"+m.Name+"/infer", `{"inputs":[`+strings.Join(tensors, ",")+`]}`, &answer)
		var scores, classScores []float64
		var class, classes []string
		for _, o := range answer.Outputs {
			if to, wanted := map[string]any{"score": &scores, "class": &class, "classes": &classes, "class_scores": &classScores}[o.Name]; wanted {
				must(s.t, json.Unmarshal(o.Data, to))
			}
		}
		if len(scores) != len(asked) || len(classScores) != len(asked)*len(m.Label.Classes) || len(classScores) != len(classes) {
			s.t.Fatalf("%s: %d scores, %d of classes, to %d questions", m.Name, len(scores), len(classScores), len(asked))
		}
		for i, f := range asked {
			a := taskAnswer{score: scores[i]}
			for c := range m.Label.Classes {
				a.class = class[i]
				a.add(classes[i*len(m.Label.Classes)+c], classScores[i*len(m.Label.Classes)+c])
			}
			answers[f.ID] = a
		}
	}
	return answers
}

// postFor asks for what must be answered with 200.
func (s *stand) postFor(url, body string, into any) {
	s.t.Helper()
	resp, err := http.Post(url, "application/json", strings.NewReader(body))
	must(s.t, err)
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	must(s.t, err)
	if resp.StatusCode != http.StatusOK {
		s.t.Fatalf("%s: %d: %s", url, resp.StatusCode, b)
	}
	must(s.t, json.Unmarshal(b, into))
}
