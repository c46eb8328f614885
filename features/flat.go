package features

// An entity lies flat when all that it holds is one run of words, without pointers: a cache of many entities keeps them so, each in as
// little memory as it needs, and a collector of garbage has nothing to look at. Unlike a stored state (codec.go) it is not packed: an
// entity is made of it, and it of the entity, by copying.
//
//	newest and oldest event time, with exact windows where exact tiles begin
//	the number of tiles of each level, then of the remainder, four in a word
//	the tiles' rows
//	how many words each growing state has, four in a word
//	the growing states, one after the other

// mostFlatState is how many words a growing state may have to lie flat.
const mostFlatState = 1<<16 - 1

func (g *Group) flatHeader() int {
	n := 2 + wordsOf16(len(g.levels)+1)
	if g.exactMost > 0 {
		n++
	}
	return n
}

// wordsOf16 is how many words n numbers of 16 bits take.
func wordsOf16(n int) int { return (n + 3) / 4 }

// FlatWords is how many words e takes when it lies flat; false when it does not: it remembers names, or a state is very large.
func (e *Entity) FlatWords() (n int, ok bool) {
	n = e.group.flatHeader() + len(e.words) + wordsOf16(len(e.growing))
	for i := range e.growing {
		words := int(e.growing[i].words)
		if words > mostFlatState {
			return 0, false
		}
		n += words
	}
	return n, e.seen == nil
}

// PutFlat lays e flat into dst, of FlatWords words.
func (e *Entity) PutFlat(dst []uint64) {
	g := e.group
	dst[0], dst[1] = uint64(e.newest), uint64(e.oldest)
	dst = dst[2:]
	if g.exactMost > 0 {
		dst[0] = uint64(e.exactFrom)
		dst = dst[1:]
	}
	n := wordsOf16(len(g.levels) + 1)
	clear(dst[:n])
	for l := range len(g.levels) + 1 {
		put16(dst, l, uint64(e.counts[l]))
	}
	dst = dst[n:]
	dst = dst[copy(dst, e.words):]
	n = wordsOf16(len(e.growing))
	clear(dst[:n])
	states := dst[n:]
	for i := range e.growing {
		x := &e.growing[i]
		put16(dst, i, uint64(x.words))
		states = states[copy(states, x.of(e.arena)):]
	}
}

// put16 sets number i of 16 bits, which is 0.
func put16(words []uint64, i int, n uint64) { words[i/4] |= n << (i % 4 * 16) }

// load16 is number i of 16 bits.
func load16(words []uint64, i int) uint64 { return words[i/4] >> (i % 4 * 16) & (1<<16 - 1) }

// LoadFlat makes e, an entity of the group, what PutFlat laid into src. It keeps no reference to src, and uses e's memory again.
func (g *Group) LoadFlat(e *Entity, src []uint64) {
	e.newest, e.oldest, e.exactFrom, e.seen = int64(src[0]), int64(src[1]), noTime, nil
	src = src[2:]
	if g.exactMost > 0 {
		e.exactFrom = int64(src[0])
		src = src[1:]
	}
	e.tiles = 0
	for l := range len(g.levels) + 1 {
		e.counts[l] = uint16(load16(src, l))
		e.tiles += int(e.counts[l])
	}
	src = src[wordsOf16(len(g.levels)+1):]
	e.words = append(e.words[:0], src[:e.tiles*g.stride]...)
	src = src[e.tiles*g.stride:]
	n := e.tiles * g.growing
	if cap(e.growing) < n {
		e.growing = make([]extent, n+n/4)
	}
	e.growing = e.growing[:n]
	states := src[wordsOf16(n):]
	e.arena = append(e.arena[:0], states...)
	at := uint32(0)
	for i := range e.growing {
		words := uint32(load16(src, i))
		e.growing[i] = extent{}
		if words > 0 {
			e.growing[i] = extent{at: at, words: words, room: words}
		}
		at += words
	}
}
