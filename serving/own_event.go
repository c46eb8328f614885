package serving

import (
	"github.com/millrace/millrace/features"
	"github.com/millrace/millrace/features/online"
	"github.com/millrace/millrace/project"
	"github.com/millrace/millrace/schemas"
)

// record is where a question stands in the topic that the model is on, and when it happened.
type record struct {
	partition int32
	offset    int64
	time      int64 // event time, Unix milliseconds
}

// resolveWith gives the windows of an entity with the row's own event merged in (features.Group.ReadWith): at the question's time, or where
// the question is a record, at the record's event time.
func (f *filler) resolveWith(g, ref int, q question) []features.Result {
	planned := &f.plan.groups[g]
	own := features.OwnEvent{Time: q.at}
	if q.record != nil {
		own.Time = q.record.time
		own.Applied = planned.own.Same && applied(planned.group, f.plan.model.On.Name, q.record, &f.entries[ref])
	}
	var takes bool
	if f.own, takes = planned.own.Row(q.row, own.Time, f.own); !takes {
		return f.resolve(g, ref, q.at)
	}
	own.Row = f.own
	f.merged = planned.group.ReadViewWith(&f.scratch[g], f.entities[ref].view, own, q.at, f.merged)
	return f.merged
}

// applied reports whether a record of a source had been applied to a group when an entity was read, by the position that it was read at.
func applied(g *project.Group, source string, r *record, e *online.Entry) bool {
	if g.Direct {
		return e.Partition == r.partition && r.offset < e.Position.Next
	}
	last, any := e.Position.Sources[online.SourcePartition{Source: source, Partition: r.partition}]
	return any && r.offset <= last
}

// recordOf is the place of a record with its event time: that of its column, or the time it is asked for where it has none.
func recordOf(row schemas.Row, timeColumn int, partition int32, offset, at int64) *record {
	if timeColumn >= 0 && !row[timeColumn].IsNull() {
		at = row[timeColumn].Int()
	}
	return &record{partition: partition, offset: offset, time: at}
}
