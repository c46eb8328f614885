package registry

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/millrace/millrace/internal/failure"
)

// putBlob streams content to a temporary file and moves it under its digest once that is known, if that is what is wanted (empty: any).
func (r *Registry) putBlob(ctx context.Context, content io.Reader, wanted string) (digest string, size int64, err error) {
	sum := sha256.New()
	tmp, err := r.temporary(func(w io.Writer) error {
		size, err = io.Copy(io.MultiWriter(w, sum), reader{ctx, content})
		return err
	})
	if err != nil {
		return "", 0, err
	}
	defer tmp.discard()
	digest = digestPrefix + hex.EncodeToString(sum.Sum(nil))
	if wanted != "" && wanted != digest {
		return digest, size, nil
	}
	path, err := r.blobPath(digest)
	if err != nil {
		return "", 0, err
	}
	return digest, size, tmp.rename(path)
}

// putFile writes a small file unless it is there already.
func (r *Registry) putFile(path string, b []byte) error {
	if old, err := os.ReadFile(path); err == nil && bytes.Equal(old, b) {
		return nil
	}
	tmp, err := r.temporary(func(w io.Writer) error { _, err := w.Write(b); return err })
	if err != nil {
		return err
	}
	defer tmp.discard()
	return tmp.rename(path)
}

// temporary is a file in tmp/ that is locked for as long as its writer lives: sweep tells by the lock whether the
// writer is still there.
type temporary struct{ file *os.File }

func (r *Registry) temporary(write func(io.Writer) error) (*temporary, error) {
	t, err := r.createLocked()
	if err != nil {
		return nil, err
	}
	if err := write(t.file); err != nil {
		t.discard()
		return nil, failure.Wrap(failure.Unavailable, t.file.Name(), "writing", err)
	}
	if err := t.file.Sync(); err != nil {
		t.discard()
		return nil, failure.Wrap(failure.Unavailable, t.file.Name(), "syncing", err)
	}
	return t, nil
}

// createLocked tries again when a sweep by another process came between the making of the file and its lock.
func (r *Registry) createLocked() (*temporary, error) {
	for {
		f, err := os.CreateTemp(filepath.Join(r.dir, "tmp"), "put-")
		if err != nil {
			return nil, failure.Wrap(failure.Unavailable, r.dir, "making a temporary file", err)
		}
		t := &temporary{f}
		mine, err := tryLock(f)
		if err != nil {
			t.discard()
			return nil, err
		}
		if _, err := os.Stat(f.Name()); mine && err == nil {
			return t, nil
		}
		_ = f.Close() // it is the sweep's
	}
}

// rename makes the content visible under its final name, durably. A file that is already there has the same digest, but
// may have rotted since: it is replaced.
func (t *temporary) rename(path string) error {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return failure.Wrap(failure.Unavailable, dir, "making folder", err)
	}
	if err := os.Chmod(t.file.Name(), 0o444); err != nil {
		return failure.Wrap(failure.Unavailable, t.file.Name(), "making read-only", err)
	}
	if err := os.Rename(t.file.Name(), path); err != nil {
		return failure.Wrap(failure.Unavailable, path, "moving into place", err)
	}
	return syncDir(dir)
}

// discard removes what rename has not taken away.
func (t *temporary) discard() {
	if err := os.Remove(t.file.Name()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		_ = err // the next Open sweeps it away
	}
	_ = t.file.Close() // synced already; closing gives up the lock
}

// sweep removes temporary files whose writer is gone.
func (r *Registry) sweep() error {
	paths, err := filepath.Glob(filepath.Join(r.dir, "tmp", "put-*"))
	if err != nil {
		return failure.Wrap(failure.Unavailable, r.dir, "listing temporary files", err)
	}
	for _, path := range paths {
		f, err := os.Open(path)
		if err != nil {
			continue // its writer has just moved it into place
		}
		if free, err := tryLock(f); err == nil && free {
			(&temporary{f}).discard()
			continue
		}
		_ = f.Close()
	}
	return nil
}

// syncDir makes a rename in dir survive a power cut.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return failure.Wrap(failure.Unavailable, dir, "opening folder", err)
	}
	defer d.Close()
	if err := d.Sync(); err != nil {
		return failure.Wrap(failure.Unavailable, dir, "syncing folder", err)
	}
	return nil
}

// reader ends with the context.
type reader struct {
	ctx context.Context
	io.Reader
}

func (r reader) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.Reader.Read(p)
}
