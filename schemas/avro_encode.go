package schemas

import (
	"context"
	"encoding/binary"
	"math"
	"slices"
	"unicode/utf8"
)

// avroEncoder writes bare Avro binary with the schema of the project.
type avroEncoder struct{ schema *Schema }

func (e avroEncoder) Encode(_ context.Context, row Row) ([]byte, error) {
	return e.schema.appendAvro(make([]byte, 0, 16*len(row)), row)
}

// appendAvro writes the columns in their order, which is that of the fields: nested records add no bytes of their own.
func (s *Schema) appendAvro(b []byte, row Row) ([]byte, error) {
	if err := s.check(row); err != nil {
		return nil, err
	}
	for i, v := range row {
		sl := s.slots[i]
		if sl.nullIndex >= 0 {
			branch := sl.nullIndex
			if !v.IsNull() {
				branch = 1 - branch
			}
			b = appendLong(b, int64(branch))
		}
		if !v.IsNull() {
			b = appendScalar(b, sl.node, v)
		}
	}
	return b, nil
}

// check finds what the schema does not allow in a row that is about to be written.
func (s *Schema) check(row Row) error {
	if len(row) != len(s.Columns) {
		return recordError(ClassMalformed, "", "the row has %d columns, the schema %d", len(row), len(s.Columns))
	}
	for i, v := range row {
		if err := s.checkColumn(i, v); err != nil {
			return err
		}
	}
	return nil
}

func (s *Schema) checkColumn(i int, v Value) error {
	c, n := &s.Columns[i], s.slots[i].node
	if v.IsNull() {
		if !c.Nullable {
			return recordError(ClassMissing, c.Name, "null, but the field is not nullable")
		}
		return nil
	}
	if v.kind != c.Kind {
		return recordError(ClassType, c.Name, "a %s where a %s must be", v.kind, c.Kind)
	}
	switch n.wire {
	case wireInt:
		if int64(int32(v.Int())) != v.Int() {
			return recordError(ClassRange, c.Name, "%d does not fit 32 bits", v.Int())
		}
	case wireFloat:
		if f, _ := v.Float(); math.Abs(f) > math.MaxFloat32 {
			return recordError(ClassRange, c.Name, "%v does not fit 32 bits", f)
		}
	case wireString:
		if !utf8.ValidString(v.text) {
			return recordError(ClassMalformed, c.Name, "the text is not UTF-8")
		}
	case wireEnum:
		if !slices.Contains(n.symbols, v.text) {
			return recordError(ClassUnknown, c.Name, "%q is not one of the symbols %q", v.text, n.symbols)
		}
	case wireFixed:
		if len(v.text) != n.size {
			return recordError(ClassRange, c.Name, "%d bytes where %d must be", len(v.text), n.size)
		}
	}
	return limitsOf(*c).check(c.Name, v)
}

func appendScalar(b []byte, n *node, v Value) []byte {
	switch n.wire {
	case wireBoolean:
		return append(b, byte(v.bits))
	case wireInt:
		return appendLong(b, v.Int())
	case wireLong:
		if n.logical == timestampMicros && v.kind == Time {
			return appendLong(b, v.Int()*1000)
		}
		return appendLong(b, v.Int())
	case wireFloat:
		f, _ := v.Float()
		return binary.LittleEndian.AppendUint32(b, math.Float32bits(float32(f)))
	case wireDouble:
		return binary.LittleEndian.AppendUint64(b, v.bits)
	case wireEnum:
		return appendLong(b, int64(slices.Index(n.symbols, v.text)))
	case wireFixed:
		return append(b, v.text...)
	default: // string, bytes
		b = appendLong(b, int64(len(v.text)))
		return append(b, v.text...)
	}
}

// appendLong writes a zigzag varint.
func appendLong(b []byte, i int64) []byte {
	return binary.AppendUvarint(b, uint64(i)<<1^uint64(i>>63))
}
