package offline

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"syscall"

	"github.com/millrace/millrace/internal/failure"
)

// disk is what writing asks of the file system, apart so that tests can let any single step of it fail.
type disk interface {
	MkdirAll(dir string) error
	// Create makes a file that did not exist, in dir; the last * of pattern is replaced by something random.
	Create(dir, pattern string) (file, error)
	Link(from, to string) error // fails with fs.ErrExist when to exists
	Rename(from, to string) error
	Remove(path string) error
	SyncDir(dir string) error
}

type file interface {
	io.WriteCloser
	Name() string
	Sync() error
}

// osDisk is the machine's file system.
type osDisk struct{}

func (osDisk) MkdirAll(dir string) error { return os.MkdirAll(dir, 0o755) }

func (osDisk) Create(dir, pattern string) (file, error) {
	f, err := os.CreateTemp(dir, pattern)
	if err != nil {
		return nil, err
	}
	// CreateTemp keeps others out, but the log is there to be read.
	if err := f.Chmod(0o644); err != nil {
		return nil, errors.Join(err, f.Close(), os.Remove(f.Name()))
	}
	return f, nil
}

func (osDisk) Link(from, to string) error   { return os.Link(from, to) }
func (osDisk) Rename(from, to string) error { return os.Rename(from, to) }
func (osDisk) Remove(path string) error     { return os.Remove(path) }

func (osDisk) SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	err = d.Sync()
	if errors.Is(err, syscall.EINVAL) || errors.Is(err, syscall.ENOTSUP) { // file systems that cannot, and need not
		return nil
	}
	return err
}

// unavailable is the failure of a step on disk: to be tried again, since nothing was lost.
func unavailable(where, doing string, err error) error {
	e := failure.Wrap(failure.Unavailable, where, doing, err)
	switch {
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT), errors.Is(err, syscall.EFBIG):
		return e.WithHint("make room on the data directory's disk; writing goes on by itself")
	case errors.Is(err, fs.ErrPermission):
		return e.WithHint("the data directory must be writable, on a file system with hard links")
	}
	return e
}
