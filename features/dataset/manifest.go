package dataset

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/millrace/millrace/internal/failure"
)

// Manifest says what a dataset was made of. It lies beside it as <file>.manifest.json. The same inputs and program give
// the same manifest.
type Manifest struct {
	Project string         `json:"project"`
	Code    string         `json:"code"` // version of the program
	Spine   SpineReport    `json:"spine"`
	Events  []EventsReport `json:"events"`
	Groups  []GroupReport  `json:"groups"`
	Output  OutputReport   `json:"output"`
}

// SpineReport is the rows that went in.
type SpineReport struct {
	File   string `json:"file,omitempty"`
	Query  string `json:"query,omitempty"`
	Source string `json:"source,omitempty"`
	Digest string `json:"digest,omitempty"` // of the file's bytes; a query's answer has none
	Time   string `json:"time"`             // column
	Rows   int64  `json:"rows"`
	First  string `json:"first,omitempty"` // time
	Last   string `json:"last,omitempty"`
}

// GroupReport is a feature group that was read.
type GroupReport struct {
	Name     string   `json:"name"` // before the columns' names
	Group    string   `json:"group"`
	Version  string   `json:"version"`
	Entity   []string `json:"entity"`  // the group's columns
	Columns  []string `json:"columns"` // of the spine that name it
	Entities int      `json:"entities"`
	Without  int64    `json:"rows_without_entity"`
}

// OutputReport is the rows that came out.
type OutputReport struct {
	File   string         `json:"file"` // beside the manifest
	Format string         `json:"format"`
	Digest string         `json:"digest"`
	Bytes  int64          `json:"bytes"`
	Rows   int64          `json:"rows"`
	Order  string         `json:"order"` // "spine": that of the rows that went in
	Column []ColumnReport `json:"features"`
}

// ColumnReport is a feature's column.
type ColumnReport struct {
	Name  string `json:"name"`
	Type  string `json:"type"`
	Nulls int64  `json:"nulls"`
}

// ManifestPath is where the manifest of a dataset lies.
func ManifestPath(out string) string { return out + ".manifest.json" }

func (m *Manifest) write(out string) error {
	text, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return failure.Wrap(failure.Internal, out, "encoding the manifest", err)
	}
	path := ManifestPath(out)
	temporary := filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+".tmp")
	if err := os.WriteFile(temporary, append(text, '\n'), 0o644); err != nil {
		return writeFailed(path, err)
	}
	if err := os.Rename(temporary, path); err != nil {
		return writeFailed(path, err)
	}
	return nil
}

func FileDigest(ctx context.Context, path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", openFailed(path, err)
	}
	defer f.Close()
	h := sha256.New()
	for {
		n, err := io.CopyN(h, f, 16<<20)
		if errors.Is(err, io.EOF) || n == 0 {
			return "sha256:" + hex.EncodeToString(h.Sum(nil)), nil
		}
		if err != nil {
			return "", openFailed(path, err)
		}
		if ctx.Err() != nil {
			return "", ctx.Err()
		}
	}
}

func instant(ms int64) string { return time.UnixMilli(ms).UTC().Format(time.RFC3339Nano) }
