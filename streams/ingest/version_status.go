package ingest

import (
	"cmp"
	"context"
	"maps"
	"slices"

	"github.com/redis/go-redis/v9"

	"github.com/millrace/millrace/features/online"
	"github.com/millrace/millrace/project"
)

// The states of a version.
const (
	VersionActive  = "active"  // readers read it
	VersionTarget  = "target"  // it becomes active when it has caught up
	VersionRetired = "retired" // it was active, and is kept while somebody may read it
)

// VersionStatus is how far one version of a group is.
type VersionStatus struct {
	Group      string `json:"group"`
	ID         string `json:"id"`
	State      string `json:"state"`
	Partitions int32  `json:"partitions"`
	Filled     int32  `json:"filled"`  // partitions that have their history
	Records    int64  `json:"records"` // of its topic that filled partitions have come to, in all
	History    int64  `json:"history"` // source offsets that the partition furthest behind has come to, in all; 0 when none is being filled
	Newest     int64  `json:"newest"`  // event time, Unix milliseconds
}

// Versions is the state of all versions of the project's groups, as Redis has them.
func Versions(ctx context.Context, client redis.UniversalClient, p *project.Project) ([]VersionStatus, error) {
	names := make([]string, len(p.Groups))
	for i, g := range p.Groups {
		names[i] = g.Name
	}
	known, err := online.NewVersions(client, p.Name).Load(ctx, names...)
	if err != nil {
		return nil, err
	}
	var all []VersionStatus
	for i := range known {
		versions := slices.SortedFunc(maps.Values(known[i].All), func(a, b online.Version) int {
			return cmp.Or(cmp.Compare(a.Declared, b.Declared), cmp.Compare(a.ID, b.ID))
		})
		for _, v := range versions {
			s := VersionStatus{Group: names[i], ID: v.ID, State: VersionRetired, Partitions: v.Partitions}
			switch v.ID {
			case known[i].Active:
				s.State = VersionActive
			case known[i].Target:
				s.State = VersionTarget
			}
			if err := s.look(ctx, online.NewWriter(client, p.Name, names[i], v.ID)); err != nil {
				return nil, err
			}
			all = append(all, s)
		}
	}
	return all, nil
}

// look reads how far the partitions are.
func (s *VersionStatus) look(ctx context.Context, w *online.Writer) error {
	behind := map[online.SourcePartition]int64{}
	for k := range s.Partitions {
		l, err := w.LoadRows(ctx, k)
		if err != nil {
			return err
		}
		s.Newest = max(s.Newest, l.Position.Newest)
		if filled(l) {
			s.Filled++
			s.Records += l.Position.Next
			continue
		}
		for from, offset := range l.Position.Sources {
			if least, seen := behind[from]; !seen || offset < least {
				behind[from] = offset
			}
		}
	}
	for _, offset := range behind {
		s.History += offset + 1
	}
	return nil
}
