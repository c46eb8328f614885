package project

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/rogpeppe/go-internal/txtar"

	"github.com/millrace/millrace/features/script"
	"github.com/millrace/millrace/internal/failure"
)

// TestFolder is where a project's feature tests are, and TestExtension the end of their names (see features/script).
const (
	TestFolder    = "tests"
	TestExtension = ".txtar"
)

// TestResult is the outcome of one feature test.
type TestResult struct {
	File string // relative to the project's folder
	Err  error  // every expectation that failed; nil when all held
}

// OpenTarget makes the project in a folder ready for one feature test, with nothing applied to it yet. The caller calls closed when the
// test has ended; its error is that of leaving something behind.
type OpenTarget func(ctx context.Context, dir string) (target script.Target, closed func() error, err error)

// Test runs a project's feature tests, each on a target of its own. The error is that of a test that could not be read; a project without
// tests has no results.
func Test(ctx context.Context, dir string, open OpenTarget) ([]TestResult, error) {
	files, err := os.ReadDir(filepath.Join(dir, TestFolder)) // sorted by name
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, failure.Wrap(failure.Internal, dir, "looking for feature tests", err)
	}
	var results []TestResult
	for _, file := range files {
		if filepath.Ext(file.Name()) != TestExtension || file.IsDir() {
			continue
		}
		name := filepath.Join(TestFolder, file.Name())
		text, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			return nil, failure.Wrap(failure.Internal, name, "reading a feature test", err)
		}
		results = append(results, TestResult{File: name, Err: runTest(ctx, dir, name, text, open)})
	}
	return results, ctx.Err()
}

// TestFile runs one feature test that carries the project it is of: the files of its archive are the project's folder.
func TestFile(ctx context.Context, file string, open OpenTarget) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return failure.Wrap(failure.NotFound, file, "reading a feature test", err)
	}
	dir, err := os.MkdirTemp("", "millrace-test-")
	if err != nil {
		return failure.Wrap(failure.Unavailable, file, "making a folder for the test's project", err)
	}
	defer os.RemoveAll(dir)
	if err := unpack(dir, txtar.Parse(text).Files); err != nil {
		return err
	}
	return runTest(ctx, dir, file, text, open)
}

func runTest(ctx context.Context, dir, name string, text []byte, open OpenTarget) (err error) {
	target, closed, err := open(ctx, dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, closed()) }()
	return script.Run(ctx, target, name, text)
}

// unpack writes the project that a script carries.
func unpack(dir string, files []txtar.File) error {
	if !slices.ContainsFunc(files, func(f txtar.File) bool { return f.Name == FileName }) {
		return failure.New(failure.BadProject, FileName, "the feature test carries no project").
			WithHint("put it into the tests folder of its project, or the project's files behind it: -- %s --", FileName)
	}
	for _, f := range files {
		if !filepath.IsLocal(f.Name) {
			return failure.New(failure.BadProject, f.Name, "is not a path within the project's folder")
		}
		path := filepath.Join(dir, f.Name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return failure.Wrap(failure.Unavailable, f.Name, "unpacking the test's project", err)
		}
		if err := os.WriteFile(path, f.Data, 0o644); err != nil {
			return failure.Wrap(failure.Unavailable, f.Name, "unpacking the test's project", err)
		}
	}
	return nil
}
