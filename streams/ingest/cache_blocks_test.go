package ingest

import (
	"math/rand/v2"
	"testing"
)

// Runs that are taken never share a word, whatever was given back between, and what is given back is used again.
func TestBlocks(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	type taken struct {
		at    uint32
		words int
		mark  uint64
	}
	var b blocks
	var all []taken
	held := 0
	for step := range uint64(200_000) {
		if len(all) > 0 && random.IntN(1000) < len(all) {
			i := random.IntN(len(all))
			x := all[i]
			for _, w := range b.run(x.at, x.words) {
				if w != x.mark {
					t.Fatalf("step %d: a run of %d words was written over", step, x.words)
				}
			}
			b.give(x.at, roomFor(x.words))
			held -= roomFor(x.words)
			all[i] = all[len(all)-1]
			all = all[:len(all)-1]
			continue
		}
		x := taken{words: 1 + random.IntN(mostFlat), mark: step}
		x.at = b.take(roomFor(x.words))
		held += roomFor(x.words)
		for i := range b.run(x.at, x.words) {
			b.run(x.at, x.words)[i] = step
		}
		all = append(all, x)
	}
	if b.taken != held {
		t.Errorf("%d words are taken, must be %d", b.taken, held)
	}
	if most := 8 * 1000 * mostFlat; len(b.chunks)*chunkWords > most {
		t.Errorf("%d words of memory for at most 1000 runs", len(b.chunks)*chunkWords)
	}
}

// A run's room is that of its class, enough, and no class has two rooms.
func TestRooms(t *testing.T) {
	rooms := map[int]int{}
	for n := 1; n <= mostFlat; n++ {
		room := roomFor(n)
		class := blockClass(room)
		if before, there := rooms[class]; room < n || room > n+15 || class < 0 || class >= blockClasses || there && before != room {
			t.Fatalf("%d words: room for %d, class %d", n, room, class)
		}
		rooms[class] = room
	}
	if len(rooms) != blockClasses {
		t.Errorf("%d classes are used of %d", len(rooms), blockClasses)
	}
}
