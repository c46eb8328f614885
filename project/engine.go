package project

import (
	"context"
	"strings"

	"github.com/millrace/millrace/features"
	"github.com/millrace/millrace/features/script"
	"github.com/millrace/millrace/internal/failure"
	"github.com/millrace/millrace/schemas"
)

// engine is the project's groups on the pure engine, without Kafka, Redis and files: a target of feature tests.
type engine struct {
	project  *Project
	tables   Tables
	decoders map[*Source]schemas.Decoder
	entities map[*Group]map[string]*features.Entity
	newest   map[*Source]int64 // event time
	clock    int64             // Unix milliseconds; 0 before it is set
	records  int
	letters  []script.DeadLetter
}

// LoadTables gives the tables of a project as they are before the first event.
type LoadTables func(context.Context, *Project) (Tables, error)

// Engine is the OpenTarget of the pure engine. A test adds rows to a table by events of the table's name; without load the tables are
// empty before.
func Engine(load LoadTables) OpenTarget {
	return func(ctx context.Context, dir string) (script.Target, func() error, error) {
		e, err := newEngine(ctx, dir, load)
		return e, func() error { return nil }, err
	}
}

func newEngine(ctx context.Context, dir string, load LoadTables) (*engine, error) {
	p, err := Load(dir)
	if err != nil {
		return nil, err
	}
	e := &engine{project: p, tables: p.NewTables(), decoders: map[*Source]schemas.Decoder{}, entities: map[*Group]map[string]*features.Entity{}, newest: map[*Source]int64{}}
	for _, s := range p.Sources {
		if s.Merged() || s.Chained() {
			continue
		}
		if e.decoders[s], err = schemas.NewDecoder(s.Schema, schemas.JSON, nil); err != nil {
			return nil, err
		}
	}
	if load != nil {
		if e.tables, err = load(ctx, p); err != nil {
			return nil, err
		}
	}
	for _, g := range p.Groups {
		e.entities[g] = map[string]*features.Entity{}
	}
	return e, nil
}

// Apply is in script.Target: the record goes into every group of its source.
func (e *engine) Apply(ctx context.Context, source string, record []byte) error {
	s := e.project.Source(source)
	if s == nil {
		e.records++ // as a script counts them
		return e.tables.Put(ctx, e.project, source, record)
	}
	if err := s.NoEvents(); err != nil {
		return err
	}
	e.records++
	row, err := e.decoders[s].Decode(ctx, record, nil)
	if err != nil {
		return e.dead(schemas.ClassOf(err), err)
	}
	at := row[s.TimeIndex()].Int()
	if now := e.now(s); s.Future > 0 && now != 0 && at > now+s.Future.Milliseconds() {
		return e.dead(schemas.ClassFuture, failure.New(failure.BadRecord, s.Time, "is more than %s ahead of the clock", s.Future))
	}
	e.tables.Enrich(s, row, at, nil)
	return e.event(s, row, at)
}

// event folds an event into every group of its source.
func (e *engine) event(s *Source, row schemas.Row, at int64) error {
	e.newest[s] = max(e.newest[s], at)
	for _, g := range e.project.Groups {
		if err := e.add(g, s, row, at); err != nil {
			return err
		}
	}
	return nil
}

// NoEvents says that a source has no events that somebody could produce; nil where it has.
func (s *Source) NoEvents() error {
	if s.Chained() {
		return failure.New(failure.BadProject, s.Name, "is what feature group %s gives out: its events cannot be given", s.Of.Name).
			WithHint("give events of %s", s.Of.Source.Name)
	}
	if !s.Merged() {
		return nil
	}
	return failure.New(failure.BadProject, s.Name, "is merged of others, and has no events of its own").
		WithHint("name one of %s", strings.Join(s.partNames(), ", "))
}

// now is the time that the future guard goes by; 0 when it is not known yet.
func (e *engine) now(s *Source) int64 {
	if e.project.Clock == ClockEvent {
		return e.newest[s]
	}
	return e.clock
}

// add folds an event of a source into a group, if it is one of the group's.
func (e *engine) add(g *Group, s *Source, event schemas.Row, at int64) error {
	row, takes := g.Source.From(s, event, at, nil)
	if !takes {
		return nil
	}
	key, err := g.Key(row)
	if err != nil {
		return e.dead(schemas.ClassEntity, err)
	}
	entity := e.entities[g][key]
	if entity == nil {
		entity = g.NewEntity()
		e.entities[g][key] = entity
	}
	outcome, err := g.Add(entity, row, at, g.Source.Sequence(s, 0, int64(e.records)))
	if err != nil {
		return e.dead(schemas.ClassOf(err), err)
	}
	if outcome == features.TooLate {
		return e.dead(schemas.ClassLate, failure.New(failure.BadRecord, g.Name, "the event is older than everything kept of %q", key))
	}
	if outcome == features.Applied {
		return e.give(g, entity, row, at)
	}
	return nil
}

// give folds what a group gives out for an event into the groups that read it.
func (e *engine) give(g *Group, entity *features.Entity, event schemas.Row, at int64) error {
	given := e.project.GivenBy(g)
	if len(given) == 0 {
		return nil
	}
	results := g.Read(entity, GivenAt(at), nil)
	for _, s := range given {
		if err := e.event(s, s.Given(event, at, results, nil), at); err != nil {
			return err
		}
	}
	return nil
}

// dead notes a dead letter; a failure that is not the record's is returned.
func (e *engine) dead(class string, err error) error {
	if !failure.Of(err).DeadLetter() {
		return err
	}
	e.letters = append(e.letters, script.DeadLetter{Record: e.records - 1, Class: class, Reason: err.Error()})
	return nil
}

// SetClock is in script.Target.
func (e *engine) SetClock(_ context.Context, at int64) error {
	e.clock = at
	return nil
}

// DeadLetters is in script.Target.
func (e *engine) DeadLetters(context.Context) ([]script.DeadLetter, error) { return e.letters, nil }

// Read is in script.Target.
func (e *engine) Read(_ context.Context, group string, entity map[string]string, at int64) (map[string]features.Result, error) {
	g, err := e.project.groupNamed(group)
	if err != nil {
		return nil, err
	}
	key, err := g.KeyOf(entity)
	if err != nil {
		return nil, err
	}
	return g.Named(g.Read(e.entities[g][key], at, nil)), nil
}

// EntityColumns is in script.Target.
func (e *engine) EntityColumns(group string) ([]string, error) { return e.project.EntityColumns(group) }

// EntityColumns are the columns that name an entity of a group; NotFound when there is no such group.
func (p *Project) EntityColumns(group string) ([]string, error) {
	g, err := p.groupNamed(group)
	if err != nil {
		return nil, err
	}
	return g.Entity, nil
}

func (p *Project) groupNamed(name string) (*Group, error) {
	if g := p.Group(name); g != nil {
		return g, nil
	}
	return nil, failure.New(failure.NotFound, name, "there is no such feature group")
}

// Named is results of the group by the names of its outputs.
func (g *Group) Named(results []features.Result) map[string]features.Result {
	named := make(map[string]features.Result, len(results))
	for i, r := range results {
		named[g.Outputs[i].Name] = r
	}
	return named
}
