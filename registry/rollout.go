package registry

import (
	"context"

	"github.com/millrace/millrace/internal/failure"
)

// The aliases of versions that are tried beside the champion.
const (
	Challenger = "challenger" // answers for a share of the entities
	Shadow     = "shadow"     // is asked what the others answer, and answers nobody
)

// Arm is a version that is tried beside the champion.
type Arm struct {
	Digest  string  // empty when the alias names nothing
	Version int     // its number
	Percent float64 // of the entities, 0 to 100
	Entry   int     // number of the history entry that made it so, from 1: another trial of the same version is another arm
}

// ArmOf reads from a model's history what an alias names now, and for how many of the entities.
func ArmOf(history []Entry, alias string) Arm {
	var a Arm
	for i, e := range history {
		if e.Alias == alias {
			a = Arm{Digest: e.Digest, Version: e.Version, Percent: e.Percent, Entry: i + 1}
		}
	}
	return a
}

// SetArm gives an alias to a version and says for what percentage of the entities, above 0 and at most 100. expected is as for SetAlias. A
// percentage that is so already changes nothing.
func (r *Registry) SetArm(ctx context.Context, model, alias, digest string, percent float64, expected, note string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if !(percent > 0 && percent <= 100) {
		return failure.New(failure.BadRequest, alias, "%v is no percentage above 0 and at most 100", percent)
	}
	return r.append(model, func(h []Entry) ([]Entry, error) {
		e, err := move(h, model, alias, digest, expected)
		if err != nil || e.Previous == digest && ArmOf(h, alias).Percent == percent {
			return nil, err
		}
		e.Percent, e.Note = percent, note
		return []Entry{e}, nil
	})
}

// EndAlias makes an alias name nothing, if it names expected now; else Conflict.
func (r *Registry) EndAlias(ctx context.Context, model, alias, expected, note string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return r.append(model, func(h []Entry) ([]Entry, error) {
		now := aliasOf(h, alias)
		switch {
		case alias == Champion:
			return nil, failure.New(failure.BadRequest, alias, "a model that has a champion keeps one").WithHint("roll back, or promote another version")
		case now == "":
			return nil, failure.New(failure.NotFound, model, "the model has no %s", alias)
		case now != expected:
			return nil, failure.New(failure.Conflict, model, "the %s is %s, not %s", alias, named(h, model, now), named(h, model, expected)).
				WithHint("somebody else moved it: look again and decide anew")
		}
		return []Entry{{Kind: EntryEnded, Alias: alias, Previous: now, Note: note}}, nil
	})
}
