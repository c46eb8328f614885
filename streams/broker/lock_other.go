//go:build !unix

package broker

import (
	"os"

	"github.com/millrace/millrace/internal/failure"
)

// lockDir only creates the directory: a second process is kept out by the port.
func lockDir(dir string) (*os.File, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, failure.Wrap(failure.Unavailable, dir, "creating the data directory", err)
	}
	return nil, nil
}
