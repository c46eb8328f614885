package ingest

// blocks is memory for entities that lie flat: runs of words without pointers in few large pieces, so that a collector of garbage
// does not visit each. A run is named by the number of its first word, and has room for as many words as its class.
type blocks struct {
	chunks [][]uint64
	next   uint32 // the first word that was never taken
	free   [blockClasses][]uint32
	taken  int // words
	idle   int // words that are free
}

// A run has room for a multiple of 4 words, one of more than 64 words of 16.
const (
	chunkWords   = 1 << 13
	mostFlat     = 256 // words of a run
	blockClasses = 64/4 + (mostFlat-64)/16
)

// roomFor is the room of a run of n words.
func roomFor(n int) int {
	if n <= 64 {
		return (n + 3) &^ 3
	}
	return (n + 15) &^ 15
}

func blockClass(room int) int {
	if room <= 64 {
		return room/4 - 1
	}
	return 64/4 - 1 + (room-64)/16
}

// take gives a run with so much room, as roomFor has it.
func (b *blocks) take(room int) (at uint32) {
	b.taken += room
	free := &b.free[blockClass(room)]
	if last := len(*free) - 1; last >= 0 {
		at, *free = (*free)[last], (*free)[:last]
		b.idle -= room
		return at
	}
	if int(b.next)+room > len(b.chunks)*chunkWords {
		b.next = uint32(len(b.chunks) * chunkWords)
		b.chunks = append(b.chunks, make([]uint64, chunkWords))
	}
	at = b.next
	b.next += uint32(room)
	return at
}

// give takes a run back.
func (b *blocks) give(at uint32, room int) {
	class := blockClass(room)
	b.free[class] = append(b.free[class], at)
	b.taken -= room
	b.idle += room
}

// run is n words from at.
func (b *blocks) run(at uint32, n int) []uint64 {
	from := at % chunkWords
	return b.chunks[at/chunkWords][from : from+uint32(n)]
}

// sparse reports whether so much is free, in runs of whatever room, that it pays to move what is taken together.
func (b *blocks) sparse() bool { return b.idle > 4*chunkWords && b.idle > b.taken/2 }
