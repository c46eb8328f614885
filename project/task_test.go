package project

import (
	"slices"
	"strings"
	"testing"

	"github.com/millrace/millrace/registry/model"
	"github.com/millrace/millrace/schemas"
)

const taskedModel = `
project: tasks
sources:
  departures: {schema: schemas/departure.avsc, key: flight_id, time: scheduled}
  arrivals: {schema: schemas/arrival.avsc, key: flight_id, time: arrived}
models:
  kind:
    on: departures
    task: multiclass
    inputs: [distance]
    label: {source: arrivals, join: flight_id, value: 'delay > 40 ? "very_late" : delay > 15 ? "late" : "on_time"', within: 24h, classes: [on_time, late, very_late]}
    train: {metric: macro_auc}
    gates: {log_loss: "<= 1", accuracy: ">= 0.5"}
  minutes:
    on: departures
    task: regression
    inputs: [distance]
    label: {source: arrivals, join: flight_id, value: delay, within: 24h}
    serve: {otherwise: default, default: -12.5}
`

func TestTasksOfModels(t *testing.T) {
	p := loadText(t, taskedModel)
	kind, minutes := p.Model("kind"), p.Model("minutes")
	if kind.Task != model.TaskMulticlass || kind.Train.Metric != MetricMacroAUC || len(kind.Train.Candidates) != 2 || kind.Train.Candidates[0].Name != CandidateLogistic || kind.Binary() {
		t.Errorf("kind: %+v", kind)
	}
	if minutes.Train.Metric != MetricRMSE || len(minutes.Train.Candidates) != 1 || minutes.Serve.Fallback[1].Score != -12.5 {
		t.Errorf("minutes: %+v", minutes)
	}
	row := func(delay schemas.Value) schemas.Row {
		row := make(schemas.Row, len(kind.Label.Source.Schema.Columns))
		row[kind.Label.Source.Schema.Index("delay")] = delay
		return row
	}
	for delay, want := range map[int64][2]float64{-5: {0, -5}, 20: {1, 20}, 41: {2, 41}} {
		for i, m := range []*Model{kind, minutes} {
			if truth, ok, known, err := m.Label.Truth(row(schemas.IntValue(delay))); truth != want[i] || !ok || !known || err != nil {
				t.Errorf("%s of a delay of %d: %v, %v, %v, %v", m.Name, delay, truth, ok, known, err)
			}
		}
	}
	if _, ok, known, err := minutes.Label.Truth(row(schemas.NullValue())); ok || !known || err != nil {
		t.Errorf("no delay: %v, %v, %v", ok, known, err)
	}
	fewer := *kind
	fewer.Label.Classes = []string{"on_time", "late"}
	if _, ok, known, err := fewer.Label.Truth(row(schemas.IntValue(99))); ok || known || err != nil {
		t.Errorf("of no class: %v, %v, %v", ok, known, err)
	}
	changed := loadText(t, strings.Replace(taskedModel, "classes: [on_time, late, very_late]", "classes: [on_time, very_late, late]", 1))
	if got := Plan(changed, p.State()); !got.Breaking() || !slices.ContainsFunc(got, func(c Change) bool { return strings.Contains(c.What, "classes on_time,very_late,late") }) {
		t.Errorf("plan: %+v", got)
	}
}
