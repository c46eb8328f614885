package registry

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/millrace/millrace/internal/failure"
)

// maxManifest is the largest manifest that is read: they are a few kilobytes.
const maxManifest = 4 << 20

// Put keeps content under its digest and m under its own, and gives m's. m.Content and m.Size are filled in; a
// Content that is already there must agree. content may be nil. Every input must be in the registry (NotFound).
// Putting the same thing again changes nothing.
func (r *Registry) Put(ctx context.Context, m Manifest, content io.Reader) (string, error) {
	for _, in := range m.Inputs {
		if _, err := r.Manifest(in.Digest); err != nil {
			return "", fmt.Errorf("checking input %q of %s %s: %w", in.Role, m.Kind, m.Name, err)
		}
	}
	if content != nil {
		digest, size, err := r.putBlob(ctx, content, m.Content)
		if err != nil {
			return "", fmt.Errorf("keeping the content of %s %s: %w", m.Kind, m.Name, err)
		}
		if m.Content != "" && m.Content != digest {
			return "", failure.New(failure.Corrupt, m.Kind+" "+m.Name, "content has digest %s, the manifest says %s", digest, m.Content)
		}
		m.Content, m.Size = digest, size
	}
	b, err := m.Canonical()
	if err != nil {
		return "", err
	}
	digest := DigestOf(b)
	path, err := r.manifestPath(digest)
	if err != nil {
		return "", err
	}
	if err := r.putFile(path, b); err != nil {
		return "", fmt.Errorf("keeping the manifest of %s %s: %w", m.Kind, m.Name, err)
	}
	return digest, nil
}

// Get gives an artefact's manifest and its content, to be closed by the caller. The content is checked while it is
// read: at its end Read fails as Corrupt when it was not what the digest says, so read to the end before believing it.
func (r *Registry) Get(digest string) (Manifest, io.ReadCloser, error) {
	m, err := r.Manifest(digest)
	if err != nil {
		return Manifest{}, nil, err
	}
	if m.Content == "" {
		return m, io.NopCloser(bytes.NewReader(nil)), nil
	}
	content, err := r.Blob(m.Content, m.Size)
	if err != nil {
		return Manifest{}, nil, err
	}
	return m, content, nil
}

// Read is Get with the whole content, checked.
func (r *Registry) Read(digest string) (Manifest, []byte, error) {
	m, rc, err := r.Get(digest)
	if err != nil {
		return Manifest{}, nil, err
	}
	defer rc.Close()
	b, err := io.ReadAll(rc)
	if err != nil {
		return Manifest{}, nil, fmt.Errorf("reading %s %s: %w", m.Kind, m.Name, err)
	}
	return m, b, nil
}

// Manifest is an artefact's manifest, checked against its digest.
func (r *Registry) Manifest(digest string) (Manifest, error) {
	path, err := r.manifestPath(digest)
	if err != nil {
		return Manifest{}, err
	}
	f, err := os.Open(path)
	if err != nil {
		return Manifest{}, opening(digest, err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxManifest))
	if err != nil {
		return Manifest{}, failure.Wrap(failure.Unavailable, digest, "reading manifest", err)
	}
	var m Manifest
	if DigestOf(b) != digest || json.Unmarshal(b, &m) != nil {
		return Manifest{}, corrupt(digest)
	}
	return m, nil
}

// verifier hashes what passes through it and speaks up at the end.
type verifier struct {
	file *os.File
	want string
	size int64
	read int64
	sum  hash.Hash
}

func (v *verifier) Read(p []byte) (int, error) {
	n, err := v.file.Read(p)
	v.sum.Write(p[:n])
	v.read += int64(n)
	switch {
	case v.read > v.size:
		return n, corrupt(v.want)
	case errors.Is(err, io.EOF):
		if digestPrefix+hex.EncodeToString(v.sum.Sum(nil)) != v.want {
			return n, corrupt(v.want)
		}
		return n, io.EOF
	case err != nil:
		return n, failure.Wrap(failure.Unavailable, v.want, "reading content", err)
	default:
		return n, nil
	}
}

func (v *verifier) Close() error { return v.file.Close() }

func (r *Registry) blobPath(digest string) (string, error) {
	h, err := hexOf(digest)
	if err != nil {
		return "", err
	}
	return filepath.Join(r.dir, "blobs", "sha256", h), nil
}

func (r *Registry) manifestPath(digest string) (string, error) {
	h, err := hexOf(digest)
	if err != nil {
		return "", err
	}
	return filepath.Join(r.dir, "manifests", "sha256", h[:2], h+".json"), nil
}

func corrupt(digest string) error {
	return failure.New(failure.Corrupt, digest, "the stored bytes are not what the digest says").
		WithHint("restore the registry's folder from a copy, or train again from the dataset")
}

func opening(digest string, err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return failure.New(failure.NotFound, digest, "the registry has no such artefact")
	}
	return failure.Wrap(failure.Unavailable, digest, "opening artefact", err)
}
