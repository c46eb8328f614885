package features

import (
	"encoding/binary"
	"math"
	"math/bits"
)

// A column is one word of each of some tiles, all of them in as many bytes: those of a code as pack.go has it, so that
// any one can be loaded without those before.
type column struct {
	at   int // of the first word in the state's bytes
	code byte
}

// columnCode is the shortest code for words whose bits together are all.
func columnCode(all uint64) byte {
	code, _ := codeOf(all)
	return code
}

// codeBytes is how many bytes the codes of columns take: two in a byte, the first one's in the low half.
func codeBytes(columns int) int { return (columns + 1) / 2 }

// putCode writes the code of column i.
func putCode(codes []byte, i int, code byte) { codes[i/2] |= code << (i % 2 * 4) }

func codeAt(codes []byte, i int) byte { return codes[i/2] >> (i % 2 * 4) & 15 }

// appendColumnWord appends one word by a column's code. b has room for eight more bytes.
func appendColumnWord(b []byte, code byte, w uint64) []byte {
	n := len(b)
	binary.LittleEndian.PutUint64(b[n:n+8], w>>codeShift[code&15])
	return b[:n+int(codeLength[code&15])]
}

// load is word i of a column.
func (c column) load(b []byte, i int) uint64 {
	n := int(codeLength[c.code&15])
	at := c.at + i*n
	if at+8 <= len(b) {
		return binary.LittleEndian.Uint64(b[at:]) & (1<<(8*n) - 1) << codeShift[c.code&15]
	}
	return loadLast(b[at:], n) << codeShift[c.code&15]
}

// loadLast is load where fewer than eight bytes follow.
func loadLast(b []byte, n int) uint64 {
	var w uint64
	for i := n - 1; i >= 0; i-- {
		w = w<<8 | uint64(b[i])
	}
	return w
}

// unpack stores the words from..until of a column, stride words apart. dst ends with the last one or behind.
func (c column) unpack(dst []uint64, stride int, b []byte, from, until int) {
	n, shift := int(codeLength[c.code&15]), codeShift[c.code&15]&63
	b = b[c.at+from*n:]
	count := until - from
	i, at := 0, 0
	switch n {
	case 0:
		for ; i < count; i++ {
			dst[at] = 0
			at += stride
		}
	case 1:
		for _, w := range b[:count] {
			dst[at] = uint64(w) << shift
			at += stride
		}
	case 8:
		for ; i < count; i++ {
			dst[at] = binary.LittleEndian.Uint64(b[8*i:])
			at += stride
		}
	default:
		mask := uint64(1)<<(8*n) - 1
		for ; i < count && len(b) >= 8; i++ {
			dst[at] = binary.LittleEndian.Uint64(b) & mask << shift
			at += stride
			b = b[n:]
		}
		for ; i < count; i++ {
			dst[at] = loadLast(b, n) << shift
			at += stride
			b = b[n:]
		}
	}
}

// form is how many bytes they take, which bits those are, and how far they are shifted.
func (c column) form() (n int, mask uint64, shift byte) {
	n = int(codeLength[c.code&15])
	return n, 1<<(8*n) - 1, codeShift[c.code&15] & 63
}

// sumWords is the sum of the words from..until.
func (c column) sumWords(b []byte, from, until int) uint64 {
	n, mask, shift := c.form()
	var sum uint64
	at, end := c.at+from*n, c.at+until*n
	switch n {
	case 0:
		return 0
	case 1:
		for ; at+8 <= end; at += 8 {
			sum += sumBytes(binary.LittleEndian.Uint64(b[at : at+8]))
		}
		for _, w := range b[at:end] {
			sum += uint64(w)
		}
		return sum << shift
	}
	for ; at < end && at+8 <= len(b); at += n {
		sum += binary.LittleEndian.Uint64(b[at:at+8]) & mask
	}
	for ; at < end; at += n {
		sum += loadLast(b[at:], n)
	}
	return sum << shift
}

// sumBytes is the sum of a word's eight bytes: of every two in a lane of 16 bits, then of the lanes.
func sumBytes(w uint64) uint64 {
	const low = 0x00ff00ff00ff00ff
	return (w&low + w>>8&low) * 0x0001000100010001 >> 48
}

// addFloats adds the words from..until, which are floats, one after the other to a sum.
func (c column) addFloats(sum float64, b []byte, from, until int) float64 {
	n, mask, shift := c.form()
	if n == 0 {
		return sum // all are 0
	}
	at, end := c.at+from*n, c.at+until*n
	for ; at < end && at+8 <= len(b); at += n {
		sum += math.Float64frombits(binary.LittleEndian.Uint64(b[at:at+8]) & mask << shift)
	}
	for ; at < end; at += n {
		sum += math.Float64frombits(loadLast(b[at:], n) << shift)
	}
	return sum
}

// greatest is the greatest of the words from..until.
func (c column) greatest(b []byte, from, until int) uint64 {
	n, mask, shift := c.form()
	if n == 0 {
		return 0
	}
	var most, other uint64 // two that do not wait for each other
	at, end := c.at+from*n, c.at+until*n
	for ; at+n < end && at+n+8 <= len(b); at += 2 * n {
		most = max(most, binary.LittleEndian.Uint64(b[at:at+8])&mask)
		other = max(other, binary.LittleEndian.Uint64(b[at+n:at+n+8])&mask)
	}
	most = max(most, other)
	for ; at < end; at += n {
		most = max(most, loadLast(b[at:], n))
	}
	return most << shift
}

// orOf is the bits of every stride-th word together.
func orOf(words []uint64, stride int) uint64 {
	var all uint64
	for i := 0; i < len(words); i += stride {
		all |= words[i]
	}
	return all
}

// byteLength is how many bytes n words of a code take.
func byteLength(code byte, n int) int { return n * int(codeLength[code&15]) }

// lowCode is the code of words that are no greater than one.
func lowCode(greatest uint64) byte { return byte((bits.Len64(greatest) + 7) / 8) }
