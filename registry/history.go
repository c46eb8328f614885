package registry

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/millrace/millrace/internal/failure"
)

// What a history entry tells of.
const (
	EntryVersion    = "version"     // Digest became version Version
	EntryAlias      = "alias"       // Alias moved from Previous to Digest
	EntryRolledBack = "rolled_back" // Alias moved back from Previous to Digest
	EntryEnded      = "ended"       // Alias names nothing any more
	EntryRun        = "run"         // Run ended without moving an alias
	EntryPublished  = "published"   // the outcome of Run was handed on
)

// Entry is one line of a model's history.
type Entry struct {
	At       int64           `json:"at"`           // wall time, Unix milliseconds
	By       string          `json:"by,omitempty"` // who did it, as WithActor says
	Kind     string          `json:"kind"`
	Version  int             `json:"version,omitempty"`
	Alias    string          `json:"alias,omitempty"`
	Digest   string          `json:"digest,omitempty"`
	Previous string          `json:"previous,omitempty"` // what the alias named before; empty when it is new
	Percent  float64         `json:"percent,omitempty"`  // of the entities that a challenger or a shadow is asked about
	Note     string          `json:"note,omitempty"`
	Run      string          `json:"run,omitempty"`     // the run that did it
	Outcome  json.RawMessage `json:"outcome,omitempty"` // what the run told the world
}

// kept is an entry as its line has it. Sum is the last field.
type kept struct {
	Entry
	Sum string `json:"sum,omitempty"` // of the line and all before it
}

// History is all that happened to a model, oldest first; empty for a model that is not known.
func (r *Registry) History(model string) ([]Entry, error) {
	if err := checkName("model", model); err != nil {
		return nil, err
	}
	end, err := r.readEnd(model) // before the lines, which may grow meanwhile
	if err != nil {
		return nil, err
	}
	b, err := os.ReadFile(r.historyPath(model))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, failure.Wrap(failure.Unavailable, model, "reading history", err)
	}
	entries, _, err := parseHistory(model, b, end)
	return entries, err
}

func (r *Registry) historyPath(model string) string {
	return filepath.Join(r.modelDir(model), "history.jsonl")
}

// parseHistory reads whole lines, and holds them to their sums and to end. A last line without its end was being written when the process died, or
// is being written now: it has not happened.
func parseHistory(model string, b []byte, end historyEnd) ([]Entry, historyEnd, error) {
	var entries []Entry
	var at historyEnd
	for {
		line, rest, whole := bytes.Cut(b, []byte("\n"))
		if !whole {
			break
		}
		var e kept
		where := fmt.Sprintf("%s/history.jsonl:%d", model, at.Lines+1)
		if err := json.Unmarshal(line, &e); err != nil {
			return nil, at, failure.Wrap(failure.Corrupt, where, "reading history", err).WithHint("%s", restoreHistory)
		}
		sum, summed := at.next(line)
		if e.Sum != sum && (summed || at.summed) {
			return nil, at, failure.New(failure.Corrupt, where, "the line is not what was written, or does not follow on those before it").WithHint("%s", restoreHistory)
		}
		at = historyEnd{Lines: at.Lines + 1, Sum: sum, summed: summed}
		if at.Lines == end.Lines && sum != end.Sum {
			return nil, at, failure.New(failure.Corrupt, where, "the lines up to here are others than were written").WithHint("%s", restoreHistory)
		}
		entries = append(entries, e.Entry)
		b = rest
	}
	if at.Lines < end.Lines {
		return nil, at, failure.New(failure.Corrupt, model+"/history.jsonl", "has %d lines of the %d that were written", at.Lines, end.Lines).WithHint("%s", restoreHistory)
	}
	return entries, at, nil
}

// append lets decide look at the history, under the model's lock, and adds the entries it answers with, durably and all
// or none: they are one write of whole lines, and a torn write is cut off before the next.
func (r *Registry) append(model string, decide func([]Entry) ([]Entry, error)) error {
	if err := checkName("model", model); err != nil {
		return err
	}
	dir := r.modelDir(model)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return failure.Wrap(failure.Unavailable, model, "making folder", err)
	}
	mutex, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return failure.Wrap(failure.Unavailable, model, "opening lock", err)
	}
	defer mutex.Close()
	if err := lock(mutex); err != nil {
		return err
	}
	f, err := os.OpenFile(r.historyPath(model), os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return failure.Wrap(failure.Unavailable, model, "opening history", err)
	}
	defer f.Close()
	return r.extend(model, f, decide)
}

func (r *Registry) extend(model string, f *os.File, decide func([]Entry) ([]Entry, error)) error {
	b, err := io.ReadAll(f)
	if err != nil {
		return failure.Wrap(failure.Unavailable, model, "reading history", err)
	}
	whole := bytes.LastIndexByte(b, '\n') + 1
	end, err := r.readEnd(model)
	if err != nil {
		return err
	}
	history, end, err := parseHistory(model, b[:whole], end)
	if err != nil {
		return err
	}
	added, err := decide(history)
	if err != nil || len(added) == 0 {
		return err
	}
	var out []byte
	for _, e := range added {
		e.At, e.By = r.clock().UnixMilli(), r.actor
		line, err := end.line(e)
		if err != nil {
			return fmt.Errorf("encoding history of %s: %w", model, err)
		}
		out = append(append(out, line...), '\n')
	}
	if err := writeTail(model, f, int64(whole), out); err != nil {
		return err
	}
	r.writeEnd(model, end)
	return nil
}

func writeTail(model string, f *os.File, end int64, b []byte) error {
	if err := f.Truncate(end); err != nil {
		return failure.Wrap(failure.Unavailable, model, "cutting off a torn history line", err)
	}
	if _, err := f.WriteAt(b, end); err != nil {
		return failure.Wrap(failure.Unavailable, model, "appending to history", err)
	}
	if err := f.Sync(); err != nil {
		return failure.Wrap(failure.Unavailable, model, "syncing history", err)
	}
	return syncDir(filepath.Dir(f.Name()))
}
