package registry

import (
	"os"
	"path/filepath"

	"github.com/millrace/millrace/internal/failure"
)

// Claim makes the caller the only one, of all processes on the folder, to do a thing for a model, until it calls release
// or dies. Conflict when somebody else is at it.
func (r *Registry) Claim(model, purpose string) (release func(), err error) {
	if err := checkName("model", model); err != nil {
		return nil, err
	}
	if err := checkName("claim", purpose); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(r.modelDir(model), 0o755); err != nil {
		return nil, failure.Wrap(failure.Unavailable, model, "making folder", err)
	}
	f, err := os.OpenFile(filepath.Join(r.modelDir(model), purpose+".claim"), os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, failure.Wrap(failure.Unavailable, model, "opening claim", err)
	}
	free, err := tryLock(f)
	if err != nil || !free {
		_ = f.Close()
		if err == nil {
			err = failure.New(failure.Conflict, model, "%s is claimed by another process", purpose)
		}
		return nil, err
	}
	return func() { _ = f.Close() }, nil // closing gives up the lock; there is nothing to lose
}
