package serving

import (
	"strings"
	"sync"
)

// recent keeps the last predictions to be asked for by model and join key, the newest of each; the oldest make room. They are kept as they
// stand on the topic, which is the least memory and nothing for the garbage collector to look through.
type recent struct {
	mu    sync.Mutex
	ring  []recentKey
	next  int
	byKey map[recentKey]kept
}

type recentKey struct{ model, joinKey string }

type kept struct {
	at         int // in the ring
	prediction []byte
}

func newRecent(size int) *recent {
	return &recent{ring: make([]recentKey, size), byKey: make(map[recentKey]kept, size)}
}

// put keeps a prediction; one without a join key cannot be asked for.
func (r *recent) put(model, joinKey string, prediction []byte) {
	if joinKey == "" {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if old := r.ring[r.next]; r.byKey[old].at == r.next {
		delete(r.byKey, old)
	}
	key := recentKey{model, strings.Clone(joinKey)} // which may be part of a request's body
	r.ring[r.next], r.byKey[key] = key, kept{r.next, prediction}
	r.next = (r.next + 1) % len(r.ring)
}

// get is the newest prediction of a join key; nil when there is none.
func (r *recent) get(model, joinKey string) []byte {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.byKey[recentKey{model, joinKey}].prediction
}
