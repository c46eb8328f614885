package ingest

import (
	"encoding/binary"
	"math"

	"github.com/millrace/millrace/internal/failure"
	"github.com/millrace/millrace/schemas"
)

// Feature rows become due as events are applied, but their file is written every few seconds, long after the states they were read from
// went on. So they are kept in Redis from the flush that wrote those states to the flush after their file was committed, and whoever
// owns the partition next begins with them. A row that is in a file already is ignored there by its offset.
//
// A row is its offset and time (varints), the number of values (uvarint), and each value: its kind (a byte), then for texts and bytes
// the length (uvarint) and content, for all others but null eight bytes, little-endian.

func appendRow(b []byte, offset, at int64, row schemas.Row) []byte {
	b = binary.AppendVarint(b, offset)
	b = binary.AppendVarint(b, at)
	b = binary.AppendUvarint(b, uint64(len(row)))
	for _, v := range row {
		b = appendValue(b, v)
	}
	return b
}

func appendValue(b []byte, v schemas.Value) []byte {
	b = append(b, byte(v.Kind()))
	switch v.Kind() {
	case schemas.Null:
	case schemas.String, schemas.Bytes:
		b = binary.AppendUvarint(b, uint64(len(v.Str())))
		b = append(b, v.Str()...)
	case schemas.Float:
		f, _ := v.Float()
		b = binary.LittleEndian.AppendUint64(b, math.Float64bits(f))
	case schemas.Bool:
		i := uint64(0)
		if v.Bool() {
			i = 1
		}
		b = binary.LittleEndian.AppendUint64(b, i)
	default:
		b = binary.LittleEndian.AppendUint64(b, uint64(v.Int()))
	}
	return b
}

// readRows gives each row that appendRow wrote to fn. Anything else is Corrupt.
func readRows(b []byte, fn func(offset, at int64, row schemas.Row) error) error {
	r := rowBytes{rest: b}
	var row schemas.Row
	for len(r.rest) > 0 {
		offset, at := r.varint(), r.varint()
		n := r.uvarint()
		row = row[:0]
		for i := uint64(0); i < n && !r.failed; i++ {
			row = append(row, r.value())
		}
		if r.failed {
			return failure.New(failure.Corrupt, "rows due offline", "%d bytes that are no rows", len(b)).
				WithHint("delete the group's keys in Redis: it is rebuilt from the log")
		}
		if err := fn(offset, at, row); err != nil {
			return err
		}
	}
	return nil
}

type rowBytes struct {
	rest   []byte
	failed bool
}

func (r *rowBytes) take(n int) []byte {
	if n < 0 || n > len(r.rest) {
		r.failed, r.rest = true, nil
		return nil
	}
	b := r.rest[:n]
	r.rest = r.rest[n:]
	return b
}

func (r *rowBytes) varint() int64 {
	v, n := binary.Varint(r.rest)
	if n <= 0 {
		n = -1
	}
	r.take(n)
	return v
}

func (r *rowBytes) uvarint() uint64 {
	v, n := binary.Uvarint(r.rest)
	if n <= 0 {
		n = -1
	}
	r.take(n)
	return v
}

func (r *rowBytes) value() schemas.Value {
	kind := r.take(1)
	if r.failed {
		return schemas.NullValue()
	}
	switch k := schemas.Kind(kind[0]); k {
	case schemas.Null:
		return schemas.NullValue()
	case schemas.String, schemas.Bytes:
		text := string(r.take(int(min(r.uvarint(), math.MaxInt32))))
		if k == schemas.String {
			return schemas.StringValue(text)
		}
		return schemas.BytesValue(text)
	case schemas.Bool, schemas.Int, schemas.Float, schemas.Time:
		b := r.take(8)
		if r.failed {
			return schemas.NullValue()
		}
		bits := binary.LittleEndian.Uint64(b)
		switch k {
		case schemas.Bool:
			return schemas.BoolValue(bits != 0)
		case schemas.Int:
			return schemas.IntValue(int64(bits))
		case schemas.Time:
			return schemas.TimeValue(int64(bits))
		default:
			return schemas.FloatValue(math.Float64frombits(bits))
		}
	default:
		r.failed = true
		return schemas.NullValue()
	}
}
