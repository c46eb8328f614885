package registry

import (
	"context"
	"crypto/sha256"
	"io"
	"os"

	"github.com/millrace/millrace/internal/failure"
)

// Blob opens a blob of a known size. As with Get, it is checked while it is read.
func (r *Registry) Blob(digest string, size int64) (io.ReadCloser, error) {
	path, err := r.blobPath(digest)
	if err != nil {
		return nil, err
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, opening(digest, err)
	}
	return &verifier{file: f, want: digest, size: size, sum: sha256.New()}, nil
}

// PutBlob keeps content that must have the digest and size: Corrupt, and nothing kept under that digest, when it has not.
func (r *Registry) PutBlob(ctx context.Context, digest string, size int64, content io.Reader) error {
	got, n, err := r.putBlob(ctx, io.LimitReader(content, size+1), digest)
	if err != nil {
		return err
	}
	if got != digest || n != size {
		return failure.New(failure.Corrupt, digest, "%d bytes of digest %s came instead of %d", n, got, size)
	}
	return nil
}
