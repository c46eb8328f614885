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

	"github.com/millrace/millrace/internal/duration"
	"github.com/millrace/millrace/schemas"
)

// Lifetime is the window without an end.
const Lifetime = "lifetime"

// layoutVersion changes whenever stored states can no longer be read, or mean something else.
const layoutVersion = 1

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
	c.layOutTiles()
	c.setVersion(declared)
	return c.group, nil
}

type compiler struct {
	schema *schemas.Schema
	group  *Group
	faults []error
	used   []string // columns read by expressions
}

// declaredFeature is a FeatureDefinition with its parts compiled.
type declaredFeature struct {
	FeatureDefinition
	call  call
	where *Expression
	spans []span
}

// span is a declared window: its text and its length, 0 for lifetime.
type span struct {
	text   string
	length time.Duration
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
	groupSpans := c.spans(c.group.Windows, c.group.Line, "")
	declared := make([]declaredFeature, 0, len(c.group.Features))
	for _, f := range c.group.Features {
		d := declaredFeature{FeatureDefinition: f, spans: groupSpans}
		if f.Name == "" {
			c.fault(f.Line, "", "a feature has no name")
		}
		var err error
		if d.call, err = parseCall(f.Aggregate, c.schema); err != nil {
			c.fault(f.Line, f.Name, "%v", err)
		} else if d.call.argument != nil {
			c.used = append(c.used, d.call.argument.columns...)
		}
		d.where = c.condition(f.Where, f.Line, f.Name)
		if f.Windows != nil {
			d.spans = c.spans(f.Windows, f.Line, f.Name)
		}
		if len(d.spans) == 0 && (f.Windows != nil || len(c.group.Windows) == 0) {
			c.fault(f.Line, f.Name, "no window: name one such as 1h, 7d or %s", Lifetime)
		}
		if f.Default != nil && err == nil {
			c.checkDefault(&d)
		}
		declared = append(declared, d)
	}
	return declared
}

func (c *compiler) checkDefault(d *declaredFeature) {
	switch kind := d.call.kind(); {
	case d.call.aggregate.zeroWhenEmpty:
		c.fault(d.Line, d.Name, "default: %s of an empty window is 0", d.call.name)
	case kind != schemas.Int && kind != schemas.Float:
		c.fault(d.Line, d.Name, "default: the feature is %s, a default is a number", kind)
	case !finite(*d.Default):
		c.fault(d.Line, d.Name, "default: %v is not finite", *d.Default)
	case kind == schemas.Int && *d.Default != float64(int64(*d.Default)):
		c.fault(d.Line, d.Name, "default: the feature is int, %v is none", *d.Default)
	}
}

// kind is that of the aggregate's value.
func (c *call) kind() schemas.Kind {
	if c.argument == nil {
		return c.aggregate.kind(schemas.Null)
	}
	return c.aggregate.kind(c.argument.Kind())
}

func (c *compiler) spans(texts []string, line int, feature string) []span {
	var spans []span
	for _, text := range texts {
		s := span{text: strings.TrimSpace(text)}
		if s.text != Lifetime {
			var err error
			if s.length, err = duration.Parse(s.text); err == nil {
				_, err = milliseconds("window", s.length)
			}
			if err != nil {
				c.fault(line, feature, "window: %v", err)
				continue
			}
			if s.length == 0 {
				c.fault(line, feature, "window: %s is empty", text)
				continue
			}
		}
		if slices.ContainsFunc(spans, func(other span) bool { return other.length == s.length }) {
			c.fault(line, feature, "window: %s is named twice", text)
			continue
		}
		spans = append(spans, s)
	}
	return spans
}

func outputName(feature string, s span) string {
	if s.length == 0 {
		return feature
	}
	return feature + "_" + s.text
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
		}
	}
}

// layOutWindows gathers the distinct windows of all features, and the ladder of tiles that serves them.
func (c *compiler) layOutWindows(declared []declaredFeature) {
	g := c.group
	var lengths []int64
	for _, f := range declared {
		for _, s := range f.spans {
			if s.length == 0 {
				g.lifetime = true
			} else {
				lengths = append(lengths, s.length.Milliseconds())
			}
		}
	}
	slices.Sort(lengths)
	lengths = slices.Compact(lengths)
	lateness := g.Lateness.Milliseconds()
	var of []int
	if len(lengths) == 0 {
		// Without a window of their own, lifetime features still keep recent tiles, so that a read of a moment ago can
		// leave out what came after it.
		g.levels, _ = newLadder([]int64{max(lateness, minute)}, 0)
	} else {
		g.levels, of = newLadder(lengths, lateness)
	}
	for i, length := range lengths {
		g.windows = append(g.windows, window{length: length, level: of[i]})
	}
	if g.lifetime {
		g.windows = append(g.windows, window{level: len(g.levels), lifetime: true})
	}
	if len(g.windows) > MaxWindows {
		c.fault(g.Line, "", "%d different windows, at most %d are allowed", len(g.windows), MaxWindows)
	}
	if n := tileCount(g.levels); n > MaxTiles {
		c.fault(g.Line, "", "an entity would keep up to %d tiles of %s, at most %d are allowed: lengthen the shortest window or shorten lateness",
			n, time.Duration(g.levels[0].width)*time.Millisecond, MaxTiles)
	}
}

func (c *compiler) windowIndex(s span) int {
	for i, w := range c.group.windows {
		if w.lifetime == (s.length == 0) && (w.lifetime || w.length == s.length.Milliseconds()) {
			return i
		}
	}
	panic("features: a window was not laid out")
}

// addOutputs adds a feature's outputs, in the order they are declared, and the state they are read from.
func (c *compiler) addOutputs(f *declaredFeature) {
	g := c.group
	kind, argumentKind := f.call.kind(), schemas.Null
	if f.call.argument != nil {
		argumentKind = f.call.argument.Kind()
	}
	a := &g.accumulators[c.accumulator(f, argumentKind)]
	for _, s := range f.spans {
		r := read{window: c.windowIndex(s), output: len(g.Outputs)}
		output := Output{Name: outputName(f.Name, s), Feature: f.Name, Window: s.length, Kind: kind}
		if s.length != 0 {
			output.TailError = time.Duration(g.levels[g.windows[r.window].level].width) * time.Millisecond
		}
		if a.fixed != nil {
			r.fixed = f.call.aggregate.fixedValue(kind, f.call.parameters)
		} else {
			r.growing = f.call.aggregate.growingValue(f.call.parameters)
		}
		if f.Default != nil {
			r.empty = schemas.FloatValue(*f.Default)
			if kind == schemas.Int {
				r.empty = schemas.IntValue(int64(*f.Default))
			}
		}
		g.Outputs = append(g.Outputs, output)
		a.reads = append(a.reads, r)
	}
}

// accumulator is the index of the state that a feature reads, which it may share.
func (c *compiler) accumulator(f *declaredFeature, argumentKind schemas.Kind) int {
	g := c.group
	name, fixed, growing := f.call.aggregate.state(argumentKind)
	in := &g.inputs[c.input(f)]
	for _, i := range in.accumulators {
		if g.accumulators[i].name == name {
			return i
		}
	}
	in.accumulators = append(in.accumulators, len(g.accumulators))
	g.accumulators = append(g.accumulators, accumulator{name: name, fixed: fixed, growing: growing})
	return len(g.accumulators) - 1
}

func (c *compiler) input(f *declaredFeature) int {
	g := c.group
	for i := range g.inputs {
		if sameExpression(g.inputs[i].where, f.where) && sameExpression(g.inputs[i].value, f.call.argument) {
			return i
		}
	}
	g.inputs = append(g.inputs, input{where: f.where, value: f.call.argument})
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
		a.window = a.reads[len(a.reads)-1].window
		a.deepest = g.windows[a.window].level
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
		for _, k := range g.inputs[i].accumulators {
			if _, ok := g.accumulators[k].growing.(lastTextState); ok {
				g.texts = append(g.texts, i)
			}
		}
	}
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
	for _, f := range declared {
		empty := ""
		if f.Default != nil {
			empty = strconv.FormatFloat(*f.Default, 'g', -1, 64)
		}
		line("feature", f.Name, f.call.canonical(), canonicalOf(f.where), empty)
		for _, s := range f.spans {
			line("window", outputName(f.Name, s), s.length.String())
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
