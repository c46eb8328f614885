package project

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"

	"github.com/millrace/millrace/schemas"
)

// MaxCategories bounds the names of one input's categories.
const MaxCategories = 1 << 16

// Categories are the names that an input of text can have. A model is given a name's place among them: 0, 1, ….
type Categories struct {
	names  []string
	places map[string]int
}

// NewCategories are these names, in the order of their codes.
func NewCategories(names []string) *Categories {
	c := &Categories{names: names, places: make(map[string]int, len(names))}
	for i, name := range names {
		c.places[name] = i
	}
	return c
}

// Names are those of the codes 0, 1, …; nil of nil. The caller must not change the slice.
func (c *Categories) Names() []string {
	if c == nil {
		return nil
	}
	return c.names
}

// Value is a value as a model takes it: of a text the code of that name, missing where no category is called so. Anything else stays as
// it is, and so does everything where c is nil.
func (c *Categories) Value(v schemas.Value) schemas.Value {
	if c == nil || v.Kind() != schemas.String {
		return v
	}
	if code, ok := c.places[v.Str()]; ok {
		return schemas.IntValue(int64(code))
	}
	return schemas.NullValue()
}

// Meaning tells lists apart: the number of names, and a digest of them in their order.
func (c *Categories) Meaning() string {
	h := sha256.New()
	for _, name := range c.names {
		fmt.Fprintf(h, "%d %s", len(name), name) // a hash does not fail to be written to
	}
	return fmt.Sprintf("%d categories %s", len(c.names), hex.EncodeToString(h.Sum(nil)[:4]))
}

const (
	keyCategories = "categories"
	keyExpr       = "expr"
)

// categoryInput adds an input of text, a column or an expression, with the names that it can have.
func (l *loader) categoryInput(m *Model, key, settings value) bool {
	o := l.object(settings, "model "+m.Name+": input "+key.text, keyCategories, keyExpr)
	in := Input{Name: key.text, Output: -1, Column: -1, Line: key.line, col: key.col}
	if in.Categories = l.categories(o); in.Categories == nil {
		return false
	}
	if o.has(keyExpr) {
		if !namePattern.MatchString(key.text) {
			l.checkName(key, "model input", key.text)
			return false
		}
		in.Expr = l.expression(o.get(keyExpr), o.what+": expr", o.text(keyExpr), m.On.Schema, schemas.String)
		m.Inputs = append(m.Inputs, in)
		return in.Expr != nil
	}
	if in.Column = m.On.Schema.Index(key.text); in.Column < 0 {
		names := make([]string, len(m.On.Schema.Columns))
		for i, c := range m.On.Schema.Columns {
			names[i] = c.Name
		}
		l.faultAt(key, didYouMean(key.text, names), "%s: there is no column %q in %s", o.what, key.text, m.On.Schema.Name)
		return false
	}
	if !l.takesCategories(o, key, "column", m.On.Schema.Columns[in.Column].Kind) {
		return false
	}
	m.Inputs = append(m.Inputs, in)
	return true
}

// takesCategories reports whether values of a kind, of a column or of an output of a group, can have categories with names.
func (l *loader) takesCategories(o object, key value, of string, kind schemas.Kind) bool {
	if kind != schemas.String {
		l.faultAt(key, "list it in train: categorical, if its numbers are codes", "%s: the %s is %s, and categories with names are texts", o.what, of, kind)
	}
	return kind == schemas.String
}

// categories reads a list of names, or the name of a file with one in each line; nil when there is a fault.
func (l *loader) categories(o object) *Categories {
	if o.needs(keyCategories, "the texts that the input can be, like [AA, DL, UA], or a file with one in each line") {
		return nil
	}
	at := o.get(keyCategories)
	var names []value
	if at.shape == text {
		names = l.namesIn(at, o.what)
	} else {
		names = o.texts(keyCategories)
	}
	if names == nil {
		if at.shape == list && len(at.items) == 0 {
			l.faultAt(at, "", "%s: categories are none", o.what)
		}
		return nil
	}
	seen := map[string]bool{}
	var all []string
	for _, n := range names {
		if n.text == "" || seen[n.text] {
			l.faultAt(n, "", "%s: categories: %q is empty, or there twice", o.what, n.text)
			return nil
		}
		seen[n.text] = true
		all = append(all, n.text)
	}
	if len(all) > MaxCategories {
		l.faultAt(at, "", "%s: there are %d categories, more than %d", o.what, len(all), MaxCategories)
		return nil
	}
	return NewCategories(all)
}

// namesIn reads a file of the project's folder: a name in each line.
func (l *loader) namesIn(at value, what string) []value {
	if !filepath.IsLocal(at.text) {
		l.faultAt(at, "", "%s: the file %q is not within the project's folder", what, at.text)
		return nil
	}
	content, err := l.read(at.text)
	if errors.Is(err, fs.ErrNotExist) {
		l.faultAt(at, "a list of names has brackets, like [AA, DL, UA]", "%s: there is no file %q", what, at.text)
		return nil
	}
	if err != nil {
		l.faultAt(at, "", "%s: reading %q: %v", what, at.text, err)
		return nil
	}
	var names []value
	for line := range strings.SplitSeq(strings.TrimRight(string(content), "\r\n"), "\n") {
		names = append(names, value{shape: text, text: strings.TrimSuffix(line, "\r"), line: at.line, col: at.col})
	}
	return names
}
