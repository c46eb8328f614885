package schemas

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
)

// dig finds the value and the type at a path below a record's default.
func dig(tree any, record *node, path string) (value any, n *node, ok bool) {
	name, rest, deeper := strings.Cut(path, ".")
	o, _ := tree.(map[string]any)
	value, ok = o[name]
	for _, f := range record.fields {
		if f.name != name {
			continue
		}
		if !ok && f.hasDefault {
			value, ok = f.fallback, true
		}
		if !ok {
			break
		}
		if deeper {
			return dig(value, f.node, rest)
		}
		return value, f.node, true
	}
	return nil, nil, false
}

// defaultValue reads a default as the Avro specification writes it in JSON: that of a union belongs to its first branch, bytes are
// text of the code points 0 to 255.
func defaultValue(n *node, tree any) (Value, error) {
	if n.wire == wireUnion {
		n = n.branches[0]
	}
	switch d := tree.(type) {
	case nil:
		if n.wire == wireNull {
			return NullValue(), nil
		}
	case bool:
		if n.wire == wireBoolean {
			return BoolValue(d), nil
		}
	case json.Number:
		return defaultNumber(n, d)
	case string:
		return defaultText(n, d)
	}
	return Value{}, fmt.Errorf("%v is not a %s", tree, n.wire)
}

func defaultNumber(n *node, d json.Number) (Value, error) {
	switch kindOf(n) {
	case Int, Time:
		i, err := strconv.ParseInt(d.String(), 10, 64)
		if err != nil {
			return Value{}, fmt.Errorf("%s is not a %s", d, n.wire)
		}
		if kindOf(n) == Time {
			return TimeValue(millis(n, i)), nil
		}
		return IntValue(i), nil
	case Float:
		f, err := strconv.ParseFloat(d.String(), 64)
		if err != nil {
			return Value{}, fmt.Errorf("%s is not a %s", d, n.wire)
		}
		return FloatValue(f), nil
	}
	return Value{}, fmt.Errorf("%s is not a %s", d, n.wire)
}

func defaultText(n *node, d string) (Value, error) {
	switch n.wire {
	case wireString:
		return StringValue(d), nil
	case wireEnum:
		for _, symbol := range n.symbols {
			if symbol == d {
				return StringValue(d), nil
			}
		}
		return Value{}, fmt.Errorf("%q is not a symbol of the enum", d)
	case wireBytes, wireFixed:
		raw := make([]byte, 0, len(d))
		for _, r := range d {
			if r > 255 {
				return Value{}, fmt.Errorf("%q has a code point above 255", d)
			}
			raw = append(raw, byte(r))
		}
		if n.wire == wireFixed && len(raw) != n.size {
			return Value{}, fmt.Errorf("%q is not %d bytes", d, n.size)
		}
		return BytesValue(string(raw)), nil
	}
	return Value{}, fmt.Errorf("%q is not a %s", d, n.wire)
}

// millis is a wire timestamp in milliseconds. Microseconds are floored, so that an event is never moved into the future.
func millis(n *node, i int64) int64 {
	if n.logical != timestampMicros {
		return i
	}
	ms := i / 1000
	if i%1000 < 0 {
		ms--
	}
	return ms
}
