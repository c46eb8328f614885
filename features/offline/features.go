package offline

import (
	"path/filepath"
	"strings"

	"github.com/millrace/millrace/features"
	"github.com/millrace/millrace/schemas"
)

// FeaturesTable is the table of a feature group's values, <root>/features/<group>@<version>: the entity's columns as canonical text, and
// then the group's outputs. Rows of one offset may be many.
func FeaturesTable(root string, g *features.Group) (*Table, error) {
	columns := make([]Column, 0, len(g.Entity)+len(g.Outputs))
	for _, name := range g.Entity {
		columns = append(columns, Column{Name: name, Kind: schemas.String})
	}
	for _, o := range g.Outputs {
		columns = append(columns, Column{Name: o.Name, Kind: columnKind(o.Kind)})
	}
	return OpenTable(filepath.Join(root, "features", g.Name+"@"+g.Version), columns)
}

// FeatureRow appends to row[:0] the row of a FeaturesTable for the entity with a key as Group.Key makes it, and what Group.Read said
// of it. Whatever is not present is null.
func FeatureRow(g *features.Group, key string, results []features.Result, row schemas.Row) schemas.Row {
	row = row[:0]
	for range len(g.Entity) - 1 {
		part, rest, _ := strings.Cut(key, keySeparator)
		row, key = append(row, schemas.StringValue(part)), rest
	}
	row = append(row, schemas.StringValue(key))
	for i := range results {
		v := results[i].Value
		if v.Kind() == schemas.Composite {
			v = schemas.StringValue(v.Str())
		}
		row = append(row, v)
	}
	return row
}

// columnKind is that of an output's column: lists and maps are kept as JSON text.
func columnKind(output schemas.Kind) schemas.Kind {
	if output == schemas.Composite {
		return schemas.String
	}
	return output
}

// keySeparator joins the parts of a composite entity key.
const keySeparator = "\x1f"
