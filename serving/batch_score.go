package serving

import (
	"math"
	"slices"
	"strings"
	"sync"

	"github.com/apache/arrow/go/v17/arrow"
	"github.com/apache/arrow/go/v17/arrow/array"
	"github.com/apache/arrow/go/v17/arrow/memory"

	"github.com/millrace/millrace/features"
	"github.com/millrace/millrace/features/dataset"
	"github.com/millrace/millrace/features/offline"
	"github.com/millrace/millrace/features/pit"
	"github.com/millrace/millrace/internal/failure"
	"github.com/millrace/millrace/schemas"
)

// batchLayout says where in a part's records there is what.
type batchLayout struct {
	fields  []int // of the file that are read, ascending; nil: all
	used    []int // positions in a record of what is read here
	columns []int // of the model's source: place in used, or -1
	inputs  []int // of the plan: place in used of one that is given, or -1
	keep    []int // positions in a record of the columns that go to the output
	whole   []int // columns of the model's source that are integers, and numbers in the file
	compute bool  // computed columns are to be computed
	kept    int
	schema  *arrow.Schema // of the output
}

// The columns that a batch adds; a Multiclass model adds "score_<class>" for each class.
const (
	batchScore   = "score"
	batchStatus  = "status" // the rung that answered, or refused
	batchReason  = "reason" // why it was not the version itself
	batchVersion = "version"
	batchDigest  = "digest"
)

// layout finds what the model needs among the columns of a file: BadRequest, naming the column, when it is not there or of another kind.
func (b *batch) layout(rows dataset.Columnar) (*batchLayout, error) {
	file := rows.Schema()
	s := b.Model.On.Schema
	l := &batchLayout{columns: slices.Repeat([]int{-1}, len(s.Columns)), inputs: slices.Repeat([]int{-1}, len(b.plan.inputs))}
	var used []int // fields of the file
	use := func(field int) int {
		used = append(used, field)
		return len(used) - 1
	}
	needed, err := b.needed(file, l, use)
	if err != nil {
		return nil, err
	}
	for _, c := range needed {
		if err := b.useColumn(file, c, l, use); err != nil {
			return nil, err
		}
	}
	var keep []int
	for i, f := range file.Fields() {
		if b.Keep == nil || slices.Contains(b.Keep, f.Name) {
			keep = append(keep, i)
		}
	}
	for _, name := range b.Keep {
		if len(file.FieldIndices(name)) == 0 {
			return nil, noSuchColumn(file, name, "to be kept")
		}
	}
	place := func(field int) int { return field }
	if b.Keep != nil {
		l.fields = slices.Concat(used, keep)
		slices.Sort(l.fields)
		l.fields = slices.Compact(l.fields)
		place = func(field int) int { return slices.Index(l.fields, field) }
	}
	for _, field := range used {
		l.used = append(l.used, place(field))
	}
	var fields []arrow.Field
	for _, field := range keep {
		l.keep = append(l.keep, place(field))
		f := file.Field(field)
		if f.Type.ID() == arrow.STRING_VIEW { // Parquet's writer has no views
			f.Type = arrow.BinaryTypes.String
		}
		fields = append(fields, f)
	}
	l.kept = len(fields)
	for _, f := range b.added() {
		if slices.ContainsFunc(fields, func(k arrow.Field) bool { return k.Name == f.Name }) {
			return nil, failure.New(failure.BadRequest, f.Name, "the rows have a column of this name, which the batch adds").
				WithHint("choose a --prefix for the columns that are added, or the columns to --keep")
		}
		fields = append(fields, f)
	}
	l.schema = arrow.NewSchema(fields, nil)
	return l, nil
}

// needed lists the columns of the model's source that must be read, and takes inputs that are given.
func (b *batch) needed(file *arrow.Schema, l *batchLayout, use func(int) int) ([]int, error) {
	s := b.Model.On.Schema
	var names []string
	for i := range b.plan.inputs {
		in := &b.plan.inputs[i]
		if b.Given {
			if at := file.FieldIndices(in.name); len(at) == 1 {
				t := file.Field(at[0]).Type
				if k := offline.KindOf(t); !k.Numeric() && (in.categories == nil || k != schemas.String) {
					return nil, failure.New(failure.BadRequest, in.name, "the column is %s, and an input of a model is a number", t).WithHint("cast it where the file is made")
				}
				l.inputs[i] = use(at[0])
				continue
			}
		}
		switch {
		case in.group >= 0 && b.Given:
			return nil, noSuchColumn(file, in.name, "an input of the model")
		case in.group >= 0:
			g := &b.plan.groups[in.group]
			for _, c := range g.entity {
				names = append(names, s.Columns[c].Name)
			}
			if g.own != nil {
				names = append(names, g.own.Columns()...)
			}
		case in.expr != nil:
			names = append(names, in.expr.Columns()...)
		case in.column >= 0:
			names = append(names, s.Columns[in.column].Name)
		}
	}
	if !b.Given && len(b.plan.groups) > 0 {
		names = append(names, b.Model.On.Time)
	}
	if where := b.Model.On.Where; where != nil && !b.Given {
		names = append(names, where.Columns()...)
	}
	for _, r := range b.Model.Serve.Fallback {
		if r.Rule != nil {
			names = append(names, r.Rule.Columns()...)
		}
	}
	slices.Sort(names)
	var columns []int
	for _, name := range slices.Compact(names) {
		columns = append(columns, s.Index(name))
	}
	return columns, nil
}

// useColumn finds a column of the model's source in the file, or what it is computed from.
func (b *batch) useColumn(file *arrow.Schema, column int, l *batchLayout, use func(int) int) error {
	s := b.Model.On.Schema
	c := s.Columns[column]
	if l.columns[column] >= 0 {
		return nil
	}
	at := file.FieldIndices(c.Name)
	switch {
	case len(at) > 1:
		return failure.New(failure.BadRequest, c.Name, "the rows have %d columns of this name", len(at))
	case len(at) == 1:
		t := file.Field(at[0]).Type
		have := offline.KindOf(t)
		switch {
		case t.ID() == arrow.NULL: // a column without a value, as pandas writes it
			return nil
		case have == schemas.Float && c.Kind == schemas.Int:
			l.whole = append(l.whole, column)
		case have != c.Kind && !(have == schemas.Int && c.Kind == schemas.Float):
			return failure.New(failure.BadRequest, c.Name, "the column is %s, in %s it is %s", t, b.Model.On.Name, c.Kind).WithHint("cast it where the file is made")
		}
		l.columns[column] = use(at[0])
		return nil
	case column >= s.Stored():
		l.compute = true
		for _, from := range s.Needs(column) {
			if err := b.useColumn(file, from, l, use); err != nil {
				return err
			}
		}
		return nil
	default:
		return noSuchColumn(file, c.Name, "a column of "+b.Model.On.Name)
	}
}

func noSuchColumn(file *arrow.Schema, name, what string) error {
	names := make([]string, file.NumFields())
	for i, f := range file.Fields() {
		names[i] = f.Name
	}
	e := failure.New(failure.BadRequest, name, "the rows have no such column, which is %s", what)
	if near := schemas.Nearest(name, names); near != "" {
		return e.WithHint("did you mean %q? their columns are %s", near, strings.Join(names, ", "))
	}
	return e.WithHint("their columns are %s", strings.Join(names, ", "))
}

// added is the columns of the answers.
func (b *batch) added() []arrow.Field {
	fields := []arrow.Field{
		{Name: b.Prefix + batchScore, Type: arrow.PrimitiveTypes.Float64, Nullable: true}, {Name: b.Prefix + batchStatus, Type: arrow.BinaryTypes.String},
		{Name: b.Prefix + batchReason, Type: arrow.BinaryTypes.String, Nullable: true}, {Name: b.Prefix + batchVersion, Type: arrow.PrimitiveTypes.Int64},
		{Name: b.Prefix + batchDigest, Type: arrow.BinaryTypes.String},
	}
	for _, class := range b.classes() {
		fields = append(fields, arrow.Field{Name: b.Prefix + batchScore + "_" + class, Type: arrow.PrimitiveTypes.Float64, Nullable: true})
	}
	return fields
}

// classes are the model's, nil where it has one score only.
func (b *batch) classes() []string {
	if outputs := b.line.champion.model.Outputs(); len(outputs) > 1 {
		return outputs
	}
	return nil
}

func (l *batchLayout) read(record arrow.Record) (*offline.Batch, error) {
	return offline.NewBatch(record, l.used)
}

// maxWhole is the largest of the whole numbers that float64 has all of.
const maxWhole = 1 << 53

// wholeNumber is a number as an integer: pandas has columns of integers with gaps as floats, the gaps as NaN. False is a fraction, or too large to tell.
func wholeNumber(v schemas.Value) (schemas.Value, bool) {
	if v.Kind() != schemas.Float {
		return v, true
	}
	f, _ := v.Float()
	switch {
	case f != f:
		return schemas.NullValue(), true
	case f != math.Trunc(f) || math.Abs(f) > maxWhole:
		return schemas.NullValue(), false
	default:
		return schemas.IntValue(int64(f)), true
	}
}

// checkWhole refuses numbers that stand where integers must and are none. done is how many rows came before.
func (l *batchLayout) checkWhole(rows *offline.Batch, s *schemas.Schema, done int64) error {
	for _, c := range l.whole {
		for i := range rows.Len() {
			if _, ok := wholeNumber(rows.Value(i, l.columns[c])); !ok {
				return failure.New(failure.BadRequest, s.Columns[c].Name, "row %d has a number that is no integer, which the column is of", done+int64(i))
			}
		}
	}
	return nil
}

// batchWorker is the memory of one goroutine.
type batchWorker struct {
	scoring scoring
	in      filled
	values  schemas.Row
}

// row is a row of the model's source, with the columns that are read.
func (w *batchWorker) row(l *batchLayout, rows *offline.Batch, i int, p *plan) schemas.Row {
	s := p.model.On.Schema
	w.values = append(w.values[:0], make(schemas.Row, len(s.Columns))...)
	if l.compute {
		s.Compute(l.fill(w.values, rows, i, s))
	}
	return l.fill(w.values, rows, i, s)
}

// fill sets what the file has: also of what could be computed.
func (l *batchLayout) fill(row schemas.Row, rows *offline.Batch, i int, s *schemas.Schema) schemas.Row {
	for c, at := range l.columns {
		if at < 0 {
			continue
		}
		v := rows.Value(i, at)
		if f, ok := v.Float(); ok {
			switch s.Columns[c].Kind {
			case schemas.Float:
				v = schemas.FloatValue(f)
			case schemas.Int:
				v, _ = wholeNumber(v) // checkWhole has seen to the rest
			}
		}
		row[c] = v
	}
	return row
}

// answers is what a record's rows were answered.
type answers struct {
	score   []float64
	scored  []bool
	status  []string
	reason  []string
	classes [][]float64
}

// score answers a record's rows, all workers at once, and writes them beside the columns that are kept. They are those of the block from base on.
func (b *batch) score(p *batchPart, record arrow.Record, block *pit.Block, base int) error {
	rows, err := p.layout.read(record)
	if err != nil {
		return err
	}
	if err := p.layout.checkWhole(rows, b.Model.On.Schema, p.scored); err != nil {
		return err
	}
	n := rows.Len()
	a := &answers{score: make([]float64, n), scored: make([]bool, n), status: make([]string, n), reason: make([]string, n)}
	for range b.classes() {
		a.classes = append(a.classes, make([]float64, n))
	}
	var wg sync.WaitGroup
	each := (n + len(b.workers) - 1) / len(b.workers)
	for i := range b.workers {
		wg.Go(func() {
			for r := i * each; r < min(n, (i+1)*each); r++ {
				b.answer(&b.workers[i], p.layout, rows, r, block, base+r, a)
			}
		})
	}
	wg.Wait()
	out := b.record(p.layout, record, a)
	defer out.Release()
	for _, ok := range a.scored {
		if !ok {
			p.refused++
		}
	}
	p.scored += int64(n)
	return p.out.Write(out)
}

// answer fills the plan's inputs and lets the ladder decide.
func (b *batch) answer(w *batchWorker, l *batchLayout, rows *offline.Batch, r int, block *pit.Block, at int, a *answers) {
	row := w.row(l, rows, r, b.plan)
	if !b.Given && !b.Model.On.Accepts(row) {
		a.status[r], a.reason[r] = schemas.RungRefused, codeForeign
		return
	}
	in := &w.in
	in.values = append(in.values[:0], make([]float64, len(b.plan.inputs))...)
	in.status = append(in.status[:0], make([]inputStatus, len(b.plan.inputs))...)
	in.unread = reasonNone
	for i := range b.plan.inputs {
		planned := &b.plan.inputs[i]
		switch {
		case l.inputs[i] >= 0:
			in.set(i, planned.categories.Value(rows.Value(r, l.inputs[i])))
		case planned.group < 0:
			in.set(i, planned.of(row))
		}
	}
	if block != nil {
		for g := range b.plan.groups {
			b.plan.groups[g].joined(block, g, at, b.plan.inputs, in)
		}
	}
	v := b.line.decide(b.plan, in, row, &w.scoring)
	a.status[r], a.reason[r] = v.rung, v.text()
	if v.refused() {
		return
	}
	a.score[r], a.scored[r] = v.score, true
	if v.scorer == nil || len(a.classes) == 0 {
		return
	}
	for c := range a.classes {
		a.classes[c][r] = w.scoring.outputs[c]
	}
}

// joined fills the inputs of a group from what was joined.
func (g *plannedGroup) joined(block *pit.Block, lookup, row int, inputs []plannedInput, in *filled) {
	status := block.Status(lookup, row)
	for k, input := range g.inputs {
		v := block.Input(inputs[input].categories, lookup, k, row)
		switch {
		case !math.IsNaN(v) && !math.IsInf(v, 0):
			in.values[input], in.status[input] = v, present
		case status == features.Present:
			in.values[input], in.status[input] = math.NaN(), null
		default:
			in.values[input], in.status[input] = math.NaN(), statusOf(status)
		}
	}
}

// plainTexts is a column of views as one of texts that stand one after the other.
func plainTexts(view *array.StringView) arrow.Array {
	s := array.NewStringBuilder(memory.DefaultAllocator)
	defer s.Release()
	for i := range view.Len() {
		if view.IsNull(i) {
			s.AppendNull()
		} else {
			s.Append(view.Value(i))
		}
	}
	return s.NewArray()
}

// record is the kept columns and the answers.
func (b *batch) record(l *batchLayout, from arrow.Record, a *answers) arrow.Record {
	columns := make([]arrow.Array, 0, l.schema.NumFields())
	for _, at := range l.keep {
		c := from.Column(at)
		if view, ok := c.(*array.StringView); ok {
			columns = append(columns, plainTexts(view))
			continue
		}
		c.Retain()
		columns = append(columns, c)
	}
	n := len(a.score)
	floats := func(values []float64) {
		f := array.NewFloat64Builder(memory.DefaultAllocator)
		defer f.Release()
		f.AppendValues(values, a.scored)
		columns = append(columns, f.NewArray())
	}
	texts := func(text func(int) string, nullable bool) {
		s := array.NewStringBuilder(memory.DefaultAllocator)
		defer s.Release()
		for i := range n {
			if t := text(i); t != "" || !nullable {
				s.Append(t)
			} else {
				s.AppendNull()
			}
		}
		columns = append(columns, s.NewArray())
	}
	floats(a.score)
	texts(func(i int) string { return a.status[i] }, false)
	texts(func(i int) string { return a.reason[i] }, true)
	versions := array.NewInt64Builder(memory.DefaultAllocator)
	defer versions.Release()
	versions.AppendValues(slices.Repeat([]int64{int64(b.Version.Number)}, n), nil)
	columns = append(columns, versions.NewArray())
	texts(func(int) string { return b.Version.Digest }, false)
	for _, class := range a.classes {
		floats(class)
	}
	record := array.NewRecord(l.schema, columns, int64(n))
	for _, c := range columns {
		c.Release()
	}
	return record
}
