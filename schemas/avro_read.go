package schemas

import (
	"encoding/binary"
	"math"
	"unicode/utf8"
)

// reader reads Avro binary (Avro specification, "Binary Encoding"). The methods report false where the bytes end too early or
// break a rule; the caller knows the path to blame.
type reader struct {
	b    []byte
	i    int
	text string // b as a string, made once for a small record
}

// shareBelow is the size up to which all texts of a record share one copy of it. A larger record is not kept in memory by its texts.
const shareBelow = 1 << 10

func (r *reader) left() int { return len(r.b) - r.i }

// long reads a zigzag varint.
func (r *reader) long() (int64, bool) {
	if r.i < len(r.b) && r.b[r.i] < 0x80 {
		u := r.b[r.i]
		r.i++
		return int64(u>>1) ^ -int64(u&1), true
	}
	u, n := binary.Uvarint(r.b[r.i:])
	if n <= 0 {
		return 0, false
	}
	r.i += n
	return int64(u>>1) ^ -int64(u&1), true
}

func (r *reader) int() (int64, bool) {
	i, ok := r.long()
	return i, ok && int64(int32(i)) == i
}

func (r *reader) boolean() (bool, bool) {
	if r.i >= len(r.b) || r.b[r.i] > 1 {
		return false, false
	}
	r.i++
	return r.b[r.i-1] == 1, true
}

func (r *reader) float() (float64, bool) {
	if r.left() < 4 {
		return 0, false
	}
	r.i += 4
	return float64(math.Float32frombits(binary.LittleEndian.Uint32(r.b[r.i-4:]))), true
}

func (r *reader) double() (float64, bool) {
	if r.left() < 8 {
		return 0, false
	}
	r.i += 8
	return math.Float64frombits(binary.LittleEndian.Uint64(r.b[r.i-8:])), true
}

// bytes reads a length and that many bytes, as a string of their own.
func (r *reader) bytes() (string, bool) {
	n, ok := r.long()
	if !ok || n < 0 || n > int64(r.left()) {
		return "", false
	}
	return r.fixed(int(n))
}

func (r *reader) string() (string, bool) {
	s, ok := r.bytes()
	return s, ok && utf8.ValidString(s)
}

func (r *reader) fixed(n int) (string, bool) {
	if n > r.left() {
		return "", false
	}
	i := r.i
	r.i += n
	if r.text == "" {
		if len(r.b) > shareBelow {
			return string(r.b[i:r.i]), true
		}
		r.text = string(r.b)
	}
	return r.text[i:r.i], true
}

func (r *reader) skip(n int64) bool {
	if n < 0 || n > int64(r.left()) {
		return false
	}
	r.i += int(n)
	return true
}

// maxDepth bounds the depth of a value that is skipped: types may contain themselves.
const maxDepth = 256

// skipNode passes over a value that no column wants.
func (r *reader) skipNode(n *node, depth int) bool {
	if depth > maxDepth {
		return false
	}
	switch n.wire {
	case wireNull:
		return true
	case wireBoolean:
		_, ok := r.boolean()
		return ok
	case wireInt, wireLong:
		_, ok := r.long()
		return ok
	case wireFloat:
		return r.skip(4)
	case wireDouble:
		return r.skip(8)
	case wireBytes, wireString:
		size, ok := r.long()
		return ok && r.skip(size)
	case wireEnum:
		i, ok := r.long()
		return ok && i >= 0 && i < int64(len(n.symbols))
	case wireFixed:
		return r.skip(int64(n.size))
	case wireRecord:
		for i := range n.fields {
			if !r.skipNode(n.fields[i].node, depth+1) {
				return false
			}
		}
		return true
	case wireUnion:
		i, ok := r.long()
		return ok && i >= 0 && i < int64(len(n.branches)) && r.skipNode(n.branches[i], depth+1)
	default:
		return r.skipBlocks(n, depth)
	}
}

// maxEmptyItems bounds how many items that take no bytes a block may claim.
const maxEmptyItems = 1 << 16

// skipBlocks passes over an array or a map: blocks of a count and items, a negative count being followed by the block's size in bytes.
func (r *reader) skipBlocks(n *node, depth int) bool {
	for {
		count, ok := r.long()
		if !ok || count == math.MinInt64 {
			return false
		}
		if count == 0 {
			return true
		}
		if count < 0 {
			size, ok := r.long()
			if !ok || !r.skip(size) {
				return false
			}
			continue
		}
		if count > int64(r.left())+maxEmptyItems {
			return false
		}
		for ; count > 0; count-- {
			if n.wire == wireMap {
				size, ok := r.long()
				if !ok || !r.skip(size) {
					return false
				}
			}
			if !r.skipNode(n.items, depth+1) {
				return false
			}
		}
	}
}
