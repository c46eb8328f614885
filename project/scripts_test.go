package project

import (
	"path/filepath"
	"testing"
)

// TestScripts runs the library of feature tests on the pure engine; streams/ingest/ingesttest runs it on the stage.
func TestScripts(t *testing.T) {
	files, err := filepath.Glob("../features/script/testdata/*" + TestExtension)
	if err != nil || len(files) < 10 {
		t.Fatalf("%d scripts, %v", len(files), err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			if err := TestFile(t.Context(), file, Engine(nil)); err != nil {
				t.Error(err)
			}
		})
	}
}
