package schemas

import (
	"strconv"
)

// canonical writes a type in parsing canonical form. goavro has such a function, but it leaves {"type":"long"} where a logical type
// was, which the specification reduces to "long"; other libraries would compute another fingerprint.
func canonical(n *node) string {
	return string(appendCanonical(nil, n, map[string]bool{}))
}

func appendCanonical(b []byte, n *node, defined map[string]bool) []byte {
	switch n.wire {
	case wireUnion:
		b = append(b, '[')
		for i, branch := range n.branches {
			if i > 0 {
				b = append(b, ',')
			}
			b = appendCanonical(b, branch, defined)
		}
		return append(b, ']')
	case wireArray:
		return append(appendCanonical(append(b, `{"type":"array","items":`...), n.items, defined), '}')
	case wireMap:
		return append(appendCanonical(append(b, `{"type":"map","values":`...), n.items, defined), '}')
	case wireRecord, wireEnum, wireFixed:
		return appendCanonicalNamed(b, n, defined)
	default:
		return strconv.AppendQuote(b, n.wire.String())
	}
}

func appendCanonicalNamed(b []byte, n *node, defined map[string]bool) []byte {
	if defined[n.name] {
		return strconv.AppendQuote(b, n.name)
	}
	defined[n.name] = true
	b = strconv.AppendQuote(append(b, `{"name":`...), n.name)
	b = strconv.AppendQuote(append(b, `,"type":`...), n.wire.String())
	switch n.wire {
	case wireFixed:
		b = strconv.AppendInt(append(b, `,"size":`...), int64(n.size), 10)
	case wireEnum:
		b = append(b, `,"symbols":[`...)
		for i, symbol := range n.symbols {
			if i > 0 {
				b = append(b, ',')
			}
			b = strconv.AppendQuote(b, symbol)
		}
		b = append(b, ']')
	default:
		b = append(b, `,"fields":[`...)
		for i, f := range n.fields {
			if i > 0 {
				b = append(b, ',')
			}
			b = strconv.AppendQuote(append(b, `{"name":`...), f.name)
			b = append(appendCanonical(append(b, `,"type":`...), f.node, defined), '}')
		}
		b = append(b, ']')
	}
	return append(b, '}')
}

// emptyFingerprint is the CRC-64-AVRO of nothing, and its polynomial.
const emptyFingerprint = 0xc15d213aa4d7a795

// fingerprint is the CRC-64-AVRO of a canonical form (Avro specification, "Schema Fingerprints"). It is computed once a schema, so
// bit by bit rather than by a table.
func fingerprint(canonical string) uint64 {
	crc := uint64(emptyFingerprint)
	for i := range len(canonical) {
		crc ^= uint64(canonical[i])
		for range 8 {
			crc = crc>>1 ^ emptyFingerprint&-(crc&1)
		}
	}
	return crc
}
