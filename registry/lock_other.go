//go:build !unix

package registry

import (
	"os"

	"github.com/millrace/millrace/internal/failure"
)

// Without flock(2) several processes cannot share a folder, so the registry does not open.

func lock(f *os.File) error { _, err := tryLock(f); return err }

func tryLock(f *os.File) (bool, error) {
	return false, failure.New(failure.Unavailable, f.Name(), "this system has no flock(2)").
		WithHint("run on Linux, macOS or a BSD")
}
