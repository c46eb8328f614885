package online

import (
	"context"
	"strconv"

	"github.com/redis/go-redis/v9"

	"github.com/millrace/millrace/internal/failure"
)

// Partitioner is the only one that entities are found by.
const Partitioner = "murmur2"

// Declare records the partition count of a group, or checks it against the one recorded: states written under another count would
// not be found again. A different count is BadProject.
func Declare(ctx context.Context, client redis.UniversalClient, project, group, version string, partitions int32) error {
	key := MetaKey(Owner(project, group, version))
	want := strconv.Itoa(int(partitions))
	var declared *redis.SliceCmd
	_, err := client.TxPipelined(ctx, func(p redis.Pipeliner) error { // in one: Redis may be emptied in between
		p.HSetNX(ctx, key, "partitions", want)
		p.HSetNX(ctx, key, "partitioner", Partitioner)
		declared = p.HMGet(ctx, key, "partitions", "partitioner")
		return nil
	})
	if err != nil {
		return answering("declaring group "+group, err)
	}
	have := declared.Val()
	if have[0] != want || have[1] != Partitioner {
		return failure.New(failure.BadProject, group, "is in Redis with %v partitions by %v, not %s by %s", have[0], have[1], want, Partitioner).
			WithHint("keep the partition count, or change the group so that it gets a new version")
	}
	return nil
}
