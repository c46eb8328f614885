package features

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"hash/crc32"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/millrace/millrace/schemas"
)

// layoutVersion changes whenever stored states can no longer be read, or mean something else.
const layoutVersion = 2

// Compile checks a definition against the schema of its source and returns the group, or all faults at once, each a
// *DefinitionError.
func Compile(d Definition, s *schemas.Schema) (*Group, []error) {
	c := &compiler{schema: s, group: &Group{
		Definition: d,
		columns:    len(s.Columns),
		checksum:   crc32.MakeTable(crc32.Castagnoli),
	}}
	c.checkGroup()
	declared := c.features()
	c.checkNames(declared)
	if len(c.faults) > 0 {
		return nil, c.faults
	}
	c.layOutWindows(declared)
	if len(c.faults) > 0 {
		return nil, c.faults
	}
	for i := range declared {
		c.addOutputs(&declared[i])
	}
	c.addRatios()
	c.layOutTiles()
	c.setVersion(declared)
	return c.group, nil
}

type compiler struct {
	schema *schemas.Schema
	group  *Group
	faults []error
	used   []string // columns read by expressions
	wide   int      // levels that are not of exact tiles
	ratios []pendingRatio
}

// declaredFeature is a FeatureDefinition with its parts compiled.
type declaredFeature struct {
	FeatureDefinition
	calls []call // two of a ratio, else one
	where *Expression
	by    *Expression
	spans []span
}

// kind is that of the feature's values.
func (f *declaredFeature) kind() schemas.Kind {
	if len(f.calls) > 1 {
		return schemas.Float
	}
	return f.calls[0].kind()
}

// empty is what stands for null.
func (f *declaredFeature) empty() schemas.Value {
	switch {
	case f.Default == nil:
		return schemas.NullValue()
	case f.kind() == schemas.Int:
		return schemas.IntValue(int64(*f.Default))
	default:
		return schemas.FloatValue(*f.Default)
	}
}

func (c *compiler) fault(line int, feature, format string, args ...any) {
	c.faults = append(c.faults, &DefinitionError{Line: line, Feature: feature, Msg: fmt.Sprintf(format, args...)})
}

func (c *compiler) checkGroup() {
	g := c.group
	if g.Name == "" {
		c.fault(g.Line, "", "the group has no name")
	}
	if len(g.Definition.Entity) == 0 {
		c.fault(g.Line, "", "the group names no entity column")
	}
	for i, name := range g.Definition.Entity {
		column, ok := c.schema.Column(name)
		switch {
		case !ok:
			c.fault(g.Line, "", "entity: %s has no column %q%s", c.schema.Name, name, suggestion(c.schema.Suggest(name)))
		case slices.Contains(g.Definition.Entity[:i], name):
			c.fault(g.Line, "", "entity: column %q is named twice", name)
		default:
			g.entity = append(g.entity, entityColumn{c.schema.Index(name), name, column.Kind})
			c.used = append(c.used, name)
		}
	}
	g.where = c.condition(g.Where, g.Line, "")
	c.checkDedup()
	if g.Tiles != 0 && (g.Tiles < MinTiles || g.Tiles > MaxTilesPerWindow) {
		c.fault(g.Line, "", "error: 1/%d is not between 1/%d and 1/%d", g.Tiles, MaxTilesPerWindow, MinTiles)
	}
	if g.ExactEvents < 0 || g.ExactEvents > MaxExactEvents {
		c.fault(g.Line, "", "exact_events: %d is not between 1 and %d", g.ExactEvents, MaxExactEvents)
	}
	for what, d := range map[string]time.Duration{"lateness": g.Lateness, "future": g.Future, "ttl": g.TTL} {
		if _, err := milliseconds(what, d); err != nil {
			c.fault(g.Line, "", "%v", err)
		}
	}
	g.ttl = g.TTL.Milliseconds()
	if len(g.Features) == 0 {
		c.fault(g.Line, "", "the group has no features")
	}
}

func (c *compiler) checkDedup() {
	g := c.group
	if g.Dedup == nil {
		return
	}
	x, err := compileAny(g.Dedup.By, c.schema)
	within, withinErr := milliseconds("within", cmp.Or(g.Dedup.Within, DefaultDedupWithin))
	switch {
	case err != nil:
		c.fault(g.Line, "", "dedup: %v", err)
	case withinErr != nil:
		c.fault(g.Line, "", "dedup: %v", withinErr)
	case g.Dedup.Most < 0 || g.Dedup.Most > MaxDedup:
		c.fault(g.Line, "", "dedup: most: %d is not between 1 and %d", g.Dedup.Most, MaxDedup)
	default:
		c.used = append(c.used, x.columns...)
		g.dedup = &dedup{name: x, within: within, most: cmp.Or(g.Dedup.Most, DefaultDedupMost)}
	}
}

func suggestion(near string) string {
	if near == "" {
		return ""
	}
	return fmt.Sprintf(" (did you mean %q?)", near)
}

func (c *compiler) condition(src string, line int, feature string) *Expression {
	if src == "" {
		return nil
	}
	x, err := CompileExpression(src, c.schema, schemas.Bool)
	if err != nil {
		c.fault(line, feature, "where: %v", err)
		return nil
	}
	c.used = append(c.used, x.columns...)
	return x
}

func (c *compiler) features() []declaredFeature {
	g := c.group
	declared := make([]declaredFeature, 0, len(g.Features))
	c.spans(g.Windows, g.Exact, g.Line, "") // for its faults: features may all have their own
	for _, f := range g.Features {
		d := declaredFeature{FeatureDefinition: f}
		if f.Name == "" {
			c.fault(f.Line, "", "a feature has no name")
		}
		var err error
		if d.calls, err = parseCalls(f.Aggregate, c.schema); err != nil {
			c.fault(f.Line, f.Name, "%v", err)
		}
		for i := range d.calls {
			if x := d.calls[i].argument; x != nil {
				c.used = append(c.used, x.columns...)
			}
		}
		d.where = c.condition(f.Where, f.Line, f.Name)
		if err == nil {
			c.checkBy(&d)
		}
		if windows := f.Windows; windows != nil {
			d.spans = c.spans(windows, f.Exact || g.Exact, f.Line, f.Name)
		} else {
			d.spans = c.quietSpans(g.Windows, f.Exact || g.Exact)
		}
		if len(d.spans) == 0 && (f.Windows != nil || len(g.Windows) == 0) {
			c.fault(f.Line, f.Name, "no window: name one such as 1h, 7d or %s", Lifetime)
		}
		if err == nil {
			c.checkWindows(&d)
		}
		if f.Default != nil && err == nil {
			c.checkDefault(&d)
		}
		declared = append(declared, d)
	}
	return declared
}

// checkBy makes the aggregate of a feature with categories one by category.
func (c *compiler) checkBy(d *declaredFeature) {
	switch {
	case d.By == "" && d.Most != 0:
		c.fault(d.Line, d.Name, "most: is of a feature with by, which this is not")
	case d.By == "":
	case len(d.calls) > 1:
		c.fault(d.Line, d.Name, "by: a %s cannot be by category", ratioName)
	case d.Most < 0 || d.Most > MaxCategories:
		c.fault(d.Line, d.Name, "most: %d categories, from 1 to %d can be kept", d.Most, MaxCategories)
	default:
		call := &d.calls[0]
		if _, fixed, _ := call.state(); fixed == nil {
			c.fault(d.Line, d.Name, "by: %s cannot be by category", call.name)
			return
		}
		x, err := compileAny(d.By, c.schema)
		if err != nil {
			c.fault(d.Line, d.Name, "by: %v", err)
			return
		}
		d.by = x
		c.used = append(c.used, x.columns...)
		call.aggregate = byCategory(call.aggregate, cmp.Or(d.Most, DefaultCategories))
	}
}

func (c *compiler) checkWindows(d *declaredFeature) {
	for i := range d.calls {
		for _, s := range d.spans {
			if s.length == 0 && d.calls[i].aggregate.noLifetime {
				c.fault(d.Line, d.Name, "window: %s needs a window with an end, not %s", d.calls[i].name, Lifetime)
			}
		}
	}
}

func (c *compiler) checkDefault(d *declaredFeature) {
	switch kind := d.kind(); {
	case len(d.calls) == 1 && d.calls[0].aggregate.zeroWhenEmpty:
		c.fault(d.Line, d.Name, "default: %s of an empty window is 0", d.calls[0].name)
	case kind != schemas.Int && kind != schemas.Float:
		c.fault(d.Line, d.Name, "default: the feature is %s, a default is a number", kind)
	case !finite(*d.Default):
		c.fault(d.Line, d.Name, "default: %v is not finite", *d.Default)
	case kind == schemas.Int && *d.Default != float64(int64(*d.Default)):
		c.fault(d.Line, d.Name, "default: the feature is int, %v is none", *d.Default)
	}
}

func (c *compiler) spans(texts []string, exact bool, line int, feature string) []span {
	var spans []span
	for _, text := range texts {
		s, err := parseSpan(text, c.group.Tiles, exact)
		if err != nil {
			c.fault(line, feature, "window: %v", err)
			continue
		}
		if slices.ContainsFunc(spans, func(other span) bool { return other.length == s.length && other.delay == s.delay }) {
			c.fault(line, feature, "window: %s is named twice", text)
			continue
		}
		spans = append(spans, s)
	}
	return spans
}

// quietSpans is spans whose faults have been told.
func (c *compiler) quietSpans(texts []string, exact bool) []span {
	told := c.faults
	spans := c.spans(texts, exact, 0, "")
	c.faults = told
	return spans
}

func outputName(feature string, s span) string {
	if s.length == 0 {
		return feature
	}
	return feature + "_" + s.name
}

func (c *compiler) checkNames(declared []declaredFeature) {
	taken := map[string]string{}
	for _, f := range declared {
		for _, s := range f.spans {
			name := outputName(f.Name, s)
			if other, ok := taken[name]; ok {
				c.fault(f.Line, f.Name, "gives an output %q, which %s gives too", name, other)
			}
			taken[name] = f.Name
			if slices.Contains(c.group.Entity, name) { // beside which it is kept offline
				c.fault(f.Line, f.Name, "gives an output %q, as a column of the entity is called", name)
			}
		}
	}
}

// layOutWindows gathers the distinct windows of all features, and the ladder of tiles that serves them.
func (c *compiler) layOutWindows(declared []declaredFeature) {
	g := c.group
	for _, f := range declared {
		for _, s := range f.spans {
			if w := s.window(); !slices.ContainsFunc(g.windows, w.same) {
				g.windows = append(g.windows, w)
			}
		}
	}
	slices.SortFunc(g.windows, compareWindows)
	c.layOutLevels()
	for i := range g.windows {
		w := &g.windows[i]
		w.fresh = i == 0 || w.delay > 0 || w.exact != g.windows[i-1].exact
	}
	if len(g.windows) > MaxWindows {
		c.fault(g.Line, "", "%d different windows, at most %d are allowed", len(g.windows), MaxWindows)
	}
	if n := tileCount(g.levels[len(g.levels)-c.wide:]); n > MaxTiles {
		c.fault(g.Line, "", "an entity would keep up to %d tiles of %s, at most %d are allowed: lengthen the shortest window, shorten lateness or allow a greater error",
			n, time.Duration(g.levels[0].width)*time.Millisecond, MaxTiles)
	}
}

// layOutLevels makes the ladder, and finds each window's level.
func (c *compiler) layOutLevels() {
	g := c.group
	lateness := g.Lateness.Milliseconds()
	var rungs []rung
	var exactKeep int64
	for i := range g.windows {
		w := &g.windows[i]
		switch {
		case w.lifetime:
			g.lifetime = true
			continue
		case w.exact:
			exactKeep = max(exactKeep, w.reach()+lateness)
		}
		rungs = append(rungs, rung{reach: w.reach(), width: max(w.length/int64(w.tiles), 1)})
	}
	of := make([]int, 0, len(rungs))
	if len(rungs) == 0 {
		// Without a window of their own, lifetime features still keep recent tiles, so that a read of a moment ago can
		// leave out what came after it.
		keep := max(lateness, minute)
		g.levels, _ = newLadder([]rung{{reach: keep, width: keep / TilesPerWindow}}, 0)
	} else {
		g.levels, of = newLadder(rungs, lateness)
	}
	c.wide = len(g.levels)
	if exactKeep > 0 {
		g.levels = withExact(g.levels, exactKeep)
		g.exactMost = cmp.Or(g.ExactEvents, DefaultExactEvents)
		for i := range of {
			of[i]++
		}
	}
	for i := range g.windows {
		w := &g.windows[i]
		switch {
		case w.lifetime:
			w.level, w.width = len(g.levels), 1
			continue
		case w.exact:
			w.level, w.width = 0, 1
		default:
			w.level, w.width = of[0], g.levels[of[0]].width
		}
		of = of[1:]
	}
}

func (c *compiler) windowIndex(s span) int {
	return slices.IndexFunc(c.group.windows, s.windowIs)
}

// addOutputs adds a feature's outputs, in the order they are declared, and the states they are read from.
func (c *compiler) addOutputs(f *declaredFeature) {
	g := c.group
	for _, s := range f.spans {
		w := c.windowIndex(s)
		output := Output{Name: outputName(f.Name, s), Feature: f.Name, Window: s.length, Delay: s.delay, Kind: f.kind()}
		if s.length != 0 && !s.exact {
			output.TailError = time.Duration(g.windows[w].width) * time.Millisecond
		}
		if len(f.calls) == 1 {
			c.addRead(f, &f.calls[0], read{window: w, output: len(g.Outputs), empty: f.empty()})
		} else {
			c.ratios = append(c.ratios, pendingRatio{feature: f, ratio: ratio{output: len(g.Outputs), window: w, empty: f.empty()}})
		}
		g.Outputs = append(g.Outputs, output)
	}
}

// pendingRatio waits for all outputs to be known: its parts come behind them.
type pendingRatio struct {
	feature *declaredFeature
	ratio   ratio
}

func (c *compiler) addRatios() {
	g := c.group
	for i, p := range c.ratios {
		r := p.ratio
		r.numerator, r.denominator = len(g.Outputs)+2*i, len(g.Outputs)+2*i+1
		c.addRead(p.feature, &p.feature.calls[0], read{window: r.window, output: r.numerator})
		c.addRead(p.feature, &p.feature.calls[1], read{window: r.window, output: r.denominator})
		g.ratios = append(g.ratios, r)
	}
}

func (c *compiler) addRead(f *declaredFeature, call *call, r read) {
	g := c.group
	a := &g.accumulators[c.accumulator(f, call)]
	v := valueOf{kind: call.kind(), argument: call.argumentKind(), parameters: call.parameters, window: g.windows[r.window].length}
	if a.fixed != nil {
		r.fixed = call.aggregate.fixedValue(v)
	} else {
		r.growing = call.aggregate.growingValue(v)
	}
	r.readsClock = call.aggregate.readsClock
	a.reads = append(a.reads, r)
}

// accumulator is the index of the state that a call reads, which it may share.
func (c *compiler) accumulator(f *declaredFeature, call *call) int {
	g := c.group
	name, fixed, growing := call.state()
	in := &g.inputs[c.input(f, call)]
	for i := range in.steps {
		a := in.steps[i].accumulator
		if g.accumulators[a].name == name && sameMost(g.accumulators[a].growing, growing) {
			return a
		}
	}
	in.steps = append(in.steps, step{accumulator: len(g.accumulators)})
	g.accumulators = append(g.accumulators, accumulator{name: name, fixed: fixed, growing: growing})
	return len(g.accumulators) - 1
}

// sameMost reports whether two states of a name keep as many categories.
func sameMost(a, b growingState) bool {
	x, ok := a.(categoryState)
	y, _ := b.(categoryState)
	return !ok || x.most == y.most
}

func (c *compiler) input(f *declaredFeature, call *call) int {
	g := c.group
	for i := range g.inputs {
		in := &g.inputs[i]
		if sameExpression(in.where, f.where) && sameExpression(in.value, call.argument) && sameExpression(in.by, f.by) {
			return i
		}
	}
	in := input{where: f.where, value: call.argument, by: f.by, column: -1}
	if in.value != nil {
		in.column = in.value.term.column
	}
	g.inputs = append(g.inputs, in)
	return len(g.inputs) - 1
}

func sameExpression(a, b *Expression) bool {
	if a == nil || b == nil {
		return a == b
	}
	return a.canonical == b.canonical
}

// layOutTiles gives every state its place in a tile.
func (c *compiler) layOutTiles() {
	g := c.group
	g.stride = rowHeader
	for i := range g.accumulators {
		a := &g.accumulators[i]
		slices.SortStableFunc(a.reads, func(x, y read) int { return cmp.Compare(x.window, y.window) })
		a.folds = make([]bool, len(g.windows))
		for _, r := range a.reads {
			a.deepest = max(a.deepest, g.windows[r.window].level)
			for w := r.window; ; w-- {
				a.folds[w] = true
				if g.windows[w].fresh {
					break
				}
			}
		}
		a.op = opOf(a)
		if a.fixed != nil {
			a.offset, a.words = g.stride, a.fixed.words()
			g.stride += a.words
		} else {
			a.slot = g.growing
			g.slots = append(g.slots, a.growing)
			g.growing++
		}
	}
	for i := range g.inputs {
		keeps := false
		for j := range g.inputs[i].steps {
			s := &g.inputs[i].steps[j]
			a := &g.accumulators[s.accumulator]
			*s = step{op: a.op, accumulator: s.accumulator, deepest: a.deepest, offset: a.offset, words: a.words, slot: a.slot, fixed: a.fixed, growing: a.growing}
			if _, ok := a.growing.(textKeeper); ok {
				keeps = true
			}
		}
		if keeps {
			g.texts = append(g.texts, i)
		}
	}
}

func opOf(a *accumulator) op {
	switch s := a.fixed.(type) {
	case nil:
		return opGrowing
	case countState:
		return opCount
	case sumState:
		return opSum
	case momentState:
		return opMoments
	case extremeState:
		if s.float && s.greatest {
			return opMax
		}
	}
	return opFixed
}

// setVersion names the definition by its content: what is computed from what, not how it was written down.
func (c *compiler) setVersion(declared []declaredFeature) {
	g := c.group
	var b strings.Builder
	line := func(parts ...string) {
		for _, p := range parts {
			b.WriteString(strconv.Quote(p))
			b.WriteByte(' ')
		}
		b.WriteByte('\n')
	}
	line("layout", strconv.Itoa(layoutVersion))
	line("group", g.Name, g.Source, canonicalOf(g.where), g.Lateness.String(), g.Future.String(), g.TTL.String())
	line(append([]string{"entity"}, g.Definition.Entity...)...)
	line("read", g.Edge.String(), strconv.Itoa(g.exactMost))
	if g.Materialize {
		line("materialize")
	}
	if d := g.dedup; d != nil {
		line("dedup", d.name.canonical, strconv.FormatInt(d.within, 10), strconv.Itoa(d.most))
	}
	for _, f := range declared {
		empty := ""
		if f.Default != nil {
			empty = strconv.FormatFloat(*f.Default, 'g', -1, 64)
		}
		line("feature", f.Name, canonicalOf(f.where), canonicalOf(f.by), strconv.Itoa(cmp.Or(f.Most, DefaultCategories)), empty)
		for i := range f.calls {
			line("call", f.calls[i].canonical())
		}
		for _, s := range f.spans {
			line("window", outputName(f.Name, s), s.length.String(), s.delay.String(), strconv.FormatBool(s.exact), strconv.Itoa(s.tiles))
		}
	}
	slices.Sort(c.used)
	for _, name := range slices.Compact(c.used) {
		column, _ := c.schema.Column(name)
		parts := []string{"column", name, column.Kind.String(), strconv.FormatBool(column.Nullable)}
		if column.Definition != "" {
			parts = append(parts, column.Definition)
		}
		line(parts...)
	}
	sum := sha256.Sum256([]byte(b.String()))
	g.Version = hex.EncodeToString(sum[:6])
	g.fingerprint = binary.LittleEndian.Uint32(sum[:])
}

func canonicalOf(x *Expression) string {
	if x == nil {
		return ""
	}
	return x.canonical
}
