package bundle

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/millrace/millrace/internal/failure"
	"github.com/millrace/millrace/project"
	"github.com/millrace/millrace/registry"
	"github.com/millrace/millrace/registry/oci"
)

// Request is what to bundle. None of it may be zero but Check.
type Request struct {
	Project  *project.Project
	Model    *project.Model
	Version  registry.Reference
	Registry *registry.Registry
	Program  string              // the binary's file
	Check    func(*Bundle) error // has the last word on the bundle before it is put in its place
}

// Write makes the bundle in a folder that is not there yet, whole or not at all. Conflict when it is there; Refused for a model whose rows are
// completed from tables, which do not go along.
func Write(ctx context.Context, q Request, dir string) (Manifest, error) {
	if _, err := os.Lstat(dir); err == nil {
		return Manifest{}, failure.New(failure.Conflict, dir, "is there already").WithHint("name a folder that is not, or remove it")
	}
	if e := q.Model.On.Enrichments; len(e) > 0 {
		return Manifest{}, failure.New(failure.Refused, q.Model.Name, "rows of %s are completed from the table %s, which a bundle does not have", q.Model.On.Name, e[0].Table.Name).
			WithHint("bundle a model whose rows bring all that it uses")
	}
	temp, err := os.MkdirTemp(filepath.Dir(dir), "."+filepath.Base(dir)+"-*.tmp")
	if err != nil {
		return Manifest{}, failure.Wrap(failure.Unavailable, dir, "making folder", err)
	}
	defer os.RemoveAll(temp)
	m, err := q.fill(ctx, filepath.Join(temp, "bundle"))
	if err != nil {
		return m, fmt.Errorf("bundling %s: %w", q.Version, err)
	}
	if err := os.Rename(filepath.Join(temp, "bundle"), dir); err != nil {
		return m, failure.Wrap(failure.Unavailable, dir, "putting the bundle in its place", err)
	}
	return m, nil
}

func (q Request) fill(ctx context.Context, dir string) (Manifest, error) {
	m := Manifest{Format: format, Project: q.Project.Name, Model: q.Model.Name, Version: q.Version.Number, Digest: q.Version.Digest}
	var err error
	if m.Program, err = Inspect(q.Program); err != nil {
		return m, err
	}
	if err := q.copyProgram(dir); err != nil {
		return m, err
	}
	for name, text := range q.Project.Files {
		path := filepath.Join(dir, projectDir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return m, failure.Wrap(failure.Unavailable, path, "making folder", err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			return m, failure.Wrap(failure.Unavailable, path, "writing the project", err)
		}
	}
	if err := q.copyModel(ctx, filepath.Join(dir, registryDir)); err != nil {
		return m, err
	}
	if m.Files, err = digestFiles(dir); err != nil {
		return m, err
	}
	text, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return m, failure.Wrap(failure.Internal, manifestFile, "encoding", err)
	}
	if err := os.WriteFile(filepath.Join(dir, manifestFile), append(text, '\n'), 0o644); err != nil {
		return m, failure.Wrap(failure.Unavailable, dir, "writing the manifest", err)
	}
	b, err := Open(dir)
	if err == nil && q.Check != nil {
		err = q.Check(b)
	}
	return m, err
}

func (q Request) copyProgram(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return failure.Wrap(failure.Unavailable, dir, "making folder", err)
	}
	from, err := os.Open(q.Program)
	if err != nil {
		return failure.Wrap(failure.Unavailable, q.Program, "reading the program", err)
	}
	defer from.Close()
	to, err := os.OpenFile(filepath.Join(dir, programFile), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o755)
	if err != nil {
		return failure.Wrap(failure.Unavailable, dir, "writing the program", err)
	}
	_, err = io.Copy(to, from)
	if closed := to.Close(); err == nil {
		err = closed
	}
	if err != nil {
		return failure.Wrap(failure.Unavailable, dir, "writing the program", err)
	}
	return nil
}

// copyModel makes a registry of the one version, by way of an OCI layout as any other registry would take it over. It has the version's own number
// and time, so that the same version makes the same files.
func (q Request) copyModel(ctx context.Context, dir string) error {
	layout, err := os.MkdirTemp("", "millrace-bundle-")
	if err != nil {
		return failure.Wrap(failure.Unavailable, "", "making a temporary folder", err)
	}
	defer os.RemoveAll(layout)
	place, err := oci.Open(ctx, "oci:"+layout, true, oci.Options{})
	if err != nil {
		return err
	}
	if _, err := oci.Push(ctx, q.Registry, q.Version, place, false); err != nil {
		return err
	}
	at := time.UnixMilli(q.Version.At)
	r, err := registry.Open(dir, registry.WithClock(func() time.Time { return at }))
	if err != nil {
		return err
	}
	if _, err := oci.Pull(ctx, r, place, false); err != nil {
		return err
	}
	if err := r.AddVersionAs(q.Version.Model, q.Version.Digest, q.Version.Number); err != nil {
		return err
	}
	if err := r.SetAlias(ctx, q.Version.Model, registry.Champion, q.Version.Digest, "", "bundled"); err != nil {
		return err
	}
	return removeLocks(dir)
}

// removeLocks removes what guarded the writing of a registry that nobody writes to any more.
func removeLocks(dir string) error {
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err == nil && e.Name() == "lock" && !e.IsDir() {
			return os.Remove(path)
		}
		return err
	})
	if err != nil {
		return failure.Wrap(failure.Unavailable, dir, "removing locks", err)
	}
	return nil
}
