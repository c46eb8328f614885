package schemas

import (
	"context"
	"slices"
)

// avroDecoder reads bare Avro binary, written with the schema of the project.
type avroDecoder struct{ program *program }

func (d avroDecoder) Decode(_ context.Context, record []byte, row Row) (Row, error) {
	return d.program.decode(record, "", row)
}

func (d avroDecoder) Borrow(_ context.Context, record []byte, row Row) (Row, error) {
	return d.program.decode(record, shared(record), row)
}

// decode reads a record; text is its bytes as a string where texts may be parts of it, else empty.
func (p *program) decode(record []byte, text string, row Row) (Row, error) {
	row = slices.Grow(row[:0], p.width)[:p.width]
	r := reader{b: record, text: text}
	if err := run(p.steps, &r, row); err != nil {
		return row[:0], err
	}
	if r.left() > 0 {
		return row[:0], recordError(ClassMalformed, "", "%d bytes follow the record's end", r.left())
	}
	return row, nil
}

// run reads fields into a row of its own length. It is the hot loop of decoding.
func run(steps []step, r *reader, row Row) error {
	for i := range steps {
		st := &steps[i]
		if st.null >= 0 {
			null, err := st.isNull(r)
			if err != nil {
				return err
			}
			if null {
				row[st.column] = Value{}
				continue
			}
		}
		if st.branches != nil {
			if err := st.union(r, row); err != nil {
				return err
			}
			continue
		}
		if st.preset != nil {
			for _, c := range st.preset {
				row[c.column] = c.value
			}
			continue
		}
		if st.column < 0 {
			if !r.skipNode(st.node, 0) {
				return st.malformed(r)
			}
			continue
		}
		v, ok := st.scalar(r)
		if !ok {
			return st.malformed(r)
		}
		if v.kind == Null && st.node.wire != wireNull {
			return recordError(ClassUnknown, st.path, "the writer's symbol is not one of the enum's")
		}
		if st.limits.declared || v.kind == Float || v.kind == Time {
			if err := st.limits.check(st.path, v); err != nil {
				return err
			}
		}
		row[st.column] = v
	}
	return nil
}

func (st *step) isNull(r *reader) (bool, error) {
	b, ok := r.long()
	if !ok || b < 0 || b > 1 {
		return false, st.malformed(r)
	}
	if int(b) != st.null {
		return false, nil
	}
	if !st.nullable {
		return false, recordError(ClassMissing, st.path, "null, but the field is not nullable")
	}
	return true, nil
}

func (st *step) union(r *reader, row Row) error {
	i, ok := r.long()
	if !ok || i < 0 || i >= int64(len(st.branches)) {
		return st.malformed(r)
	}
	if failed := st.branches[i].failure; failed != nil {
		if failed.Class == ClassSchema {
			return recordError(ClassType, failed.Path, "%s", failed.Reason)
		}
		return failed
	}
	return run(st.branches[i].steps, r, row)
}

// scalar reads one value and promotes it to the column's kind.
func (st *step) scalar(r *reader) (Value, bool) {
	switch st.node.wire {
	case wireBoolean:
		b, ok := r.boolean()
		return BoolValue(b), ok
	case wireInt:
		i, ok := r.int()
		return st.integer(i), ok
	case wireLong:
		i, ok := r.long()
		return st.integer(i), ok
	case wireFloat:
		f, ok := r.float()
		return FloatValue(f), ok
	case wireDouble:
		f, ok := r.double()
		return FloatValue(f), ok
	case wireString, wireBytes:
		return st.bytes(r)
	case wireEnum:
		i, ok := r.long()
		if !ok || i < 0 || i >= int64(len(st.symbols)) {
			return Value{}, false
		}
		return st.symbols[i], true
	case wireFixed:
		s, ok := r.fixed(st.node.size)
		return BytesValue(s), ok
	default: // null
		return Value{}, true
	}
}

func (st *step) integer(i int64) Value {
	switch st.kind {
	case Time:
		return TimeValue(millis(st.node, i))
	case Float:
		return FloatValue(float64(i))
	default:
		return IntValue(i)
	}
}

func (st *step) bytes(r *reader) (Value, bool) {
	if st.kind == String {
		s, ok := r.string()
		return StringValue(s), ok
	}
	s, ok := r.bytes()
	return BytesValue(s), ok
}

func (st *step) malformed(r *reader) error {
	return recordError(ClassMalformed, st.path, "the bytes up to %d of %d are not a %s", r.i, len(r.b), st.node.wire)
}
