package schemas

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"reflect"
	"slices"
	"sort"
	"strings"
	"sync"
	"unicode/utf8"
)

// eventCodec writes a Go struct as an Avro record in single-object encoding (Avro specification, "Single-object encoding"): two marker
// bytes, the CRC-64-AVRO of the schema, the binary. The struct's fields have the record's names as their JSON names and its types;
// what does not match is an error when the codec is made.
//
// goavro could do this by way of map[string]any, in which every name would have to be spelt a second time; reading an event so takes
// about four times the allocations (BenchmarkPrediction).
type eventCodec[E any] struct {
	header  []byte
	bound   binding
	buffers sync.Pool // of *[]byte, in which events are written before their length is known
}

// binding writes and reads one type.
type binding struct {
	write func(b []byte, v reflect.Value) ([]byte, error)
	read  func(r *reader, v reflect.Value) bool
}

func newEventCodec[E any](avsc []byte) (*eventCodec[E], error) {
	text, root, err := parseNodes(avsc)
	if err != nil {
		return nil, err
	}
	bound, err := bind(root, reflect.TypeFor[E]())
	if err != nil {
		return nil, err
	}
	return &eventCodec[E]{header: binary.LittleEndian.AppendUint64([]byte{0xC3, 0x01}, fingerprint(text)), bound: bound}, nil
}

func (c *eventCodec[E]) encode(e *E) ([]byte, error) {
	buffer, _ := c.buffers.Get().(*[]byte)
	if buffer == nil {
		buffer = new([]byte)
	}
	defer c.buffers.Put(buffer)
	b, err := c.bound.write(append((*buffer)[:0], c.header...), reflect.ValueOf(e).Elem())
	if err != nil {
		return nil, err
	}
	*buffer = b
	return bytes.Clone(b), nil
}

func (c *eventCodec[E]) decode(b []byte, e *E) error {
	if len(b) < len(c.header) || !bytes.Equal(b[:2], c.header[:2]) {
		return recordError(ClassMalformed, "", "it does not begin as Avro single-object encoding does")
	}
	if !bytes.Equal(b[:len(c.header)], c.header) {
		return recordError(ClassSchema, "", "written with another version of the schema of %T", *e)
	}
	r := &reader{b: b[len(c.header):]}
	if !c.bound.read(r, reflect.ValueOf(e).Elem()) || r.left() > 0 {
		return recordError(ClassMalformed, "", "the bytes up to %d of %d are not a %T", r.i, len(r.b), *e)
	}
	return nil
}

func bind(n *node, t reflect.Type) (binding, error) {
	switch {
	case n.wire == wireRecord && t.Kind() == reflect.Struct:
		return bindRecord(n, t)
	case n.wire == wireArray && t.Kind() == reflect.Slice:
		return bindArray(n, t)
	case n.wire == wireMap && t == reflect.TypeFor[Texts]() && n.items.wire == wireString:
		return bindTexts(), nil
	case n.wire == wireMap && t.Kind() == reflect.Map && t.Key().Kind() == reflect.String:
		return bindMap(n, t)
	case n.wire == wireUnion && t.Kind() == reflect.Pointer:
		return bindPointer(n, t)
	case n.wire == wireString && t.Kind() == reflect.String:
		return bindString(), nil
	case n.wire == wireBoolean && t.Kind() == reflect.Bool:
		return bindBool(), nil
	case n.wire == wireDouble && t.Kind() == reflect.Float64:
		return bindDouble(), nil
	case n.wire == wireInt && t.Kind() == reflect.Int32, n.wire == wireLong && (t.Kind() == reflect.Int64 || t.Kind() == reflect.Int):
		return bindInteger(), nil
	}
	return binding{}, fmt.Errorf("an Avro %s cannot be a Go %s", n.wire, t)
}

func bindRecord(n *node, t reflect.Type) (binding, error) {
	if t.NumField() != len(n.fields) {
		return binding{}, fmt.Errorf("%s has %d fields, %s has %d", n.name, len(n.fields), t, t.NumField())
	}
	fields, index := make([]binding, len(n.fields)), make([]int, len(n.fields))
	for i, f := range n.fields {
		index[i] = slices.IndexFunc(reflect.VisibleFields(t), func(g reflect.StructField) bool {
			name, _, _ := strings.Cut(g.Tag.Get("json"), ",")
			return name == f.name
		})
		if index[i] < 0 {
			return binding{}, fmt.Errorf("%s has no field for %s.%s", t, n.name, f.name)
		}
		var err error
		if fields[i], err = bind(f.node, t.Field(index[i]).Type); err != nil {
			return binding{}, fmt.Errorf("%s.%s: %w", n.name, f.name, err)
		}
	}
	return binding{
		write: func(b []byte, v reflect.Value) (_ []byte, err error) {
			for i := range fields {
				if b, err = fields[i].write(b, v.Field(index[i])); err != nil {
					return nil, err
				}
			}
			return b, nil
		},
		read: func(r *reader, v reflect.Value) bool {
			for i := range fields {
				if !fields[i].read(r, v.Field(index[i])) {
					return false
				}
			}
			return true
		},
	}, nil
}

func bindArray(n *node, t reflect.Type) (binding, error) {
	item, err := bind(n.items, t.Elem())
	size := leastBytes(n.items)
	return binding{
		write: func(b []byte, v reflect.Value) (_ []byte, err error) {
			if v.Len() == 0 {
				return append(b, 0), nil
			}
			b = appendLong(b, int64(v.Len()))
			for i := range v.Len() {
				if b, err = item.write(b, v.Index(i)); err != nil {
					return nil, err
				}
			}
			return append(b, 0), nil
		},
		read: func(r *reader, v reflect.Value) bool {
			return r.blocks(size, func(count int) bool {
				first := v.Len()
				v.Grow(count)
				v.SetLen(first + count)
				for i := first; i < v.Len(); i++ {
					if !item.read(r, v.Index(i)) {
						return false
					}
				}
				return true
			})
		},
	}, err
}

// bindMap writes the keys in their order, so that equal maps give equal bytes.
func bindMap(n *node, t reflect.Type) (binding, error) {
	item, err := bind(n.items, t.Elem())
	size := leastBytes(n.items)
	return binding{
		write: func(b []byte, v reflect.Value) (_ []byte, err error) {
			if v.Len() == 0 {
				return append(b, 0), nil
			}
			b = appendLong(b, int64(v.Len()))
			keys := v.MapKeys()
			sort.Slice(keys, func(i, j int) bool { return keys[i].String() < keys[j].String() })
			for _, k := range keys {
				if b, err = appendText(b, k.String()); err != nil {
					return nil, err
				}
				if b, err = item.write(b, v.MapIndex(k)); err != nil {
					return nil, err
				}
			}
			return append(b, 0), nil
		},
		read: func(r *reader, v reflect.Value) bool {
			return r.blocks(1+size, func(count int) bool {
				if v.IsNil() {
					v.Set(reflect.MakeMapWithSize(t, count))
				}
				for range count {
					key, ok := r.string()
					value := reflect.New(t.Elem()).Elem()
					if !ok || !item.read(r, value) {
						return false
					}
					v.SetMapIndex(reflect.ValueOf(key), value)
				}
				return true
			})
		},
	}, err
}

// leastBytes is the least that a value of a type takes, so that a few bytes cannot claim a long list.
func leastBytes(n *node) int {
	switch n.wire {
	case wireDouble:
		return 8
	case wireRecord:
		sum := 0
		for _, f := range n.fields {
			sum += leastBytes(f.node)
		}
		return sum
	default: // of those that are bound, each begins with a byte
		return 1
	}
}

// blocks reads the blocks of an array or a map whose items take at least size bytes each.
func (r *reader) blocks(size int, block func(count int) bool) bool {
	for {
		count, ok := r.long()
		if ok && count < 0 {
			count = -count
			_, ok = r.long() // the block's size in bytes
		}
		if !ok || count < 0 || count > int64(r.left()/size) {
			return false
		}
		if count == 0 {
			return true
		}
		if !block(int(count)) {
			return false
		}
	}
}

// bindPointer is a union of null, first, and a type.
func bindPointer(n *node, t reflect.Type) (binding, error) {
	if len(n.branches) != 2 || n.branches[0].wire != wireNull {
		return binding{}, fmt.Errorf("a pointer must be a union of null and one type")
	}
	inner, err := bind(n.branches[1], t.Elem())
	return binding{
		write: func(b []byte, v reflect.Value) ([]byte, error) {
			if v.IsNil() {
				return append(b, 0), nil
			}
			return inner.write(append(b, 2), v.Elem())
		},
		read: func(r *reader, v reflect.Value) bool {
			branch, ok := r.long()
			if !ok || branch < 0 || branch > 1 {
				return false
			}
			if branch == 0 {
				return true
			}
			v.Set(reflect.New(t.Elem()))
			return inner.read(r, v.Elem())
		},
	}, err
}

func appendText(b []byte, s string) ([]byte, error) {
	if !utf8.ValidString(s) {
		return nil, recordError(ClassMalformed, "", "the text %q is not UTF-8", clip(s))
	}
	return append(appendLong(b, int64(len(s))), s...), nil
}

func bindString() binding {
	return binding{
		write: func(b []byte, v reflect.Value) ([]byte, error) { return appendText(b, v.String()) },
		read: func(r *reader, v reflect.Value) bool {
			s, ok := r.string()
			v.SetString(s)
			return ok
		},
	}
}

func bindBool() binding {
	return binding{
		write: func(b []byte, v reflect.Value) ([]byte, error) {
			if v.Bool() {
				return append(b, 1), nil
			}
			return append(b, 0), nil
		},
		read: func(r *reader, v reflect.Value) bool {
			t, ok := r.boolean()
			v.SetBool(t)
			return ok
		},
	}
}

func bindDouble() binding {
	return binding{
		write: func(b []byte, v reflect.Value) ([]byte, error) {
			return binary.LittleEndian.AppendUint64(b, math.Float64bits(v.Float())), nil
		},
		read: func(r *reader, v reflect.Value) bool {
			f, ok := r.double()
			v.SetFloat(f)
			return ok
		},
	}
}

func bindInteger() binding {
	return binding{
		write: func(b []byte, v reflect.Value) ([]byte, error) { return appendLong(b, v.Int()), nil },
		read: func(r *reader, v reflect.Value) bool {
			i, ok := r.long()
			if !ok || v.OverflowInt(i) {
				return false
			}
			v.SetInt(i)
			return true
		},
	}
}
