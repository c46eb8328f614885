package project

import (
	"context"

	"github.com/millrace/millrace/features"
	"github.com/millrace/millrace/features/script"
	"github.com/millrace/millrace/internal/failure"
	"github.com/millrace/millrace/schemas"
)

// engine is the project's groups on the pure engine, without Kafka, Redis and files: a target of feature tests.
type engine struct {
	project  *Project
	decoders map[*Source]schemas.Decoder
	entities map[*Group]map[string]*features.Entity
	newest   map[*Source]int64 // event time
	clock    int64             // Unix milliseconds; 0 before it is set
	records  int
	letters  []script.DeadLetter
}

// Engine is the OpenTarget of the pure engine.
func Engine(_ context.Context, dir string) (script.Target, func() error, error) {
	p, err := Load(dir)
	if err != nil {
		return nil, nil, err
	}
	e := &engine{project: p, decoders: map[*Source]schemas.Decoder{}, entities: map[*Group]map[string]*features.Entity{}, newest: map[*Source]int64{}}
	for _, s := range p.Sources {
		if e.decoders[s], err = schemas.NewDecoder(s.Schema, schemas.JSON, nil); err != nil {
			return nil, nil, err
		}
	}
	for _, g := range p.Groups {
		e.entities[g] = map[string]*features.Entity{}
	}
	return e, func() error { return nil }, nil
}

// Apply is in script.Target: the record goes into every group of its source.
func (e *engine) Apply(ctx context.Context, source string, record []byte) error {
	s := e.project.Source(source)
	if s == nil {
		return failure.New(failure.NotFound, source, "there is no such source")
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
	e.newest[s] = max(e.newest[s], at)
	for _, g := range e.project.Groups {
		if g.Source != s {
			continue
		}
		if err := e.add(g, row, at); err != nil {
			return err
		}
	}
	return nil
}

// now is the time that the future guard goes by; 0 when it is not known yet.
func (e *engine) now(s *Source) int64 {
	if e.project.Clock == ClockEvent {
		return e.newest[s]
	}
	return e.clock
}

func (e *engine) add(g *Group, row schemas.Row, at int64) error {
	key, err := g.Key(row)
	if err != nil {
		return e.dead(schemas.ClassEntity, err)
	}
	entity := e.entities[g][key]
	if entity == nil {
		entity = g.NewEntity()
		e.entities[g][key] = entity
	}
	outcome, err := g.Add(entity, row, at, int64(e.records))
	if err != nil {
		return e.dead(schemas.ClassOf(err), err)
	}
	if outcome == features.TooLate {
		return e.dead(schemas.ClassLate, failure.New(failure.BadRecord, g.Name, "the event is older than everything kept of %q", key))
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
