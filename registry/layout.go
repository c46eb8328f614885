package registry

import (
	"bytes"
	"encoding/json"
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	ocispecs "github.com/opencontainers/image-spec/specs-go"
	oci "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/millrace/millrace/internal/failure"
)

// The registry's folder is an OCI image layout (image-layout.md of the OCI image spec, 1.0.0): what an OCI tool copies out of it are the bytes
// that the registry keeps. index.json is made of the histories, which are the truth: when a process dies between the two, Open mends it.

// layOut makes the folder an image layout: the file that says so, blobs where the specification has them, an index of all versions. A folder that
// is one already is only read, so that serving may have it read-only.
func (r *Registry) layOut() error {
	old, err := r.oldFolders()
	if err != nil {
		return err
	}
	index, missing, err := r.unindexed()
	if err != nil {
		return err
	}
	if len(old) == 0 && len(missing) == 0 && index.MediaType != "" {
		return nil
	}
	return r.locked(func() error {
		if err := r.flatten(); err != nil {
			return err
		}
		b, err := json.Marshal(oci.ImageLayout{Version: oci.ImageLayoutVersion})
		if err != nil {
			return failure.Wrap(failure.Internal, r.dir, "encoding the layout's version", err)
		}
		if err := r.putFile(filepath.Join(r.dir, oci.ImageLayoutFile), b); err != nil {
			return err
		}
		return r.index()
	})
}

// locked runs fn while no other process changes the layout.
func (r *Registry) locked(fn func() error) error {
	mutex, err := os.OpenFile(filepath.Join(r.dir, "lock"), os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return failure.Wrap(failure.Unavailable, r.dir, "opening lock", err)
	}
	defer mutex.Close()
	if err := lock(mutex); err != nil {
		return err
	}
	return fn()
}

// oldFolders lists the folders of blobs of a registry from before it was a layout: by the first two digits.
func (r *Registry) oldFolders() ([]string, error) {
	root := filepath.Join(r.dir, "blobs", "sha256")
	entries, err := os.ReadDir(root)
	if err != nil {
		return nil, failure.Wrap(failure.Unavailable, root, "listing blobs", err)
	}
	var dirs []string
	for _, e := range entries {
		if e.IsDir() {
			dirs = append(dirs, filepath.Join(root, e.Name()))
		}
	}
	return dirs, nil
}

// flatten moves the blobs out of old folders. A move that was cut short goes on where it ended.
func (r *Registry) flatten() error {
	dirs, err := r.oldFolders()
	if err != nil {
		return err
	}
	for _, dir := range dirs {
		root := filepath.Dir(dir)
		blobs, err := os.ReadDir(dir)
		if err != nil {
			return failure.Wrap(failure.Unavailable, dir, "listing blobs", err)
		}
		for _, b := range blobs {
			if err := os.Rename(filepath.Join(dir, b.Name()), filepath.Join(root, b.Name())); err != nil {
				return failure.Wrap(failure.Unavailable, dir, "moving blob", err)
			}
		}
		if err := syncDir(root); err != nil {
			return err
		}
		if err := os.Remove(dir); err != nil {
			return failure.Wrap(failure.Unavailable, dir, "removing folder", err)
		}
	}
	return nil
}

// refName is what the index calls a version: letters, digits and '-', '_', '.' as OCI tools allow them.
func refName(model string, number int) string { return model + "-" + strconv.Itoa(number) }

// unindexed gives the index, and the versions that it lacks by their names in it.
func (r *Registry) unindexed() (index oci.Index, missing map[string]Version, err error) {
	if index, err = r.readIndex(); err != nil {
		return index, nil, err
	}
	known := map[string]bool{}
	for _, d := range index.Manifests {
		known[d.Annotations[oci.AnnotationRefName]] = true
	}
	models, err := r.Models()
	if err != nil {
		return index, nil, err
	}
	missing = map[string]Version{}
	for _, m := range models {
		versions, err := r.Versions(m)
		if err != nil {
			if failure.Of(err) == failure.Corrupt {
				continue // whoever asks for the model is told
			}
			return index, nil, err
		}
		for _, v := range versions {
			if name := refName(m, v.Number); !known[name] {
				missing[name] = v
			}
		}
	}
	return index, missing, nil
}

// index adds to index.json the versions that it lacks. A version whose artefacts are not all there is left out: it cannot be pushed, and every
// other one can.
func (r *Registry) index() error {
	index, missing, err := r.unindexed()
	if err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(missing)) {
		p, err := r.pack(missing[name].Digest)
		if kind := failure.Of(err); err != nil && (kind == failure.NotFound || kind == failure.Corrupt) {
			continue
		}
		if err == nil {
			err = r.putPack(p)
		}
		if err != nil {
			return err
		}
		p.Model.Annotations = map[string]string{oci.AnnotationRefName: name}
		index.Manifests = slices.Concat(index.Manifests, []oci.Descriptor{p.Model}, p.Evaluations, p.Datasets)
	}
	index.Versioned, index.MediaType = ocispecs.Versioned{SchemaVersion: 2}, oci.MediaTypeImageIndex
	return r.writeIndex(index)
}

func (r *Registry) indexPath() string { return filepath.Join(r.dir, oci.ImageIndexFile) }

// readIndex gives an index without a media type where there is none, or none that can be read: it can be made again.
func (r *Registry) readIndex() (oci.Index, error) {
	b, err := os.ReadFile(r.indexPath())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return oci.Index{}, failure.Wrap(failure.Unavailable, r.indexPath(), "reading index", err)
	}
	var index oci.Index
	if json.Unmarshal(b, &index) != nil || index.SchemaVersion != 2 {
		return oci.Index{Manifests: []oci.Descriptor{}}, nil
	}
	return index, nil
}

func (r *Registry) writeIndex(index oci.Index) error {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetIndent("", "  ")
	if err := enc.Encode(index); err != nil {
		return failure.Wrap(failure.Internal, r.indexPath(), "encoding index", err)
	}
	return r.putFile(r.indexPath(), b.Bytes())
}
