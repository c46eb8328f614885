package serving

import (
	"sync"

	"github.com/millrace/millrace/schemas"
)

// recent keeps the last predictions to be asked for by model and join key, the newest of each; the oldest make room.
type recent struct {
	mu    sync.Mutex
	ring  []*schemas.Prediction
	next  int
	byKey map[recentKey]*schemas.Prediction
}

type recentKey struct{ model, joinKey string }

func keyOf(p *schemas.Prediction) recentKey { return recentKey{p.Model, p.JoinKey} }

func newRecent(size int) *recent {
	return &recent{ring: make([]*schemas.Prediction, size), byKey: make(map[recentKey]*schemas.Prediction, size)}
}

// put keeps predictions; one without a join key cannot be asked for.
func (r *recent) put(predictions ...*schemas.Prediction) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, p := range predictions {
		if p.JoinKey == "" {
			continue
		}
		if old := r.ring[r.next]; old != nil && r.byKey[keyOf(old)] == old {
			delete(r.byKey, keyOf(old))
		}
		r.ring[r.next], r.byKey[keyOf(p)] = p, p
		r.next = (r.next + 1) % len(r.ring)
	}
}

func (r *recent) get(model, joinKey string) *schemas.Prediction {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.byKey[recentKey{model, joinKey}]
}
