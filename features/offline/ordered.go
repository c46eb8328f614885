package offline

import (
	"cmp"
	"context"
	"math"
	"slices"
)

// InOrder hands out the rows of one partition with offsets of at least from, in the order of their offsets: that in which they came, where
// a sorted scan has that of event time. It holds the rows of one commit in memory. An error of fn ends it and is returned.
func (t *Table) InOrder(ctx context.Context, partition int32, from int64, fn func(b *Batch, row int) error) error {
	c, err := t.chain(partition)
	if err != nil {
		return err
	}
	plan := t.projection(t.Columns())
	plan.from, plan.until = math.MinInt64, math.MaxInt64
	for i := range c.entries {
		if e := &c.entries[i]; e.End > from && len(e.Files) > 0 {
			if err := plan.inOrder(ctx, e, from, fn); err != nil {
				return err
			}
		}
	}
	return nil
}

// inOrder hands out the rows of a commit.
func (p *scanPlan) inOrder(ctx context.Context, e *entry, from int64, fn func(*Batch, int) error) error {
	type place struct {
		batch *Batch
		row   int
	}
	places := make([]place, 0, e.rows())
	for _, f := range e.Files {
		err := p.each(ctx, plannedFile{f, e.Partition}, func(b *Batch) error {
			for i := range b.Len() {
				if b.Offset(i) >= from {
					places = append(places, place{b, i})
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	slices.SortFunc(places, func(a, b place) int { return cmp.Compare(a.batch.Offset(a.row), b.batch.Offset(b.row)) })
	for _, at := range places {
		if err := fn(at.batch, at.row); err != nil {
			return err
		}
	}
	return nil
}
