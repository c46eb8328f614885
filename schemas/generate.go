package schemas

import (
	"encoding/json"
	"fmt"
)

// Generate is the schema of rows that no file describes: a record with these columns, in Avro. A column's name must be one of Avro's
// (letters, digits and underscores), and its Min, Max and Symbols are not kept.
func Generate(name string, columns []Column) (*Schema, error) {
	fields := make([]map[string]any, len(columns))
	for i, c := range columns {
		kind, ok := avroTypes[c.Kind]
		if !ok {
			return nil, fmt.Errorf("column %s has no type", c.Name)
		}
		if c.Nullable {
			kind = []any{"null", kind}
		}
		fields[i] = map[string]any{"name": c.Name, "type": kind}
		if c.Doc != "" {
			fields[i]["doc"] = c.Doc
		}
	}
	avsc, err := json.Marshal(map[string]any{"type": "record", "name": name, "fields": fields})
	if err != nil {
		return nil, err
	}
	s, err := Parse(name, avsc)
	if err != nil {
		return nil, err
	}
	for i := range columns {
		s.Columns[i].Definition = columns[i].Definition
	}
	return s, nil
}

var avroTypes = map[Kind]any{
	Bool: "boolean", Int: "long", Float: "double", String: "string", Bytes: "bytes",
	Time: map[string]any{"type": "long", "logicalType": timestampMillis},
}
