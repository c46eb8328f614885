package registry

import (
	"context"
	"encoding/json"
	"fmt"
	"os"

	"github.com/millrace/millrace/internal/failure"
)

// Champion is the alias of the version that answers requests.
const Champion = "champion"

// Version is a numbered model: name@Number always means Digest.
type Version struct {
	Number int    `json:"number"` // from 1
	Digest string `json:"digest"`
	At     int64  `json:"at"` // wall time of its adding, Unix milliseconds
}

// AddVersion numbers a model artefact. A digest that has a number keeps it.
func (r *Registry) AddVersion(model, digest string) (int, error) {
	if _, err := r.Manifest(digest); err != nil {
		return 0, err
	}
	number := 0
	err := r.append(model, func(h []Entry) ([]Entry, error) {
		if number = versionOf(h, digest); number > 0 {
			return nil, nil
		}
		number = newest(h) + 1
		return []Entry{{Kind: EntryVersion, Version: number, Digest: digest}}, nil
	})
	if err != nil {
		return 0, err
	}
	return number, r.locked(r.index)
}

// AddVersionAs numbers a model artefact as it is numbered in the registry that it came from. Later versions go on from there: Conflict when
// the digest has another number here, or the number is not above all that are here.
func (r *Registry) AddVersionAs(model, digest string, number int) error {
	if _, err := r.Manifest(digest); err != nil {
		return err
	}
	err := r.append(model, func(h []Entry) ([]Entry, error) {
		switch has := versionOf(h, digest); {
		case has == number:
			return nil, nil
		case has > 0:
			return nil, failure.New(failure.Conflict, digest, "is version %d here, not %d", has, number)
		case number <= newest(h):
			return nil, failure.New(failure.Conflict, model, "has version %d already: %d cannot be added", newest(h), number)
		}
		return []Entry{{Kind: EntryVersion, Version: number, Digest: digest}}, nil
	})
	if err != nil {
		return err
	}
	return r.locked(r.index)
}

// newest is the highest number of a version; 0 without one.
func newest(h []Entry) int {
	n := 0
	for _, e := range h {
		if e.Kind == EntryVersion {
			n = max(n, e.Version)
		}
	}
	return n
}

// Versions lists a model's versions, oldest first.
func (r *Registry) Versions(model string) ([]Version, error) {
	h, err := r.History(model)
	return versions(h), err
}

// Models lists the names of the models that have a history, sorted.
func (r *Registry) Models() ([]string, error) {
	dirs, err := os.ReadDir(r.modelDir(""))
	if err != nil {
		return nil, failure.Wrap(failure.Unavailable, r.dir, "listing models", err)
	}
	var models []string
	for _, d := range dirs {
		if _, err := os.Stat(r.historyPath(d.Name())); err == nil {
			models = append(models, d.Name())
		}
	}
	return models, nil
}

// Alias gives what an alias of a model names: NotFound when it names nothing.
func (r *Registry) Alias(model, alias string) (digest string, version int, err error) {
	h, err := r.History(model)
	if err != nil {
		return "", 0, err
	}
	digest = aliasOf(h, alias)
	if digest == "" {
		return "", 0, failure.New(failure.NotFound, model, "the model has no %s", alias)
	}
	return digest, versionOf(h, digest), nil
}

// SetAlias moves an alias to a version, if it names expected now (empty: if it names nothing). Otherwise somebody else
// was first: Conflict, nothing is changed, and what the caller decided by is no longer so. A move to where the alias
// is already changes nothing.
func (r *Registry) SetAlias(ctx context.Context, model, alias, digest, expected, note string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return r.append(model, func(h []Entry) ([]Entry, error) {
		e, err := move(h, model, alias, digest, expected)
		if err != nil || e.Previous == digest {
			return nil, err
		}
		e.Note = note
		return []Entry{e}, nil
	})
}

// Rollback moves an alias back to what it named before the last move that has not been rolled back yet, and gives the
// entry. expected is as for SetAlias.
func (r *Registry) Rollback(ctx context.Context, model, alias, expected, note string) (Entry, error) {
	var back Entry
	if err := ctx.Err(); err != nil {
		return back, err
	}
	err := r.append(model, func(h []Entry) ([]Entry, error) {
		digest := beneath(h, alias)
		if digest == "" {
			return nil, failure.New(failure.NotFound, model, "the %s has no predecessor to go back to", alias)
		}
		var err error
		if back, err = move(h, model, alias, digest, expected); err != nil {
			return nil, err
		}
		back.Kind, back.Note = EntryRolledBack, note
		return []Entry{back}, nil
	})
	return back, err
}

// Before is what an alias named before the last move that has not been rolled back: NotFound when there was none.
func (r *Registry) Before(model, alias string) (digest string, version int, err error) {
	h, err := r.History(model)
	if err != nil {
		return "", 0, err
	}
	if digest = beneath(h, alias); digest == "" {
		return "", 0, failure.New(failure.NotFound, model, "the %s has no predecessor to go back to", alias)
	}
	return digest, versionOf(h, digest), nil
}

// Conclusion is how a run ended.
type Conclusion struct {
	Run      string          // the run's id
	Outcome  json.RawMessage // what the run tells the world; kept for whoever asks again
	Note     string
	Digest   string // the model it made; may be empty
	Alias    string // the alias to move to Digest; empty to move none
	Expected string // as for SetAlias
	Back     bool   // the alias goes back: Digest must be what Before says
}

// Conclude keeps a run's outcome and moves the alias, both or none. Conflict when the alias does not name
// Expected any more, or when the run is concluded already (see Concluded).
func (r *Registry) Conclude(ctx context.Context, model string, c Conclusion) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return r.append(model, func(h []Entry) ([]Entry, error) {
		if _, ok := concluded(h, c.Run); ok {
			return nil, failure.New(failure.Conflict, model, "run %q is concluded already", c.Run)
		}
		e := Entry{Kind: EntryRun, Digest: c.Digest, Version: versionOf(h, c.Digest)}
		if c.Alias != "" {
			var err error
			if e, err = move(h, model, c.Alias, c.Digest, c.Expected); err != nil {
				return nil, err
			}
			if c.Back && c.Digest != beneath(h, c.Alias) {
				return nil, failure.New(failure.Conflict, model, "%s is not what the %s was before", named(h, model, c.Digest), c.Alias).
					WithHint("somebody else moved it: look again and decide anew")
			}
			if c.Back {
				e.Kind = EntryRolledBack
			}
		}
		e.Run, e.Outcome, e.Note = c.Run, c.Outcome, c.Note
		return []Entry{e}, nil
	})
}

// Concluded is the outcome of a run, if it has ended.
func (r *Registry) Concluded(model, run string) (outcome json.RawMessage, ok bool, err error) {
	h, err := r.History(model)
	if err != nil {
		return nil, false, err
	}
	e, ok := concluded(h, run)
	return e.Outcome, ok, nil
}

// Published notes that a run's outcome was handed on.
func (r *Registry) Published(ctx context.Context, model, run string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return r.append(model, func(h []Entry) ([]Entry, error) {
		for _, e := range h {
			if e.Kind == EntryPublished && e.Run == run {
				return nil, nil
			}
		}
		return []Entry{{Kind: EntryPublished, Run: run}}, nil
	})
}

// Unpublished lists the conclusions that nobody has noted as handed on, oldest first: a process died between the two.
func (r *Registry) Unpublished(model string) ([]Entry, error) {
	h, err := r.History(model)
	if err != nil {
		return nil, err
	}
	published := map[string]bool{}
	for _, e := range h {
		published[e.Run] = published[e.Run] || e.Kind == EntryPublished
	}
	var open []Entry
	for _, e := range h {
		if e.Run != "" && !published[e.Run] {
			open = append(open, e)
		}
	}
	return open, nil
}

func move(h []Entry, model, alias, digest, expected string) (Entry, error) {
	if err := checkName("alias", alias); err != nil {
		return Entry{}, err
	}
	version := versionOf(h, digest)
	if version == 0 {
		return Entry{}, failure.New(failure.NotFound, model, "%s is no version of the model", digest)
	}
	now := aliasOf(h, alias)
	if now != expected {
		return Entry{}, failure.New(failure.Conflict, model, "the %s is %s, not %s", alias, named(h, model, now), named(h, model, expected)).
			WithHint("somebody else moved it: look again and decide anew")
	}
	return Entry{Kind: EntryAlias, Alias: alias, Digest: digest, Previous: now, Version: version}, nil
}

// named is a version for people: MODEL@N and its digest.
func named(h []Entry, model, digest string) string {
	switch n := versionOf(h, digest); {
	case digest == "":
		return "nothing"
	case n == 0:
		return digest
	default:
		return fmt.Sprintf("%s@%d (%s)", model, n, digest)
	}
}

func versions(h []Entry) []Version {
	var vs []Version
	for _, e := range h {
		if e.Kind == EntryVersion {
			vs = append(vs, Version{Number: e.Version, Digest: e.Digest, At: e.At})
		}
	}
	return vs
}

func versionOf(h []Entry, digest string) int {
	for _, e := range h {
		if e.Kind == EntryVersion && e.Digest == digest {
			return e.Version
		}
	}
	return 0
}

func aliasOf(h []Entry, alias string) string {
	digest := ""
	for _, e := range h {
		if e.Alias == alias {
			digest = e.Digest
		}
	}
	return digest
}

// beneath is what an alias named before what it names now, with moves that were rolled back forgotten.
func beneath(h []Entry, alias string) string {
	stack := []string{""}
	for _, e := range h {
		switch {
		case e.Alias != alias || e.Digest == stack[len(stack)-1]: // confirmed, not moved
		case e.Kind == EntryRolledBack && len(stack) > 1:
			stack = stack[:len(stack)-1]
		default:
			stack = append(stack, e.Digest)
		}
	}
	if len(stack) < 2 {
		return ""
	}
	return stack[len(stack)-2]
}

func concluded(h []Entry, run string) (Entry, bool) {
	for _, e := range h {
		if run != "" && e.Run == run && e.Kind != EntryPublished {
			return e, true
		}
	}
	return Entry{}, false
}
