// Package idle keeps memory that is to be used again.
package idle

import "sync"

// Memory is what waits to be used again, the last that came first. What comes when Most bytes wait already is left to the garbage collector. It is
// for pieces that are large and few: a sync.Pool has one list for each processor, which nobody bounds, and which every collection empties,
// so that they are grown from nothing again and again. Memory is safe for concurrent use.
type Memory[T any] struct {
	Most int // bytes

	mu    sync.Mutex
	waits []piece[T]
	bytes int
}

type piece[T any] struct {
	of    T
	bytes int
}

// Get is a piece that waits; false when there is none.
func (m *Memory[T]) Get() (of T, ok bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	last := len(m.waits) - 1
	if last < 0 {
		return of, false
	}
	p := m.waits[last]
	m.waits[last] = piece[T]{}
	m.waits = m.waits[:last]
	m.bytes -= p.bytes
	return p.of, true
}

// Put gives a piece of so many bytes back. Nothing may refer to it any more.
func (m *Memory[T]) Put(of T, bytes int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.bytes+bytes <= m.Most {
		m.waits = append(m.waits, piece[T]{of, bytes})
		m.bytes += bytes
	}
}
