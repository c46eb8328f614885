package registry

import (
	"slices"
	"strconv"
	"strings"

	"github.com/millrace/millrace/internal/failure"
)

// Reference is one version of a model, found by what a person writes.
type Reference struct {
	Model string
	Version
}

// String is MODEL@N.
func (r Reference) String() string { return r.Model + "@" + strconv.Itoa(r.Number) }

// Resolve finds a version: MODEL@N by its number, MODEL@ALIAS by an alias, MODEL alone for the champion. Its errors name
// what there is.
func (r *Registry) Resolve(text string) (Reference, error) {
	name, which, given := strings.Cut(text, "@")
	h, err := r.History(name)
	if err != nil {
		return Reference{}, err
	}
	all := versions(h)
	if len(all) == 0 {
		models, err := r.Models()
		if err != nil {
			return Reference{}, err
		}
		e := failure.New(failure.NotFound, name, "the registry has no such model")
		if len(models) > 0 {
			e = e.WithHint("it has %s", strings.Join(models, ", "))
		}
		return Reference{}, e
	}
	if !given {
		which = Champion
	}
	if n, err := strconv.Atoi(which); err == nil {
		i := slices.IndexFunc(all, func(v Version) bool { return v.Number == n })
		if i < 0 {
			return Reference{}, failure.New(failure.NotFound, text, "the model has no such version").
				WithHint("it has %d to %d", all[0].Number, all[len(all)-1].Number)
		}
		return Reference{name, all[i]}, nil
	}
	digest := aliasOf(h, which)
	if digest == "" {
		return Reference{}, failure.New(failure.NotFound, name, "the model has no %s", which).
			WithHint("name a version, like %s@%d", name, all[len(all)-1].Number)
	}
	return Reference{name, all[slices.IndexFunc(all, func(v Version) bool { return v.Digest == digest })]}, nil
}

// Aliases lists what each alias of a model names now, by alias.
func (r *Registry) Aliases(model string) (map[string]Version, error) {
	h, err := r.History(model)
	if err != nil {
		return nil, err
	}
	named, all := map[string]Version{}, versions(h)
	for _, e := range h {
		if e.Kind == EntryEnded {
			delete(named, e.Alias)
			continue
		}
		if e.Alias != "" && e.Digest != "" {
			i := slices.IndexFunc(all, func(v Version) bool { return v.Digest == e.Digest })
			named[e.Alias] = all[i]
		}
	}
	return named, nil
}
