package model

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// LightGBM is the forest as LightGBM's model text, version v4. LightGBM loads it and gives the same margins to the bit.
// Equal forests give equal text. Numbers are written in the shortest form that reads back. An inner node's value is the
// mean leaf value of its training rows, which LightGBM uses for nothing but explanations.
func (f *Forest) LightGBM() []byte {
	trees := make([]string, len(f.spec.Trees))
	sizes := make([]string, len(trees))
	for i := range f.spec.Trees {
		trees[i] = treeText(&f.spec.Trees[i], i, f.spec.Shrinkage)
		sizes[i] = strconv.Itoa(len(trees[i]))
	}
	var b strings.Builder
	b.WriteString("tree\nversion=v4\n")
	field(&b, "num_class", strconv.Itoa(len(f.classes)))
	field(&b, "num_tree_per_iteration", strconv.Itoa(len(f.classes)))
	field(&b, "label_index", "0")
	field(&b, "max_feature_idx", strconv.Itoa(len(f.spec.Inputs)-1))
	field(&b, "objective", f.objectiveText())
	if f.spec.Average {
		b.WriteString("average_output\n")
	}
	field(&b, "feature_names", f.spec.Inputs...)
	field(&b, "feature_infos", f.spec.Ranges...)
	field(&b, "tree_sizes", sizes...)
	b.WriteByte('\n')
	for _, t := range trees {
		b.WriteString(t)
	}
	b.WriteString("end of trees\n\n")
	f.writeImportances(&b)
	return []byte(b.String())
}

func (f *Forest) objectiveText() string {
	text := string(f.spec.Objective)
	if f.meaning.task == TaskMulticlass {
		text += " num_class:" + strconv.Itoa(len(f.classes))
	}
	if hasSigmoid(f.spec.Objective) {
		text += " sigmoid:" + number(f.spec.Sigmoid)
	}
	if f.spec.SqrtLabel {
		text += " sqrt"
	}
	return text
}

// writeImportances lists how many splits each input has, most first.
func (f *Forest) writeImportances(b *strings.Builder) {
	counts := make([]int, len(f.spec.Inputs))
	for _, t := range f.spec.Trees {
		for _, s := range t.Splits {
			counts[s.Input]++
		}
	}
	order := make([]int, 0, len(counts))
	for i, n := range counts {
		if n > 0 {
			order = append(order, i)
		}
	}
	slices.SortStableFunc(order, func(i, j int) int { return cmp.Compare(counts[j], counts[i]) })
	b.WriteString("feature_importances:\n")
	for _, i := range order {
		fmt.Fprintf(b, "%s=%d\n", f.spec.Inputs[i], counts[i])
	}
}

// treeText is one tree with the two empty lines after it: the span that tree_sizes counts.
func treeText(t *Tree, index int, shrinkage float64) string {
	var b strings.Builder
	thresholds, boundaries, words := categoryTexts(t)
	fmt.Fprintf(&b, "Tree=%d\nnum_leaves=%d\nnum_cat=%d\n", index, len(t.Leaves), max(0, len(boundaries)-1))
	below := t.subtrees(coverRows)
	split := func(name string, text func(Split) string) { field(&b, name, texts(t.Splits, text)...) }
	leaf := func(name string, text func(Leaf) string) { field(&b, name, texts(t.Leaves, text)...) }
	inner := func(name string, text func(subtree) string) { field(&b, name, texts(below, text)...) }

	split("split_feature", func(s Split) string { return strconv.Itoa(s.Input) })
	split("split_gain", func(s Split) string { return number(s.Gain) })
	field(&b, "threshold", thresholds...)
	split("decision_type", func(s Split) string { return strconv.Itoa(decision(s)) })
	split("left_child", func(s Split) string { return strconv.Itoa(s.Left) })
	split("right_child", func(s Split) string { return strconv.Itoa(s.Right) })
	leaf("leaf_value", func(l Leaf) string { return number(l.Value) })
	leaf("leaf_weight", func(l Leaf) string { return number(l.Weight) })
	leaf("leaf_count", func(l Leaf) string { return strconv.Itoa(l.Rows) })
	inner("internal_value", func(s subtree) string { return number(s.value) })
	inner("internal_weight", func(s subtree) string { return number(s.weight) })
	inner("internal_count", func(s subtree) string { return strconv.Itoa(s.rows) })
	if len(boundaries) > 0 {
		field(&b, "cat_boundaries", boundaries...)
		field(&b, "cat_threshold", words...)
	}
	field(&b, "is_linear", "0")
	field(&b, "shrinkage", number(shrinkage))
	b.WriteString("\n\n")
	return b.String()
}

// categoryTexts lays the category sets out end to end: the threshold of a categorical split is the number of its set,
// whose words begin at that boundary.
func categoryTexts(t *Tree) (thresholds, boundaries, words []string) {
	for _, s := range t.Splits {
		if s.Categories == nil {
			thresholds = append(thresholds, number(s.Threshold))
			continue
		}
		if boundaries == nil {
			boundaries = []string{"0"}
		}
		thresholds = append(thresholds, strconv.Itoa(len(boundaries)-1))
		for _, w := range s.Categories {
			words = append(words, strconv.FormatUint(uint64(w), 10))
		}
		boundaries = append(boundaries, strconv.Itoa(len(words)))
	}
	return thresholds, boundaries, words
}

func decision(s Split) int {
	d := int(s.Missing) << missingShift
	if s.Categories != nil {
		d |= categoricalBit
	}
	if s.DefaultLeft {
		d |= defaultLeftBit
	}
	return d
}

func field(b *strings.Builder, name string, values ...string) {
	b.WriteString(name)
	b.WriteByte('=')
	b.WriteString(strings.Join(values, " "))
	b.WriteByte('\n')
}

func texts[T any](of []T, text func(T) string) []string {
	out := make([]string, len(of))
	for i, v := range of {
		out[i] = text(v)
	}
	return out
}

func number(x float64) string {
	return strings.TrimPrefix(strings.ToLower(strconv.FormatFloat(x, 'g', -1, 64)), "+")
} // inf, as C has it
