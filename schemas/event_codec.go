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
	"unsafe"
)

// eventCodec writes a Go struct as an Avro record in single-object encoding (Avro specification, "Single-object encoding"): two marker
// bytes, the CRC-64-AVRO of the schema, the binary. The struct's fields have the record's names as their JSON names and its types;
// what does not match is an error when the codec is made.
//
// goavro could do this by way of map[string]any, in which every name would have to be spelt a second time; reading an event so takes
// about four times the allocations (BenchmarkPrediction).
type eventCodec[E any] struct {
	version
	earlier []version // of the schema, that are still read
	buffers sync.Pool // of *[]byte, in which events are written before their length is known
}

// version is one of the schemas that an event was ever written with.
type version struct {
	header []byte
	bound  binding
}

// binding writes and reads one type. A value is written from where it lies: events are written for every answer, and reflection would take
// more time than the bytes.
type binding struct {
	write func(b []byte, at unsafe.Pointer) ([]byte, error)
	read  func(r *reader, v reflect.Value) bool
}

// newEventCodec writes by a schema, and reads what was written by it or by an earlier one. A field that an earlier one lacks is read as its
// zero value.
func newEventCodec[E any](avsc []byte, earlier ...[]byte) (*eventCodec[E], error) {
	now, err := newVersion(avsc, reflect.TypeFor[E](), binder{whole: true})
	if err != nil {
		return nil, err
	}
	c := &eventCodec[E]{version: now}
	for _, text := range earlier {
		v, err := newVersion(text, reflect.TypeFor[E](), binder{})
		if err != nil {
			return nil, err
		}
		c.earlier = append(c.earlier, v)
	}
	return c, nil
}

func newVersion(avsc []byte, t reflect.Type, by binder) (version, error) {
	text, root, err := parseNodes(avsc)
	if err != nil {
		return version{}, err
	}
	bound, err := by.bind(root, t)
	return version{header: binary.LittleEndian.AppendUint64([]byte{0xC3, 0x01}, fingerprint(text)), bound: bound}, err
}

func (c *eventCodec[E]) encode(e *E) ([]byte, error) {
	buffer, _ := c.buffers.Get().(*[]byte)
	if buffer == nil {
		buffer = new([]byte)
	}
	defer c.buffers.Put(buffer)
	b, err := c.bound.write(append((*buffer)[:0], c.header...), unsafe.Pointer(e))
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
	v := c.version
	if !bytes.Equal(b[:len(v.header)], v.header) {
		i := slices.IndexFunc(c.earlier, func(v version) bool { return bytes.Equal(b[:len(v.header)], v.header) })
		if i < 0 {
			return recordError(ClassSchema, "", "written with a version of the schema of %T that this program does not know", *e)
		}
		v = c.earlier[i]
	}
	r := &reader{b: b[len(v.header):]}
	if !v.bound.read(r, reflect.ValueOf(e).Elem()) || r.left() > 0 {
		return recordError(ClassMalformed, "", "the bytes up to %d of %d are not a %T", r.i, len(r.b), *e)
	}
	return nil
}

// binder binds a schema to a type.
type binder struct {
	whole bool // every field of a struct must be in the schema
}

func (by binder) bind(n *node, t reflect.Type) (binding, error) {
	switch {
	case n.wire == wireRecord && t.Kind() == reflect.Struct:
		return by.bindRecord(n, t)
	case n.wire == wireArray && t.Kind() == reflect.Slice:
		return by.bindArray(n, t)
	case n.wire == wireMap && t == reflect.TypeFor[Texts]() && n.items.wire == wireString:
		return bindTexts(), nil
	case n.wire == wireMap && t.Kind() == reflect.Map && t.Key().Kind() == reflect.String:
		return by.bindMap(n, t)
	case n.wire == wireUnion && t.Kind() == reflect.Pointer:
		return by.bindPointer(n, t)
	case n.wire == wireString && t.Kind() == reflect.String:
		return bindString(), nil
	case n.wire == wireBoolean && t.Kind() == reflect.Bool:
		return bindBool(), nil
	case n.wire == wireDouble && t.Kind() == reflect.Float64:
		return bindDouble(), nil
	case n.wire == wireInt && t.Kind() == reflect.Int32, n.wire == wireLong && (t.Kind() == reflect.Int64 || t.Kind() == reflect.Int):
		return bindInteger(t), nil
	}
	return binding{}, fmt.Errorf("an Avro %s cannot be a Go %s", n.wire, t)
}

func (by binder) bindRecord(n *node, t reflect.Type) (binding, error) {
	if by.whole && t.NumField() != len(n.fields) {
		return binding{}, fmt.Errorf("%s has %d fields, %s has %d", n.name, len(n.fields), t, t.NumField())
	}
	fields, index, offset := make([]binding, len(n.fields)), make([]int, len(n.fields)), make([]uintptr, len(n.fields))
	for i, f := range n.fields {
		index[i] = slices.IndexFunc(reflect.VisibleFields(t), func(g reflect.StructField) bool {
			name, _, _ := strings.Cut(g.Tag.Get("json"), ",")
			return name == f.name
		})
		if index[i] < 0 {
			return binding{}, fmt.Errorf("%s has no field for %s.%s", t, n.name, f.name)
		}
		offset[i] = t.Field(index[i]).Offset
		var err error
		if fields[i], err = by.bind(f.node, t.Field(index[i]).Type); err != nil {
			return binding{}, fmt.Errorf("%s.%s: %w", n.name, f.name, err)
		}
	}
	return binding{
		write: func(b []byte, at unsafe.Pointer) (_ []byte, err error) {
			for i := range fields {
				if b, err = fields[i].write(b, unsafe.Add(at, offset[i])); err != nil {
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

func (by binder) bindArray(n *node, t reflect.Type) (binding, error) {
	item, err := by.bind(n.items, t.Elem())
	size, stride := leastBytes(n.items), t.Elem().Size()
	return binding{
		write: func(b []byte, at unsafe.Pointer) (_ []byte, err error) {
			items := *(*[]struct{})(at) // of whatever type: where they begin, and how many there are
			if len(items) == 0 {
				return append(b, 0), nil
			}
			b = appendLong(b, int64(len(items)))
			first := unsafe.Pointer(unsafe.SliceData(items))
			for i := range len(items) {
				if b, err = item.write(b, unsafe.Add(first, uintptr(i)*stride)); err != nil {
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
func (by binder) bindMap(n *node, t reflect.Type) (binding, error) {
	item, err := by.bind(n.items, t.Elem())
	size := leastBytes(n.items)
	return binding{
		write: func(b []byte, at unsafe.Pointer) (_ []byte, err error) {
			v := reflect.NewAt(t, at).Elem()
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
				value := reflect.New(t.Elem())
				value.Elem().Set(v.MapIndex(k))
				if b, err = item.write(b, value.UnsafePointer()); err != nil {
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
func (by binder) bindPointer(n *node, t reflect.Type) (binding, error) {
	if len(n.branches) != 2 || n.branches[0].wire != wireNull {
		return binding{}, fmt.Errorf("a pointer must be a union of null and one type")
	}
	inner, err := by.bind(n.branches[1], t.Elem())
	return binding{
		write: func(b []byte, at unsafe.Pointer) ([]byte, error) {
			to := *(*unsafe.Pointer)(at)
			if to == nil {
				return append(b, 0), nil
			}
			return inner.write(append(b, 2), to)
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
	if (len(s) > shortText || !ascii(s)) && !utf8.ValidString(s) {
		return nil, recordError(ClassMalformed, "", "the text %q is not UTF-8", clip(s))
	}
	return append(appendLong(b, int64(len(s))), s...), nil
}

// shortText is up to which length a text is told to be ASCII sooner than to be UTF-8. Names and numbers are both.
const shortText = 32

// ascii reports whether a text is ASCII.
func ascii(s string) bool {
	var all byte
	for i := range len(s) {
		all |= s[i]
	}
	return all < utf8.RuneSelf
}

func bindString() binding {
	return binding{
		write: func(b []byte, at unsafe.Pointer) ([]byte, error) { return appendText(b, *(*string)(at)) },
		read: func(r *reader, v reflect.Value) bool {
			s, ok := r.string()
			v.SetString(s)
			return ok
		},
	}
}

func bindBool() binding {
	return binding{
		write: func(b []byte, at unsafe.Pointer) ([]byte, error) {
			if *(*bool)(at) {
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
		write: func(b []byte, at unsafe.Pointer) ([]byte, error) {
			return binary.LittleEndian.AppendUint64(b, math.Float64bits(*(*float64)(at))), nil
		},
		read: func(r *reader, v reflect.Value) bool {
			f, ok := r.double()
			v.SetFloat(f)
			return ok
		},
	}
}

func bindInteger(t reflect.Type) binding {
	write := func(b []byte, at unsafe.Pointer) ([]byte, error) { return appendLong(b, *(*int64)(at)), nil }
	if t.Size() == unsafe.Sizeof(int32(0)) {
		write = func(b []byte, at unsafe.Pointer) ([]byte, error) { return appendLong(b, int64(*(*int32)(at))), nil }
	}
	return binding{
		write: write,
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
