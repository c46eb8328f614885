package pit

import (
	"math"
	"slices"

	"github.com/millrace/millrace/features"
	"github.com/millrace/millrace/project"
	"github.com/millrace/millrace/schemas"
)

// Block is rows with their values. Rows are in the order of time; those of equal times in the order they were added.
type Block struct {
	Rows    []int64 // numbers of the rows
	Times   []int64
	lookups []cells
}

// cells is the values of one lookup, row after row.
type cells struct {
	kinds  []schemas.Kind
	text   []int // of each output, its place among the texts; -1 where it is none
	texts  int   // outputs that are text
	stride int   // words of a row: the values, then a bit for each that is null
	words  []uint64
	texted []string
	status []features.Status
	newest []int64
}

// Never is the newest event time of an entity without events.
const Never = math.MinInt64

func newBlock(lookups []Lookup) *Block {
	b := &Block{lookups: make([]cells, len(lookups))}
	for i, l := range lookups {
		c := &b.lookups[i]
		for _, o := range l.Outputs {
			kind := l.Group.Outputs[o].Kind
			c.kinds = append(c.kinds, kind)
			if isText(kind) {
				c.text = append(c.text, c.texts)
				c.texts++
			} else {
				c.text = append(c.text, -1)
			}
		}
		c.stride = len(l.Outputs) + (len(l.Outputs)+63)/64
	}
	return b
}

// resize makes room for the rows of a slice.
func (b *Block) resize(n int) {
	for i := range b.lookups {
		c := &b.lookups[i]
		c.words = sized(c.words, n*c.stride)
		c.texted = sized(c.texted, n*c.texts)
		c.status = sized(c.status, n)
		c.newest = sized(c.newest, n)
	}
}

func sized[T any](s []T, n int) []T {
	if cap(s) < n {
		return make([]T, n)
	}
	return s[:n]
}

// set keeps what was read for a row.
func (c *cells) set(row int, outputs []int, results []features.Result, newest int64) {
	words := c.words[row*c.stride : (row+1)*c.stride]
	n := len(outputs)
	clear(words[n:])
	status := features.Present
	for i, o := range outputs {
		r := &results[o]
		if r.Status != features.Present {
			words[i] = 0
			words[n+i/64] |= 1 << (i % 64)
			if r.Status != features.Null {
				status = r.Status
			}
			if c.text[i] >= 0 {
				c.texted[row*c.texts+c.text[i]] = ""
			}
			continue
		}
		switch {
		case c.kinds[i] == schemas.Float:
			f, _ := r.Value.Float()
			words[i] = math.Float64bits(f)
		case c.text[i] >= 0:
			c.texted[row*c.texts+c.text[i]] = r.Value.Str()
		default:
			words[i] = uint64(r.Value.Int())
		}
	}
	c.status[row], c.newest[row] = status, newest
}

// setWords keeps what was read for a row as words. No output is a text.
func (c *cells) setWords(row int, outputs []int, read *features.Words, newest int64) {
	words := c.words[row*c.stride : (row+1)*c.stride]
	n := len(outputs)
	c.status[row], c.newest[row] = read.Status, newest
	if n == len(read.Values) && slices.IsSorted(outputs) { // all of them
		copy(words, read.Values)
		copy(words[n:], read.Nulls)
		return
	}
	clear(words[n:])
	for i, o := range outputs {
		words[i] = read.Values[o]
		words[n+i/64] |= read.Nulls[o/64] >> (o % 64) & 1 << (i % 64)
	}
}

// repeat keeps for a row what was kept for another.
func (c *cells) repeat(row, from int) {
	copy(c.words[row*c.stride:(row+1)*c.stride], c.words[from*c.stride:])
	copy(c.texted[row*c.texts:(row+1)*c.texts], c.texted[from*c.texts:])
	c.status[row], c.newest[row] = c.status[from], c.newest[from]
}

// absent keeps that nothing is known of a row's entity.
func (c *cells) absent(row int) {
	words := c.words[row*c.stride : (row+1)*c.stride]
	clear(words[:len(c.kinds)])
	for i := range words[len(c.kinds):] {
		words[len(c.kinds)+i] = math.MaxUint64
	}
	clear(c.texted[row*c.texts : (row+1)*c.texts])
	c.status[row], c.newest[row] = features.NotFound, Never
}

// Status says what the values of a lookup are: Present, though single ones may be null, or NotFound, or Expired.
func (b *Block) Status(lookup, row int) features.Status { return b.lookups[lookup].status[row] }

// Newest is the newest event time that the values of a lookup know of, Unix milliseconds; Never when they know of none.
func (b *Block) Newest(lookup, row int) int64 { return b.lookups[lookup].newest[row] }

// Word is a value, counted as in Lookup.Outputs: the bits of a float, an int, Unix milliseconds, or 0 or 1. ok is false
// where it is null.
func (b *Block) Word(lookup, output, row int) (word uint64, ok bool) {
	c := &b.lookups[lookup]
	words := c.words[row*c.stride:]
	return words[output], words[len(c.kinds)+output/64]&(1<<(output%64)) == 0
}

// Input is a value as a model takes it: a number, of a text its place among the categories. NaN is missing.
func (b *Block) Input(categories *project.Categories, lookup, output, row int) float64 {
	if categories == nil {
		return b.Number(lookup, output, row)
	}
	if _, ok := b.Word(lookup, output, row); !ok {
		return math.NaN()
	}
	if code, ok := categories.Value(schemas.StringValue(b.Text(lookup, output, row))).Float(); ok {
		return code
	}
	return math.NaN()
}

// Number is a value as a number, NaN where it is null or text.
func (b *Block) Number(lookup, output, row int) float64 {
	word, ok := b.Word(lookup, output, row)
	kind := b.lookups[lookup].kinds[output]
	switch {
	case !ok || isText(kind):
		return math.NaN()
	case kind == schemas.Float:
		return math.Float64frombits(word)
	default:
		return float64(int64(word))
	}
}

// isText reports whether values of a kind are texts.
func isText(k schemas.Kind) bool {
	return k == schemas.String || k == schemas.Bytes || k == schemas.Composite
}

// Text is a value of kind String, Bytes or Composite.
func (b *Block) Text(lookup, output, row int) string {
	c := &b.lookups[lookup]
	return c.texted[row*c.texts+c.text[output]]
}
