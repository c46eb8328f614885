package ingest

import (
	"fmt"
	"sync/atomic"
	"unsafe"

	"github.com/millrace/millrace/features"
)

// cached is an entity of the partition.
type cached struct {
	hash   uint64 // of the key
	key    string
	whole  *features.Entity // one that does not lie flat, or is large
	at     uint32           // where it lies flat in the cache's blocks
	words  uint16           // 0: without events, or whole
	room   uint16
	held   bool // else free for another
	used   bool // since trim looked at it
	dirty  bool // has events that no flush has taken
	flying bool // is in the flush on its way: Redis does not have it yet
	bytes  int64
}

// cache holds the entities of one partition that were used lately. What Redis does not have yet stays, whatever the limit.
//
// Most entities have few events, and lie flat; one is opened to be read or changed, and kept afterwards.
type cache struct {
	group    *features.Group
	entities table
	slabs    [][]cached // all that are held, and free ones
	free     []*cached
	hand     int // where trim goes on, counting through slabs
	blocks   blocks
	opened   *features.Entity // what was opened last, made of its run
	bytes    int64
	share    *cacheShare
	evicted  *evicted // nil: Redis may have a state of any entity that is not held
}

// slabSize is how many entities are made at once.
const slabSize = 256

// cacheShare is the memory that the caches of a process have together, and how many they are. Each has an equal part.
type cacheShare struct {
	bytes  int64
	caches atomic.Int64
}

// perEntity is what an entity takes beside its key and state: its place in the table, which has a free slot for each, and itself.
const perEntity = int64(2*unsafe.Sizeof(slot{}) + unsafe.Sizeof(cached{}))

func newCache(share *cacheShare, g *features.Group) *cache {
	return &cache{group: g, entities: newTable(), share: share, opened: g.NewEntity()}
}

// get is the entity of that key, nil when it is not held.
func (c *cache) get(key string) *cached {
	e := c.entities.get(c.entities.hash(key), key)
	if e != nil {
		e.used = true
	}
	return e
}

// add makes a place for an entity, without events.
func (c *cache) add(key string) *cached {
	if len(c.free) == 0 {
		slab := make([]cached, slabSize)
		for i := range slab {
			c.free = append(c.free, &slab[slabSize-1-i])
		}
		c.slabs = append(c.slabs, slab)
	}
	last := len(c.free) - 1
	e := c.free[last]
	c.free = c.free[:last]
	*e = cached{key: key, hash: c.entities.hash(key), held: true}
	c.sized(e, 0)
	c.entities.add(e)
	return e
}

// isNew reports whether Redis has no state of an entity that was just added.
func (c *cache) isNew(e *cached) bool { return c.evicted != nil && !c.evicted.has(e.hash) }

// decode makes an entity that was just added of its state; of none, nil, it stays without events.
func (c *cache) decode(e *cached, state []byte) error {
	if state == nil {
		return nil
	}
	if err := c.group.DecodeInto(c.opened, state); err != nil {
		return fmt.Errorf("loading entity %q of %s: %w", e.key, c.group.Name, err)
	}
	c.keep(e, c.opened)
	return nil
}

// open is an entity to read, or to change and keep, until another is opened.
func (c *cache) open(e *cached) *features.Entity {
	switch {
	case e.whole != nil:
		return e.whole
	case e.words == 0:
		c.group.Reset(c.opened)
	default:
		c.group.LoadFlat(c.opened, c.blocks.run(e.at, int(e.words)))
	}
	return c.opened
}

// keep takes over what an opened entity has become.
func (c *cache) keep(e *cached, opened *features.Entity) {
	if e.whole != nil {
		return
	}
	words, flat := opened.FlatWords()
	if flat = flat && words <= mostFlat; !flat {
		c.release(e)
		e.whole, c.opened = opened, c.group.NewEntity()
		c.sized(e, int64(opened.Bytes()))
		return
	}
	if room := roomFor(words); room != int(e.room) {
		c.release(e)
		e.at, e.room = c.blocks.take(room), uint16(room)
		c.sized(e, int64(8*room))
	}
	e.words = uint16(words)
	opened.PutFlat(c.blocks.run(e.at, words))
}

// release gives the entity's run back.
func (c *cache) release(e *cached) {
	if e.room > 0 {
		c.blocks.give(e.at, int(e.room))
	}
	e.words, e.room = 0, 0
}

// sized notes how much memory an entity's state takes now.
func (c *cache) sized(e *cached, state int64) {
	bytes := perEntity + int64(len(e.key)) + state
	c.bytes += bytes - e.bytes
	e.bytes = bytes
}

// measure notes how large an entity has become that does not lie flat.
func (c *cache) measure(e *cached) {
	if e.whole != nil {
		c.sized(e, int64(e.whole.Bytes()))
	}
}

// limit is the cache's part of the memory.
func (c *cache) limit() int64 { return c.share.bytes / max(c.share.caches.Load(), 1) }

// full reports whether what Redis does not have must be written to make room.
func (c *cache) full() bool { return c.bytes > c.limit() }

// maxTrim bounds how many entities one trim looks at.
const maxTrim = 4096

// trim lets go of entities until the limit holds, leaving those that Redis does not have. One that was used since it was looked at last stays
// for another round (the CLOCK algorithm, Corbato 1968): a hit then costs no move in a list.
func (c *cache) trim() {
	limit := c.limit()
	for range min(len(c.slabs)*slabSize, maxTrim) {
		if c.bytes <= limit {
			break
		}
		e := &c.slabs[c.hand/slabSize][c.hand%slabSize]
		c.hand = (c.hand + 1) % (len(c.slabs) * slabSize)
		switch {
		case !e.held:
		case e.used || e.dirty || e.flying:
			e.used = false
		default:
			c.drop(e)
		}
	}
	if c.blocks.sparse() {
		c.compact()
	}
}

// drop lets go of an entity.
func (c *cache) drop(e *cached) {
	c.entities.remove(e)
	if c.evicted != nil {
		c.evicted.add(e.hash)
	}
	c.release(e)
	c.bytes -= e.bytes
	*e = cached{}
	c.free = append(c.free, e)
}

// compact moves all entities that lie flat together.
func (c *cache) compact() {
	before := c.blocks
	c.blocks = blocks{}
	for _, slab := range c.slabs {
		for i := range slab {
			if e := &slab[i]; e.words > 0 {
				at := c.blocks.take(int(e.room))
				copy(c.blocks.run(at, int(e.words)), before.run(e.at, int(e.words)))
				e.at = at
			}
		}
	}
}
