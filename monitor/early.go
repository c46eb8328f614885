package monitor

// earlyLabel is a label that came before the prediction it belongs to: the two are read from different topics.
type earlyLabel struct {
	truth float64 // as project.Label.Truth has it
	at    int64
	from  origin
}

// earlyLabels keeps labels until event time has passed them, because no prediction is about what was known before it.
type earlyLabels struct {
	byKey map[string]earlyLabel
	queue []queuedLabel // in the order they came
	first int           // of the queue that is still in use
}

type queuedLabel struct {
	key  string
	from origin
}

func newEarlyLabels() *earlyLabels { return &earlyLabels{byKey: map[string]earlyLabel{}} }

func (e *earlyLabels) size() int { return len(e.byKey) }

func (e *earlyLabels) find(key string) (earlyLabel, bool) {
	l, ok := e.byKey[key]
	return l, ok
}

// keep adds a label; the oldest gives way when there is no room.
func (e *earlyLabels) keep(key string, l earlyLabel, limit int) {
	e.byKey[key] = l
	e.queue = append(e.queue, queuedLabel{key, l.from})
	for len(e.byKey) > limit {
		e.drop()
	}
}

// forget drops the labels from before an event time, oldest first; one that came out of order stays until those before it go.
func (e *earlyLabels) forget(before int64) {
	for e.first < len(e.queue) {
		front := e.queue[e.first]
		if l, ok := e.byKey[front.key]; ok && l.from == front.from && l.at >= before {
			return
		}
		e.drop()
	}
}

// drop takes the front of the queue away.
func (e *earlyLabels) drop() {
	front := e.queue[e.first]
	if l, ok := e.byKey[front.key]; ok && l.from == front.from {
		delete(e.byKey, front.key)
	}
	e.first++
	if e.first*2 > len(e.queue) {
		e.queue = append(e.queue[:0], e.queue[e.first:]...)
		e.first = 0
	}
}

// low is the first offset per partition of what is kept. Offsets of a partition ascend in the queue.
func (e *earlyLabels) low() lowWater {
	low := lowWater{}
	for _, l := range e.queue[e.first:] {
		if _, ok := low[l.from.topic][l.from.partition]; !ok {
			low.note(l.from)
		}
	}
	return low
}
