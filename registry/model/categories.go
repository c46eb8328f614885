package model

import (
	"encoding/json"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/millrace/millrace/internal/failure"
)

// CategoryNames is, for each input of a model, the names of the codes 0, 1, … that its file keeps: those that it was trained with as a category of
// texts (pandas). nil for an input without, and all nil for a model whose file keeps none.
func CategoryNames(m Model) [][]string {
	if f, ok := m.(*Forest); ok && f.spec.CategoryNames != nil {
		return f.spec.CategoryNames
	}
	return make([][]string, len(m.Inputs()))
}

// TakeCategories gives a signature that is declared the names that the model's file keeps: its codes are in their order, whatever the order of those
// declared. It is Refused when a name is not declared, since such a row could never be asked about. An input that is declared a number stays one.
func TakeCategories(declared []SignatureInput, m Model) ([]SignatureInput, error) {
	signature := slices.Clone(declared)
	for i, names := range CategoryNames(m) {
		in := &signature[i]
		if names == nil || in.Categories == nil {
			continue
		}
		known := make(map[string]bool, len(in.Categories))
		for _, name := range in.Categories {
			known[name] = true
		}
		for _, name := range names {
			if !known[name] {
				return nil, refuse(in.Name, "the model's file has the category %q, which is not declared", clip(name))
			}
		}
		in.Categories = names
	}
	return signature, nil
}

// SameCategories is Refused when the model's file keeps other names than the signature declares, or in another order.
func SameCategories(declared []SignatureInput, m Model) error {
	for i, names := range CategoryNames(m) {
		if in := &declared[i]; names != nil && in.Categories != nil && !slices.Equal(names, in.Categories) {
			return failure.New(failure.Refused, in.Name, "the model's file has %d categories of it that are others than the %d declared, or in another order", len(names), len(in.Categories)).
				WithHint("make the category of the codes, by the declared names in their order")
		}
	}
	return nil
}

// pandasCategories is what LightGBM's Python package writes behind the parameters: the categories of the columns that pandas has as such. columns are the
// categorical ones by the parameters, "1,2". Lists of texts are names; others, of which the codes are places, are left to who fills the row. It is
// Refused when the file does not say which columns the lists are of.
func pandasCategories(text, columns string, spec *ForestSpec) error {
	var lists [][]any
	if err := json.Unmarshal([]byte(text), &lists); err != nil {
		return corrupt("pandas_categorical", "is no list of lists")
	}
	named := make([][]string, len(lists))
	some := false
	for i, list := range lists {
		if named[i] = textsOf(list); named[i] != nil {
			some = true
		}
	}
	if !some {
		return nil
	}
	words := strings.Split(columns, ",")
	if columns == "" || len(words) != len(lists) {
		return refuse("pandas_categorical", "has the categories of %d columns, and categorical_feature is %q: it does not say which they are", len(lists), clip(columns))
	}
	spec.CategoryNames = make([][]string, len(spec.Inputs))
	for i, word := range words {
		column, err := strconv.Atoi(word)
		if err != nil || column < 0 || column >= len(spec.Inputs) || spec.CategoryNames[column] != nil {
			return corrupt("categorical_feature", "%q are no columns", clip(columns))
		}
		spec.CategoryNames[column] = named[i]
	}
	return nil
}

// textsOf is a list of texts; nil of anything else.
func textsOf(list []any) []string {
	texts := make([]string, len(list))
	for i, v := range list {
		text, ok := v.(string)
		if !ok {
			return nil
		}
		texts[i] = text
	}
	if len(texts) == 0 {
		return nil
	}
	return texts
}

// xgboostCategories is what XGBoost keeps of the categories of a data frame since 3.1: for each feature the texts one after the other as bytes, with
// where each begins; or numbers, of which the codes are places (src/data/cat_container.cc).
type xgboostCategories struct {
	Encodings []struct {
		Type    json.RawMessage `json:"type"` // of numbers
		Offsets []int64         `json:"offsets"`
		Values  json.RawMessage `json:"values"`
	} `json:"enc"`
	Segments json.RawMessage `json:"feature_segments"`
	Sorted   json.RawMessage `json:"sorted_idx"`
}

// readCategories reads the names of the codes.
func (b *xgboostBooster) readCategories(spec *ForestSpec) error {
	if b.Model.Categories == nil {
		return nil
	}
	var kept xgboostCategories
	if err := decodeXGBoost(b.Model.Categories, &kept); err != nil {
		return err
	}
	if n := len(kept.Encodings); n != 0 && n != len(spec.Inputs) {
		return corrupt("cats", "are of %d features, not of %d", n, len(spec.Inputs))
	}
	for i, e := range kept.Encodings {
		if len(e.Offsets) < 2 {
			continue
		}
		var values []int16 // of signed or unsigned bytes
		if err := json.Unmarshal(e.Values, &values); err != nil {
			return corrupt("cats", "of feature %d are no bytes", i)
		}
		text := make([]byte, len(values))
		for k, v := range values {
			text[k] = byte(v)
		}
		names := make([]string, len(e.Offsets)-1)
		for k := range names {
			from, until := e.Offsets[k], e.Offsets[k+1]
			if from < 0 || from > until || until > int64(len(text)) || !utf8.Valid(text[from:until]) {
				return corrupt("cats", "of feature %d: category %d is no text", i, k)
			}
			names[k] = string(text[from:until])
		}
		if spec.CategoryNames == nil {
			spec.CategoryNames = make([][]string, len(spec.Inputs))
		}
		spec.CategoryNames[i] = names
	}
	return nil
}
