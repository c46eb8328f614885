package offline

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/millrace/millrace/internal/failure"
)

var errNoSpace = &os.PathError{Op: "write", Path: "somewhere", Err: syscall.ENOSPC}

func readAll(table *Table) error {
	return table.Scan(context.Background(), ScanOptions{}, func(b *Batch) error {
		for i := range b.Len() {
			b.Row(i, nil)
		}
		return nil
	})
}

// Whatever byte rots is noticed before rows are made of it.
func TestRottenFiles(t *testing.T) {
	dir := t.TempDir()
	write(t, takeOver(t, open(t, dir), 0, WriterOptions{}), 3)
	files := scanFiles(t, dir)
	path := filepath.Join(dir, files[0].Path)
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(whole); i += 7 {
		rotten := append([]byte(nil), whole...)
		rotten[i] ^= 0x55
		if err := os.WriteFile(path, rotten, 0o644); err != nil {
			t.Fatal(err)
		}
		if err := readAll(open(t, dir)); failure.Of(err) != failure.Corrupt {
			t.Fatalf("byte %d: %v", i, err)
		}
	}
	if err := os.WriteFile(path, whole[:len(whole)-1], 0o644); err != nil {
		t.Fatal(err)
	}
	if err := readAll(open(t, dir)); failure.Of(err) != failure.Corrupt || !strings.Contains(err.Error(), "that were committed") {
		t.Fatalf("a short file: %v", err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := readAll(open(t, dir)); failure.Of(err) != failure.Corrupt || !strings.Contains(err.Error(), "gone") {
		t.Fatalf("a missing file: %v", err)
	}
}

func TestRottenLog(t *testing.T) {
	for text, want := range map[string]string{
		`{"partition":0,"first":0`:                                                "reading offline commit",
		`{"partition":0,"writer":"x","first":7,"end":9}`:                          "does not follow",
		`{"partition":1,"writer":"x","first":0,"end":9}`:                          "does not follow",
		`{"partition":0,"writer":"x","first":0,"end":-1}`:                         "does not follow",
		`{"partition":0,"first":0,"end":9,"files":[{"path":"../../etc/passwd"}]}`: "outside the table",
	} {
		table := open(t, t.TempDir())
		path := table.logPath(0, 0)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o644)); err != nil {
			t.Fatal(err)
		}
		if _, err := table.Next(0); failure.Of(err) != failure.Corrupt || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
}
