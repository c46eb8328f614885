package batches

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/millrace/millrace/internal/failure"
)

// The states of a run.
const (
	Running = "running"
	Done    = "done"
	Refused = "refused" // it could not be made, and is not tried again
)

// Record is what is kept of the run of one instant. The first part is chosen when it begins, and holds for those who go on with it.
type Record struct {
	Batch   string    `json:"batch"`
	Instant time.Time `json:"instant"`
	Passed  int       `json:"passed,omitempty"` // instants before it that nobody made up for
	Model   string    `json:"model,omitempty"`  // MODEL@N
	Digest  string    `json:"digest,omitempty"` // of the model
	Files   []string  `json:"files,omitempty"`  // with the rows, where they are not of the log
	Out     string    `json:"out,omitempty"`
	Began   time.Time `json:"began"`

	State   string    `json:"state"`
	Ended   time.Time `json:"ended,omitzero"`
	Rows    int64     `json:"rows"`
	Without int64     `json:"without_score"`
	Reason  string    `json:"reason,omitempty"` // why it was refused
}

// Concluded reports whether nothing is left to do.
func (r Record) Concluded() bool { return r.State == Done || r.State == Refused }

// instantLayout makes names of records that are in the order of their instants.
const instantLayout = "20060102T150405Z"

const recordExt = ".json"

// journal is the records of one batch: a folder in the data folder.
type journal string

func journalOf(dataDir, batch string) journal {
	return journal(filepath.Join(dataDir, "batches", batch))
}

func (j journal) path(instant time.Time) string {
	return filepath.Join(string(j), instant.UTC().Format(instantLayout)+recordExt)
}

// read gives the record of an instant; nil when there is none.
func (j journal) read(instant time.Time) (*Record, error) {
	path := j.path(instant)
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, failure.Wrap(failure.Unavailable, path, "reading the record of a run", err)
	}
	var r Record
	if err := json.Unmarshal(b, &r); err != nil {
		return nil, failure.Wrap(failure.Corrupt, path, "reading the record of a run", err).WithHint("remove it to have the run made again")
	}
	return &r, nil
}

// write keeps a record, whole or not at all.
func (j journal) write(r Record) error {
	path := j.path(r.Instant)
	text, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return failure.Wrap(failure.Internal, path, "encoding the record of a run", err)
	}
	if err := os.MkdirAll(string(j), 0o755); err != nil {
		return failure.Wrap(failure.Unavailable, path, "making a folder", err)
	}
	f, err := os.CreateTemp(string(j), ".record-*")
	if err != nil {
		return failure.Wrap(failure.Unavailable, path, "writing the record of a run", err)
	}
	_, err = f.Write(append(text, '\n'))
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		_ = os.Remove(f.Name())
		return failure.Wrap(failure.Unavailable, path, "writing the record of a run", err)
	}
	return nil
}

// instants lists those that there are records of, in their order.
func (j journal) instants() ([]time.Time, error) {
	entries, err := os.ReadDir(string(j)) // sorted by name
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, failure.Wrap(failure.Unavailable, string(j), "listing runs", err)
	}
	var all []time.Time
	for _, e := range entries {
		name, ok := strings.CutSuffix(e.Name(), recordExt)
		if at, err := time.Parse(instantLayout, name); ok && err == nil {
			all = append(all, at)
		}
	}
	return all, nil
}

// Last gives the record of the newest instant of a batch that a run was begun for; nil when there is none.
func Last(dataDir, batch string) (*Record, error) {
	j := journalOf(dataDir, batch)
	all, err := j.instants()
	if err != nil || len(all) == 0 {
		return nil, err
	}
	return j.read(all[len(all)-1])
}
