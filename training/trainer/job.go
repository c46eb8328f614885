package trainer

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"

	"github.com/millrace/millrace/features/offline"
	"github.com/millrace/millrace/internal/failure"
	"github.com/millrace/millrace/registry/model"
)

// JobFile is the name of the file that describes a job, in its folder.
const JobFile = "job.json"

// WeightColumn is the column of a row's weight, where the project gives weights: in the rows of a job, and of a training set.
const WeightColumn = "_weight"

// version is of job.json. It grows when a field that programs rely on changes its meaning; new fields do not change it.
const version = 1

// Job is what job.json says, apart from what Run adds. Its paths are relative to the job's folder.
type Job struct {
	Version   int             `json:"version"`
	Project   string          `json:"project"`
	Model     string          `json:"model"`
	Candidate string          `json:"candidate"`
	Objective string          `json:"objective"`         // a model.Task: what the score is to mean
	Classes   []string        `json:"classes,omitempty"` // of a multiclass objective: labels are their indices, and so are the outputs of the model
	Metric    string          `json:"metric"`            // that candidates are compared by
	Inputs    []Input         `json:"inputs"`            // columns of the row files, in the order that the model must have them
	Label     string          `json:"label"`             // column: 0 or 1, a value, a count, or the index of a class
	Weight    string          `json:"weight,omitempty"`  // column, what a row counts for, above 0; absent: all count alike
	Time      string          `json:"time"`              // column, event time
	Key       string          `json:"key"`               // column, what tells a row from others
	Train     Part            `json:"train"`
	Valid     Part            `json:"valid"` // later than Train: for early stopping and the like
	Parent    *Parent         `json:"parent,omitempty"`
	Out       string          `json:"out"` // empty folder, for model.*
	Seed      int64           `json:"seed"`
	Params    json.RawMessage `json:"params"`
}

// Input is a column that the model reads: float64, null where it is missing.
type Input struct {
	Name        string `json:"name"`
	Kind        string `json:"kind"`             // of the column it comes from, like "int"
	Source      string `json:"source,omitempty"` // where it comes from
	Categorical bool   `json:"categorical"`      // its numbers are codes of categories
	Monotone    int    `json:"monotone"`         // 1: the score must not fall as it rises; -1: must not rise; 0: either

	Categories []string `json:"categories,omitempty"` // names of the codes 0, 1, …, of an input that comes from a text
}

// Part is one file of rows, in the order of their time.
type Part struct {
	Path  string `json:"path"` // Arrow IPC file
	Rows  int    `json:"rows"`
	From  int64  `json:"from_ms"`  // event time of the first row, Unix milliseconds
	Until int64  `json:"until_ms"` // a millisecond after the last
}

// Parent is a model to go on from.
type Parent struct {
	Path      string `json:"path"`
	MediaType string `json:"media_type"`
	Digest    string `json:"digest"` // of its artefact
	Bytes     []byte `json:"-"`
}

// Rows is some rows, column by column, in the order of their time.
type Rows struct {
	Keys    []string
	Times   []int64 // Unix milliseconds
	Labels  []float64
	Weights []float64   // above 0; nil is 1 for all
	Columns [][]float64 // by Job.Inputs; NaN is missing
}

// lay fills the folder: job.json, train/rows.arrow, valid/rows.arrow, parent/ where there is one, and an empty out/.
func (j *Job) lay(dir string, train, valid Rows) error {
	j.Version, j.Label, j.Time, j.Key, j.Out = version, "_label", "_time", "_key", "out"
	if train.Weights != nil {
		j.Weight = WeightColumn
	}
	var err error
	if j.Train, err = j.part(dir, "train", train); err != nil {
		return err
	}
	if j.Valid, err = j.part(dir, "valid", valid); err != nil {
		return err
	}
	if err := os.Mkdir(filepath.Join(dir, j.Out), 0o755); err != nil {
		return failure.Wrap(failure.Unavailable, dir, "making the job's folder", err)
	}
	if j.Parent != nil {
		j.Parent.Path = "parent/model" + extension(j.Parent.MediaType)
		if err := write(filepath.Join(dir, j.Parent.Path), j.Parent.Bytes); err != nil {
			return err
		}
	}
	text, err := json.MarshalIndent(j, "", " ")
	if err != nil {
		return failure.Wrap(failure.Internal, JobFile, "encoding the job", err)
	}
	return write(filepath.Join(dir, JobFile), append(text, '\n'))
}

// extension is what libraries know a model file of the format by.
func extension(mediaType string) string {
	switch mediaType {
	case model.MediaLightGBM:
		return ".txt"
	case model.MediaXGBoostUBJ:
		return ".ubj"
	default:
		return ".json"
	}
}

func (j *Job) part(dir, name string, rows Rows) (Part, error) {
	p := Part{Path: name + "/rows.arrow", Rows: len(rows.Times)}
	if n := len(rows.Times); n > 0 {
		p.From, p.Until = rows.Times[0], rows.Times[n-1]+1
	}
	names := make([]string, len(j.Inputs))
	for i, in := range j.Inputs {
		names[i] = in.Name
	}
	columns := rows.Columns
	if rows.Weights != nil {
		names, columns = append(names, WeightColumn), append(slices.Clone(columns), rows.Weights)
	}
	w, err := offline.NewDatasetWriter(filepath.Join(dir, p.Path), names)
	if err != nil {
		return p, err
	}
	row := make([]float64, len(names))
	for i := range rows.Times {
		for c, column := range columns {
			row[c] = column[i]
		}
		if err := w.Append(rows.Keys[i], rows.Times[i], rows.Labels[i], row); err != nil {
			_ = w.Abort() // the folder goes anyway
			return p, err
		}
	}
	_, err = w.Close()
	return p, err
}

func write(path string, b []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return failure.Wrap(failure.Unavailable, path, "making a folder", err)
	}
	if err := os.WriteFile(path, b, 0o644); err != nil {
		return failure.Wrap(failure.Unavailable, path, "writing the job", err)
	}
	return nil
}
