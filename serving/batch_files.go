package serving

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/millrace/millrace/internal/failure"
)

// rowFiles are the extensions of files with rows.
var rowFiles = []string{".parquet", ".pq", ".arrow", ".feather", ".ipc", ".csv"}

// RowFiles lists files with rows: those named, those in folders named, those that match patterns. Each once, in the order of their names within one.
func RowFiles(names []string) ([]string, error) {
	var files []string
	for _, name := range names {
		found := []string{name}
		info, err := os.Stat(name)
		switch {
		case err == nil && info.IsDir():
			entries, err := os.ReadDir(name)
			if err != nil {
				return nil, failure.Wrap(failure.Unavailable, name, "listing folder", err)
			}
			found = nil
			for _, e := range entries {
				if !e.IsDir() && !strings.HasPrefix(e.Name(), ".") && slices.Contains(rowFiles, strings.ToLower(filepath.Ext(e.Name()))) {
					found = append(found, filepath.Join(name, e.Name()))
				}
			}
		case err != nil:
			if found, err = filepath.Glob(name); err != nil {
				return nil, failure.Wrap(failure.BadRequest, name, "reading the pattern", err)
			}
		}
		if len(found) == 0 {
			return nil, failure.New(failure.NotFound, name, "there is no such file, and none that matches").WithHint("name %s files", strings.Join(rowFiles, ", "))
		}
		for _, f := range found {
			if !slices.Contains(files, f) {
				files = append(files, f)
			}
		}
	}
	return files, nil
}

// BatchManifest is the file in an output folder that says what the last run made there.
const BatchManifest = "batch.json"

// Write leaves the manifest of a run in the folder that it wrote to; one file has its own beside it.
func (r *BatchReport) Write(out string) error {
	if info, err := os.Stat(out); err != nil || !info.IsDir() {
		return nil
	}
	text, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return failure.Wrap(failure.Internal, out, "encoding manifest", err)
	}
	return writeWhole(filepath.Join(out, BatchManifest), append(text, '\n'))
}

// writeWhole makes a file appear when it is whole.
func writeWhole(path string, text []byte) error {
	temporary := filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+".tmp")
	if err := os.WriteFile(temporary, text, 0o644); err != nil {
		return failure.Wrap(failure.Unavailable, path, "writing manifest", err)
	}
	if err := os.Rename(temporary, path); err != nil {
		return failure.Wrap(failure.Unavailable, path, "writing manifest", err)
	}
	return nil
}
