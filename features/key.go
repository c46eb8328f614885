package features

import (
	"strings"

	"github.com/millrace/millrace/internal/failure"
	"github.com/millrace/millrace/schemas"
)

// MaxKey is the longest entity key in bytes.
const MaxKey = 1024

// keySeparator joins the parts of a key (ASCII unit separator).
const keySeparator = "\x1f"

type entityColumn struct {
	index int
	name  string
	kind  schemas.Kind
}

// Key is the canonical key of the row's entity: the text of its columns (schemas.Value.Text), joined by 0x1f where there
// are several. A column that is null, empty or has the separator in it, and a key beyond MaxKey, are of kind BadRecord.
func (g *Group) Key(row schemas.Row) (string, error) {
	if len(row) != g.columns {
		return "", g.wrongRow(row)
	}
	if len(g.entity) == 1 {
		c := &g.entity[0]
		return g.checkKey(c.name, row[c.index].Text(), failure.BadRecord)
	}
	parts := make([]string, len(g.entity))
	for i, c := range g.entity {
		parts[i] = row[c.index].Text()
	}
	return g.joinKey(parts, failure.BadRecord)
}

func (g *Group) wrongRow(row schemas.Row) error {
	return failure.New(failure.BadRecord, g.Name, "a row of %d columns, not %d", len(row), g.columns)
}

// KeyOf is the canonical key of the entity that a request names by column, in any spelling that the column's kind
// allows. A missing, superfluous or unreadable value is of kind BadRequest.
func (g *Group) KeyOf(values map[string]string) (string, error) {
	parts := make([]string, len(g.entity))
	for i, c := range g.entity {
		text, ok := values[c.name]
		if !ok {
			return "", failure.New(failure.BadRequest, c.name, "is missing: it names the entity of %s", g.Name)
		}
		var err error
		if parts[i], err = canonicalText(text, c.kind); err != nil {
			return "", failure.New(failure.BadRequest, c.name, "%v", err)
		}
	}
	if len(values) != len(g.entity) {
		for name := range values {
			if !g.isEntity(name) {
				return "", failure.New(failure.BadRequest, name, "does not name the entity of %s, which is %s", g.Name, strings.Join(g.Entity, ", "))
			}
		}
	}
	return g.joinKey(parts, failure.BadRequest)
}

func (g *Group) isEntity(column string) bool {
	for i := range g.entity {
		if g.entity[i].name == column {
			return true
		}
	}
	return false
}

func (g *Group) joinKey(parts []string, kind failure.Kind) (string, error) {
	for i, part := range parts {
		if _, err := g.checkKey(g.entity[i].name, part, kind); err != nil {
			return "", err
		}
	}
	return g.checkKey(g.Name, strings.Join(parts, keySeparator), kind)
}

func (g *Group) checkKey(where, part string, kind failure.Kind) (string, error) {
	switch {
	case part == "":
		return "", failure.New(kind, where, "is empty: it names the entity of %s", g.Name)
	case len(part) > MaxKey:
		return "", failure.New(kind, where, "an entity key of %d bytes is longer than %d", len(part), MaxKey)
	case where != g.Name && len(g.entity) > 1 && strings.Contains(part, keySeparator):
		return "", failure.New(kind, where, "holds the character 0x1f, which joins the parts of an entity key")
	}
	return part, nil
}

// canonicalText respells a value as schemas.Value.Text does.
func canonicalText(text string, kind schemas.Kind) (string, error) {
	switch kind {
	case schemas.Bool, schemas.Int, schemas.Float, schemas.Time:
		v, err := schemas.ParseText(text, kind)
		return v.Text(), err
	default:
		return text, nil
	}
}
