package ingest

import (
	"time"

	"github.com/millrace/millrace/features"
	"github.com/millrace/millrace/features/online"
	"github.com/millrace/millrace/project"
)

// materializeMost is about the most entities whose hashes one script writes: Redis does nothing else meanwhile.
const materializeMost = 5000

// materializeAhead is how far ahead of this machine's clock an event may be to be in its entity's hash. It was sent by a machine whose
// clock differs a little; a read a moment later would see it, but the hash may stay what it is.
const materializeAhead = time.Minute

// materializer makes the hashes of a materialized group. The zero materializer is ready.
type materializer struct {
	fields  []byte
	scratch features.Scratch
	results []features.Result
	size    int // of the last batch
}

// batch adds to b the values of entities as of a time, Unix milliseconds, where the group is materialized.
func (m *materializer) batch(b *online.Batch, g *group, c *cache, entities []*cached, at int64) {
	if !g.Materialize || len(entities) == 0 {
		return
	}
	if m.fields == nil {
		m.fields = online.Fields(g.Group.Group)
	}
	b.Fields, b.Values = m.fields, make([][]byte, len(entities))
	all := make([]byte, 0, m.size+m.size/4)
	ends := make([]int, len(entities))
	for i, e := range entities {
		entity := c.open(e)
		newest, of := entity.Newest(), at
		if newest >= at && newest < at+materializeAhead.Milliseconds() {
			of = newest + 1
		}
		m.results = g.ReadInto(&m.scratch, entity, of, m.results[:0])
		all = online.AppendValues(all, m.results, of, newest)
		ends[i] = len(all)
	}
	from := 0
	for i, end := range ends {
		b.Values[i], from = all[from:end:end], end
	}
	m.size = len(all)
}

// now is the time that the applier's values are of.
func (a *applier) now() int64 { return a.asOf(a.newest) }

// asOf is now by the project's clock, of a partition whose newest event has that time.
func (s *Stage) asOf(newest int64) int64 {
	if s.deps.Project.Clock == project.ClockEvent {
		return newest + 1
	}
	return s.deps.Clock().UnixMilli()
}
