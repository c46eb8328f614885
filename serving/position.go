package serving

import (
	"cmp"
	"slices"

	"github.com/millrace/millrace/features/online"
	"github.com/millrace/millrace/project"
	"github.com/millrace/millrace/schemas"
)

// place is a partition of a group.
type place struct {
	group     int
	partition int32
}

// position is what the prediction keeps of where an entity was read: enough to say which events its state is made of. Entities of one
// partition are read together and share it.
func (f *filler) position(g int, e *online.Entry) schemas.ReadPosition {
	group := f.plan.groups[g].group
	at := place{g, e.Partition}
	sources, known := f.sources[at]
	if !known {
		sources = sourcePositions(e.Position.Sources)
		f.sources[at] = sources
	}
	version := group.Version
	if f.plan.groups[g].own != nil {
		version += project.RequestMark
	}
	return schemas.ReadPosition{
		Group: group.Name, Version: version, Partition: e.Partition, Next: e.Position.Next, Newest: e.Position.Newest, Sources: sources,
	}
}

// sourcePositions lists the highest offsets applied as the offsets after them, by source in the order of their names.
func sourcePositions(applied map[online.SourcePartition]int64) []schemas.SourcePosition {
	var list []schemas.SourcePosition
	for from, offset := range applied {
		i, found := slices.BinarySearchFunc(list, from.Source, func(s schemas.SourcePosition, name string) int { return cmp.Compare(s.Source, name) })
		if !found {
			list = slices.Insert(list, i, schemas.SourcePosition{Source: from.Source})
		}
		next := &list[i].Next
		if missing := int(from.Partition) + 1 - len(*next); missing > 0 {
			*next = append(*next, make([]int64, missing)...)
		}
		(*next)[from.Partition] = offset + 1
	}
	return list
}
