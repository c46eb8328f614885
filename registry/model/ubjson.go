package model

import (
	"encoding/binary"
	"encoding/json"
	"math"
	"strconv"
)

// ubjsonDepth is how deep arrays and objects may stand in one another; XGBoost's models need 7.
const ubjsonDepth = 32

// fromUBJSON writes Universal Binary JSON (ubjson.org, draft 12) as JSON text. It takes no more than a small multiple of
// the input's length, and at most MaxBytes: of a counted array, each element must have its bytes in the input. Numbers
// that JSON lacks are written as the strings "NaN", "+Inf" and "-Inf". Errors are of kind Corrupt.
func fromUBJSON(b []byte) ([]byte, error) {
	r := &ubjson{in: b, out: make([]byte, 0, min(2*len(b), MaxBytes))}
	if !r.value(r.marker(), 0) {
		return nil, corrupt("", "not UBJSON at byte %d of %d", r.at, len(b))
	}
	if r.at != len(b) {
		return nil, corrupt("", "%d bytes after the end of the UBJSON value", len(b)-r.at)
	}
	return r.out, nil
}

type ubjson struct {
	in  []byte
	at  int
	out []byte
}

// bytes takes the next n bytes; nil when there are fewer.
func (r *ubjson) bytes(n int) []byte {
	if n < 0 || n > len(r.in)-r.at {
		return nil
	}
	r.at += n
	return r.in[r.at-n : r.at : r.at]
}

// marker takes the next type marker; 0 at the end.
func (r *ubjson) marker() byte {
	b := r.bytes(1)
	if b == nil {
		return 0
	}
	return b[0]
}

// sizes are the bytes of a number by its type marker.
var sizes = map[byte]int{'i': 1, 'U': 1, 'I': 2, 'l': 4, 'L': 8, 'd': 4, 'D': 8}

// value writes the value of a type that begins here. False is a fault, as of everything below.
func (r *ubjson) value(marker byte, depth int) bool {
	if depth > ubjsonDepth || len(r.out) > MaxBytes {
		return false
	}
	switch marker {
	case 'Z':
		r.out = append(r.out, "null"...)
	case 'T':
		r.out = append(r.out, "true"...)
	case 'F':
		r.out = append(r.out, "false"...)
	case 'S':
		return r.text()
	case '[':
		return r.array(depth)
	case '{':
		return r.object(depth)
	default:
		return r.number(marker)
	}
	return true
}

func (r *ubjson) number(marker byte) bool {
	b := r.bytes(sizes[marker])
	if len(b) == 0 {
		return false
	}
	switch marker {
	case 'd':
		r.real(float64(math.Float32frombits(binary.BigEndian.Uint32(b))), 32)
	case 'D':
		r.real(math.Float64frombits(binary.BigEndian.Uint64(b)), 64)
	default:
		r.out = strconv.AppendInt(r.out, whole(marker, b), 10)
	}
	return true
}

func whole(marker byte, b []byte) int64 {
	switch marker {
	case 'i':
		return int64(int8(b[0]))
	case 'U':
		return int64(b[0])
	case 'I':
		return int64(int16(binary.BigEndian.Uint16(b)))
	case 'l':
		return int64(int32(binary.BigEndian.Uint32(b)))
	default:
		return int64(binary.BigEndian.Uint64(b))
	}
}

func (r *ubjson) real(x float64, bits int) {
	if finite(x) {
		r.out = strconv.AppendFloat(r.out, x, 'g', -1, bits)
		return
	}
	r.out = append(r.out, '"')
	r.out = strconv.AppendFloat(r.out, x, 'g', -1, bits)
	r.out = append(r.out, '"')
}

// length reads a whole number with its type marker: how long something is. -1 is a fault.
func (r *ubjson) length() int {
	marker := r.marker()
	b := r.bytes(sizes[marker])
	if len(b) == 0 || marker == 'd' || marker == 'D' {
		return -1
	}
	n := whole(marker, b)
	if n < 0 || n > int64(len(r.in)-r.at) { // what is counted takes a byte at least
		return -1
	}
	return int(n)
}

// text writes a string, which its length precedes.
func (r *ubjson) text() bool {
	n := r.length()
	b := r.bytes(n)
	if n < 0 {
		return false
	}
	quoted, err := json.Marshal(string(b))
	r.out = append(r.out, quoted...)
	return err == nil
}

// header reads the optional type and count of a container. counted is -1 when the container ends with its own marker.
func (r *ubjson) header() (of byte, counted int, ok bool) {
	counted = -1
	if r.at < len(r.in) && r.in[r.at] == '$' {
		r.at++
		if of = r.marker(); sizes[of] == 0 { // a type without a payload would be counted for nothing
			return 0, 0, false
		}
	}
	if r.at < len(r.in) && r.in[r.at] == '#' {
		r.at++
		if counted = r.length(); counted < 0 {
			return 0, 0, false
		}
	}
	return of, counted, of == 0 || counted >= 0
}

func (r *ubjson) array(depth int) bool {
	of, counted, ok := r.header()
	r.out = append(r.out, '[')
	for i := 0; ok && i != counted; i++ {
		marker := of
		if of == 0 {
			marker = r.marker()
		}
		if counted < 0 && marker == ']' {
			break
		}
		r.comma(i)
		ok = r.value(marker, depth+1)
	}
	r.out = append(r.out, ']')
	return ok
}

func (r *ubjson) object(depth int) bool {
	of, counted, ok := r.header()
	r.out = append(r.out, '{')
	for i := 0; ok && i != counted; i++ {
		if counted < 0 && r.at < len(r.in) && r.in[r.at] == '}' {
			r.at++
			break
		}
		r.comma(i)
		if !r.text() {
			return false
		}
		r.out = append(r.out, ':')
		marker := of
		if of == 0 {
			marker = r.marker()
		}
		ok = r.value(marker, depth+1)
	}
	r.out = append(r.out, '}')
	return ok
}

func (r *ubjson) comma(i int) {
	if i > 0 {
		r.out = append(r.out, ',')
	}
}
