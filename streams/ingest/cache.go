package ingest

import (
	"fmt"
	"sync/atomic"

	"github.com/millrace/millrace/features"
)

// cached is an entity of the partition, decoded. It is in the ring of its cache.
type cached struct {
	hash   uint64 // of the key
	key    string
	used   bool // since trim looked at it
	dirty  bool // has events that no flush has taken
	flying bool // is in the flush on its way: Redis does not have it yet
	entity features.Entity
	bytes  int64 // that it took when it was last written

	newer, older *cached
}

// cache holds the entities of one partition that were used lately. What Redis does not have yet stays, whatever the limit.
type cache struct {
	entities table
	ring     cached    // ring.older is the newest, ring.newer the oldest
	spare    []*cached // let go of; their memory is used again
	bytes    int64
	share    *cacheShare
	evicted  *evicted // nil: Redis may have a state of any entity that is not held
}

// Of entities let go of, so many are kept for those that come next: as many as one chunk may bring. Larger ones are left to the garbage
// collector.
const (
	spareEntities = chunk
	spareBytes    = 2 << 10
)

// cacheShare is the memory that the caches of a process have together, and how many they are. Each has an equal part.
type cacheShare struct {
	bytes  int64
	caches atomic.Int64
}

// perEntity is what an entity takes beside its state: its key's place in the table and its own in the ring.
const perEntity = 112

func newCache(share *cacheShare) *cache {
	c := &cache{entities: newTable(), share: share}
	c.ring.newer, c.ring.older = &c.ring, &c.ring
	return c
}

// get is the entity of that key, nil when it is not held.
func (c *cache) get(key string) *cached {
	e := c.entities.get(c.entities.hash(key), key)
	if e != nil {
		e.used = true
	}
	return e
}

// add makes a place for an entity, as the newest; its state is still to come.
func (c *cache) add(key string) *cached {
	var e *cached
	if n := len(c.spare); n > 0 {
		e, c.spare = c.spare[n-1], c.spare[:n-1]
		e.used = false
	} else {
		e = &cached{}
	}
	e.key, e.hash = key, c.entities.hash(key)
	e.bytes = perEntity + int64(len(key))
	c.bytes += e.bytes
	c.entities.add(e)
	c.link(e)
	return e
}

// isNew reports whether Redis has no state of an entity that was just added.
func (c *cache) isNew(e *cached) bool { return c.evicted != nil && !c.evicted.has(e.hash) }

// decode makes the entity of its state; of none, nil, it is without events.
func (c *cache) decode(e *cached, g *group, state []byte) error {
	g.Reset(&e.entity)
	if state != nil {
		if err := g.DecodeInto(&e.entity, state); err != nil {
			return fmt.Errorf("loading entity %q of %s: %w", e.key, g.Name, err)
		}
	}
	c.sized(e, int64(e.entity.Bytes()))
	return nil
}

// sized notes how large an entity is now.
func (c *cache) sized(e *cached, bytes int64) {
	bytes += perEntity + int64(len(e.key))
	c.bytes += bytes - e.bytes
	e.bytes = bytes
}

// limit is the cache's part of the memory.
func (c *cache) limit() int64 { return c.share.bytes / max(c.share.caches.Load(), 1) }

// full reports whether what Redis does not have must be written to make room.
func (c *cache) full() bool { return c.bytes > c.limit() }

// maxTrim bounds how many entities one trim looks at.
const maxTrim = 4096

// trim lets go of entities until the limit holds, the oldest first, leaving those that Redis does not have. One that was used since it
// was looked at last becomes the newest instead (the CLOCK algorithm, Corbato 1968): a hit then costs no move in the ring.
func (c *cache) trim() {
	limit := c.limit()
	for range min(c.entities.entries, maxTrim) {
		if c.bytes <= limit {
			return
		}
		e := c.ring.newer
		e.unlink()
		if e.used || e.dirty || e.flying {
			e.used = false
			c.link(e)
			continue
		}
		c.entities.remove(e)
		c.bytes -= e.bytes
		if c.evicted != nil {
			c.evicted.add(e.hash)
		}
		if len(c.spare) < spareEntities && e.bytes <= spareBytes {
			e.key = ""
			c.spare = append(c.spare, e)
		}
	}
}

func (c *cache) link(e *cached) {
	e.newer, e.older = &c.ring, c.ring.older
	e.older.newer, c.ring.older = e, e
}

func (e *cached) unlink() { e.newer.older, e.older.newer = e.older, e.newer }
