package training

import (
	"cmp"
	"container/heap"
	"context"
	"encoding/binary"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/cespare/xxhash/v2"

	"github.com/millrace/millrace/features/offline"
	"github.com/millrace/millrace/internal/failure"
	"github.com/millrace/millrace/project"
	"github.com/millrace/millrace/registry/model"
	"github.com/millrace/millrace/schemas"
)

// position orders events as a replay does.
type position struct {
	time      int64
	partition int32
	offset    int64
}

func (p position) compare(q position) int {
	return cmp.Or(cmp.Compare(p.time, q.time), cmp.Compare(p.partition, q.partition), cmp.Compare(p.offset, q.offset))
}

// label is what became of a row.
type label struct {
	position
	value float64
	next  int32 // index of another label of the same key, -1 when there is none
}

// labels holds every label of the log by its join key. Keys hardly ever have more than one, so further ones are chained
// rather than each key having a slice.
type labels struct {
	first map[string]int32
	all   []label
}

func (l *labels) add(key string, next label) {
	next.next = -1
	if first, ok := l.first[key]; ok {
		next.next = first
	} else {
		key = strings.Clone(key) // text of a scan keeps its whole batch in memory
	}
	l.first[key] = int32(len(l.all))
	l.all = append(l.all, next)
}

// after is the first label of a key after a row and within the given time of it.
func (l *labels) after(key string, row, within int64) (label, bool) {
	best, found := label{}, false
	first, ok := l.first[key]
	if !ok {
		return best, false
	}
	for i := first; i >= 0; i = l.all[i].next {
		c := l.all[i]
		if c.time > row && c.time <= row+within && (!found || c.compare(best.position) < 0) {
			best, found = c, true
		}
	}
	return best, found
}

// labels reads the label source. A null label is none: nothing became known.
func (b *builder) labels(ctx context.Context) (*labels, error) {
	l := &labels{first: map[string]int32{}}
	source, value := b.model.Label.Source, b.model.Label.Value
	p, err := projectionOf(source.Schema, append(value.Columns(), b.model.Label.Join))
	if err != nil {
		return nil, err
	}
	join := source.Schema.Index(b.model.Label.Join)
	err = b.scan(ctx, "labels", source, p, b.span.From, b.span.Until, func(row schemas.Row, at position) error {
		if row[join].IsNull() {
			return nil
		}
		truth, ok, known, err := b.model.Label.Truth(row)
		if err != nil {
			return fmt.Errorf("evaluating %q: %w", value.Source(), err)
		}
		if !known {
			b.unknown++
		}
		if !ok {
			return nil
		}
		if math.IsNaN(truth) || math.IsInf(truth, 0) || truth < 0 && b.model.Task == model.TaskPoisson {
			return failure.New(failure.Refused, source.Name, "%s has the label %v by %q, which a model for %s cannot learn", row[join].Text(), truth, value.Source(), b.model.Task).
				WithHint("let the expression give nil where there is no label")
		}
		if len(l.all) == b.cfg.MaxLabels {
			return failure.New(failure.Refused, source.Name, "there are more than MaxLabels = %d labels", b.cfg.MaxLabels).
				WithHint("shorten the model's training window")
		}
		l.add(row[join].Text(), label{position: at, value: truth})
		return nil
	})
	return l, err
}

// spineRow is a row that asked for a score, with what became of it.
type spineRow struct {
	position
	hash   uint64
	key    string
	label  label
	weight float64
	values []float64   // of the inputs in spine.own
	entity []string    // key of the entity of each lookup; empty when the row names none
	event  schemas.Row // what the inputs with the row's own event are made of: ownColumns; nil without any
}

// spine is the labelled rows of the model's source, sorted.
type spine struct {
	rows     []*spineRow
	own      []int // indices of the inputs that come from the row itself
	labelled int64
	limit    int
}

// spine reads the rows of the model's source that have a label. Where there are more than the limit it keeps those whose
// join keys hash lowest: a sample that does not depend on the order of reading, nor on rows that come later.
func (b *builder) spine(ctx context.Context, known *labels) (*spine, error) {
	s := &spine{limit: b.cfg.MaxSpine}
	if b.model.Train.MaxRows > 0 {
		s.limit = min(s.limit, b.model.Train.MaxRows)
	}
	read, columns := b.rowReader(s)
	p, err := projectionOf(b.model.On.Schema, columns)
	if err != nil {
		return nil, err
	}
	join, within := b.model.On.Schema.Index(b.model.Label.Join), b.model.Label.Within.Milliseconds()
	kept := sample{limit: s.limit}
	err = b.scan(ctx, "rows", b.model.On, p, b.span.From, b.span.HoldoutUntil, func(row schemas.Row, at position) error {
		if !b.span.uses(at.time) || row[join].IsNull() || !b.model.On.Accepts(row) {
			return nil
		}
		key := row[join].Text()
		label, ok := known.after(key, at.time, within)
		if !ok {
			return nil
		}
		weight, err := b.weight(row)
		if err != nil || weight == 0 {
			return err
		}
		s.labelled++
		r := &spineRow{position: at, key: key, label: label, weight: weight, hash: hashKey(b.model.Train.Seed, key)}
		if !kept.wants(r) {
			return nil
		}
		r.key = strings.Clone(key)
		kept.add(r)
		return read(row, r)
	})
	s.rows = kept.rows
	slices.SortFunc(s.rows, func(a, b *spineRow) int { return a.compare(b.position) })
	return s, err
}

// weight is what a row counts for; 0 for one that has no weight, which is left out.
func (b *builder) weight(row schemas.Row) (float64, error) {
	x := b.model.Train.Weight
	if x == nil {
		return 1, nil
	}
	v, err := x.Eval(row)
	if err != nil {
		return 0, fmt.Errorf("evaluating %q: %w", x.Source(), err)
	}
	w, ok := v.Float()
	switch {
	case !ok || w == 0:
		return 0, nil
	case w < 0 || math.IsNaN(w) || math.IsInf(w, 0):
		return 0, failure.New(failure.Refused, b.model.On.Name, "a row has the weight %v by %q: it must be 0 or a number above", w, x.Source())
	}
	return w, nil
}

// rowReader gives what fills in a row's own inputs and entity keys, and the columns that it needs.
func (b *builder) rowReader(s *spine) (read func(schemas.Row, *spineRow) error, columns []string) {
	schema := b.model.On.Schema
	columns = []string{b.model.Label.Join}
	if where := b.model.On.Where; where != nil {
		columns = append(columns, where.Columns()...)
	}
	if weight := b.model.Train.Weight; weight != nil {
		columns = append(columns, weight.Columns()...)
	}
	for i, in := range b.model.Inputs {
		switch {
		case in.Group != nil:
			columns = append(columns, entityColumns(b.model, in)...)
			if in.Own != nil {
				columns = append(columns, in.Own.Columns()...)
			}
			continue
		case in.Expr != nil:
			columns = append(columns, in.Expr.Columns()...)
		default:
			columns = append(columns, schema.Columns[in.Column].Name)
		}
		s.own = append(s.own, i)
	}
	keys := b.entityKeys()
	own := ownColumns(b.model)
	return func(row schemas.Row, r *spineRow) error {
		r.values = make([]float64, len(s.own))
		for k, i := range s.own {
			v, err := ownValue(b.model.Inputs[i], row)
			if err != nil {
				return err
			}
			r.values[k] = v
		}
		r.entity = make([]string, len(keys))
		for k, key := range keys {
			r.entity[k] = strings.Clone(key(row))
		}
		r.event = row.Pick(own)
		return nil
	}, columns
}

// ownValue is an input that needs no feature group; NaN is missing.
func ownValue(in project.Input, row schemas.Row) (float64, error) {
	if in.Expr == nil {
		return number(in.Categories.Value(row[in.Column])), nil
	}
	v, err := in.Expr.Eval(row)
	if err != nil {
		return 0, fmt.Errorf("evaluating %q: %w", in.Expr.Source(), err)
	}
	return number(in.Categories.Value(v)), nil
}

// number is a value as a model takes it. What is not finite is missing, as it is to the engine.
func number(v schemas.Value) float64 {
	if f, ok := v.Float(); ok && !math.IsInf(f, 0) {
		return f
	}
	return math.NaN()
}

// entityKeys gives, for each lookup, what makes a row's entity key. A row without an entity reads nothing, as at serving.
func (b *builder) entityKeys() []func(schemas.Row) string {
	lookups := b.lookups(0)
	keys := make([]func(schemas.Row) string, 0, len(lookups))
	for _, l := range lookups {
		in := b.model.Inputs[l.Inputs[0]]
		values := make(map[string]string, len(in.Entity))
		keys = append(keys, func(row schemas.Row) string {
			for i, c := range in.Entity {
				values[in.Group.Entity[i]] = row[c].Text()
			}
			key, err := in.Group.KeyOf(values)
			if err != nil {
				return ""
			}
			return key
		})
	}
	return keys
}

// hashKey is a join key's place in the sample.
func hashKey(seed int64, key string) uint64 {
	var d xxhash.Digest
	d.Reset()
	_, _ = d.Write(binary.LittleEndian.AppendUint64(nil, uint64(seed))) // a Digest's Write never fails
	_, _ = d.WriteString(key)
	return d.Sum64()
}

// sample keeps the limit rows of lowest hash: a heap with the highest on top.
type sample struct {
	rows  []*spineRow
	limit int
}

func (s *sample) wants(r *spineRow) bool {
	return len(s.rows) < s.limit || before(r, s.rows[0])
}

func (s *sample) add(r *spineRow) {
	switch {
	case len(s.rows) < s.limit-1:
		s.rows = append(s.rows, r)
	case len(s.rows) < s.limit:
		s.rows = append(s.rows, r)
		heap.Init(s) // not needed before the sample is full
	default:
		s.rows[0] = r
		heap.Fix(s, 0)
	}
}

func before(a, b *spineRow) bool {
	return cmp.Or(cmp.Compare(a.hash, b.hash), a.compare(b.position)) < 0
}

// Len, Less, Swap, Push and Pop are container/heap's.
func (s *sample) Len() int           { return len(s.rows) }
func (s *sample) Less(i, j int) bool { return before(s.rows[j], s.rows[i]) }
func (s *sample) Swap(i, j int)      { s.rows[i], s.rows[j] = s.rows[j], s.rows[i] }
func (s *sample) Push(x any)         { s.rows = append(s.rows, x.(*spineRow)) }
func (s *sample) Pop() any {
	last := s.rows[len(s.rows)-1]
	s.rows = s.rows[:len(s.rows)-1]
	return last
}

// projection reads some columns of a table into a row of the whole schema; the others stay null.
type projection struct {
	columns []string
	index   []int // of each in the schema
	width   int
}

func projectionOf(s *schemas.Schema, columns []string) (projection, error) {
	columns = slices.Compact(slices.Sorted(slices.Values(columns)))
	p := projection{columns: columns, width: len(s.Columns)}
	for _, c := range columns {
		i := s.Index(c)
		if i < 0 {
			return p, failure.New(failure.BadProject, s.Name, "there is no column %q", c)
		}
		p.index = append(p.index, i)
	}
	return p, nil
}

// scan reads events of a source in no particular order.
func (b *builder) scan(ctx context.Context, stage string, s *project.Source, p projection, from, until int64, fn func(schemas.Row, position) error) error {
	t, err := b.table(s)
	if err != nil {
		return err
	}
	stats, err := t.Stats()
	if err != nil {
		return err
	}
	done := int64(0)
	row := make(schemas.Row, p.width)
	return t.Scan(ctx, offline.ScanOptions{From: bound(from), Until: until, Columns: p.columns}, func(batch *offline.Batch) error {
		for i := range batch.Len() {
			for k, c := range p.index {
				row[c] = batch.Value(i, k)
			}
			if err := fn(row, position{batch.Time(i), batch.Partition(), batch.Offset(i)}); err != nil {
				return err
			}
		}
		done += int64(batch.Len())
		b.progress(stage, done, max(done, stats.Rows))
		return nil
	})
}

// bound is a scan's lower bound, for which 0 means none.
func bound(from int64) int64 {
	if from == noBound {
		return 0
	}
	return from
}
