package features

import (
	"encoding/binary"
	"errors"
	"math"
	"math/bits"
	"slices"

	"github.com/cespare/xxhash/v2"

	"github.com/millrace/millrace/schemas"
)

// distinct(x) is the number of different values: exact up to distinctExact of them (two of n such values share their 40
// hashed bits, and count once, with a chance below n²/2^41), beyond that an estimate with a standard error of
// 1.04/sqrt(2^distinctBits) = 2.3 %. See docs/decisions/0003-sketches.md.
var distinctAggregate = aggregate{
	argument:      anyArgument,
	kind:          kindInt,
	zeroWhenEmpty: true,
	state:         func(stateOf) (string, fixedState, growingState) { return growing("hashes", hashState{}) },
	growingValue: func(valueOf) growingReader {
		return func(f folder, _ int64) schemas.Value { return schemas.IntValue(f.(*hashFolder).estimate()) }
	},
}

const (
	distinctBits  = 11                // of a hash, to choose its register
	registerCount = 1 << distinctBits // one byte each
	registerWords = registerCount / 8 // a state of this many words is registers, any shorter one is hashes
	distinctExact = registerWords - 1 // values that are kept as hashes
	hashBits      = 40                // of a hash that are kept
	rankBits      = hashBits - distinctBits
)

// hashState is a set of hashed values: up to distinctExact hashes in ascending order, then the registers of a
// HyperLogLog (Flajolet, Fusy, Gandouet, Meunier 2007), eight a word. What it holds depends on the set alone.
type hashState struct{}

// hashOf hashes a present value; equal values of a kind have equal hashes on every machine.
func hashOf(v schemas.Value) uint64 {
	switch v.Kind() {
	case schemas.String, schemas.Bytes:
		return xxhash.Sum64String(v.Str()) >> (64 - hashBits)
	case schemas.Float:
		f, _ := v.Float()
		return hashWord(math.Float64bits(f + 0)) // -0 is 0
	default:
		return hashWord(uint64(v.Int()))
	}
}

func hashWord(w uint64) uint64 {
	var b [8]byte
	binary.LittleEndian.PutUint64(b[:], w)
	return xxhash.Sum64(b[:]) >> (64 - hashBits)
}

func (h hashState) add(state []uint64, v schemas.Value, _ sample) []uint64 {
	return addHash(state, hashOf(v))
}

func addHash(state []uint64, hash uint64) []uint64 {
	if len(state) == registerWords {
		register(state, hash)
		return state
	}
	i, found := slices.BinarySearch(state, hash)
	switch {
	case found:
		return state
	case len(state) < distinctExact:
		return slices.Insert(state, i, hash)
	default:
		registers := toRegisters(state)
		register(registers, hash)
		return registers
	}
}

func toRegisters(hashes []uint64) []uint64 {
	registers := make([]uint64, registerWords)
	for _, h := range hashes {
		register(registers, h)
	}
	return registers
}

// register raises the register that the hash's first bits name to the position of the first 1 among the others.
func register(registers []uint64, hash uint64) {
	i := hash >> rankBits
	rank := uint64(bits.LeadingZeros64(hash<<(64-rankBits)|1<<(63-rankBits)) + 1)
	shift := i % 8 * 8
	if w := &registers[i/8]; *w>>shift&0xff < rank {
		*w = *w&^(0xff<<shift) | rank<<shift
	}
}

// raise is the greater of each of eight registers. Ranks are below 128, so a byte's difference keeps its sign.
func raise(a, b uint64) uint64 {
	const signs = 0x8080808080808080
	less := (a | signs) - b // sign stays set where a >= b
	keep := (less & signs >> 7) * 0xff
	return a&keep | b&^keep
}

func (hashState) merge(dst, src []uint64) []uint64 {
	switch {
	case len(dst) == 0:
		return append(dst, src...)
	case len(src) < registerWords:
		for _, h := range src {
			dst = addHash(dst, h)
		}
		return dst
	case len(dst) < registerWords:
		dst = toRegisters(dst)
	}
	for i, w := range src {
		dst[i] = raise(dst[i], w)
	}
	return dst
}

// pack writes hashes as the distance to the one before.
func (hashState) pack(packed, state []uint64) []uint64 {
	if len(state) == registerWords {
		return append(packed, state...)
	}
	previous := uint64(0)
	for _, h := range state {
		packed = append(packed, h-previous)
		previous = h
	}
	return packed
}

func (hashState) unpack(dst, packed []uint64) ([]uint64, error) {
	if len(packed) == registerWords {
		for _, w := range packed {
			for shift := 0; shift < 64; shift += 8 {
				if w>>shift&0xff > rankBits+1 {
					return nil, errors.New("a register is too great")
				}
			}
		}
		return append(dst, packed...), nil
	}
	if len(packed) > distinctExact {
		return nil, errors.New("a set of hashes is too long")
	}
	hash := uint64(0)
	for i, step := range packed {
		if i > 0 && step == 0 || step >= 1<<hashBits-hash {
			return nil, errors.New("hashes are not ascending")
		}
		hash += step
		dst = append(dst, hash)
	}
	return dst, nil
}

func (hashState) newFolder() folder { return &hashFolder{} }

// tableSize is that of hashFolder's table: a power of two well above distinctExact.
const tableSize = 1024

// hashFolder gathers hashes in an open-addressing table until there are too many, and registers beside it.
type hashFolder struct {
	table     [tableSize]uint64 // round<<hashBits | hash; free when of another round
	round     uint64
	hashes    int // distinct ones in the table; more than distinctExact says that registers count
	dense     bool
	registers [registerWords]uint64
}

func (f *hashFolder) reset() {
	if f.round++; f.round == 1<<(64-hashBits) {
		clear(f.table[:])
		f.round = 1
	}
	f.hashes = 0
	if f.dense {
		clear(f.registers[:])
		f.dense = false
	}
}

func (f *hashFolder) fold(state []uint64) {
	if len(state) == registerWords {
		f.toRegisters()
		for i, w := range state {
			f.registers[i] = raise(f.registers[i], w)
		}
		return
	}
	for _, h := range state {
		if f.dense {
			register(f.registers[:], h)
		} else {
			f.insert(h)
		}
	}
}

func (f *hashFolder) insert(h uint64) {
	slot := h % tableSize
	entry := f.round<<hashBits | h
	for f.table[slot]>>hashBits == f.round {
		if f.table[slot] == entry {
			return
		}
		slot = (slot + 1) % tableSize
	}
	f.table[slot] = entry
	if f.hashes++; f.hashes > distinctExact {
		f.toRegisters()
	}
}

func (f *hashFolder) toRegisters() {
	if f.dense {
		return
	}
	f.dense = true
	for _, entry := range f.table {
		if entry>>hashBits == f.round {
			register(f.registers[:], entry&(1<<hashBits-1))
		}
	}
}

func (f *hashFolder) estimate() int64 {
	if !f.dense {
		return int64(f.hashes)
	}
	var histogram [rankBits + 2]int
	for _, w := range f.registers {
		for shift := 0; shift < 64; shift += 8 {
			histogram[w>>shift&0xff]++
		}
	}
	return int64(math.Round(cardinality(&histogram)))
}

// cardinality is Ertl's improved raw estimator, which needs neither bias tables nor thresholds: O. Ertl, "New
// cardinality estimation algorithms for HyperLogLog sketches" (2017), algorithm 6.
func cardinality(histogram *[rankBits + 2]int) float64 {
	const m = float64(registerCount)
	z := m * tau(1-float64(histogram[rankBits+1])/m)
	for k := rankBits; k >= 1; k-- {
		z = 0.5 * (z + float64(histogram[k]))
	}
	z += m * sigma(float64(histogram[0])/m)
	return m * m / (2 * math.Ln2 * z)
}

func sigma(x float64) float64 {
	if x == 1 {
		return math.Inf(1)
	}
	y, z := 1.0, x
	for previous := math.NaN(); z != previous; y += y {
		x *= x
		previous = z
		z += float64(x * y)
	}
	return z
}

func tau(x float64) float64 {
	if x == 0 || x == 1 {
		return 0
	}
	y, z := 1.0, 1-x
	for previous := math.NaN(); z != previous; {
		x = math.Sqrt(x)
		previous = z
		y *= 0.5
		z -= float64((1 - x) * (1 - x) * y)
	}
	return z / 3
}
