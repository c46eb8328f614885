//go:build unix

package broker

import (
	"os"
	"path/filepath"
	"syscall"

	"github.com/millrace/millrace/internal/failure"
)

// lockDir takes the directory for this process, until the file is closed or the process dies.
func lockDir(dir string) (*os.File, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, failure.Wrap(failure.Unavailable, dir, "creating the data directory", err)
	}
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, failure.Wrap(failure.Unavailable, dir, "locking the data directory", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		return nil, failure.Wrap(failure.Unavailable, dir, "locking the data directory", err).
			WithHint("is another millrace running on it?")
	}
	return f, nil
}
