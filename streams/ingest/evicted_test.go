package ingest

import (
	"fmt"
	"testing"
)

// No entity that the cache let go of passes for new, and few others for one that it let go of.
func TestEvicted(t *testing.T) {
	c := newCache(&cacheShare{bytes: 100 * perEntity}, cacheGroup(t))
	c.evicted = &evicted{}
	const entities = 50_000
	for i := range entities {
		if e := c.add(fmt.Sprint("card", i)); !c.isNew(e) && c.evicted.bits == nil {
			t.Fatalf("entity %d is not new before any was let go of", i)
		}
		c.trim()
	}
	gone := 0
	for i := range entities {
		if key := fmt.Sprint("card", i); c.get(key) == nil {
			gone++
			if c.isNew(c.add(key)) {
				t.Fatalf("%s was let go of, and passes for new", key)
			}
		}
	}
	if gone < entities*9/10 {
		t.Fatalf("of %d entities %d were let go of", entities, gone)
	}
	taken := 0
	for i := range entities {
		if !c.isNew(c.add(fmt.Sprint("other", i))) {
			taken++
		}
	}
	if taken > entities/50 {
		t.Errorf("%d of %d entities never seen before are asked for", taken, entities)
	}
	c.evicted = nil
	if c.isNew(c.add("any")) {
		t.Error("an entity passes for new where Redis may have a state of it")
	}
}
