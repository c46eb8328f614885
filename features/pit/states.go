package pit

import (
	"math/bits"
	"os"
	"slices"
	"sync"

	"github.com/millrace/millrace/features"
)

// held is the state of an entity.
type held struct {
	state *features.Entity // nil while it lies in the file
	used  int              // the last slice that needed it
	bytes int64            // of memory, when it was last looked at
	at    int64            // where it lies in the file
	size  int              // how long it is there; 0 when it does not lie there
}

// stateFile keeps the encoded states of entities that were not needed for long. A place is a power of two bytes, and is
// used again when its state has come back to memory.
type stateFile struct {
	dir  string
	mu   sync.Mutex
	file *os.File
	end  int64
	free [64][]int64 // places, by the logarithm of their length
}

// keep moves a state to the file. It must not run beside restore.
func (f *stateFile) keep(h *held, buffer []byte) ([]byte, error) {
	if f.file == nil {
		var err error
		if f.file, err = tempFile(f.dir, "millrace-states-"); err != nil {
			return buffer, err
		}
	}
	buffer = h.state.AppendBinary(buffer[:0])
	class := bits.Len(uint(len(buffer) - 1))
	at := f.end
	if n := len(f.free[class]); n > 0 {
		at, f.free[class] = f.free[class][n-1], f.free[class][:n-1]
	} else {
		f.end += 1 << class
	}
	if _, err := f.file.WriteAt(buffer, at); err != nil {
		return buffer, spillFailed(f.file.Name(), err)
	}
	h.state, h.bytes, h.at, h.size = nil, 0, at, len(buffer)
	return buffer, nil
}

// restore brings a state back. Several goroutines may, each another one.
func (f *stateFile) restore(g *features.Group, h *held, buffer []byte) ([]byte, error) {
	buffer = slices.Grow(buffer[:0], h.size)[:h.size]
	if _, err := f.file.ReadAt(buffer, h.at); err != nil {
		return buffer, spillFailed(f.file.Name(), err)
	}
	state, err := g.Decode(buffer)
	if err != nil {
		return buffer, err
	}
	class := bits.Len(uint(h.size - 1))
	f.mu.Lock()
	f.free[class] = append(f.free[class], h.at)
	f.mu.Unlock()
	h.state, h.size = state, 0
	return buffer, nil
}

func (f *stateFile) close() {
	if f.file != nil {
		f.file.Close()
	}
}

// makeRoom moves states to the file, those first that were not needed for longest, until three quarters of the limit are
// used. It runs between slices.
func (j *join) makeRoom() error {
	j.bytes = 0
	var resident []*held
	for _, g := range j.groups {
		for i := range g.states {
			if h := &g.states[i]; h.state != nil {
				resident = append(resident, h)
				j.bytes += h.bytes
			}
		}
	}
	slices.SortFunc(resident, func(a, b *held) int { return a.used - b.used })
	var buffer []byte
	for _, h := range resident {
		if j.bytes <= j.cfg.MaxStateBytes/4*3 {
			break
		}
		j.bytes -= h.bytes
		var err error
		if buffer, err = j.file.keep(h, buffer); err != nil {
			return err
		}
	}
	return nil
}
