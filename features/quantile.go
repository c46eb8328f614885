package features

import (
	"errors"
	"fmt"
	"math"
	"math/bits"

	"github.com/millrace/millrace/schemas"
)

// quantile(x, q) is the value of rank floor(q*(n-1)) among the n values in ascending order, with a relative error of at
// most 2^-quantileDigits: a reported value is the true one or lies that much nearer to zero. Integers below
// 2^(quantileDigits+1) are exact. Null when there are no values. See docs/decisions/0003-sketches.md.
var quantileAggregate = aggregate{
	argument:   numberArgument,
	parameters: []parameter{numberParameter("q")},
	check: func(p []float64) error {
		if !(p[0] >= 0 && p[0] <= 1) {
			return fmt.Errorf("q is %v, a quantile lies between 0 and 1", p[0])
		}
		return nil
	},
	kind:  kindFloat,
	state: func(stateOf) (string, fixedState, growingState) { return growing("bins", binState{}) },
	growingValue: func(v valueOf) growingReader {
		q := v.parameters[0]
		return func(f folder, _ int64) schemas.Value { return f.(*binFolder).quantile(q) }
	},
}

// quantileDigits is how many binary digits of a value's mantissa its bin keeps.
const quantileDigits = 7

const (
	binCountBits = 44                      // a bin's word is its key and, in the low bits, its count
	binCountMask = 1<<binCountBits - 1     //
	binKeys      = 1 << 20                 // keys are below this
	zeroBin      = binKeys / 2             // key of 0; negatives lie below, positives above
	binShift     = 52 - quantileDigits     // of a float's bits to its bin
	maxBin       = 0x7ff << quantileDigits // one more than the index of the greatest finite float
)

// binState is bins in ascending order of key, one word each: key<<44 | count. A bin is a sign, an exponent and the first
// digits of the mantissa, so finding it is a shift: no logarithm, hence the same bin on every machine.
type binState struct{}

func binOf(x float64) uint64 {
	index := math.Float64bits(x) &^ (1 << 63) >> binShift
	switch {
	case x > 0:
		return zeroBin + 1 + index
	case x < 0:
		return zeroBin - 1 - index
	default:
		return zeroBin
	}
}

// binValue is the value in the bin that is nearest to zero.
func binValue(key uint64) float64 {
	switch {
	case key > zeroBin:
		return math.Float64frombits((key - zeroBin - 1) << binShift)
	case key < zeroBin:
		return -math.Float64frombits((zeroBin - 1 - key) << binShift)
	default:
		return 0
	}
}

func (binState) add(state []uint64, _ schemas.Value, s sample) []uint64 {
	key := binOf(s.x)
	low, high := 0, len(state)
	for low < high {
		middle := int(uint(low+high) >> 1)
		if state[middle]>>binCountBits < key {
			low = middle + 1
		} else {
			high = middle
		}
	}
	if low < len(state) && state[low]>>binCountBits == key {
		state[low]++
		return state
	}
	state = append(state, 0)
	copy(state[low+1:], state[low:])
	state[low] = key<<binCountBits | 1
	return state
}

// merge goes from the greatest bin down, so that it can write behind what it still has to read.
func (binState) merge(dst, src []uint64) []uint64 {
	if len(dst) == 0 {
		return append(dst, src...)
	}
	i, j := len(dst)-1, len(src)-1
	fresh := len(src)
	for a, b := i, j; a >= 0 && b >= 0; {
		switch ka, kb := dst[a]>>binCountBits, src[b]>>binCountBits; {
		case ka == kb:
			fresh--
			a--
			b--
		case ka > kb:
			a--
		default:
			b--
		}
	}
	for range fresh {
		dst = append(dst, 0)
	}
	for k := len(dst) - 1; j >= 0; k-- {
		switch {
		case i < 0 || src[j]>>binCountBits > dst[i]>>binCountBits:
			dst[k] = src[j]
			j--
		case src[j]>>binCountBits == dst[i]>>binCountBits:
			dst[k] = dst[i] + src[j]&binCountMask
			i--
			j--
		default:
			dst[k] = dst[i]
			i--
		}
	}
	return dst
}

// farBin marks, in the low byte of a packed bin, that the distance to the bin before follows in a word of its own.
const farBin = 255

// pack writes of each bin its count and, in the low byte, the distance to the bin before.
func (binState) pack(packed, state []uint64) []uint64 {
	previous := uint64(0)
	for _, w := range state {
		key, count := w>>binCountBits, w&binCountMask
		if distance := key - previous; distance < farBin {
			packed = append(packed, count<<8|distance)
		} else {
			packed = append(packed, count<<8|farBin, distance)
		}
		previous = key
	}
	return packed
}

func (binState) unpack(dst, packed []uint64) ([]uint64, error) {
	key := uint64(0)
	for i := 0; i < len(packed); i++ {
		distance, count := packed[i]&0xff, packed[i]>>8
		if distance == farBin && i+1 < len(packed) {
			i++
			distance = packed[i]
		}
		if distance == 0 || distance >= binKeys || count == 0 || count > binCountMask {
			return nil, errors.New("bins are not ascending, or empty")
		}
		if key += distance; key <= zeroBin-1-maxBin || key >= zeroBin+1+maxBin {
			return nil, errors.New("a bin is of no finite number")
		}
		dst = append(dst, key<<binCountBits|count)
	}
	return dst, nil
}

func (binState) newFolder() folder { return &binFolder{pages: make([][pageKeys]uint64, 1)} }

const pageKeys = 64

// binFolder counts by key, in pages of neighbouring keys. used has a bit for every page in use, so that a quantile walks
// what is there and not the whole range.
type binFolder struct {
	pages  [][pageKeys]uint64 // the first one is nobody's
	pageOf [binKeys / pageKeys]uint16
	used   [binKeys / pageKeys / 64]uint64
	total  uint64
}

func (f *binFolder) reset() {
	for u := range f.used {
		for word := f.used[u]; word != 0; word &= word - 1 {
			f.pageOf[u*64+bits.TrailingZeros64(word)] = 0
		}
		f.used[u] = 0
	}
	f.pages = f.pages[:1]
	f.total = 0
}

func (f *binFolder) fold(state []uint64) {
	for _, w := range state {
		key, count := w>>binCountBits, w&binCountMask
		page := f.pageOf[key/pageKeys]
		if page == 0 {
			page = f.newPage(key / pageKeys)
		}
		f.pages[page][key%pageKeys] += count
		f.total += count
	}
}

func (f *binFolder) newPage(block uint64) uint16 {
	f.pages = append(f.pages, [pageKeys]uint64{})
	f.pageOf[block] = uint16(len(f.pages) - 1)
	f.used[block/64] |= 1 << (block % 64)
	return f.pageOf[block]
}

func (f *binFolder) quantile(q float64) schemas.Value {
	if f.total == 0 {
		return schemas.NullValue()
	}
	rank := uint64(q * float64(f.total-1))
	for u, word := range f.used {
		for ; word != 0; word &= word - 1 {
			block := u*64 + bits.TrailingZeros64(word)
			for i, count := range f.pages[f.pageOf[block]] {
				if rank < count {
					return schemas.FloatValue(binValue(uint64(block*pageKeys + i)))
				}
				rank -= count
			}
		}
	}
	return schemas.NullValue()
}
