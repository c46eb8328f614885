package openinference

import (
	"encoding/binary"
	"math"

	"github.com/millrace/millrace/serving"
)

// fromRaw fills a tensor from its raw contents: elements one after the other, little endian; each of BYTES behind its length in 4 bytes.
func (t *tensor) fromRaw(raw []byte) *serving.Problem {
	size := datatypes[t.datatype].size
	if size == 0 {
		return t.textsFromRaw(raw)
	}
	n := t.elements()
	if len(raw) != n*size {
		return invalid(t.name, "%d bytes, where %d elements have %d", len(raw), n, n*size)
	}
	if t.kind == floats {
		t.floats = make([]float64, n)
		for i := range t.floats {
			if size == 4 {
				t.floats[i] = float64(math.Float32frombits(binary.LittleEndian.Uint32(raw[4*i:])))
			} else {
				t.floats[i] = math.Float64frombits(binary.LittleEndian.Uint64(raw[8*i:]))
			}
		}
		return nil
	}
	t.ints = make([]int64, n)
	for i := range t.ints {
		t.ints[i] = integer(raw[i*size:], size, t.kind == ints)
	}
	return nil
}

func integer(raw []byte, size int, signed bool) int64 {
	switch {
	case size == 8:
		return int64(binary.LittleEndian.Uint64(raw))
	case size == 4 && signed:
		return int64(int32(binary.LittleEndian.Uint32(raw)))
	case size == 4:
		return int64(binary.LittleEndian.Uint32(raw))
	case size == 2 && signed:
		return int64(int16(binary.LittleEndian.Uint16(raw)))
	case size == 2:
		return int64(binary.LittleEndian.Uint16(raw))
	case signed:
		return int64(int8(raw[0]))
	default:
		return int64(raw[0])
	}
}

func (t *tensor) textsFromRaw(raw []byte) *serving.Problem {
	for len(raw) > 0 {
		if len(raw) < 4 || uint64(len(raw)-4) < uint64(binary.LittleEndian.Uint32(raw)) {
			return invalid(t.name, "an element is cut off")
		}
		end := 4 + int(binary.LittleEndian.Uint32(raw))
		t.texts = append(t.texts, string(raw[4:end]))
		raw = raw[end:]
	}
	return t.full()
}

// appendRaw writes the raw contents of an output. An element that is missing is NaN.
func (t *tensor) appendRaw(b []byte) []byte {
	switch t.kind {
	case floats:
		for _, f := range t.floats {
			b = binary.LittleEndian.AppendUint64(b, math.Float64bits(f))
		}
	case texts:
		for _, s := range t.texts {
			b = append(binary.LittleEndian.AppendUint32(b, uint32(len(s))), s...)
		}
	default:
		for _, i := range t.ints {
			b = binary.LittleEndian.AppendUint64(b, uint64(i))
		}
	}
	return b
}
