package project

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/millrace/millrace/features"
	"github.com/millrace/millrace/features/script"
	"github.com/millrace/millrace/internal/failure"
	"github.com/millrace/millrace/schemas"
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

// Test runs a project's feature tests on the pure engine, each from nothing. The error is that of a test that could not be read; a
// project without tests has no results.
//
// tables are what events are looked up in, as they are before the first; a test adds rows by events of the table's name. nil has none.
func Test(ctx context.Context, p *Project, tables func() (Tables, error)) ([]TestResult, error) {
	files, err := os.ReadDir(filepath.Join(p.Dir, TestFolder)) // sorted by name
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, failure.Wrap(failure.Internal, p.Dir, "looking for feature tests", err)
	}
	var results []TestResult
	for _, file := range files {
		if filepath.Ext(file.Name()) != TestExtension || file.IsDir() {
			continue
		}
		name := filepath.Join(TestFolder, file.Name())
		text, err := os.ReadFile(filepath.Join(p.Dir, name))
		if err != nil {
			return nil, failure.Wrap(failure.Internal, name, "reading a feature test", err)
		}
		target, err := newEngine(p)
		if err != nil {
			return nil, err
		}
		if tables != nil {
			if target.tables, err = tables(); err != nil {
				return nil, err
			}
		}
		results = append(results, TestResult{File: name, Err: script.Run(ctx, target, name, text)})
	}
	return results, ctx.Err()
}

// engine is the project's groups on the pure engine: the target of feature tests.
type engine struct {
	decoders map[*Source]schemas.Decoder
	tables   Tables
	project  *Project
	entities map[*Group]map[string]*features.Entity
	offset   int64
}

func newEngine(p *Project) (*engine, error) {
	e := &engine{project: p, tables: Tables{}, decoders: map[*Source]schemas.Decoder{}, entities: map[*Group]map[string]*features.Entity{}}
	for _, s := range p.Sources {
		if s.Merged() {
			continue
		}
		d, err := schemas.NewDecoder(s.Schema, schemas.JSON, nil)
		if err != nil {
			return nil, err
		}
		e.decoders[s] = d
	}
	for _, t := range p.Tables {
		e.tables[t.Name] = features.NewTable(t.Name, t.MaxRows)
	}
	for _, g := range p.Groups {
		e.entities[g] = map[string]*features.Entity{}
	}
	return e, nil
}

// Apply folds one record into every group of its source.
func (e *engine) Apply(ctx context.Context, source string, record []byte) error {
	s := e.project.Source(source)
	if s == nil {
		return e.put(ctx, source, record)
	}
	if s.Merged() {
		return failure.New(failure.BadProject, source, "is merged of others, and has no events of its own").
			WithHint("name one of %s", strings.Join(s.partNames(), ", "))
	}
	row, err := e.decoders[s].Decode(ctx, record, nil)
	if err != nil {
		return err
	}
	at := row[s.TimeIndex()].Int()
	e.tables.Enrich(s, row, at, nil)
	return e.fold(s, row, at)
}

// put adds a row to a table.
func (e *engine) put(ctx context.Context, name string, record []byte) error {
	for _, t := range e.project.Tables {
		if t.Name != name {
			continue
		}
		decoder, err := schemas.NewDecoder(t.Schema, schemas.JSON, nil)
		if err != nil {
			return err
		}
		row, err := decoder.Decode(ctx, record, nil)
		if err != nil {
			return err
		}
		return t.Put(e.tables[t.Name], row, features.Always)
	}
	return failure.New(failure.NotFound, name, "there is no such source")
}

// fold adds an event to every group that it is a row of.
func (e *engine) fold(s *Source, event schemas.Row, at int64) error {
	e.offset++
	for _, g := range e.project.Groups {
		row, ok := g.Source.From(s, event, at, nil)
		if !ok {
			continue
		}
		key, err := g.Key(row)
		if err != nil {
			return err
		}
		entity := e.entities[g][key]
		if entity == nil {
			entity = g.NewEntity()
			e.entities[g][key] = entity
		}
		if _, err := g.Add(entity, row, at, g.Source.Sequence(s, 0, e.offset)); err != nil {
			return err
		}
	}
	return nil
}

// Read is every output of a group for one entity as of a time.
func (e *engine) Read(_ context.Context, group string, entity map[string]string, at int64) (map[string]features.Result, error) {
	g := e.project.Group(group)
	if g == nil {
		return nil, failure.New(failure.NotFound, group, "there is no such feature group")
	}
	key, err := g.KeyOf(entity)
	if err != nil {
		return nil, err
	}
	results := map[string]features.Result{}
	for i, r := range g.Read(e.entities[g][key], at, nil) {
		results[g.Outputs[i].Name] = r
	}
	return results, nil
}

// EntityColumns are the columns that name an entity of a group.
func (e *engine) EntityColumns(group string) ([]string, error) {
	g := e.project.Group(group)
	if g == nil {
		return nil, failure.New(failure.NotFound, group, "there is no such feature group")
	}
	return g.Entity, nil
}
