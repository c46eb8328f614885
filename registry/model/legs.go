package model

import (
	"math"
	"unsafe"
)

// legs is what each leaf says of the inputs: by how much the mean value changes at the splits on the way to it. With it an explanation
// adds up a few numbers for each tree in place of going its way again.
//
// A node has so many words of its own, an inner one for nothing, so that what a leaf says is found without looking up where, and in as few
// lines of the cache as can be: one in a forest of depth 6. First the changes, up to a zero, then the inputs that they are of, four to a
// word.
type legs struct {
	changes int // for a node, at most
	words   int // for a node: those of the changes and of their inputs, in whole lines; 0 when nothing is kept
	slab    []uint64
}

const (
	// maxLegs bounds the words that are kept. The trees of a forest that would need more are followed from their roots.
	maxLegs = 1 << 22
	// inputsInWord is how many inputs stand in a word: MaxInputs is what inputBits can say.
	inputsInWord = 64 / inputBits
	inputBits    = 16
	lineWords    = 8 // of 64 bytes
)

// keepLegs fills kept, unless it would be too much.
func (f *flat[T]) keepLegs() {
	var k legs
	f.eachLeaf(func(_ int32, inputs []int32, _ []float64) { k.changes = max(k.changes, len(inputs)+len(inputs)%2) })
	k.words = k.changes + (k.changes+inputsInWord-1)/inputsInWord
	k.words = (k.words + lineWords - 1) / lineWords * lineWords
	if k.words == 0 || k.words > maxLegs/len(f.nodes) {
		return
	}
	k.slab = make([]uint64, k.words*len(f.nodes)) // so long that it begins where a line does
	f.eachLeaf(func(at int32, inputs []int32, moved []float64) {
		own, n := k.of(uint32(at)), 0
		for _, input := range inputs {
			if moved[input] != 0 {
				own[n] = math.Float64bits(moved[input])
				own[k.changes+n/inputsInWord] |= uint64(input) << (inputBits * (n % inputsInWord))
				n++
			}
		}
	})
	f.kept = k
}

func (k *legs) of(at uint32) []uint64 { return k.slab[int(at)*k.words:][:k.words] }

// touch reads the first word of each leaf. What the leaves say has seldom stayed in a near cache since the request before, and these reads
// don't wait for each other, as additions do.
func (k *legs) touch(leaves []uint32) (all uint64) {
	for _, at := range leaves {
		all |= k.slab[int(at)*k.words]
	}
	return all
}

// add adds what a leaf says to out, per input. It goes past the checks of indices, which take a third of its time: keepLegs wrote every input
// below out's length. Of the first words it adds the zeros behind the last change, too, as a branch for each would often be guessed wrong.
func (k *legs) add(at uint32, out []float64) {
	own, to := unsafe.Pointer(unsafe.SliceData(k.of(at))), unsafe.Pointer(unsafe.SliceData(out))
	for i := 0; i < k.changes; i += inputsInWord {
		changes := unsafe.Add(own, i*8)
		if i >= 2*inputsInWord && *(*uint64)(changes) == 0 {
			return
		}
		four := *(*uint64)(unsafe.Add(own, (k.changes+i/inputsInWord)*8))
		*(*float64)(unsafe.Add(to, uintptr(uint16(four))*8)) += *(*float64)(changes)
		*(*float64)(unsafe.Add(to, uintptr(uint16(four>>16))*8)) += *(*float64)(unsafe.Add(changes, 8))
		if i+2 < k.changes {
			*(*float64)(unsafe.Add(to, uintptr(uint16(four>>32))*8)) += *(*float64)(unsafe.Add(changes, 16))
			*(*float64)(unsafe.Add(to, uintptr(uint16(four>>48))*8)) += *(*float64)(unsafe.Add(changes, 24))
		}
	}
}

// eachLeaf gives every leaf with the inputs that are asked on the way to it, each once, and by how much the mean value changes there, per
// input of the forest. Both are valid until give returns.
func (f *flat[T]) eachLeaf(give func(at int32, inputs []int32, moved []float64)) {
	highest := int32(0)
	for _, c := range f.columns {
		highest = max(highest, c.input)
	}
	moved, asked := make([]float64, highest+1), make([]int32, highest+1) // how often, on the way here
	var inputs []int32
	var below func(at int32)
	below = func(at int32) {
		n := &f.nodes[at]
		if n.next == at {
			give(at, inputs, moved)
			return
		}
		input := f.input(at)
		before := moved[input]
		if asked[input]++; asked[input] == 1 {
			inputs, before = append(inputs, input), 0
		}
		for _, child := range []int32{n.next, n.next + 1} {
			moved[input] = before + (f.means[child] - f.means[at])
			below(child)
		}
		moved[input] = before
		if asked[input]--; asked[input] == 0 {
			inputs = inputs[:len(inputs)-1]
		}
	}
	for _, root := range f.roots {
		below(root)
	}
}

// sumsAtOnce is into how many sums the trees add in turn. An addition waits for the one before to the same place, and trees like to ask
// for the same inputs.
const sumsAtOnce = 4

// explanation adds to out, per input, the change of the mean value across its splits on the way to the leaves, of an output's trees.
func (f *flat[T]) explanation(s *scratch[T], output int, out []float64) {
	if f.kept.words == 0 {
		for t, root := range f.roots {
			if int(f.outputs[t]) == output {
				f.followed(s.x, root, out)
			}
		}
		return
	}
	n := len(out)
	if cap(s.moved) < sumsAtOnce*n {
		s.moved = make([]float64, sumsAtOnce*n)
	}
	moved := s.moved[:sumsAtOnce*n]
	clear(moved)
	s.touched = f.kept.touch(s.at)
	for t, at := range s.at {
		if int(f.outputs[t]) == output {
			turn := t % sumsAtOnce * n
			f.kept.add(at, moved[turn:turn+n])
		}
	}
	for i := range out {
		for turn := range sumsAtOnce {
			out[i] += moved[turn*n+i]
		}
	}
}

// followed is what the way of a row from a root adds.
func (f *flat[T]) followed(x []T, at int32, out []float64) {
	for next := f.next(x, at); next != at; next = f.next(x, at) {
		out[f.input(at)] += f.means[next] - f.means[at]
		at = next
	}
}

// saabas adds to out what the row's leaves say of the inputs, of an output's trees.
func (f *flat[T]) saabas(row []float64, output int, out []float64) {
	s := f.landed(row)
	f.explanation(s, output, out)
	f.pool.Put(s)
}
