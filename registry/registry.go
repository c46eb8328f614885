package registry

import (
	"os"
	"path/filepath"
	"regexp"

	"github.com/millrace/millrace/internal/clock"
	"github.com/millrace/millrace/internal/failure"
)

// Registry is a folder of artefacts and of models' histories. It keeps nothing in memory, so that any number of
// goroutines and processes may hold one on the same folder.
type Registry struct {
	dir   string
	clock clock.Clock
	actor string
}

// Option changes how a registry is opened.
type Option func(*Registry)

// WithClock gives the clock that history entries are stamped with, instead of the machine's.
func WithClock(c clock.Clock) Option { return func(r *Registry) { r.clock = c } }

// WithActor says who does what is done by way of this registry: a person or a role, and where. Histories keep it.
func WithActor(who string) Option { return func(r *Registry) { r.actor = who } }

// Open opens the registry in dir, making the folder when there is none. What a crashed process left half written is
// removed.
func Open(dir string, options ...Option) (*Registry, error) {
	r := &Registry{dir: dir, clock: clock.System}
	for _, o := range options {
		o(r)
	}
	for _, d := range []string{"blobs/sha256", "manifests/sha256", "models", "tmp"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			return nil, failure.Wrap(failure.Unavailable, dir, "making the registry's folders", err)
		}
	}
	if err := r.sweep(); err != nil {
		return nil, err
	}
	return r, r.layOut()
}

// Dir is the registry's folder.
func (r *Registry) Dir() string { return r.dir }

// names are what models, aliases and claims may be called: they become parts of paths.
var names = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.-]{0,127}$`)

func checkName(what, name string) error {
	if names.MatchString(name) {
		return nil
	}
	return failure.New(failure.BadRequest, what, "%q cannot be a name", name).
		WithHint("letters, digits, '_', '.' and '-', at most 128, the first a letter or digit")
}

func (r *Registry) modelDir(model string) string { return filepath.Join(r.dir, "models", model) }
