package online

import (
	"context"
	"maps"
	"slices"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/millrace/millrace/features"
	"github.com/millrace/millrace/internal/failure"
)

// Inspection is all that Redis holds of one entity.
type Inspection struct {
	Version     Version
	Key         string // of the state in Redis
	HashKey     string // of the values, where the group is materialized
	PositionKey string
	Partition   int32
	Position    Position         // of the partition when the state was read
	Rebuilding  bool             // State may lack events, as Entry.Rebuilding
	Newest      int64            // newest event time of all the version's partitions, Unix milliseconds; 0 when there is none
	State       []byte           // nil when there is none
	Entity      *features.Entity // of State; nil without
	TTL         time.Duration    // until Redis drops the state; 0 when it does not
}

// Inspect reads an entity by its key as features.Group.Key writes it, and what stands beside it: of the group's active version, or of another
// one of g's definition when the active one is of an older. Errors: Unavailable when Redis does not answer, NotFound when it has no
// version of g's definition, Corrupt for bytes that are no state of it.
func Inspect(ctx context.Context, client redis.UniversalClient, project string, g *features.Group, key string) (*Inspection, error) {
	v, err := versionOf(ctx, client, project, g)
	if err != nil {
		return nil, err
	}
	reader := NewReader(client, project, GroupRef{Group: g, Version: v.ID, Partitions: v.Partitions, Partitioner: v.Partitioner})
	entries, err := reader.Get(ctx, []Ref{{Key: key}})
	if err != nil {
		return nil, err
	}
	partition := entries[0].Partition
	s := slot(Owner(project, g.Name, v.ID), partition)
	i := &Inspection{
		Version: v, Key: entityKey(s, key), HashKey: hashKey(s, key), PositionKey: positionKey(s), Partition: partition, Position: entries[0].Position, State: entries[0].State,
		Rebuilding: entries[0].Rebuilding,
	}
	positions, err := reader.Positions(ctx, 0)
	if err != nil {
		return nil, err
	}
	for _, p := range positions {
		i.Newest = max(i.Newest, p.Newest)
	}
	if i.State == nil {
		return i, nil
	}
	left, err := client.PTTL(ctx, i.Key).Result()
	if err != nil {
		return nil, answering("reading the expiry", err)
	}
	i.TTL = max(left, 0)
	i.Entity, err = g.Decode(i.State)
	return i, err
}

// versionOf is the version of a group to look at.
func versionOf(ctx context.Context, client redis.UniversalClient, project string, g *features.Group) (Version, error) {
	known, err := NewVersions(client, project).Load(ctx, g.Name)
	if err != nil {
		return Version{}, err
	}
	if v, ok := known[0].All[known[0].Active]; ok && v.Definition == g.Version {
		return v, nil
	}
	for _, id := range slices.Sorted(maps.Keys(known[0].All)) {
		if v := known[0].All[id]; v.Definition == g.Version {
			return v, nil
		}
	}
	return Version{}, failure.New(failure.NotFound, g.Name, "Redis has nothing of version %s", g.Version).
		WithHint("is this the project's Redis, and has the stream role been running since the group was last changed?")
}
