package training

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/millrace/millrace/internal/failure"
	"github.com/millrace/millrace/project"
	"github.com/millrace/millrace/registry"
	"github.com/millrace/millrace/registry/model"
	"github.com/millrace/millrace/training/trainer"
)

// parent is a champion that programs may go on from.
type parent struct {
	digest string
	bundle model.Bundle
}

// parent gives the champion to the candidates that ask for it. There is none when it was trained on rows that are held out
// here, or reads other inputs.
func (s *Stage) parent(m *project.Model, data *Dataset) (*parent, error) {
	asked := false
	for _, c := range m.Train.Candidates {
		asked = asked || c.Program != nil && c.Program.Parent
	}
	if !asked {
		return nil, nil
	}
	digest, _, err := s.registry.Alias(m.Name, registry.Champion)
	if failure.Of(err) == failure.NotFound {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("looking up the champion: %w", err)
	}
	manifest, b, err := s.registry.Read(digest)
	if err != nil {
		return nil, fmt.Errorf("reading the champion: %w", err)
	}
	bundle, err := model.DecodeBundle(b)
	if err != nil {
		return nil, fmt.Errorf("decoding the champion: %w", err)
	}
	now := Signature(m)
	if len(now) != len(bundle.Signature) || changedInput(bundle.Signature, now) != "" || hasSeen(manifest, data.Span) != "" {
		return nil, nil
	}
	return &parent{digest, bundle}, nil
}

// runProgram has a program of the user's make the model.
func (s *Stage) runProgram(ctx context.Context, c project.Candidate, f fitting) (fitted, error) {
	job := trainer.Job{
		Project: s.project.Name, Model: f.model.Name, Candidate: c.Name, Objective: string(f.model.Task), Classes: f.model.Label.Classes, Metric: f.model.Train.Metric,
		Seed: f.model.Train.Seed, Params: c.Program.Params,
	}
	sources := Signature(f.model)
	for i, in := range f.inputs {
		from := sources[in]
		job.Inputs = append(job.Inputs, trainer.Input{
			Name: from.Name, Kind: from.Kind, Source: from.Source, Categorical: f.categorical(i), Monotone: f.model.Train.Monotone[from.Name],
			Categories: from.Categories,
		})
	}
	if f.parent != nil && c.Program.Parent {
		job.Parent = &trainer.Parent{MediaType: f.parent.bundle.Format, Digest: f.parent.digest, Bytes: f.parent.bundle.Model}
	}
	program := trainer.Program{
		Command: c.Program.Command, Dir: s.project.Dir, Env: c.Program.Env, Timeout: c.Program.Timeout, KeepLog: s.cfg.KeepLog,
	}
	r, err := trainer.Run(ctx, program, job, f.rows.between(0, f.valid).handed(), f.rows.between(f.valid, len(f.rows.Times)).handed())
	if err == nil {
		err = model.SameCategories(signatureOf(sources, f.inputs), r.Model)
	}
	return fitted{r.Model, r.MediaType, r.Bytes, r.Log, f.model.Label.Classes}, err
}

// signatureOf is the inputs of those numbers.
func signatureOf(all []model.SignatureInput, inputs []int) []model.SignatureInput {
	some := make([]model.SignatureInput, len(inputs))
	for i, in := range inputs {
		some[i] = all[in]
	}
	return some
}

// handed is the rows as a program gets them.
func (p Part) handed() trainer.Rows {
	return trainer.Rows{Keys: p.Keys, Times: p.Times, Labels: p.Labels, Weights: p.Weights, Columns: p.Columns}
}

// programFiles are the files of the project folder that a command names, with the digests that they had: the code that made
// the model.
func programFiles(dir string, command []string) []registry.Ref {
	var files []registry.Ref
	for _, word := range command {
		if !filepath.IsLocal(word) {
			continue
		}
		if b, err := os.ReadFile(filepath.Join(dir, word)); err == nil {
			files = append(files, registry.Ref{Role: word, Digest: registry.DigestOf(b)})
		}
	}
	return files
}
