package bundle

import (
	"archive/tar"
	"compress/gzip"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"time"

	"github.com/millrace/millrace/internal/failure"
)

// Archive writes a folder as a gzipped tar file, below a folder called name. The same files make the same bytes: owners, times and the order of
// the file system do not go in.
func Archive(dir, name string, out io.Writer) error {
	zipped := gzip.NewWriter(out)
	w := tar.NewWriter(zipped)
	err := filepath.WalkDir(dir, func(file string, e fs.DirEntry, err error) error { // in the order of names
		if err != nil {
			return err
		}
		inside, err := filepath.Rel(dir, file)
		if err != nil {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		h := &tar.Header{Name: path.Join(name, filepath.ToSlash(inside)), Mode: int64(info.Mode().Perm()), ModTime: time.Unix(0, 0), Format: tar.FormatPAX}
		if e.IsDir() {
			h.Typeflag, h.Name = tar.TypeDir, h.Name+"/"
			return w.WriteHeader(h)
		}
		h.Typeflag, h.Size = tar.TypeReg, info.Size()
		if err := w.WriteHeader(h); err != nil {
			return err
		}
		f, err := os.Open(file)
		if err != nil {
			return err
		}
		defer f.Close()
		_, err = io.Copy(w, f)
		return err
	})
	if err == nil {
		err = w.Close()
	}
	if err == nil {
		err = zipped.Close()
	}
	if err != nil {
		return failure.Wrap(failure.Unavailable, dir, "archiving", err)
	}
	return nil
}
