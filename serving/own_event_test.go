package serving

import (
	"testing"
	"time"

	"github.com/millrace/millrace/features"
	"github.com/millrace/millrace/features/online"
	"github.com/millrace/millrace/project"
	"github.com/millrace/millrace/schemas"
)

// ownWorld is a world whose model is asked on the source that its group is computed from, with the event that asks merged in.
func ownWorld(t *testing.T) (*world, *plan) {
	t.Helper()
	w := newWorld(t)
	m, g := w.model(), w.group()
	m.On = g.Source
	m.Inputs = m.Inputs[:len(g.Outputs)]
	for i := range m.Inputs {
		in := &m.Inputs[i]
		in.Entity = []int{m.On.Schema.Index("origin")}
		in.Own = must[*project.OwnEvent](t)(m.OwnEvent(g, in.Entity))
	}
	return w, must[*plan](t)(compilePlan(m, w.project.Groups, nil))
}

// The event that asks counts once, whether or not it was applied when its entity was read: at a time after it, as under clock: wall, and
// at its own, as under clock: event.
func TestTheEventThatAsksCountsOnce(t *testing.T) {
	w, p := ownWorld(t)
	g := w.group()
	own := noon.UnixMilli()
	arrived := func(at, delay int64) schemas.Row {
		return schemas.Row{schemas.StringValue("f"), schemas.TimeValue(at), schemas.StringValue("ATL"), schemas.IntValue(delay)}
	}
	state := func(events ...int64) []byte {
		e := g.NewEntity()
		for i, at := range events {
			must[features.Outcome](t)(g.Add(e, arrived(at, 10), at, int64(i)))
		}
		return e.AppendBinary(nil)
	}
	earlier := own - 2*time.Minute.Milliseconds()
	const partition, offset = 2, 7
	keyed := func(last int64) online.Position {
		return online.Position{Sources: map[online.SourcePartition]int64{{Source: "arrivals", Partition: partition}: last, {Source: "arrivals", Partition: 0}: 1000}}
	}
	for _, c := range []struct {
		name   string
		direct bool
		entry  online.Entry
		http   bool
		want   float64
	}{
		{"not applied", false, online.Entry{State: state(earlier), Position: keyed(offset - 1)}, false, 2},
		{"applied", false, online.Entry{State: state(earlier, own), Position: keyed(offset)}, false, 2},
		{"applied, with others after it", false, online.Entry{State: state(earlier, own, own+10_000), Position: keyed(offset + 5)}, false, 2},
		{"nothing of its partition is applied", false, online.Entry{State: state(earlier)}, false, 2},
		{"nothing is known", false, online.Entry{Position: keyed(offset - 1)}, false, 1},
		{"not applied, directly", true, online.Entry{State: state(earlier), Partition: partition, Position: online.Position{Next: offset}}, false, 2},
		{"applied, directly", true, online.Entry{State: state(earlier, own), Partition: partition, Position: online.Position{Next: offset + 1}}, false, 2},
		{"over HTTP", false, online.Entry{State: state(earlier), Position: keyed(offset)}, true, 2},
	} {
		g.Direct = c.direct
		for _, at := range []int64{own, own + 5000} {
			q := question{row: arrived(own, 30), at: at, record: &record{partition: partition, offset: offset, time: own}}
			if c.http {
				q.record = nil
			}
			f := newFiller(p)
			f.prepare([]question{q}, func(int, string, error) { t.Error("nobody is named") })
			f.read([]online.Entry{c.entry})
			var in filled
			f.fill(0, q, &in)
			if in.status[0] != present || in.values[0] != c.want {
				t.Errorf("%s, read %d ms after it: %s is %v (%s), want %v", c.name, at-own, p.inputs[0].name, in.values[0], in.status[0], c.want)
			}
			if len(in.positions) != 1 || in.positions[0].Version != g.Version+project.RequestMark {
				t.Errorf("%s: positions %+v", c.name, in.positions)
			}
		}
	}
}

// A model that was trained with the event merged in is not fed without it, nor the other way round.
func TestASignatureSaysWhatIsMergedIn(t *testing.T) {
	_, with := ownWorld(t)
	without := must[*plan](t)(compilePlan(newWorld(t).model(), newWorld(t).project.Groups, nil))
	if a, b := with.inputs[0].source, without.inputs[0].source; a != b+project.RequestMark {
		t.Errorf("the sources are %s and %s", a, b)
	}
}
