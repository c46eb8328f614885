package model

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/millrace/millrace/internal/failure"
)

// LoadLightGBM reads LightGBM's model text, versions v3 and v4, as LightGBM 3 and 4 write it
// (src/boosting/gbdt_model_text.cpp and src/io/tree.cpp; there is no other specification). Linear leaves, dart, custom
// objectives and whatever else is not scored here are refused by name, and a field that it does not know is too. Errors
// are of kind Refused for what is whole but not scored here, Corrupt for what is damaged.
func LoadLightGBM(text []byte) (*Forest, error) {
	spec, err := readLightGBM(text)
	if err != nil {
		return nil, fmt.Errorf("reading LightGBM text: %w", err)
	}
	return NewForest(spec)
}

func readLightGBM(text []byte) (ForestSpec, error) {
	if len(text) > MaxBytes {
		return ForestSpec{}, corrupt("", "%d bytes, above the limit of %d", len(text), MaxBytes)
	}
	r := newLines(string(text))
	if line := r.next(); line != "tree" {
		return ForestSpec{}, refuse("first line", "is %q, not \"tree\"", clip(line))
	}
	spec, outputs, trees, err := readHeader(r)
	if err != nil {
		return ForestSpec{}, err
	}
	for !r.at("end of trees") {
		if r.done {
			return ForestSpec{}, corrupt("", "the text ends after %d trees, before \"end of trees\"", len(spec.Trees))
		}
		if len(spec.Trees) == MaxTrees {
			return ForestSpec{}, corrupt("", "more trees than the limit of %d", MaxTrees)
		}
		tree, shrinkage, err := readTree(r, len(spec.Trees))
		if err != nil {
			return ForestSpec{}, err
		}
		tree.Output = len(spec.Trees) % outputs
		spec.Trees = append(spec.Trees, tree)
		spec.Shrinkage = shrinkage
	}
	if trees != len(spec.Trees) {
		return ForestSpec{}, corrupt("tree_sizes", "announces %d trees, and there are %d", trees, len(spec.Trees))
	}
	return spec, readTrailer(r, &spec)
}

// headerFields are the fields that may stand before the first tree.
var headerFields = fieldSet(averageOutput + " version num_class num_tree_per_iteration label_index max_feature_idx objective feature_names " +
	"monotone_constraints feature_infos tree_sizes")

func readHeader(r *lines) (spec ForestSpec, outputs, trees int, err error) {
	fields, err := r.fields("header", headerFields)
	if err != nil {
		return spec, 0, 0, err
	}
	if v := fields["version"]; v != "v3" && v != "v4" {
		return spec, 0, 0, refuse("version", "%q is neither v3 nor v4", clip(v))
	}
	if err := readObjective(&spec, fields["objective"]); err != nil {
		return spec, 0, 0, err
	}
	if outputs, err = readOutputs(&spec, fields); err != nil {
		return spec, 0, 0, err
	}
	_, spec.Average = fields[averageOutput]
	spec.Inputs = strings.Split(fields["feature_names"], " ")
	if got := fields["max_feature_idx"]; got != strconv.Itoa(len(spec.Inputs)-1) {
		return spec, 0, 0, corrupt("max_feature_idx", "is %q with %d feature_names", clip(got), len(spec.Inputs))
	}
	if infos, ok := fields["feature_infos"]; ok {
		spec.Ranges = strings.Split(infos, " ")
	}
	return spec, outputs, len(strings.Fields(fields["tree_sizes"])), nil
}

// averageOutput stands in the header of a random forest, without a value.
const averageOutput = "average_output"

// readObjective reads the objective and its options (src/objective/*.hpp: ToString of each).
func readObjective(spec *ForestSpec, text string) error {
	words := strings.Fields(text)
	if len(words) == 0 {
		return refuse("objective", "is missing, as it is in a model of a custom objective")
	}
	spec.Objective, spec.Sigmoid = Objective(words[0]), 1
	if _, known := lightGBMObjectives[spec.Objective]; !known {
		return refuse("objective", "%q is not scored", clip(text))
	}
	for _, o := range words[1:] {
		name, value, _ := strings.Cut(o, ":")
		switch {
		case name == "sigmoid" && hasSigmoid(spec.Objective):
			var err error
			if spec.Sigmoid, err = strconv.ParseFloat(value, 64); err != nil || !(spec.Sigmoid > 0) || !finite(spec.Sigmoid) {
				return corrupt("objective", "sigmoid %q is not a number above 0", clip(value))
			}
		case o == "sqrt" && spec.Objective == Regression:
			spec.SqrtLabel = true
		case name == "num_class" && lightGBMObjectives[spec.Objective].task == TaskMulticlass: // readOutputs reads it from its own field
		case lossOption[name]: // of the loss, not of the score
		default:
			return refuse("objective", "option %q is not known", clip(o))
		}
	}
	return nil
}

func hasSigmoid(o Objective) bool { return o == Binary || o == MulticlassOVA }

// lossOption are the options that a score does not depend on.
var lossOption = fieldSet("alpha c tweedie_variance_power")

// readOutputs reads how many classes there are.
func readOutputs(spec *ForestSpec, fields map[string]string) (int, error) {
	n, err := strconv.Atoi(fields["num_class"])
	switch {
	case err != nil || n < 1 || n > MaxOutputs:
		return 0, corrupt("num_class", "%q is not 1 to %d", clip(fields["num_class"]), MaxOutputs)
	case fields["num_tree_per_iteration"] != fields["num_class"]:
		return 0, corrupt("num_tree_per_iteration", "is %q with num_class=%d", clip(fields["num_tree_per_iteration"]), n)
	case lightGBMObjectives[spec.Objective].task == TaskMulticlass:
		for i := range n {
			spec.Classes = append(spec.Classes, strconv.Itoa(i))
		}
	case n != 1:
		return 0, refuse("num_class", "%d classes for the objective %s", n, spec.Objective)
	}
	return n, nil
}

// treeFields are the fields of a tree. Those of linear trees are here to be refused by name.
var treeFields = fieldSet("num_leaves num_cat split_feature split_gain threshold decision_type left_child right_child leaf_value " +
	"leaf_weight leaf_count internal_value internal_weight internal_count cat_boundaries cat_threshold is_linear leaf_const " +
	"num_features leaf_features leaf_coeff shrinkage")

// Bits of LightGBM's decision_type.
const (
	categoricalBit = 1 << 0
	defaultLeftBit = 1 << 1
	missingShift   = 2
	decisionLimit  = 1 << 4
)

func readTree(r *lines, index int) (t Tree, shrinkage float64, err error) {
	where := "Tree=" + strconv.Itoa(index)
	if line := r.next(); line != where {
		return t, 0, corrupt(where, "expected, found %q", clip(line))
	}
	fields, err := r.fields(where, treeFields)
	if err != nil {
		return t, 0, err
	}
	if fields["is_linear"] != "0" && fields["is_linear"] != "" {
		return t, 0, refuse(where, "linear leaves (is_linear=%s) are not scored", clip(fields["is_linear"]))
	}
	a := arrays{where: where, fields: fields}
	leaves := a.one("num_leaves")
	if a.err == nil && (leaves < 1 || leaves > MaxLeaves) {
		return t, 0, corrupt(where, "num_leaves=%d is not 1 to %d", leaves, MaxLeaves)
	}
	t.Leaves, t.Splits = a.leaves(leaves), a.splits(leaves-1)
	shrinkage = a.floats("shrinkage", 1)[0]
	return t, shrinkage, a.err
}

// arrays reads a tree's fields; after the first fault it gives zeros and keeps the fault.
type arrays struct {
	where  string
	fields map[string]string
	err    error
}

func (a *arrays) leaves(n int) []Leaf {
	values, counts, weights := a.floats("leaf_value", n), make([]int, n), make([]float64, n)
	// A tree of one leaf does not say what the leaf is made of: not its weight, and in LightGBM 3 not its rows.
	if n > 1 || strings.TrimSpace(a.fields["leaf_count"]) != "" {
		counts = a.ints("leaf_count", n)
	}
	if n > 1 || strings.TrimSpace(a.fields["leaf_weight"]) != "" {
		weights = a.floats("leaf_weight", n)
	}
	if a.err != nil {
		return nil
	}
	leaves := make([]Leaf, n)
	for i := range leaves {
		leaves[i] = Leaf{Value: values[i], Weight: weights[i], Rows: counts[i]}
	}
	return leaves
}

func (a *arrays) splits(n int) []Split {
	inputs, thresholds, decisions := a.ints("split_feature", n), a.floats("threshold", n), a.ints("decision_type", n)
	left, right, gains := a.ints("left_child", n), a.ints("right_child", n), a.floats("split_gain", n)
	if a.err != nil {
		return nil
	}
	sets := a.categories()
	splits := make([]Split, n)
	for i := range splits {
		d := decisions[i]
		if d < 0 || d >= decisionLimit || d>>missingShift > int(MissingNaN) {
			a.err = refuse(a.where, "decision_type %d is not known", d)
			return nil
		}
		splits[i] = Split{
			Input: inputs[i], Threshold: thresholds[i], DefaultLeft: d&defaultLeftBit != 0, Missing: Missing(d >> missingShift),
			Left: left[i], Right: right[i], Gain: gains[i],
		}
		if d&categoricalBit == 0 {
			continue
		}
		s := &splits[i]
		at := int(s.Threshold)
		if float64(at) != s.Threshold || at < 0 || at >= len(sets) {
			a.err = corrupt(a.where, "split %d is on category set %v of %d", i, s.Threshold, len(sets))
			return nil
		}
		s.Categories, s.Threshold, s.DefaultLeft = sets[at], 0, false // a missing category goes right, whatever the bits say
	}
	return splits
}

// categories reads the sets of the categorical splits.
func (a *arrays) categories() []Categories {
	n := a.one("num_cat")
	if a.err == nil && (n < 0 || n > MaxLeaves) {
		a.err = corrupt(a.where, "num_cat=%d is not 0 to %d", n, MaxLeaves)
	}
	if n == 0 || a.err != nil {
		return nil
	}
	bounds := a.ints("cat_boundaries", n+1)
	total := bounds[len(bounds)-1]
	if a.err == nil && (bounds[0] != 0 || total < 0) {
		a.err = corrupt(a.where, "cat_boundaries are not from 0 up")
	}
	words := parse(a, "cat_threshold", total, func(s string) (uint32, error) {
		w, err := strconv.ParseUint(s, 10, 32)
		return uint32(w), err
	})
	if a.err != nil {
		return nil
	}
	sets := make([]Categories, n)
	for i := range sets {
		if bounds[i] >= bounds[i+1] || bounds[i+1] > total {
			a.err = corrupt(a.where, "cat_boundaries %d to %d do not rise within %d words", bounds[i], bounds[i+1], total)
			return nil
		}
		sets[i] = words[bounds[i]:bounds[i+1]:bounds[i+1]]
	}
	return sets
}

func (a *arrays) one(name string) int { return a.ints(name, 1)[0] }

func (a *arrays) ints(name string, n int) []int {
	return parse(a, name, n, func(s string) (int, error) {
		i, err := strconv.ParseInt(s, 10, 32)
		return int(i), err
	})
}

func (a *arrays) floats(name string, n int) []float64 {
	return parse(a, name, n, func(s string) (float64, error) { return strconv.ParseFloat(s, 64) })
}

// parse reads exactly n values. It allocates no more than the text has words, unless a fault is already known and n is
// 1.
func parse[T any](a *arrays, name string, n int, value func(string) (T, error)) []T {
	if a.err != nil {
		return make([]T, 1)
	}
	words := strings.Fields(a.fields[name])
	if len(words) != n {
		a.err = corrupt(a.where, "%s has %d values, not %d", name, len(words), n)
		return make([]T, 1)
	}
	out := make([]T, n)
	for i, w := range words {
		var err error
		if out[i], err = value(w); err != nil {
			a.err = corrupt(a.where, "%s has %q, which is no number in range", name, clip(w))
			return make([]T, 1)
		}
	}
	return out
}

// readTrailer looks for what the training parameters say about the booster: dart rescales trees that are already
// written, so a continued or truncated dart model does not say what it scores. Behind them are the names of categories.
func readTrailer(r *lines, spec *ForestSpec) error {
	categorical := ""
	for !r.done {
		line := r.next()
		if booster, ok := strings.CutPrefix(line, "[boosting: "); ok {
			if booster = strings.TrimSuffix(booster, "]"); !boosters[booster] {
				return refuse("boosting", "%q is neither gbdt nor rf", clip(booster))
			}
		}
		if columns, ok := strings.CutPrefix(line, "[categorical_feature: "); ok {
			categorical = strings.TrimSuffix(columns, "]")
		}
		if lists, ok := strings.CutPrefix(line, "pandas_categorical:"); ok {
			if err := pandasCategories(lists, categorical, spec); err != nil {
				return err
			}
		}
	}
	return nil
}

// boosters are those whose text says what they score.
var boosters = fieldSet("gbdt gbrt rf random_forest goss")

// lines reads a text line by line with one line of foresight, skipping empty ones.
type lines struct {
	line string // the next line; "" when done
	rest string
	done bool
}

func newLines(text string) *lines {
	r := lines{rest: text}
	r.next()
	return &r
}

// next returns the line ahead and goes on to the one after it.
func (r *lines) next() string {
	line := r.line
	for r.line = ""; r.line == "" && !r.done; {
		r.done = r.rest == ""
		r.line, r.rest, _ = strings.Cut(r.rest, "\n")
		r.line = strings.TrimSuffix(r.line, "\r")
	}
	return line
}

func (r *lines) at(line string) bool { return !r.done && r.line == line }

// fields reads "name=value" lines up to the next section.
func (r *lines) fields(where string, known map[string]bool) (map[string]string, error) {
	fields := make(map[string]string)
	for !r.done && !strings.HasPrefix(r.line, "Tree=") && !r.at("end of trees") {
		line := r.next()
		name, value, ok := strings.Cut(line, "=")
		switch {
		case !known[name] || (name == averageOutput) != (line == averageOutput):
			return nil, refuse(where, "field %q is not known", clip(name))
		case !ok && name != averageOutput:
			return nil, corrupt(where, "field %q has no value", name)
		}
		if _, twice := fields[name]; twice {
			return nil, corrupt(where, "field %q is there twice", name)
		}
		fields[name] = value
	}
	return fields, nil
}

func fieldSet(names string) map[string]bool {
	set := make(map[string]bool)
	for _, n := range strings.Fields(names) {
		set[n] = true
	}
	return set
}

func corrupt(where, format string, args ...any) error {
	return failure.New(failure.Corrupt, where, format, args...)
}

func refuse(where, format string, args ...any) error {
	return failure.New(failure.Refused, where, format, args...)
}

// clip keeps foreign text in an error short.
func clip(s string) string {
	const limit = 60
	if len(s) > limit {
		return s[:limit] + "…"
	}
	return s
}
