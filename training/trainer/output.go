package trainer

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"

	"github.com/millrace/millrace/internal/failure"
	"github.com/millrace/millrace/registry/model"
)

// ScoresFile is a program's own scores of the valid rows, a JSON list of numbers in their order: where it is there, they
// must be the model's.
const ScoresFile = "valid_scores.json"

// ScoreTolerance is how far a program's own score may be from Millrace's: XGBoost works in float32.
const ScoreTolerance = 1e-5

// read loads out/model.* and sees that it scores what the job asks for.
func (r *Result) read(out string, job Job) error {
	paths, err := filepath.Glob(filepath.Join(out, "model.*"))
	if err != nil {
		return failure.Wrap(failure.Internal, out, "looking for the model", err)
	}
	if len(paths) != 1 {
		return failure.New(failure.Refused, "out/model.*", "the program left %d such files", len(paths)).
			WithHint("it must write its model to out/model.txt (LightGBM), out/model.json or out/model.ubj (XGBoost), or out/model.onnx")
	}
	name := "out/" + filepath.Base(paths[0])
	info, err := os.Lstat(paths[0])
	if err != nil {
		return failure.Wrap(failure.Unavailable, name, "looking at the model", err)
	}
	if !info.Mode().IsRegular() || info.Size() > model.MaxBytes {
		return failure.New(failure.Refused, name, "is not a file of at most %d bytes", model.MaxBytes)
	}
	if r.Bytes, err = os.ReadFile(paths[0]); err != nil {
		return failure.Wrap(failure.Unavailable, name, "reading the model", err)
	}
	if r.MediaType, err = model.Detect(r.Bytes); err != nil {
		return failure.Wrap(failure.Refused, name, "recognizing the model", err)
	}
	if r.Model, err = model.Load(r.MediaType, r.Bytes); err != nil {
		return failure.Wrap(failure.Refused, name, "loading the model", err)
	}
	if task := r.Model.Task(); string(task) != job.Objective {
		return failure.New(failure.Refused, name, "it is a model for %s, the job asks for one for %s", task, job.Objective).
			WithHint("train it for the job's objective")
	}
	if n := len(r.Model.Outputs()); job.Classes != nil && n != len(job.Classes) {
		return failure.New(failure.Refused, name, "it tells %d classes apart, the job has %d", n, len(job.Classes))
	}
	return r.name(name, job.Inputs)
}

// name sees that the model reads the job's inputs in their order. One whose file only numbers its columns is given the names.
func (r *Result) name(file string, inputs []Input) (err error) {
	names := make([]string, len(inputs))
	for i, in := range inputs {
		names[i] = in.Name
	}
	has := r.Model.Inputs()
	switch {
	case slices.Equal(has, names):
		return nil
	case len(has) != len(names):
		return failure.New(failure.Refused, file, "the model has %d inputs, the job %d", len(has), len(names)).
			WithHint("train on all columns that job.json lists as inputs, in that order")
	case model.Numbered(r.Model):
		if r.Model, err = model.Rename(r.Model, names); err != nil {
			return fmt.Errorf("naming the model's columns: %w", err)
		}
		return nil
	}
	at := 0
	for has[at] == names[at] {
		at++
	}
	return failure.New(failure.Refused, file, "input %d of the model is %q, that of the job %q", at, has[at], names[at]).
		WithHint("train on the columns that job.json lists as inputs, under these names and in that order")
}

// agree compares the program's own scores of the valid rows, where it wrote them, with the model's.
func agree(out string, m model.Model, valid Rows) error {
	b, err := os.ReadFile(filepath.Join(out, ScoresFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	where := "out/" + ScoresFile
	if err != nil {
		return failure.Wrap(failure.Unavailable, where, "reading scores", err)
	}
	var scores []float64
	if err := json.Unmarshal(b, &scores); err != nil {
		return failure.Wrap(failure.Refused, where, "decoding a list of numbers", err)
	}
	if len(scores) != len(valid.Times) {
		return failure.New(failure.Refused, where, "has %d scores for %d valid rows", len(scores), len(valid.Times))
	}
	row := make([]float64, len(valid.Columns))
	for i, want := range scores {
		for c, column := range valid.Columns {
			row[c] = column[i]
		}
		if got := m.Predict(row); !(math.Abs(got-want) <= ScoreTolerance) {
			return failure.New(failure.Refused, where, "row %d scores %v there, and %v with the model that was written", i, want, got).
				WithHint("the model file is another than the one that scored, or is cut off before the trees that count")
		}
	}
	return nil
}
