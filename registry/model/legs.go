package model

import (
	"math"
	"slices"
)

// legs is what each leaf says of the inputs: by how much the mean value changes at the splits on the way to it. With it an explanation
// adds up a few numbers for each tree in place of going its way again.
type legs struct {
	of    []legsAt // per node
	words []uint64 // of a leaf: the changes, then the inputs that they are of, four to a word
}

// legsAt is where the changes of a leaf begin, and in the low bits how many there are.
type legsAt uint32

const (
	countBits = 8
	// maxLegs bounds the words that are kept. The trees of a forest that would need more are followed from their roots.
	maxLegs = 1 << 21
	// inputsInWord is how many inputs stand in a word: MaxInputs is what inputBits can say.
	inputsInWord = 64 / inputBits
	inputBits    = 16
)

// keepLegs fills kept, unless it would be too much.
func (f *flat[T]) keepLegs() {
	k := legs{of: make([]legsAt, len(f.nodes))}
	f.eachLeaf(func(at int32, inputs []int32, moved []float64) bool {
		first := len(k.words)
		for _, input := range inputs {
			k.words = append(k.words, math.Float64bits(moved[input]))
		}
		for part := range slices.Chunk(inputs, inputsInWord) {
			var word uint64
			for i, input := range part {
				word |= uint64(input) << (inputBits * i)
			}
			k.words = append(k.words, word)
		}
		k.of[at] = legsAt(first<<countBits | len(inputs))
		return len(inputs) < 1<<countBits && len(k.words) <= maxLegs
	})
	if len(k.words) <= maxLegs {
		f.kept = k
	}
}

// add adds what a leaf says to out, per input.
func (k *legs) add(at uint32, out []float64) {
	where := k.of[at]
	own := k.words[where>>countBits:]
	n := int(where & (1<<countBits - 1))
	changes, inputs := own[:n], own[n:]
	var four uint64
	for i, c := range changes {
		if i%inputsInWord == 0 {
			four = inputs[i/inputsInWord]
		}
		out[uint16(four)] += math.Float64frombits(c)
		four >>= inputBits
	}
}

// eachLeaf gives every leaf with the inputs that are asked on the way to it, each once, and by how much the mean value changes there, per
// input of the forest, until give has had enough. Both are valid until it returns.
func (f *flat[T]) eachLeaf(give func(at int32, inputs []int32, moved []float64) (more bool)) {
	highest := int32(0)
	for _, c := range f.columns {
		highest = max(highest, c.input)
	}
	moved, asked := make([]float64, highest+1), make([]int32, highest+1) // how often, on the way here
	var inputs []int32
	var below func(at int32) bool
	below = func(at int32) bool {
		n := &f.nodes[at]
		if n.next == at {
			return give(at, inputs, moved)
		}
		input := f.input(at)
		before := moved[input]
		if asked[input]++; asked[input] == 1 {
			inputs, before = append(inputs, input), 0
		}
		for _, child := range []int32{n.next, n.next + 1} {
			if moved[input] = before + (f.means[child] - f.means[at]); !below(child) {
				return false
			}
		}
		moved[input] = before
		if asked[input]--; asked[input] == 0 {
			inputs = inputs[:len(inputs)-1]
		}
		return true
	}
	for _, root := range f.roots {
		if !below(root) {
			return
		}
	}
}

// sumsAtOnce is into how many sums the trees add in turn. An addition waits for the one before to the same place, and trees like to ask
// for the same inputs.
const sumsAtOnce = 4

// explanation adds to out, per input, the change of the mean value across its splits on the way to the leaves, of an output's trees.
func (f *flat[T]) explanation(s *scratch[T], output int, out []float64) {
	if f.kept.of == nil {
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
