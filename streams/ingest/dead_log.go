package ingest

import (
	"log/slog"
	"sync"
	"time"

	"github.com/millrace/millrace/schemas"
)

// deadLogEvery is how often dead letters of one class of one source or group are told in the log at most.
const deadLogEvery = time.Minute

// deadLog tells in the log that there are dead letters: the first of a class of a source or group at once, and those after it with their number, now
// and then. It says where the record is and not what is in it, nor the reason, which quotes keys: those are in the dead letter.
type deadLog struct {
	log *slog.Logger
	now func() time.Time

	mu   sync.Mutex
	told map[deadKind]*deadCount
}

type deadKind struct{ stage, class string }

type deadCount struct {
	last time.Time
	n    int // since then
}

func newDeadLog(log *slog.Logger, now func() time.Time) *deadLog {
	return &deadLog{log: log, now: now, told: map[deadKind]*deadCount{}}
}

func (d *deadLog) note(l *schemas.DeadLetter) {
	now := d.now()
	d.mu.Lock()
	defer d.mu.Unlock()
	kind := deadKind{l.Stage, l.Class}
	c := d.told[kind]
	if c == nil {
		c = &deadCount{last: now.Add(-deadLogEvery)}
		d.told[kind] = c
	}
	c.n++
	if now.Sub(c.last) < deadLogEvery {
		return
	}
	d.log.Warn("records became dead letters; the reasons: millrace dead-letters list", "by", l.Stage, "class", l.Class, "records", c.n,
		"topic", l.Topic, "partition", l.Partition, "offset", l.Offset)
	c.last, c.n = now, 0
}
