package dataset

import (
	"slices"
	"strings"
	"time"

	"github.com/millrace/millrace/features/pit"
	"github.com/millrace/millrace/internal/failure"
	"github.com/millrace/millrace/project"
	"github.com/millrace/millrace/schemas"
)

// Request is a training set that is wanted.
type Request struct {
	Project    *project.Project
	OfflineDir string // the folder of the offline log
	Spine      Spine
	// Features are "group.output" or "group.*", each perhaps as "name=group.output": a group that is read by several choices
	// of columns needs a name for each. Columns are called "<name>.<output>". None is all features of all groups.
	Features []string
	// Entities names the spine's columns where they are not called as the group's: "name.column" or, for all groups that
	// have it, "column".
	Entities map[string]string
	Events   map[string]string // files to read a source's events from instead of the offline log
	Known    map[string]Known  // when a source's events became known; those not named are known at their event time
	Status   bool              // add a column "<name>.status" for each group: present, not_found or expired
	Out      string            // file to write, .parquet or .arrow
	Limits   pit.Config
	Code     string // version of the program, for the manifest
}

// Spine is where the rows come from: one of File, Query and Source.
type Spine struct {
	File        string // .parquet, .arrow or .csv
	Query       string // SQL
	Postgres    string // where to run Query, a connection string or URL
	Source      string // a source of the project, whose offline events are the rows
	From, Until int64  // event times of the rows of a Source, Unix milliseconds; 0 is no bound
	Time        string // column of the rows' times; a Source has its own
}

// Known is when an event became known to whoever computes features: some time after its event time, or the time in a
// column of its own if that is later.
type Known struct {
	After  time.Duration
	Column string
}

// lookup is a group read by some of the spine's columns.
type lookup struct {
	name    string
	group   *project.Group
	outputs []int
	columns []string // of the spine, for each of the group's entity columns
}

// lookups resolves what features are wanted and by which columns.
func (q *Request) lookups() ([]lookup, error) {
	wanted := q.Features
	if len(wanted) == 0 {
		for _, g := range q.Project.Groups {
			wanted = append(wanted, g.Name+".*")
		}
	}
	var all []lookup
	for _, text := range wanted {
		name, ref, aliased := strings.Cut(text, "=")
		if !aliased {
			ref = text
		}
		group, output, ok := strings.Cut(ref, ".")
		g := q.Project.Group(group)
		if !ok || g == nil {
			var names []string
			for _, known := range q.Project.Groups {
				names = append(names, known.Name+".*")
			}
			return nil, failure.New(failure.BadRequest, "features", "there is no %q", ref).WithHint("name group.output or group.*, of %s", strings.Join(names, ", "))
		}
		if !aliased {
			name = group
		}
		at := slices.IndexFunc(all, func(l lookup) bool { return l.name == name })
		if at < 0 {
			at = len(all)
			all = append(all, lookup{name: name, group: g})
		}
		if all[at].group != g {
			return nil, failure.New(failure.BadRequest, "features", "%q is %s, and %s too", name, all[at].group.Name, g.Name)
		}
		if err := all[at].want(output); err != nil {
			return nil, err
		}
	}
	if len(all) == 0 {
		return nil, failure.New(failure.BadRequest, "features", "the project has no feature groups")
	}
	return all, q.nameColumns(all)
}

// want adds an output, or all.
func (l *lookup) want(output string) error {
	if output == "*" {
		for i := range l.group.Outputs {
			if !slices.Contains(l.outputs, i) {
				l.outputs = append(l.outputs, i)
			}
		}
		return nil
	}
	i := l.group.Output(output)
	if i < 0 {
		names := make([]string, len(l.group.Outputs))
		for i, o := range l.group.Outputs {
			names[i] = o.Name
		}
		e := failure.New(failure.BadRequest, "features", "%s has no feature %q", l.group.Name, output)
		if near := schemas.Nearest(output, names); near != "" {
			return e.WithHint("did you mean %q?", near)
		}
		return e
	}
	if !slices.Contains(l.outputs, i) {
		l.outputs = append(l.outputs, i)
	}
	return nil
}

// nameColumns finds the spine's columns of each lookup's entity.
func (q *Request) nameColumns(all []lookup) error {
	used := map[string]bool{}
	for i := range all {
		l := &all[i]
		for _, entity := range l.group.Entity {
			column := entity
			for _, key := range []string{entity, l.name + "." + entity} { // the narrower one wins
				if c, ok := q.Entities[key]; ok {
					column, used[key] = c, true
				}
			}
			l.columns = append(l.columns, column)
		}
	}
	for key := range q.Entities {
		if !used[key] {
			return failure.New(failure.BadRequest, "entity", "no feature wanted has the entity column %q", key)
		}
	}
	return nil
}

// kindOf is the kind of a group's i-th entity column.
func (l *lookup) kindOf(i int) schemas.Kind {
	c, _ := l.group.Source.Schema.Column(l.group.Entity[i])
	return c.Kind
}
