package consistency

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"slices"

	"github.com/millrace/millrace/features"
	"github.com/millrace/millrace/internal/failure"
)

// replay computes the reads of one group's entities again.
type replay struct {
	served  *served
	kept    map[int32]int64 // by source partition, what the offline files have
	exact   bool            // the order of the events is known
	bound   float64         // between values whose events' order is not
	report  *Report
	scratch features.Scratch
	results []features.Result
}

// run takes the entities in the order of their keys, so that equal logs give equal reports.
func (r *replay) run() error {
	for _, key := range r.keys() {
		if err := r.entity(r.served.entities[key]); err != nil {
			return fmt.Errorf("replaying entity %q of %s: %w", key, r.served.group.Name, err)
		}
	}
	return nil
}

func (r *replay) keys() []string { return slices.Sorted(maps.Keys(r.served.entities)) }

// entity answers one entity's reads from the earliest position to the latest, adding the events between one and the next. A position that is
// not after the one before in every partition (Redis was set back and filled again) begins with no events.
func (r *replay) entity(e *entity) error {
	slices.SortStableFunc(e.reads, func(a, b *read) int { return cmp.Or(cmp.Compare(sum(a.upTo), sum(b.upTo)), cmp.Compare(a.at, b.at)) })
	p := newPast(r.served, e)
	for _, read := range e.reads {
		if r.pending(read) {
			r.report.Skipped.Pending++
			continue
		}
		if !p.before(read.upTo) {
			p = newPast(r.served, e)
		}
		if err := p.advance(read.upTo); err != nil {
			return err
		}
		r.read(p, read)
		r.report.Reads++
		for i := range read.values {
			r.compare(e, read, &read.values[i])
		}
	}
	return nil
}

func sum(offsets []int64) (n int64) {
	for _, o := range offsets {
		n += o
	}
	return n
}

// pending reports whether the read saw events that are not in the offline files yet.
func (r *replay) pending(read *read) bool {
	for partition, next := range read.upTo {
		if next > r.kept[int32(partition)] {
			return true
		}
	}
	return false
}

func (r *replay) compare(e *entity, read *read, v *value) {
	group := r.served.group
	status, number := computed(&r.results[v.output], v.names)
	f := r.report.feature(group.Name + "." + group.Outputs[v.output].Name)
	f.Compared++
	switch {
	case status != v.status && (status == statusPresent || v.status == statusPresent):
		f.Missing++
	case status != v.status:
		f.Mismatched++
	case status != statusPresent || number == v.number:
		f.both(v.number, number, status == statusPresent)
		return
	case v.names != nil:
		f.Mismatched++ // there is no distance between codes
	default:
		f.both(v.number, number, true)
		if !r.exact && math.Abs(number-v.number) <= r.bound*max(math.Abs(number), math.Abs(v.number)) {
			return
		}
		f.Mismatched++
	}
	f.example(r.report.examples, Example{
		Prediction: read.prediction, Entity: e.key, At: read.at,
		Served: side(v.status, v.number, v.names), Recomputed: side(status, number, v.names),
	})
}

// past is an entity's state as of a position.
type past struct {
	served  *served
	entity  *features.Entity
	applied bool      // some event was
	rest    [][]event // by source partition, what is still to come
	upTo    []int64   // by source partition
}

func newPast(s *served, e *entity) *past {
	p := &past{served: s, entity: s.group.NewEntity(), rest: make([][]event, s.width), upTo: make([]int64, s.width)}
	for from := 0; from < len(e.events); {
		until := from
		for until < len(e.events) && e.events[until].partition == e.events[from].partition {
			until++
		}
		if partition := int(e.events[from].partition); partition < s.width { // no read has seen the others
			p.rest[partition] = e.events[from:until]
		}
		from = until
	}
	return p
}

// state is nil before the first event: there is none in Redis then.
func (p *past) state() *features.Entity {
	if !p.applied {
		return nil
	}
	return p.entity
}

// before reports whether a position is this one or later in every partition.
func (p *past) before(upTo []int64) bool {
	for partition, at := range p.upTo {
		if at > offsetAt(upTo, partition) {
			return false
		}
	}
	return true
}

func offsetAt(upTo []int64, partition int) int64 {
	if partition < len(upTo) {
		return upTo[partition]
	}
	return 0
}

// advance applies the events up to a position: those of one source partition in their order, of several by event time.
func (p *past) advance(upTo []int64) error {
	for {
		next := -1
		for partition, rest := range p.rest {
			due := len(rest) > 0 && rest[0].offset < offsetAt(upTo, partition)
			if due && (next < 0 || rest[0].time < p.rest[next][0].time) {
				next = partition
			}
		}
		if next < 0 {
			break
		}
		ev := &p.rest[next][0]
		p.rest[next] = p.rest[next][1:]
		outcome, err := p.served.group.Add(p.entity, ev.row, ev.time, features.Sequence(ev.partition, ev.offset))
		if err != nil && !failure.Of(err).DeadLetter() {
			return err
		}
		p.applied = p.applied || err == nil && outcome == features.Applied
	}
	copy(p.upTo, upTo)
	return nil
}
