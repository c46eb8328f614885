package online

import (
	"context"
	"strconv"
	"strings"

	"github.com/redis/go-redis/v9"
)

// clearScript deletes keys of a partition that has no position.
//
//	KEYS  position, others
const clearScript = `
if redis.call('EXISTS', KEYS[1]) == 1 then return 0 end
for i = 2, #KEYS do redis.call('UNLINK', KEYS[i]) end
return 1
`

// Clear deletes everything that Redis has of partitions that have no position: states are of the events below a position, and without one
// nobody knows of which they are. A partition that has a position, or gets one meanwhile, is left as it is. Clear goes through all keys of the
// servers, so it takes its time.
func (w *Writer) Clear(ctx context.Context, partitions ...int32) error {
	wanted := make(map[int32]bool, len(partitions))
	for _, p := range partitions {
		wanted[p] = true
	}
	prefix := strings.TrimSuffix(versionGlob(w.owner), "*")
	script := redis.NewScript(clearScript)
	return eachServer(ctx, w.client, func(ctx context.Context, c redis.Cmdable) error {
		return scan(ctx, c, versionGlob(w.owner), func(keys []string) error {
			found := map[int32][]string{}
			for _, key := range keys {
				number, _, ok := strings.Cut(strings.TrimPrefix(key, prefix), "}:")
				if p, err := strconv.ParseInt(number, 10, 32); ok && err == nil && wanted[int32(p)] {
					found[int32(p)] = append(found[int32(p)], key)
				}
			}
			for p, keys := range found {
				if err := script.Run(ctx, w.client, append([]string{positionKey(slot(w.owner, p))}, keys...)).Err(); err != nil {
					return answering("deleting states without a position", err)
				}
			}
			return nil
		})
	})
}

// eachServer calls fn with each server that has keys of its own.
func eachServer(ctx context.Context, client redis.UniversalClient, fn func(context.Context, redis.Cmdable) error) error {
	if cluster, ok := client.(*redis.ClusterClient); ok {
		return cluster.ForEachMaster(ctx, func(ctx context.Context, c *redis.Client) error { return fn(ctx, c) })
	}
	return fn(ctx, client)
}

// scanKeys is about how many keys are looked at, or deleted, at once.
const scanKeys = 1000

// scan calls fn with the keys of a server that match.
func scan(ctx context.Context, c redis.Cmdable, glob string, fn func(keys []string) error) error {
	for cursor := uint64(0); ; {
		keys, next, err := c.Scan(ctx, cursor, glob, scanKeys).Result()
		if err != nil {
			return answering("looking for a version's keys", err)
		}
		if len(keys) > 0 {
			if err := fn(keys); err != nil {
				return err
			}
		}
		if cursor = next; cursor == 0 {
			return nil
		}
	}
}
