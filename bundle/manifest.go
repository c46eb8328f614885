package bundle

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/millrace/millrace/internal/failure"
)

// The names in a bundle.
const (
	manifestFile = "bundle.json"
	programFile  = "millrace"
	projectDir   = "project"
	registryDir  = "registry"
)

// format is the version of what a bundle looks like. A program opens those of its own.
const format = 1

// Manifest is bundle.json.
type Manifest struct {
	Format  int               `json:"format"`
	Project string            `json:"project"`
	Model   string            `json:"model"`
	Version int               `json:"version"`
	Digest  string            `json:"digest"` // of the model artefact
	Program Program           `json:"program"`
	Files   map[string]string `json:"files"` // by path with slashes, "sha256:…"; all but bundle.json itself
}

// digestFiles finds the digest of every file below a folder.
func digestFiles(dir string) (map[string]string, error) {
	files := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		name, err := filepath.Rel(dir, path)
		if err == nil {
			files[filepath.ToSlash(name)], err = digestFile(path)
		}
		return err
	})
	if err != nil {
		return nil, failure.Wrap(failure.Unavailable, dir, "reading the bundle's files", err)
	}
	return files, nil
}

func digestFile(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", err
	}
	return "sha256:" + hex.EncodeToString(h.Sum(nil)), nil
}

func readManifest(dir string) (m Manifest, err error) {
	path := filepath.Join(dir, manifestFile)
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return m, failure.New(failure.NotFound, path, "there is no bundle").WithHint("a bundle is a folder that millrace bundle made")
	}
	if err != nil {
		return m, failure.Wrap(failure.Unavailable, path, "reading the bundle", err)
	}
	dec := json.NewDecoder(bytes.NewReader(b))
	if err := dec.Decode(&m); err != nil {
		return m, failure.Wrap(failure.Corrupt, path, "decoding the bundle", err)
	}
	if m.Format != format {
		return m, failure.New(failure.Refused, path, "the bundle has format %d, this program opens %d", m.Format, format).
			WithHint("use the program in the bundle")
	}
	return m, nil
}

// check compares every file with its digest, but the program's: it is large, and it is running already.
func (m Manifest) check(dir string) error {
	for name, want := range m.Files {
		if name == programFile {
			continue
		}
		path := filepath.FromSlash(name)
		if !filepath.IsLocal(path) {
			return failure.New(failure.Corrupt, name, "the bundle names a file outside itself")
		}
		got, err := digestFile(filepath.Join(dir, path))
		if err != nil {
			return failure.Wrap(failure.Corrupt, name, "checking the bundle", err).WithHint("copy the bundle again")
		}
		if got != want {
			return failure.New(failure.Corrupt, name, "the file has changed since the bundle was made: it is %s, not %s", got, want).WithHint("copy the bundle again")
		}
	}
	return nil
}
