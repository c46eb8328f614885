package training

import (
	"context"
	"fmt"
	"math"

	"github.com/millrace/millrace/features/offline"
	"github.com/millrace/millrace/internal/failure"
	"github.com/millrace/millrace/project"
	"github.com/millrace/millrace/registry/model"
)

// Dataset is the rows that a model is trained and judged on, in the order of (time, partition, offset) of the source that
// asks for scores.
type Dataset struct {
	Names   []string    // of inputs
	Columns [][]float64 // one slice per input, one value per row; NaN is missing
	Keys    []string    // label join key of each row
	Times   []int64     // event time of each row: its inputs are as of this moment
	Task    model.Task  // what Labels are
	Classes []string    // of a multiclass task, that Labels are indices of
	Labels  []float64   // 0 or 1, of another task a value, a count or the index of a class
	Weights []float64   // of each row, above 0; nil is 1 for all
	Known   []int64     // event time of each row's label
	Lookups []Lookup

	Span
	Labelled int64 // labelled rows there were, before sampling
	Limit    int   // most rows to be kept
	Unknown  int64 // labels there were of a class that the project does not name: they label nothing
}

// Lookup is a feature group read by one choice of entity columns.
type Lookup struct {
	Group  string
	Entity []string // columns of the asking source
	Inputs []int    // indices into Dataset.Names
	Newest []int64  // for each row the newest event time that its values know of; pit.Never when they know of none
}

// Span is the event times of a dataset, Unix milliseconds; each interval includes its first and excludes its second end.
//
//	From ── rows to train on ── TrainUntil ── labels come ── HoldoutFrom ── held-out rows ── HoldoutUntil ── labels come ── Until
type Span struct {
	From, TrainUntil, HoldoutFrom, HoldoutUntil, Until int64
}

// noBound is the From of a dataset that begins with the log.
const noBound = math.MinInt64

// span lays the declared window and holdout before the cutoff, leaving after each the time that labels may take. From is
// noBound where the window has no limit.
func span(m *project.Model, until int64) Span {
	within := m.Label.Within.Milliseconds()
	s := Span{From: noBound, Until: until, HoldoutUntil: until - within}
	s.HoldoutFrom = s.HoldoutUntil - m.Train.Holdout.Milliseconds()
	s.TrainUntil = s.HoldoutFrom - within
	if m.Train.Window > 0 {
		s.From = s.TrainUntil - m.Train.Window.Milliseconds()
	}
	return s
}

// uses reports whether a row of time t is trained on or held out.
func (s Span) uses(t int64) bool {
	return t >= s.From && t < s.TrainUntil || t >= s.HoldoutFrom && t < s.HoldoutUntil
}

// Build joins labels and features to the rows of the model's source that came before until (Unix milliseconds, event
// time): one row out for each labelled row in, or for a sample of them by the hash of the join key where the project
// limits their number. offlineDir is the folder of the offline log.
func Build(ctx context.Context, cfg Config, offlineDir string, m *project.Model, until int64, progress Progress) (*Dataset, error) {
	if len(m.Inputs) > cfg.MaxInputs {
		return nil, failure.New(failure.Refused, m.Name, "the model has %d inputs, MaxInputs is %d", len(m.Inputs), cfg.MaxInputs)
	}
	b := &builder{cfg: cfg, dir: offlineDir, model: m, span: span(m, until), progress: progress}
	labels, err := b.labels(ctx)
	if err != nil {
		return nil, fmt.Errorf("reading labels of %s: %w", m.Label.Source.Name, err)
	}
	spine, err := b.spine(ctx, labels)
	if err != nil {
		return nil, fmt.Errorf("reading rows of %s: %w", m.On.Name, err)
	}
	d := b.lay(spine)
	if err := b.replay(ctx, d, spine.rows); err != nil {
		return nil, fmt.Errorf("replaying features: %w", err)
	}
	return d, nil
}

type builder struct {
	cfg      Config
	dir      string
	model    *project.Model
	span     Span
	progress Progress
	unknown  int64 // labels of no class
}

func (b *builder) table(s *project.Source) (*offline.Table, error) {
	return offline.EventsTable(b.dir, s.Name, s.Schema)
}

// lay makes the dataset of the spine's own values, with the columns of the groups still to be filled.
func (b *builder) lay(s *spine) *Dataset {
	n := len(s.rows)
	d := &Dataset{
		Names: make([]string, len(b.model.Inputs)), Columns: make([][]float64, len(b.model.Inputs)),
		Keys: make([]string, n), Times: make([]int64, n), Labels: make([]float64, n), Known: make([]int64, n),
		Lookups: b.lookups(n), Span: b.span, Labelled: s.labelled, Limit: s.limit,
		Task: b.model.Task, Classes: b.model.Label.Classes, Unknown: b.unknown,
	}
	for i, in := range b.model.Inputs {
		d.Names[i], d.Columns[i] = in.Name, make([]float64, n)
	}
	if b.model.Train.Weight != nil {
		d.Weights = make([]float64, n)
	}
	for r, row := range s.rows {
		if d.Weights != nil {
			d.Weights[r] = row.weight
		}
		d.Keys[r], d.Times[r], d.Labels[r], d.Known[r] = row.key, row.time, row.label.value, row.label.time
		for k, i := range s.own {
			d.Columns[i][r] = row.values[k]
		}
	}
	return d
}

// lookups groups the inputs by feature group, entity columns and whether the row's own event is included, in the order of their first
// input.
func (b *builder) lookups(rows int) []Lookup {
	var found []Lookup
	index := map[string]int{}
	for i, in := range b.model.Inputs {
		if in.Group == nil {
			continue
		}
		id := fmt.Sprint(in.Group.Name, in.Entity, in.Own != nil)
		at, ok := index[id]
		if !ok {
			at = len(found)
			index[id] = at
			found = append(found, Lookup{Group: in.Group.Name, Entity: entityColumns(b.model, in), Newest: make([]int64, rows)})
		}
		found[at].Inputs = append(found[at].Inputs, i)
	}
	return found
}

func entityColumns(m *project.Model, in project.Input) []string {
	names := make([]string, len(in.Entity))
	for i, c := range in.Entity {
		names[i] = m.On.Schema.Columns[c].Name
	}
	return names
}
