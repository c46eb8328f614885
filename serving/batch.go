package serving

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"

	"github.com/millrace/millrace/features/dataset"
	"github.com/millrace/millrace/features/pit"
	"github.com/millrace/millrace/internal/failure"
	"github.com/millrace/millrace/project"
	"github.com/millrace/millrace/registry"
	"github.com/millrace/millrace/registry/model"
	"github.com/millrace/millrace/schemas"
)

// BatchRequest is rows that one version of a model is to score, without servers: rows that carry the model's inputs, or rows of the model's
// source whose features are joined as of their times from the offline log, by the engine that makes training sets.
//
// A row is answered as a request is: by the version, else by what the project declares, else refused with a reason. There is one row out for each
// row in, in their order.
type BatchRequest struct {
	Project    *project.Project
	Model      *project.Model
	Version    registry.Reference
	OfflineDir string      // the folder of the offline log
	Given      bool        // the rows carry the inputs of the model that come from feature groups, by name; nothing is joined
	Parts      []BatchPart // each makes a file
	Keep       []string    // columns of the rows that go to the output; nil: all
	Prefix     string      // of the names of the columns that are added
	Anew       bool        // parts that are finished are made again
	Limits     pit.Config
	Code       string // version of the program, for the manifest
}

// MaxOwnRows is how many rows can be scored at once by a model that has the event that asks merged in (include_request): they are held in memory.
const MaxOwnRows = 5_000_000

// batchTakes is how many rows are scored between two writes when nothing is joined.
const batchTakes = 1 << 15

// Batch scores the parts that are not finished yet. The files of a part appear when it is whole; a run that was cut short goes on with the first
// part that is not. report is what was made by this run and those before it.
func Batch(ctx context.Context, r *registry.Registry, q BatchRequest, progress dataset.Progress) (*BatchReport, error) {
	b, err := newBatch(ctx, r, q, progress)
	if err != nil {
		return nil, err
	}
	defer b.close()
	if err := b.open(ctx); err != nil {
		return nil, err
	}
	if q.Given || len(b.plan.groups) == 0 {
		err = b.each(ctx)
	} else {
		err = b.join(ctx)
	}
	if err != nil {
		return nil, err
	}
	return b.report, nil
}

// batch is a run on its way.
type batch struct {
	BatchRequest
	plan     *plan
	line     *lineUp
	progress dataset.Progress
	report   *BatchReport
	parts    []*batchPart // not finished before
	current  int
	total    int64
	done     int64
	workers  []batchWorker
	own      ownRows
}

func newBatch(ctx context.Context, r *registry.Registry, q BatchRequest, progress dataset.Progress) (*batch, error) {
	p, err := compilePlan(q.Model, q.Project.Groups, nil)
	if err != nil {
		return nil, err
	}
	s, err := loadScorer(r, func([]model.SignatureInput) (*plan, error) { return p, nil }, q.Version.Digest, q.Version.Number, 1)
	if err != nil {
		return nil, err
	}
	b := &batch{
		BatchRequest: q, plan: p, line: &lineUp{plan: p, champion: s}, progress: progress, workers: make([]batchWorker, runtime.GOMAXPROCS(0)),
		report: newBatchReport(q),
	}
	for i := range b.workers {
		b.workers[i].scoring.bare = true
	}
	for _, part := range q.Parts {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		key := b.key(part)
		finished, err := readPartReport(ctx, part, key)
		if err != nil {
			return nil, err
		}
		if finished != nil && !q.Anew {
			b.report.add(*finished)
			continue
		}
		b.parts = append(b.parts, &batchPart{BatchPart: part, key: key})
	}
	return b, nil
}

// open opens every part, so that a fault in the last one is found before the first is scored.
func (b *batch) open(ctx context.Context) error {
	for _, p := range b.parts {
		rows, err := p.Open(ctx)
		if err != nil {
			return fmt.Errorf("opening %s: %w", p.Name, err)
		}
		p.rows = rows
		if p.layout, err = b.layout(rows); err != nil {
			return fmt.Errorf("reading %s: %w", p.Name, err)
		}
		if n := rows.Rows(); n > 0 {
			b.total += n
		}
	}
	return nil
}

func (b *batch) close() {
	for _, p := range b.parts {
		p.close()
	}
}

// each scores rows that carry their inputs.
func (b *batch) each(ctx context.Context) error {
	for {
		n, err := b.take(ctx, batchTakes, nil)
		if err != nil || n == 0 {
			return err
		}
	}
}

// join scores rows with the features as they were known at their times.
func (b *batch) join(ctx context.Context) (err error) {
	if len(b.parts) == 0 {
		return nil
	}
	lookups, sources, err := b.lookups()
	if err != nil {
		return err
	}
	spine, err := pit.NewSpine(b.Limits, lookups)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, spine.Close()) }()
	if err := b.ask(ctx, spine); err != nil {
		return err
	}
	b.total = spine.Len()
	err = spine.JoinInOrder(ctx, sources, func(block *pit.Block) error {
		n, err := b.take(ctx, len(block.Rows), block)
		if err == nil && n != len(block.Rows) {
			err = failure.New(failure.Conflict, b.parts[len(b.parts)-1].Name, "its rows have changed while it was read").WithHint("try again when nobody writes it")
		}
		return err
	})
	if err != nil {
		return err
	}
	_, err = b.take(ctx, 1, nil) // ends the last part, and those without a row
	return err
}

// lookups is the plan's groups as the join takes them, with the events that they are computed from.
func (b *batch) lookups() ([]pit.Lookup, []pit.Source, error) {
	var sources []pit.Source
	index := map[*project.Source]int{}
	var groups []*project.Group
	for _, g := range b.plan.groups {
		groups = append(groups, g.group)
	}
	lookups := make([]pit.Lookup, len(b.plan.groups))
	for i, g := range b.plan.groups {
		n, ok := index[g.group.Source]
		if !ok {
			events, err := pit.LogEvents(b.OfflineDir, g.group.Source, groups)
			if err != nil {
				return nil, nil, err
			}
			n = len(sources)
			index[g.group.Source] = n
			sources = append(sources, events)
		}
		lookups[i] = pit.Lookup{Group: g.group.Group, Source: n, Outputs: g.outputs}
		if g.own != nil {
			lookups[i].Own = b.own.of(b.plan, g.own)
		}
	}
	return lookups, sources, nil
}

// ask adds every row to the spine: its time, and the entities that it names.
func (b *batch) ask(ctx context.Context, spine *pit.Spine) error {
	keys := make([]string, len(b.plan.groups))
	var named map[string]string
	for _, p := range b.parts {
		n := 0
		for record, err := range p.rows.Records(ctx, p.layout.fields) {
			if err != nil {
				return err
			}
			rows, err := p.layout.read(record)
			if err != nil {
				return err
			}
			for i := range rows.Len() {
				row := b.workers[0].row(p.layout, rows, i, b.plan)
				if row[b.plan.time].IsNull() {
					return failure.New(failure.BadRequest, p.Name, "row %d has no %s, which is its time", n+i, b.Model.On.Time).
						WithHint("leave such rows out")
				}
				for g := range b.plan.groups {
					keys[g] = b.plan.groups[g].keyOf(row, &named)
				}
				if err := spine.Add(row[b.plan.time].Int(), keys); err != nil {
					return err
				}
				if err := b.own.keep(b.plan, row); err != nil {
					return err
				}
			}
			n += rows.Len()
			b.progress("rows", spine.Len(), max(b.total, spine.Len()))
		}
		if err := ctx.Err(); err != nil {
			return err
		}
	}
	return nil
}

// keyOf is the key of the entity that a row names; empty where it names none that can be.
func (g *plannedGroup) keyOf(row schemas.Row, named *map[string]string) string {
	if *named == nil {
		*named = map[string]string{}
	}
	clear(*named)
	for i, c := range g.entity {
		text := row[c].Text()
		if text == "" {
			return ""
		}
		(*named)[g.group.Entity[i]] = text
	}
	key, err := g.group.KeyOf(*named)
	if err != nil {
		return ""
	}
	return key
}

// ownRows is the events that ask, where some are merged into what is read for them.
type ownRows struct {
	columns []int
	rows    []schemas.Row
}

// of gives what makes of a row, by its number, an event of a group's source.
func (o *ownRows) of(p *plan, own *project.OwnEvent) func(int64, schemas.Row) (schemas.Row, bool) {
	for _, name := range own.Columns() {
		o.columns = append(o.columns, p.model.On.Schema.Index(name))
	}
	o.columns = append(o.columns, p.time)
	slices.Sort(o.columns)
	o.columns = slices.Compact(o.columns)
	return func(row int64, into schemas.Row) (schemas.Row, bool) {
		event := make(schemas.Row, len(p.model.On.Schema.Columns))
		for i, c := range o.columns {
			event[c] = o.rows[row][i]
		}
		return own.Row(event, event[p.time].Int(), into)
	}
}

func (o *ownRows) keep(p *plan, row schemas.Row) error {
	if !p.ownEvents {
		return nil
	}
	if len(o.rows) == MaxOwnRows {
		return failure.New(failure.Refused, p.model.Name, "more than MaxOwnRows = %d rows, each of which is merged into what is read for it (include_request)", MaxOwnRows).
			WithHint("score them in several runs")
	}
	o.rows = append(o.rows, row.Pick(o.columns))
	return nil
}

// removeOld takes away what an earlier run has left under a name that is to be written: of a part without its manifest nothing is finished.
func removeOld(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return failure.Wrap(failure.Unavailable, path, "removing what was finished before", err)
	}
	return nil
}
