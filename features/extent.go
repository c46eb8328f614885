package features

// extent is where a growing state lies among the words of an arena: a collector of garbage has nothing to look for there. The empty state
// lies nowhere.
type extent struct{ at, words, room uint32 }

// extentBytes is the size of an extent.
const extentBytes = 12

// of is the state. Beyond its words it may grow into its room.
func (x extent) of(arena []uint64) []uint64 { return arena[x.at : x.at+x.words : x.at+x.room] }

// smallState is up to how many words a state is given room to grow before it needs it: hashes come one by one, until they are registers.
const smallState = registerWords

// grow gives a small state room for more words, and is the state.
func (e *Entity) grow(x *extent) []uint64 {
	if x.words == x.room && x.words < smallState {
		e.makeRoom(roomFor(int(x.words)))
		e.place(x, x.of(e.arena))
	}
	return x.of(e.arena)
}

// keep makes state, which add or merge made of what lay at x, lie there.
func (e *Entity) keep(x *extent, state []uint64) {
	switch {
	case len(state) == 0:
		*x = extent{}
	case x.room > 0 && &state[0] == &e.arena[x.at]:
		x.words = uint32(len(state))
	default:
		e.place(x, state)
	}
}

func roomFor(words int) int {
	if words < smallState {
		return words + words/4 + 1
	}
	return words
}

// place copies a state to the end of the arena, a small one with room for a quarter more words.
func (e *Entity) place(x *extent, state []uint64) {
	room := roomFor(len(state))
	*x = extent{}
	if len(e.arena)+room > cap(e.arena) {
		e.pack(room)
	}
	*x = extent{at: uint32(len(e.arena)), words: uint32(len(state)), room: uint32(room)}
	e.arena = e.arena[:len(e.arena)+room]
	copy(e.arena[x.at:], state)
}

// makeRoom has room for more words behind the states. They are moved together where they lie if that gives back a fair part of the arena, so
// nothing outside may refer to them.
func (e *Entity) makeRoom(more int) {
	if len(e.arena)+more <= cap(e.arena) {
		return
	}
	live := e.live()
	if live+live/4+more > cap(e.arena) {
		e.pack(more)
		return
	}
	old, _ := e.group.arenas.Get().(*[]uint64)
	if old == nil {
		old = new([]uint64)
	}
	*old = append((*old)[:0], e.arena...)
	e.arena = e.line(e.arena[:0], *old)
	e.group.arenas.Put(old)
}

// live is how many words the states have room for.
func (e *Entity) live() int {
	n := 0
	for _, x := range e.growing {
		n += int(x.room)
	}
	return n
}

// pack moves the states to a new arena, without what lies between them and with room for more words.
func (e *Entity) pack(more int) {
	live := e.live()
	e.arena = e.line(append([]uint64(nil), make([]uint64, live+live/2+more)...)[:0], e.arena) // as much as the allocator gives
}

// line copies the states from one arena to another, one after the other, and gives that.
func (e *Entity) line(to, from []uint64) []uint64 {
	for i := range e.growing {
		x := &e.growing[i]
		if x.words == 0 {
			*x = extent{}
			continue
		}
		at := uint32(len(to))
		to = append(to, x.of(from)[:x.room]...)
		x.at = at
	}
	return to
}
