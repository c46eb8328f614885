package openapi

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"github.com/millrace/millrace/schemas"
)

// rowOf is the JSON Schema of the rows that the JSON decoder of a schema takes.
func rowOf(s *schemas.Schema) *huma.Schema {
	record := s.Record()
	root := object()
	for _, c := range record.Columns {
		at, path := root, strings.Split(c.Name, ".")
		for i := range path[:len(path)-1] {
			below, ok := at.Properties[path[i]]
			if !ok {
				below = object()
				at.Properties[path[i]] = below
				require(at, path[i], record.HasDefault(strings.Join(path[:i+1], ".")))
			}
			at = below
		}
		name := path[len(path)-1]
		at.Properties[name] = columnOf(c)
		require(at, name, record.HasDefault(c.Name))
	}
	return root
}

func object() *huma.Schema {
	return &huma.Schema{Type: huma.TypeObject, Properties: map[string]*huma.Schema{}, AdditionalProperties: false}
}

func require(o *huma.Schema, name string, optional bool) {
	if !optional {
		o.Required = append(o.Required, name)
	}
}

// columnOf is the JSON Schema of a column's values.
func columnOf(c schemas.Column) *huma.Schema {
	var s *huma.Schema
	switch c.Kind {
	case schemas.Bool:
		s = &huma.Schema{Type: huma.TypeBoolean}
	case schemas.Int:
		s = &huma.Schema{Type: huma.TypeInteger, Minimum: or(c.Min, -whole), Maximum: or(c.Max, whole)}
	case schemas.Float:
		s = &huma.Schema{Type: huma.TypeNumber, Minimum: or(c.Min, -math.MaxFloat32), Maximum: or(c.Max, math.MaxFloat32)}
	case schemas.Time:
		s = timeOf(c)
	case schemas.Bytes:
		s = &huma.Schema{Type: huma.TypeString, ContentEncoding: "base64", Pattern: base64}
	default:
		s = &huma.Schema{Type: huma.TypeString}
		for _, symbol := range c.Symbols {
			s.Enum = append(s.Enum, symbol)
		}
		if c.Nullable && s.Enum != nil {
			s.Enum = append(s.Enum, nil)
		}
	}
	if s.Type != "" {
		s.Nullable = c.Nullable
	} else if c.Nullable {
		s.AnyOf = append(s.AnyOf, &huma.Schema{Type: "null"})
	}
	s.Description = c.Doc
	return s
}

// whole is the largest whole number that every JSON parser reads as it is written.
const whole = 1<<53 - 1

const base64 = `^([A-Za-z0-9+/]{4})*([A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$`

// timeOf is RFC 3339 text or Unix milliseconds.
func timeOf(c schemas.Column) *huma.Schema {
	text := &huma.Schema{Type: huma.TypeString, Format: "date-time", Pattern: `^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(\.\d+)?(Z|[+-]\d{2}:\d{2})$`}
	return &huma.Schema{AnyOf: []*huma.Schema{
		{Type: huma.TypeInteger, Minimum: or(c.Min, float64(schemas.MinTime)), Maximum: or(c.Max, float64(schemas.MaxTime))}, text,
	}}
}

// instant is a time that belongs to no column.
func instant(description string) *huma.Schema {
	s := timeOf(schemas.Column{})
	s.Description = description
	return s
}

func or(declared *float64, otherwise float64) *float64 {
	if declared != nil {
		return declared
	}
	return &otherwise
}

func pointer[T any](v T) *T { return &v }

// overrideOf is the JSON Schema of what a row may say that an input is: any number, as what is fetched has no bounds either.
func overrideOf(c schemas.Column) *huma.Schema {
	s := columnOf(c)
	if c.Kind == schemas.Int || c.Kind == schemas.Float {
		s.Minimum, s.Maximum = nil, nil
	}
	return s
}

// requestOf is what POST /v1/models/{model}:score takes: a row, or several. fetched is the inputs that a row may override.
func requestOf(s *schemas.Schema, fetched []schemas.Column, maxRows int) *huma.Schema {
	row := rowOf(s)
	owns := func(name string) bool { return row.Properties[name] != nil }
	if !owns("at") {
		row.Properties["at"] = instant("the time that the features are to be as of; now without it")
	}
	if !owns("overrides") {
		overrides := object()
		overrides.Description = "values of inputs that else would be fetched; null is missing"
		for _, c := range fetched {
			overrides.Properties[c.Name] = overrideOf(c)
		}
		row.Properties["overrides"] = overrides
	}
	if owns("rows") {
		return row
	}
	rows := object()
	rows.Required = []string{"rows"}
	rows.Properties["rows"] = &huma.Schema{Type: huma.TypeArray, Items: row, MinItems: pointer(1), Description: fmt.Sprintf("at most %d, or 413", maxRows)}
	rows.Properties["at"] = instant("of the rows that do not say")
	return &huma.Schema{AnyOf: []*huma.Schema{row, rows}}
}

// columnsOf is the columns of a row, in order.
func columnsOf(s *schemas.Schema) []string {
	var names []string
	for _, c := range s.Record().Columns {
		names = append(names, c.Name)
	}
	return slices.Clip(names)
}
