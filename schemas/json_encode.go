package schemas

import (
	"context"
	"encoding/json"
	"math"
	"strconv"
)

// jsonEncoder writes what jsonDecoder reads, fields in the schema's order.
type jsonEncoder struct{ schema *Schema }

func (e jsonEncoder) Encode(_ context.Context, row Row) ([]byte, error) {
	if err := e.schema.check(row); err != nil {
		return nil, err
	}
	rest := row
	return appendJSONRecord(make([]byte, 0, 32*len(row)), e.schema.root, &rest), nil
}

// appendJSONRecord takes the record's columns from the front of rest.
func appendJSONRecord(b []byte, n *node, rest *Row) []byte {
	b = append(b, '{')
	for i, f := range n.fields {
		if i > 0 {
			b = append(b, ',')
		}
		b = strconv.AppendQuote(b, f.name) // Avro names are ASCII letters, digits and underscores
		b = append(b, ':')
		if f.node.wire == wireRecord {
			b = appendJSONRecord(b, f.node, rest)
			continue
		}
		b = appendJSONValue(b, (*rest)[0])
		*rest = (*rest)[1:]
	}
	return append(b, '}')
}

func appendJSONValue(b []byte, v Value) []byte {
	switch v.kind {
	case Null:
		return append(b, "null"...)
	case Bool:
		return strconv.AppendBool(b, v.Bool())
	case Int:
		return strconv.AppendInt(b, v.Int(), 10)
	case Float:
		return AppendFloat(b, math.Float64frombits(v.bits))
	default:
		text, _ := json.Marshal(v.Text()) // a string always marshals
		return append(b, text...)
	}
}
