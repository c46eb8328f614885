package serving

import (
	"math"
	"slices"

	"github.com/millrace/millrace/features"
	"github.com/millrace/millrace/features/online"
	"github.com/millrace/millrace/schemas"
)

// inputStatus is what is known of one input of one row.
type inputStatus uint8

// The first are features.Status; unavailable is an input whose group could not be read, or is being rebuilt; overridden and withheld are those that the request
// gave a value for, or null.
const (
	present inputStatus = iota
	null
	notFound
	expired
	overflow // an exact window had more events than are kept
	unavailable
	overridden
	withheld
	statuses // how many
)

var statusNames = [statuses]string{"present", "null", "not_found", "expired", "overflow", "unavailable", "overridden", "overridden"}

func (s inputStatus) String() string { return statusNames[s] }

// missing reports whether an input of the status has no value.
func (s inputStatus) missing() bool { return s != present && s != overridden }

// possible reports whether an input can have the status.
func (s inputStatus) possible(in plannedInput) bool { return in.group >= 0 || s == null }

func statusOf(s features.Status) inputStatus {
	switch s {
	case features.Present:
		return present
	case features.NotFound:
		return notFound
	case features.Expired:
		return expired
	case features.Overflow:
		return overflow
	default:
		return null
	}
}

// question is one row to be scored, as of a time.
type question struct {
	row    schemas.Row
	at     int64   // Unix milliseconds, noTime when it is yet to be chosen
	record *record // that it is; nil for a request over HTTP
	method string  // of explanation that is asked for

	overrides []override

	shown *shown  // to the shadow, once it is answered; nil: its prediction
	line  *lineUp // that answered it
}

const noTime = math.MinInt64

// filled is the inputs of one row, in the order of the plan.
type filled struct {
	plan      *plan
	values    []float64 // NaN where the status is of a missing input
	status    []inputStatus
	eventTime []int64 // by plan group: newest event time of the entity, 0 when there is none
	positions []schemas.ReadPosition
	unread    reason // why the groups of unavailable inputs could not be read
}

// noEntity is the ref of a row whose entity columns are null: there is nobody to read about.
const noEntity = -1

// filler fills the rows of one batch: prepare names the entities, somebody reads them (read, or fail when it could not be done), fill
// writes a row's inputs. Each entity is read and opened once, and its windows resolved, from the state as it came, once for each time
// asked about. Its memory is kept from batch to batch; it belongs to one goroutine.
type filler struct {
	plan    *plan
	refs    []online.Ref
	entries []online.Entry
	unread  reason

	rows     int
	rowRefs  []int // by row and plan group
	index    map[online.Ref]int
	entities []opened // by ref
	reads    map[readKey]int
	results  []features.Result
	own      schemas.Row         // of a row's own event
	merged   []features.Result   // of the last read with one
	scratch  []features.Scratch  // by plan group
	key      []map[string]string // by plan group
	spare    []*features.View    // of earlier batches, their memory to be used again
	in       filled              // of one row after the other
	work     scoring             // of its model
	sources  map[place][]schemas.SourcePosition
	beside   []*filler // for the same rows, of the plans beside it; their refs follow its own
}

// opened is an entity's state where it lies.
type opened struct {
	view  *features.View // nil without a state
	state openedState
}

type openedState uint8

const (
	unopened openedState = iota
	readable
	corrupt
)

type readKey struct {
	ref int
	at  int64
}

func newFiller(p *plan) *filler {
	f := &filler{
		plan: p, index: map[online.Ref]int{}, reads: map[readKey]int{}, sources: map[place][]schemas.SourcePosition{},
		scratch: make([]features.Scratch, len(p.groups)), key: make([]map[string]string, len(p.groups)),
	}
	for i := range p.groups {
		f.key[i] = map[string]string{}
	}
	return f
}

// prepare names the entities of the rows. A row that names none that could exist (too long, not text) is given to fault, with the
// column concerned, and is read about nobody.
func (f *filler) prepare(questions []question, fault func(row int, column string, err error)) {
	for i := range f.entities {
		if v := f.entities[i].view; v != nil {
			v.Close()
			f.spare = append(f.spare, v)
		}
	}
	clear(f.index)
	clear(f.reads)
	clear(f.sources)
	f.refs, f.rowRefs, f.results, f.entries, f.unread = f.refs[:0], f.rowRefs[:0], f.results[:0], nil, ""
	f.rows = len(questions)
	for i, q := range questions {
		for g := range f.plan.groups {
			ref, err := f.refOf(g, q.row)
			if err != nil {
				fault(i, f.plan.model.On.Schema.Columns[f.plan.groups[g].entity[0]].Name, err)
			}
			f.rowRefs = append(f.rowRefs, ref)
		}
	}
	f.entities = append(f.entities[:0], make([]opened, len(f.refs))...)
	f.prepareBeside(questions)
}

func (f *filler) refOf(g int, row schemas.Row) (int, error) {
	planned := &f.plan.groups[g]
	for i, c := range planned.entity {
		text := row[c].Text()
		if text == "" {
			return noEntity, nil
		}
		f.key[g][planned.group.Entity[i]] = text
	}
	key, err := planned.group.KeyOf(f.key[g])
	if err != nil {
		return noEntity, err
	}
	ref := online.Ref{Group: f.plan.number(planned), Key: key}
	n, seen := f.index[ref]
	if !seen {
		n = len(f.refs)
		f.index[ref] = n
		f.refs = append(f.refs, ref)
	}
	return n, nil
}

// read takes what was read for refs.
func (f *filler) read(entries []online.Entry) {
	f.entries = entries
	f.readBeside(len(f.entities))
}

// fail says that refs could not be read, and why.
func (f *filler) fail(why reason) {
	f.entries, f.unread = nil, why
	for _, b := range f.beside {
		b.fail(why)
	}
}

// newest is the newest event time that was applied to any partition read from.
func (f *filler) newest() int64 {
	var t int64
	for i := range f.entries {
		t = max(t, f.entries[i].Position.Newest)
	}
	return t
}

// fill writes the inputs of one row into out, whose slices are used again.
func (f *filler) fill(row int, q question, out *filled) {
	p := f.plan
	out.plan = p
	out.values = append(out.values[:0], make([]float64, len(p.inputs))...)
	out.status = append(out.status[:0], make([]inputStatus, len(p.inputs))...)
	out.eventTime = append(out.eventTime[:0], make([]int64, len(p.groups))...)
	out.positions, out.unread = make([]schemas.ReadPosition, 0, len(p.groups)), "" // the prediction keeps them
	for g := range p.groups {
		f.fillGroup(g, f.rowRefs[row*len(p.groups)+g], q, out)
	}
	for i, in := range p.inputs {
		if in.group < 0 {
			out.set(i, in.of(q.row))
		}
	}
	out.override(q.overrides)
}

func (f *filler) fillGroup(g, ref int, q question, out *filled) {
	planned := &f.plan.groups[g]
	if ref == noEntity {
		out.mark(planned.inputs, notFound)
		return
	}
	if f.entries == nil {
		out.mark(planned.inputs, unavailable)
		out.unread = f.unread
		return
	}
	e := &f.entries[ref]
	if e.Rebuilding {
		out.mark(planned.inputs, unavailable)
		out.unread = reasonRebuilding
		return
	}
	out.positions = append(out.positions, f.position(g, e))
	d := &f.entities[ref]
	if d.state == unopened {
		f.open(planned.group.Group, d, e.State)
	}
	if d.state == corrupt {
		out.mark(planned.inputs, unavailable)
		out.unread = reasonCorrupt
		return
	}
	if d.view != nil {
		out.eventTime[g] = d.view.Newest()
	}
	var results []features.Result
	if planned.own != nil {
		results = f.resolveWith(g, ref, q)
	} else {
		results = f.resolve(g, ref, q.at)
	}
	for i, o := range planned.outputs {
		r := &results[o]
		out.set(planned.inputs[i], f.plan.inputs[planned.inputs[i]].categories.Value(r.Value))
		if r.Status != features.Present {
			out.values[planned.inputs[i]], out.status[planned.inputs[i]] = math.NaN(), statusOf(r.Status)
		}
	}
}

func (f *filler) open(g *features.Group, d *opened, state []byte) {
	d.state = readable
	if state == nil {
		return
	}
	if n := len(f.spare); n > 0 {
		d.view, f.spare = f.spare[n-1], f.spare[:n-1]
	} else {
		d.view = &features.View{}
	}
	if g.Open(d.view, state) != nil {
		d.state = corrupt
	}
}

// resolve gives the windows of an entity as of a time.
func (f *filler) resolve(g, ref int, at int64) []features.Result {
	planned := &f.plan.groups[g]
	start, done := f.reads[readKey{ref, at}]
	if !done {
		start = len(f.results)
		f.reads[readKey{ref, at}] = start
		f.results = slices.Grow(f.results, planned.declared)[:start+planned.declared]
		planned.group.ReadView(&f.scratch[g], f.entities[ref].view, at, f.results[start:start:start+planned.declared])
	}
	return f.results[start : start+planned.declared]
}

func (in *plannedInput) of(row schemas.Row) schemas.Value {
	if in.column == noColumn {
		return schemas.NullValue()
	}
	if in.expr == nil {
		return in.categories.Value(row[in.column])
	}
	v, err := in.expr.Eval(row)
	if err != nil {
		return schemas.NullValue()
	}
	return in.categories.Value(v)
}

func (out *filled) set(input int, v schemas.Value) {
	f, ok := v.Float()
	if !ok || math.IsNaN(f) || math.IsInf(f, 0) {
		out.values[input], out.status[input] = math.NaN(), null
		return
	}
	out.values[input], out.status[input] = f, present
}

func (out *filled) mark(inputs []int, s inputStatus) {
	for _, i := range inputs {
		out.values[i], out.status[i] = math.NaN(), s
	}
}
