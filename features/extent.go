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

// place copies a state to the end of the arena, a small one with room for a quarter more words.
func (e *Entity) place(x *extent, state []uint64) {
	room := len(state)
	if room < smallState {
		room += room/4 + 1
	}
	*x = extent{}
	if len(e.arena)+room > cap(e.arena) {
		e.pack(room)
	}
	*x = extent{at: uint32(len(e.arena)), words: uint32(len(state)), room: uint32(room)}
	e.arena = e.arena[:len(e.arena)+room]
	copy(e.arena[x.at:], state)
}

// pack moves the states to a new arena, without what lies between them and with room for more words.
func (e *Entity) pack(more int) {
	live := 0
	for _, x := range e.growing {
		live += int(x.room)
	}
	arena := append([]uint64(nil), make([]uint64, live+live/2+more)...)[:0] // as much as the allocator gives
	for i := range e.growing {
		x := &e.growing[i]
		if x.words == 0 {
			*x = extent{}
			continue
		}
		at := uint32(len(arena))
		arena = append(arena, x.of(e.arena)[:x.room]...)
		x.at = at
	}
	e.arena = arena
}
