package online

import (
	"context"
	"errors"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/millrace/millrace/features"
	"github.com/millrace/millrace/internal/failure"
)

// Inspection is all that Redis holds of one entity.
type Inspection struct {
	Key         string // of the state in Redis
	PositionKey string
	Partition   int32
	Partitions  int32
	Position    Position         // of the partition when the state was read
	State       []byte           // nil when there is none
	Entity      *features.Entity // of State; nil without
	TTL         time.Duration    // until Redis drops the state; 0 when it does not
}

// Inspect reads an entity by its key as features.Group.Key writes it, and what stands beside it. Errors: Unavailable when Redis does not
// answer, NotFound when no worker has seen this version of the group, Corrupt for bytes that are no state of it.
func Inspect(ctx context.Context, client redis.UniversalClient, project string, g *features.Group, key string) (*Inspection, error) {
	partitions, err := DeclaredPartitions(ctx, client, project, g.Name, g.Version)
	if err != nil {
		return nil, err
	}
	owner := Owner(project, g.Name, g.Version)
	partition := Partition(key, partitions)
	s := slot(owner, partition)
	i := &Inspection{Key: entityKey(s, key), PositionKey: positionKey(s), Partition: partition, Partitions: partitions}
	entries, err := NewReader(client, project, GroupRef{Group: g, Partitions: partitions}).Get(ctx, []Ref{{Key: key}})
	if err != nil {
		return nil, err
	}
	i.Position, i.State = entries[0].Position, entries[0].State
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

// DeclaredPartitions is the partition count that Declare recorded; NotFound when it did not.
func DeclaredPartitions(ctx context.Context, client redis.UniversalClient, project, group, version string) (int32, error) {
	key := MetaKey(Owner(project, group, version))
	text, err := client.HGet(ctx, key, "partitions").Result()
	if errors.Is(err, redis.Nil) {
		return 0, failure.New(failure.NotFound, group, "Redis has nothing of version %s", version).
			WithHint("is this the project's Redis, and has the stream role been running since the group was last changed?")
	}
	if err != nil {
		return 0, answering("reading the partition count of "+group, err)
	}
	n, err := strconv.ParseInt(text, 10, 32)
	if err != nil || n <= 0 {
		return 0, failure.New(failure.Corrupt, key, "%q is no partition count", text).WithHint("delete the key: the stream role writes it again")
	}
	return int32(n), nil
}
