//go:build unix

package registry

import (
	"errors"
	"os"
	"syscall"

	"github.com/millrace/millrace/internal/failure"
)

// lock waits for the exclusive flock(2) of f. It ends with the file: closing f, or the process's death, gives it up.
func lock(f *os.File) error {
	for {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX)
		if err == nil {
			return nil
		}
		if !errors.Is(err, syscall.EINTR) {
			return failure.Wrap(failure.Unavailable, f.Name(), "locking", err)
		}
	}
}

// tryLock takes the lock if nobody has it.
func tryLock(f *os.File) (bool, error) {
	err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	switch {
	case err == nil:
		return true, nil
	case errors.Is(err, syscall.EWOULDBLOCK):
		return false, nil
	default:
		return false, failure.Wrap(failure.Unavailable, f.Name(), "locking", err)
	}
}
