package ingesttest

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"github.com/millrace/millrace/features/online"
	"github.com/millrace/millrace/project"
	"github.com/millrace/millrace/streams"
)

// servers are those of the environment, embedded ones without.
func servers(t *testing.T) *Servers {
	t.Helper()
	kafka, redis := os.Getenv("MILLRACE_TEST_KAFKA"), os.Getenv("MILLRACE_TEST_REDIS")
	if kafka == "" || redis == "" {
		s, closed, err := Embedded(t.Context(), slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := closed(); err != nil {
				t.Error(err)
			}
		})
		return s
	}
	client, err := online.Open(t.Context(), online.Config{Addrs: []string{redis}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	return &Servers{Kafka: streams.Config{Brokers: []string{kafka}}, Redis: client, Log: slog.New(slog.DiscardHandler)}
}

// TestScripts runs the library of feature tests and those of the flights example on the stage; project runs the same files on the pure engine.
func TestScripts(t *testing.T) {
	s := servers(t)
	files, err := filepath.Glob("../../../features/script/testdata/*" + project.TestExtension)
	if err != nil || len(files) < 10 {
		t.Fatalf("%d scripts, %v", len(files), err)
	}
	t.Run("library", func(t *testing.T) {
		for _, file := range files {
			t.Run(filepath.Base(file), func(t *testing.T) {
				t.Parallel()
				if err := project.TestFile(t.Context(), file, s.Open); err != nil {
					t.Error(err)
				}
			})
		}
	})
	results, err := project.Test(t.Context(), "../../../examples/flights", s.Open)
	if err != nil || len(results) == 0 {
		t.Fatalf("%d results, %v", len(results), err)
	}
	for _, r := range results {
		if r.Err != nil {
			t.Errorf("%s: %v", r.File, r.Err)
		}
	}
	keys, err := s.Redis.Keys(context.Background(), "mr:*_test_*").Result()
	if err != nil || len(keys) > 0 {
		t.Errorf("left in Redis: %v, %v", keys, err)
	}
}
