package training

import (
	"context"

	"github.com/millrace/millrace/features/pit"
	"github.com/millrace/millrace/project"
)

// replay fills the columns that come from feature groups by a point-in-time join.
func (b *builder) replay(ctx context.Context, d *Dataset, rows []*spineRow) error {
	if len(rows) == 0 || len(d.Lookups) == 0 {
		return nil
	}
	sources, lookups, err := b.joined(d, rows)
	if err != nil {
		return err
	}
	spine, err := pit.NewSpine(b.cfg.Join, lookups)
	if err != nil {
		return err
	}
	defer func() { _ = spine.Close() }() // it holds nothing that is wanted
	for _, row := range rows {
		if err := spine.Add(row.time, row.entity); err != nil {
			return err
		}
	}
	done := int64(0)
	return spine.Join(ctx, sources, func(block *pit.Block) error {
		for l := range d.Lookups {
			lookup := &d.Lookups[l]
			for i, row := range block.Rows {
				lookup.Newest[row] = block.Newest(l, i)
				for output, input := range lookup.Inputs {
					d.Columns[input][row] = block.Input(b.model.Inputs[input].Categories, l, output, i)
				}
			}
		}
		done += int64(len(block.Rows))
		b.progress("features", done, int64(len(rows)))
		return nil
	})
}

// joined is the sources and lookups of the dataset as the join takes them.
func (b *builder) joined(d *Dataset, rows []*spineRow) ([]pit.Source, []pit.Lookup, error) {
	var sources []pit.Source
	index := map[*project.Source]int{}
	for i, s := range groupSources(b.model) {
		index[s] = i
		source, err := pit.LogEvents(b.dir, s, b.model.Groups())
		if err != nil {
			return nil, nil, err
		}
		sources = append(sources, source)
	}
	lookups := make([]pit.Lookup, 0, len(d.Lookups))
	for _, l := range d.Lookups {
		first := b.model.Inputs[l.Inputs[0]]
		lookup := pit.Lookup{Group: first.Group.Group, Source: index[first.Group.Source]}
		if first.Own != nil {
			lookup.Own = ownEvents(b.model, first, rows)
		}
		for _, i := range l.Inputs {
			lookup.Outputs = append(lookup.Outputs, b.model.Inputs[i].Output)
		}
		lookups = append(lookups, lookup)
	}
	return sources, lookups, nil
}

// groupSources lists the sources of the model's groups, each once.
func groupSources(m *project.Model) []*project.Source {
	var sources []*project.Source
	seen := map[*project.Source]bool{}
	for _, g := range m.Groups() {
		if !seen[g.Source] {
			seen[g.Source] = true
			sources = append(sources, g.Source)
		}
	}
	return sources
}
