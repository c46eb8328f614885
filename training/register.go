package training

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"github.com/millrace/millrace/features/offline"
	"github.com/millrace/millrace/features/profile"
	"github.com/millrace/millrace/internal/failure"
	"github.com/millrace/millrace/project"
	"github.com/millrace/millrace/registry"
	"github.com/millrace/millrace/registry/model"
	"github.com/millrace/millrace/training/trainer"
)

// The roles in which artefacts are made of one another. Those who follow a model to its parts look for these.
const (
	roleFeatures = "features"
	roleDataset  = "dataset"
	roleBaseline = "baseline"
	roleMetrics  = "metrics"
	roleModel    = "model"
	roleParent   = "parent" // a champion that a program went on from
)

// annotationTrainUntil is the event time (Unix milliseconds) before which all rows are that a model was trained on.
const annotationTrainUntil = "train_until_ms"

const (
	mediaArrow = "application/vnd.apache.arrow.file"
	mediaJSON  = "application/json"
)

// registered is the digests of what a run made.
type registered struct {
	features, dataset, baseline, metrics, model string
	simpler                                     string // empty without one
	version                                     int
}

// register keeps what a run made:
//
//	features ─► dataset ─┬► baseline ─┐
//	                     ├► metrics ──┼► model
//	                     ├► simpler ──┤
//	                     └────────────┘
//
// Nothing of it depends on the time of day, nor on the champion unless a program went on from it, so that the same log and cutoff give the
// same digests: as far as programs do the same each time.
func (s *Stage) register(ctx context.Context, m *project.Model, t *trained) (registered, error) {
	var kept registered
	steps := []func(context.Context, *project.Model, *trained, *registered) error{
		s.registerFeatures, s.registerDataset, s.registerBaseline, s.registerMetrics, s.registerSimpler, s.registerModel,
	}
	for i, step := range steps {
		s.progress("registering", int64(i), int64(len(steps)))
		if err := step(ctx, m, t, &kept); err != nil {
			return kept, err
		}
	}
	s.progress("registering", int64(len(steps)), int64(len(steps)))
	var err error
	kept.version, err = s.registry.AddVersion(m.Name, kept.model)
	return kept, err
}

func (s *Stage) put(ctx context.Context, m registry.Manifest, content any) (string, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false) // ">=" is to be read
	enc.SetIndent("", " ")
	if err := enc.Encode(content); err != nil {
		return "", fmt.Errorf("encoding %s: %w", m.Kind, err)
	}
	m.MediaType, m.Code = mediaJSON, s.cfg.Code
	return s.registry.Put(ctx, m, &b)
}

func (s *Stage) registerFeatures(ctx context.Context, m *project.Model, _ *trained, kept *registered) (err error) {
	kept.features, err = s.put(ctx, registry.Manifest{Kind: registry.KindFeatures, Name: m.Name}, describe(m))
	return err
}

// registerDataset keeps the rows as an Arrow file, by way of a temporary one: the file format ends with an index.
func (s *Stage) registerDataset(ctx context.Context, m *project.Model, t *trained, kept *registered) error {
	dir, err := os.MkdirTemp("", "millrace-dataset-")
	if err != nil {
		return failure.Wrap(failure.Unavailable, "dataset", "making a temporary folder", err)
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "dataset.arrow")
	digest, err := writeDataset(ctx, path, t.data)
	if err != nil {
		return fmt.Errorf("writing dataset: %w", err)
	}
	f, err := os.Open(path)
	if err != nil {
		return failure.Wrap(failure.Unavailable, path, "opening dataset", err)
	}
	defer f.Close()
	kept.dataset, err = s.registry.Put(ctx, registry.Manifest{
		Kind: registry.KindDataset, Name: m.Name, MediaType: mediaArrow, Content: digest, Code: s.cfg.Code,
		Inputs:      []registry.Ref{{Role: roleFeatures, Digest: kept.features}},
		Rows:        int64(len(t.data.Times)),
		Annotations: t.data.annotations(m),
	}, f)
	return err
}

func writeDataset(ctx context.Context, path string, d *Dataset) (digest string, err error) {
	names, columns := d.Names, d.Columns
	if d.Weights != nil {
		names, columns = append(slices.Clone(names), trainer.WeightColumn), append(slices.Clone(columns), d.Weights)
	}
	w, err := offline.NewDatasetWriter(path, names)
	if err != nil {
		return "", err
	}
	defer func() {
		if err != nil {
			_ = w.Abort() // the folder goes anyway
		}
	}()
	row := make([]float64, len(columns))
	for r := range d.Times {
		for i, c := range columns {
			row[i] = c[r]
		}
		if err := w.Append(d.Keys[r], d.Times[r], d.Labels[r], row); err != nil {
			return "", err
		}
	}
	if err := ctx.Err(); err != nil {
		return "", err
	}
	return w.Close()
}

// annotations say how the rows were chosen.
func (d *Dataset) annotations(m *project.Model) map[string]string {
	from := ""
	if d.From != noBound {
		from = instant(d.From)
	}
	notes := map[string]string{
		"from": from, "train_until": instant(d.TrainUntil), "holdout_from": instant(d.HoldoutFrom),
		"holdout_until": instant(d.HoldoutUntil), "until": instant(d.Until),
		"labelled": strconv.FormatInt(d.Labelled, 10), "limit": strconv.Itoa(d.Limit), "seed": strconv.FormatInt(m.Train.Seed, 10),
	}
	if d.Unknown > 0 {
		notes["labels_of_no_class"] = strconv.FormatInt(d.Unknown, 10)
	}
	return notes
}

// registerBaseline keeps the profile of the training rows, with the chosen model's scores of the held-out rows.
func (s *Stage) registerBaseline(ctx context.Context, m *project.Model, t *trained, kept *registered) error {
	b := profile.Build(t.data.Names, t.train.Columns, chunks(t.train.Times, m))
	labels, in := t.held.Labels, chunks(t.held.Times, m)
	if !m.Binary() {
		labels = nil // they are judged by their loss
	}
	b.HoldOut(scores(t.best.outputs, len(t.best.model.Outputs())), labels, in)
	if loss := m.Loss(); loss != "" {
		b.HoldOutLoss(loss, losses(loss, len(t.data.Classes), t.best.outputs, t.held.Labels), in)
	}
	text, err := b.Encode()
	if err != nil {
		return fmt.Errorf("encoding baseline: %w", err)
	}
	kept.baseline, err = s.registry.Put(ctx, registry.Manifest{
		Kind: registry.KindBaseline, Name: m.Name, MediaType: mediaJSON, Code: s.cfg.Code,
		Inputs: []registry.Ref{{Role: roleDataset, Digest: kept.dataset}}, Rows: int64(len(t.train.Times)),
		Annotations: map[string]string{"candidate": t.best.Name},
	}, bytes.NewReader(text))
	return err
}

func chunks(times []int64, m *project.Model) []int {
	numbers := make([]int, len(times))
	for i, at := range times {
		numbers[i] = profile.Chunk(at, m.Monitor.Window)
	}
	return numbers
}

func (s *Stage) registerMetrics(ctx context.Context, m *project.Model, t *trained, kept *registered) (err error) {
	kept.metrics, err = s.put(ctx, registry.Manifest{
		Kind: registry.KindMetrics, Name: m.Name, Rows: int64(len(t.held.Labels)),
		Inputs:      []registry.Ref{{Role: roleDataset, Digest: kept.dataset}},
		Annotations: map[string]string{"candidate": t.best.Name},
	}, t.values())
	return err
}

// registerSimpler keeps the model without feature groups, where there is one: it answers when features cannot be read, in a project that
// falls back to it.
func (s *Stage) registerSimpler(ctx context.Context, m *project.Model, t *trained, kept *registered) error {
	if t.simpler == nil {
		return nil
	}
	f := s.newFitting(m, t.train, true)
	names, train := f.names(), f.rows
	own := slices.DeleteFunc(Signature(m), func(in model.SignatureInput) bool { return !slices.Contains(names, in.Name) })
	bundle, err := t.simpler.pack(own, golden(s.cfg.GoldenRows, train))
	if err != nil {
		return fmt.Errorf("packing the simpler model: %w", err)
	}
	b, err := bundle.Encode()
	if err != nil {
		return fmt.Errorf("encoding the simpler model: %w", err)
	}
	kept.simpler, err = s.registry.Put(ctx, registry.Manifest{
		Kind: registry.KindModel, Name: m.Name, MediaType: model.MediaBundle, Code: s.cfg.Code, Rows: int64(len(train.Labels)),
		Inputs:      []registry.Ref{{Role: roleFeatures, Digest: kept.features}, {Role: roleDataset, Digest: kept.dataset}},
		Annotations: map[string]string{"project": s.project.Name, "candidate": t.best.Name, "without": "feature groups"},
	}, bytes.NewReader(b))
	return err
}

func (s *Stage) registerModel(ctx context.Context, m *project.Model, t *trained, kept *registered) error {
	bundle, err := t.best.model.pack(Signature(m), golden(s.cfg.GoldenRows, t.train))
	if err != nil {
		return fmt.Errorf("packing the model: %w", err)
	}
	b, err := bundle.Encode()
	if err != nil {
		return fmt.Errorf("encoding the model: %w", err)
	}
	inputs := []registry.Ref{
		{Role: roleFeatures, Digest: kept.features}, {Role: roleDataset, Digest: kept.dataset},
		{Role: roleBaseline, Digest: kept.baseline}, {Role: roleMetrics, Digest: kept.metrics},
	}
	if kept.simpler != "" {
		inputs = append(inputs, registry.Ref{Role: registry.RoleSimpler, Digest: kept.simpler})
	}
	manifest := registry.Manifest{
		Kind: registry.KindModel, Name: m.Name, MediaType: model.MediaBundle, Code: s.cfg.Code, Rows: int64(len(t.train.Labels)),
		Inputs: inputs,
		Annotations: map[string]string{
			"project": s.project.Name, "candidate": t.best.Name, "metric": m.Train.Metric,
			"data_from": instant(t.data.Times[0]), "data_until": instant(t.data.Until),
			annotationTrainUntil: strconv.FormatInt(t.data.TrainUntil, 10),
		},
	}
	if p := t.best.Program; p != nil {
		manifest.Annotations["trainer"] = t.best.String()
		manifest.Files = programFiles(s.project.Dir, p.Command)
		if p.Parent && t.parent != nil {
			manifest.Inputs = append(manifest.Inputs, registry.Ref{Role: roleParent, Digest: t.parent.digest})
		}
	}
	kept.model, err = s.registry.Put(ctx, manifest, bytes.NewReader(b))
	return err
}

// golden picks rows evenly over the training rows, so that they are of all times.
func golden(n int, p Part) [][]float64 {
	n = min(n, len(p.Labels))
	rows := make([][]float64, n)
	for i := range rows {
		rows[i] = p.row(i*len(p.Labels)/n, nil)
	}
	return rows
}

// Signature says of a model of the project where each input comes from.
func Signature(m *project.Model) []model.SignatureInput {
	inputs := make([]model.SignatureInput, len(m.Inputs))
	for i, in := range m.Inputs {
		s := model.SignatureInput{Name: in.Name, Required: in.Required, Categories: in.Categories.Names()}
		switch {
		case in.Group != nil:
			s.Source, s.Kind = in.Group.Meaning(in.Output, in.Own != nil), in.Group.Outputs[in.Output].Kind.String()
		case in.Expr != nil:
			s.Source, s.Kind = in.Expr.Meaning(), in.Expr.Kind().String()
		default:
			c := m.On.Schema.Columns[in.Column]
			s.Source, s.Kind = c.Meaning(), c.Kind.String()
		}
		inputs[i] = s
	}
	return inputs
}

// comparison is the content of an evaluation artefact: everything that was weighed.
type comparison struct {
	Metric     string                        `json:"metric"` // that the best candidate was chosen by
	Best       string                        `json:"best"`
	Candidates map[string]map[string]float64 `json:"candidates"`
	Failed     map[string]string             `json:"failed,omitempty"`  // candidates that could not be fitted
	Printed    map[string]string             `json:"printed,omitempty"` // the last that candidates printed that are programs
	Ablation   map[string]float64            `json:"without_stream_features,omitempty"`
	Champion   map[string]float64            `json:"champion,omitempty"`
	Note       string                        `json:"note,omitempty"` // why the champion was not measured
	Gates      []Verdict                     `json:"gates"`
}

// registerEvaluation keeps the comparison that the decision rests on.
func (s *Stage) registerEvaluation(ctx context.Context, m *project.Model, t *trained, kept registered, old champion, verdicts []Verdict) error {
	c := comparison{
		Metric: m.Train.Metric, Best: t.best.Name, Candidates: map[string]map[string]float64{},
		Failed: t.failed, Printed: t.printed, Gates: verdicts, Note: old.incomparable,
	}
	if t.ablation != nil {
		c.Ablation = t.ablation.Values()
	}
	for _, x := range t.candidates {
		c.Candidates[x.Name] = x.metrics.Values()
	}
	inputs := []registry.Ref{{Role: roleModel, Digest: kept.model}, {Role: roleDataset, Digest: kept.dataset}}
	if old.digest != "" {
		inputs = append(inputs, registry.Ref{Role: registry.RoleChampion, Digest: old.digest})
		if old.incomparable == "" {
			c.Champion = old.metrics.Values()
		}
	}
	_, err := s.put(ctx, registry.Manifest{
		Kind: registry.KindEvaluation, Name: m.Name, Inputs: inputs, Rows: int64(len(t.held.Labels)),
	}, c)
	return err
}
