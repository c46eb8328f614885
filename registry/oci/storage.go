package oci

import (
	"context"
	"io"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/millrace/millrace/registry"
)

// folder is a registry's blobs as oras copies them.
type folder struct{ *registry.Registry }

// Exists reads the blob: one that has rotten is copied again. A manifest is always copied, as oras takes it for a sign that all it names is there.
func (f folder) Exists(_ context.Context, d ocispec.Descriptor) (bool, error) {
	if d.MediaType == ocispec.MediaTypeImageManifest {
		return false, nil
	}
	b, err := f.Blob(d.Digest.String(), d.Size)
	if err != nil {
		return false, nil
	}
	defer b.Close()
	_, err = io.Copy(io.Discard, b)
	return err == nil, nil
}

func (f folder) Fetch(_ context.Context, d ocispec.Descriptor) (io.ReadCloser, error) {
	return f.Blob(d.Digest.String(), d.Size)
}

func (f folder) Push(ctx context.Context, d ocispec.Descriptor, content io.Reader) error {
	return f.PutBlob(ctx, d.Digest.String(), d.Size, content)
}
