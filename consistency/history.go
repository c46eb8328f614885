package consistency

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"github.com/millrace/millrace/features/offline"
	"github.com/millrace/millrace/internal/failure"
	"github.com/millrace/millrace/project"
	"github.com/millrace/millrace/schemas"
)

// event is one event of a sampled entity.
type event struct {
	partition int32 // of the source
	offset    int64
	time      int64
	row       schemas.Row
}

// history gives every sampled entity of the groups of a source its events, those of each source partition in their order. kept is the
// offset up to which each partition was in the files.
func history(ctx context.Context, cfg Config, dir string, source *project.Source, groups []*served) (kept map[int32]int64, events int, err error) {
	table, err := offline.EventsTable(dir, source.Name, source.Schema)
	if err != nil {
		return nil, 0, err
	}
	partitions, err := table.Partitions()
	if err != nil {
		return nil, 0, err
	}
	kept = map[int32]int64{}
	for _, p := range partitions { // before the scan, which then has all of it
		if kept[p], err = table.Next(p); err != nil {
			return nil, 0, err
		}
	}
	var row schemas.Row
	err = table.Scan(ctx, offline.ScanOptions{}, func(b *offline.Batch) error {
		for i := range b.Len() {
			row = b.Row(i, row)
			for _, s := range groups {
				key, err := s.group.Key(row)
				if err != nil {
					continue // a dead letter of the group
				}
				e := s.entities[key]
				if e == nil {
					continue
				}
				if events++; events > cfg.MaxEvents {
					return failure.New(failure.Overloaded, "consistency", "the sampled entities of %s have more than %d events", source.Name, cfg.MaxEvents).
						WithHint("take a smaller --sample")
				}
				e.events = append(e.events, event{b.Partition(), b.Offset(i), b.Time(i), row.Clone()})
			}
		}
		return nil
	})
	if err != nil {
		return nil, 0, fmt.Errorf("reading the offline events of %s: %w", source.Name, err)
	}
	for _, s := range groups {
		for _, e := range s.entities {
			slices.SortFunc(e.events, func(a, b event) int {
				return cmp.Or(cmp.Compare(a.partition, b.partition), cmp.Compare(a.offset, b.offset))
			})
		}
	}
	return kept, events, nil
}
