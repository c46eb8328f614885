package offline

import (
	"cmp"
	"context"
	"math"
	"path/filepath"
	"slices"

	"github.com/millrace/millrace/internal/failure"
)

// ScanOptions choose what is read.
type ScanOptions struct {
	From, Until int64    // event times in [From, Until), Unix ms; 0 is no bound
	Columns     []string // in the order wanted; nil is all of the table's
}

// Scan hands out what is committed when it is called, file by file: partitions ascending, each in the order of its commits. It holds one
// batch in memory, whose rows are sorted by (time, offset). An error of fn ends the scan and is returned.
func (t *Table) Scan(ctx context.Context, opts ScanOptions, fn func(*Batch) error) error {
	plan, err := t.plan(opts)
	if err != nil {
		return err
	}
	for _, f := range plan.files {
		if err := plan.each(ctx, f, fn); err != nil {
			return err
		}
	}
	return nil
}

// scanPlan is the files that a scan must open.
type scanPlan struct {
	dir         string
	columns     []Column     // in the order asked for
	reads       []Column     // those of them in the files, and others that some are computed from
	derived     *computation // nil: columns and reads are the same
	from, until int64
	files       []plannedFile
}

type plannedFile struct {
	entryFile
	partition int32
}

func (t *Table) plan(opts ScanOptions) (*scanPlan, error) {
	columns, err := t.choose(opts.Columns)
	if err != nil {
		return nil, err
	}
	p := t.projection(columns)
	p.from, p.until = opts.From, opts.Until
	if opts.From == 0 {
		p.from = math.MinInt64
	}
	if opts.Until == 0 {
		p.until = math.MaxInt64
	}
	partitions, err := t.Partitions()
	if err != nil {
		return nil, err
	}
	for _, partition := range partitions {
		c, err := t.chain(partition)
		if err != nil {
			return nil, err
		}
		for _, e := range c.entries {
			for _, f := range e.Files {
				if f.Until > p.from && f.From < p.until {
					p.files = append(p.files, plannedFile{f, partition})
				}
			}
		}
	}
	return p, nil
}

// projection is a plan of columns, without files.
func (t *Table) projection(columns []Column) *scanPlan {
	p := &scanPlan{dir: t.dir, columns: columns, reads: columns}
	if t.events != nil {
		p.reads, p.derived = t.compute(columns)
	}
	return p
}

// choose finds the named columns.
func (t *Table) choose(names []string) ([]Column, error) {
	all := t.Columns()
	if names == nil {
		return all, nil
	}
	chosen := make([]Column, 0, len(names))
	for _, name := range names {
		at := slices.IndexFunc(all, func(c Column) bool { return c.Name == name })
		if at < 0 {
			return nil, failure.New(failure.NotFound, t.dir, "there is no column %q", name)
		}
		chosen = append(chosen, all[at])
	}
	return chosen, nil
}

// byTime puts the files in the order in which a sorted scan needs them.
func (p *scanPlan) byTime() {
	slices.SortStableFunc(p.files, func(a, b plannedFile) int { return cmp.Compare(a.From, b.From) })
}

func (p *scanPlan) open(f plannedFile) (*arrowFile, error) {
	return openArrow([]string{
		filepath.Join(p.dir, f.Path),
		filepath.Join(p.dir, f.Staged), // committed, and about to be moved
		filepath.Join(p.dir, f.Path),
	}, f.entryFile, p.reads)
}

// read decodes the i-th batch of a file and narrows it to the plan's times.
func (p *scanPlan) read(a *arrowFile, i int) (*Batch, error) {
	b, err := a.batch(i)
	if err != nil {
		return nil, err
	}
	b.between(p.from, p.until)
	if p.derived != nil {
		p.derived.apply(b)
	}
	return b, nil
}

func (p *scanPlan) each(ctx context.Context, f plannedFile, fn func(*Batch) error) error {
	a, err := p.open(f)
	if err != nil {
		return err
	}
	for i := range a.batches() {
		if err := ctx.Err(); err != nil {
			return err
		}
		b, err := p.read(a, i)
		if err != nil {
			return err
		}
		if b.Len() == 0 {
			continue
		}
		if err := fn(b); err != nil {
			return err
		}
	}
	return nil
}
