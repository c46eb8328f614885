package model

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
)

// LoadXGBoostJSON reads what save_model of XGBoost 1.7 to 3.x writes to a file named .json (doc/model.schema,
// src/tree/tree_model.cc). All trees count, as for Booster.predict: best_iteration is an attribute that only the
// scikit-learn wrappers heed. Other boosters than gbtree (dart, gblinear), trees with a vector in a leaf, several targets,
// and unknown versions, objectives and fields are refused by name. Errors are of kind Refused for what is whole but not
// scored here, Corrupt for what is damaged.
func LoadXGBoostJSON(text []byte) (*Forest, error) {
	spec, err := readXGBoost(quoteNonFinite(text))
	if err != nil {
		return nil, fmt.Errorf("reading XGBoost JSON: %w", err)
	}
	return NewForest(spec)
}

// LoadXGBoostUBJ reads what save_model of XGBoost 1.7 to 3.x writes to a file named .ubj, as LoadXGBoostJSON does.
func LoadXGBoostUBJ(b []byte) (*Forest, error) {
	text, err := fromUBJSON(b)
	if err == nil {
		var spec ForestSpec
		if spec, err = readXGBoost(text); err == nil {
			return NewForest(spec)
		}
	}
	return nil, fmt.Errorf("reading XGBoost UBJSON: %w", err)
}

// xgboostFile is a saved model. A booster of another kind has other fields, so that it is decoded only when its name is
// known.
type xgboostFile struct {
	Learner struct {
		Attributes      map[string]string          `json:"attributes"`
		FeatureNames    []string                   `json:"feature_names"`
		FeatureTypes    []string                   `json:"feature_types"`
		GradientBooster json.RawMessage            `json:"gradient_booster"`
		Param           xgboostParam               `json:"learner_model_param"`
		Objective       map[string]json.RawMessage `json:"objective"`
	} `json:"learner"`
	Version []int `json:"version"`
}

type xgboostParam struct {
	BaseScore        string `json:"base_score"` // a number; since 3.1 "[a,b,…]", one for each output
	BoostFromAverage string `json:"boost_from_average"`
	Classes          string `json:"num_class"`
	Features         string `json:"num_feature"`
	Targets          string `json:"num_target"`
}

type xgboostBooster struct {
	Name  string `json:"name"`
	Model struct {
		Param struct {
			ParallelTrees string `json:"num_parallel_tree"`
			Trees         string `json:"num_trees"`
			LeafVector    string `json:"size_leaf_vector"`
		} `json:"gbtree_model_param"`
		Categories      json.RawMessage `json:"cats"` // names of the codes, since 3.1
		IterationIndptr []int32         `json:"iteration_indptr"`
		TreeInfo        []int32         `json:"tree_info"` // output of each tree
		Trees           []xgboostTree   `json:"trees"`
		WeightDrop      json.RawMessage `json:"weight_drop"` // dart's: since 3.4 it is a gbtree
	} `json:"model"`
}

// xgboostTree is a tree as arrays over its nodes. A leaf has left child -1 and its value in SplitConditions.
type xgboostTree struct {
	BaseWeights        json.RawMessage `json:"base_weights"`
	Categories         []int32         `json:"categories"` // of all categorical nodes; those in the set go right
	CategoriesNodes    []int32         `json:"categories_nodes"`
	CategoriesSegments []int64         `json:"categories_segments"`
	CategoriesSizes    []int64         `json:"categories_sizes"`
	DefaultLeft        []int8          `json:"default_left"`
	ID                 int             `json:"id"`
	LeftChildren       []int32         `json:"left_children"`
	LossChanges        floats          `json:"loss_changes"`
	Parents            json.RawMessage `json:"parents"`
	RightChildren      []int32         `json:"right_children"`
	SplitConditions    floats          `json:"split_conditions"`
	SplitIndices       []int32         `json:"split_indices"`
	SplitType          []int8          `json:"split_type"` // 1 is categorical
	SumHessian         floats          `json:"sum_hessian"`
	LeafWeights        json.RawMessage `json:"leaf_weights"` // of leaves that are vectors
	Param              struct {
		Deleted    string `json:"num_deleted"`
		Features   string `json:"num_feature"`
		Nodes      string `json:"num_nodes"`
		LeafVector string `json:"size_leaf_vector"`
	} `json:"tree_param"`
}

// floats is an array of float32 that may hold "NaN", "+Inf" and "-Inf".
type floats []float32

// UnmarshalJSON reads a flat array of numbers and strings.
func (f *floats) UnmarshalJSON(text []byte) error {
	text = bytes.TrimSpace(text)
	if len(text) < 2 || text[0] != '[' {
		return fmt.Errorf("%s is no array of numbers", clip(string(text)))
	}
	if text = bytes.TrimSpace(text[1 : len(text)-1]); len(text) == 0 {
		*f = nil
		return nil
	}
	out := make(floats, 0, 1+bytes.Count(text, []byte(",")))
	for word := range bytes.SplitSeq(text, []byte(",")) {
		x, err := strconv.ParseFloat(string(bytes.Trim(word, " \t\r\n\"")), 32)
		if err != nil {
			return fmt.Errorf("%q is no number in the range of float32", clip(string(word)))
		}
		out = append(out, float32(x))
	}
	*f = out
	return nil
}

// quoteNonFinite puts NaN, Infinity and -Infinity, which XGBoost writes and JSON lacks, into quotes.
func quoteNonFinite(text []byte) []byte {
	var out []byte
	kept := 0
	quoted := false
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case c == '"':
			quoted = !quoted
		case quoted && c == '\\':
			i++
		case quoted || c != 'N' && c != 'I':
		default:
			word, from := "NaN", i
			if c == 'I' {
				word = "Infinity"
				if i > 0 && text[i-1] == '-' {
					from--
				}
			}
			if !bytes.HasPrefix(text[i:], []byte(word)) {
				continue // the decoder will say so
			}
			i += len(word) - 1
			out = append(append(append(append(out, text[kept:from]...), '"'), text[from:i+1]...), '"')
			kept = i + 1
		}
	}
	if kept == 0 {
		return text
	}
	return append(out, text[kept:]...)
}

func readXGBoost(text []byte) (ForestSpec, error) {
	var file xgboostFile
	if err := decodeXGBoost(text, &file); err != nil {
		return ForestSpec{}, err
	}
	if v := file.Version; len(v) != 3 || v[0] < 1 || v[0] > 3 || v[0] == 1 && v[1] < 7 {
		return ForestSpec{}, refuse("version", "%v is not 1.7 to 3.x", v)
	}
	spec := ForestSpec{Float32: true, Inputs: file.Learner.FeatureNames}
	if err := file.readInputs(&spec); err != nil {
		return ForestSpec{}, err
	}
	outputs, err := file.readOutputs(&spec)
	if err != nil {
		return ForestSpec{}, err
	}
	booster, err := readBooster(file.Learner.GradientBooster)
	if err != nil {
		return ForestSpec{}, err
	}
	if err := booster.readCategories(&spec); err != nil {
		return ForestSpec{}, err
	}
	return spec, booster.readTrees(&spec, outputs)
}

// readBooster decodes the booster when it is one that is scored.
func readBooster(text json.RawMessage) (*xgboostBooster, error) {
	var kind struct {
		Name string `json:"name"`
	}
	if err := json.Unmarshal(text, &kind); err != nil {
		return nil, corrupt("gradient_booster", "%v", err)
	}
	if kind.Name != "gbtree" {
		return nil, refuse("gradient_booster", "%q is not gbtree", clip(kind.Name))
	}
	b := new(xgboostBooster)
	if err := decodeXGBoost(text, b); err != nil {
		return nil, err
	}
	if b.Model.WeightDrop != nil {
		return nil, refuse("gradient_booster", "dropped trees (weight_drop, \"dart\") are not scored")
	}
	return b, nil
}

// decodeXGBoost is decodeStrict with the errors of this package: an unknown field is refused by name.
func decodeXGBoost(text []byte, into any) error {
	err := decodeStrict(text, into)
	switch {
	case err == nil:
		return nil
	case strings.Contains(err.Error(), "unknown field"):
		return refuse("", "%s", strings.TrimPrefix(err.Error(), "json: "))
	default:
		return corrupt("", "%v", err)
	}
}

// readInputs names the inputs; a model that was trained without names has XGBoost's own, f0, f1, ….
func (f *xgboostFile) readInputs(spec *ForestSpec) error {
	n, err := strconv.Atoi(f.Learner.Param.Features)
	if err != nil || n < 1 || n > MaxInputs {
		return corrupt("num_feature", "%q is not 1 to %d", clip(f.Learner.Param.Features), MaxInputs)
	}
	if len(spec.Inputs) == 0 {
		for i := range n {
			spec.Inputs = append(spec.Inputs, "f"+strconv.Itoa(i))
		}
	}
	if len(spec.Inputs) != n {
		return corrupt("feature_names", "are %d with num_feature=%d", len(spec.Inputs), n)
	}
	return nil
}

// xgboostLossParams are the parameters of objectives that a score does not depend on.
var xgboostLossParams = fieldSet("name reg_loss_param softmax_multiclass_param poisson_regression_param tweedie_regression_param " +
	"lambda_rank_param lambdarank_param ti+ tj- pseudo_huber_param quantile_loss_param expectile_loss_param")

// readOutputs reads the objective, the classes and the base scores.
func (f *xgboostFile) readOutputs(spec *ForestSpec) (int, error) {
	var name string
	if err := json.Unmarshal(f.Learner.Objective["name"], &name); err != nil {
		return 0, corrupt("objective", "has no name")
	}
	spec.Objective = Objective(name)
	m, known := xgboostObjectives[spec.Objective]
	if !known {
		return 0, refuse("objective", "%q is not scored", clip(name))
	}
	for param := range f.Learner.Objective {
		if !xgboostLossParams[param] {
			return 0, refuse("objective", "parameter %q is not known", clip(param))
		}
	}
	p := &f.Learner.Param
	if p.Targets != "" && p.Targets != "0" && p.Targets != "1" {
		return 0, refuse("num_target", "%q: models of several targets are not scored", clip(p.Targets))
	}
	outputs := 1
	if m.task == TaskMulticlass {
		var err error
		if outputs, err = strconv.Atoi(p.Classes); err != nil || outputs < 2 || outputs > MaxOutputs {
			return 0, corrupt("num_class", "%q is not 2 to %d", clip(p.Classes), MaxOutputs)
		}
		for i := range outputs {
			spec.Classes = append(spec.Classes, strconv.Itoa(i))
		}
	}
	var err error
	spec.Base, err = f.baseMargins(m.link, outputs)
	return outputs, err
}

// baseMargins are the base scores as margins. They are kept as scores: a probability where the link is logistic.
func (f *xgboostFile) baseMargins(l link, outputs int) ([]float64, error) {
	text := strings.TrimSuffix(strings.TrimPrefix(f.Learner.Param.BaseScore, "["), "]")
	words := strings.Split(text, ",")
	if len(words) == 1 {
		words = slices.Repeat(words, outputs)
	}
	if len(words) != outputs {
		return nil, corrupt("base_score", "%q has %d values for %d outputs", clip(text), len(words), outputs)
	}
	base := make([]float64, outputs)
	for i, w := range words {
		score, err := strconv.ParseFloat(strings.TrimSpace(w), 32)
		if err != nil {
			return nil, corrupt("base_score", "%q is no number", clip(w))
		}
		if base[i] = float64(l.margin(f.bounded(l, float32(score)))); !finite(base[i]) {
			return nil, corrupt("base_score", "%v has no finite margin", score)
		}
	}
	return base, nil
}

// bounded is a base score as XGBoost takes it: since 3.2 a probability is kept off 0 and 1 by 1e-6, which are what it writes when all labels are
// the same (src/objective/regression_loss.h, LogisticRegression::ProbToMargin).
func (f *xgboostFile) bounded(l link, score float32) float32 {
	const edge = 1e-6
	if l != logistic || !(score >= 0 && score <= 1) || slices.Compare(f.Version, []int{3, 2}) < 0 {
		return score
	}
	return min(max(score, edge), 1-float32(edge))
}

// margin is the inverse of a link, in XGBoost's arithmetic (ProbToMargin in src/objective).
func (l link) margin(score float32) float32 {
	switch l {
	case logistic:
		return float32(-math.Log(float64(1/score - 1)))
	case exponential:
		return float32(math.Log(float64(score)))
	default:
		return score
	}
}

func (b *xgboostBooster) readTrees(spec *ForestSpec, outputs int) error {
	m := &b.Model
	if len(m.Trees) == 0 {
		return refuse("trees", "there are none: the model was saved before it was trained")
	}
	if len(m.Trees) > MaxTrees {
		return corrupt("trees", "are %d, above the limit of %d", len(m.Trees), MaxTrees)
	}
	if len(m.TreeInfo) != len(m.Trees) || m.Param.Trees != strconv.Itoa(len(m.Trees)) {
		return corrupt("trees", "are %d, num_trees=%q, with outputs for %d", len(m.Trees), clip(m.Param.Trees), len(m.TreeInfo))
	}
	if v := m.Param.LeafVector; !scalarLeaf(v) {
		return refuse("size_leaf_vector", "%q: vectors in leaves are not scored", clip(v))
	}
	words := 0
	for i := range m.Trees {
		where := "tree " + strconv.Itoa(i)
		if o := m.TreeInfo[i]; o < 0 || int(o) >= outputs {
			return corrupt(where, "adds to output %d of %d", o, outputs)
		}
		t, err := m.Trees[i].read(where, &words)
		if err != nil {
			return err
		}
		t.Output = int(m.TreeInfo[i])
		spec.Trees = append(spec.Trees, t)
		m.Trees[i] = xgboostTree{} // the memory is free to go
	}
	return nil
}

// scalarLeaf says whether size_leaf_vector is that of leaves with one value: 0 before 2.0, 1 since.
func scalarLeaf(size string) bool { return size == "" || size == "0" || size == "1" }

// read makes a tree of the nodes that are reached from the root; pruned ones are in the arrays, too. words counts what
// the category sets of all trees take.
func (x *xgboostTree) read(where string, words *int) (Tree, error) {
	if !scalarLeaf(x.Param.LeafVector) || x.LeafWeights != nil {
		return Tree{}, refuse(where, "size_leaf_vector=%s: vectors in leaves are not scored", clip(x.Param.LeafVector))
	}
	n := len(x.LeftChildren)
	for _, have := range []int{len(x.RightChildren), len(x.SplitConditions), len(x.SplitIndices), len(x.DefaultLeft), len(x.SumHessian), len(x.LossChanges)} {
		if have != n || n == 0 {
			return Tree{}, corrupt(where, "has arrays of %d and %d nodes", n, have)
		}
	}
	if len(x.SplitType) != 0 && len(x.SplitType) != n {
		return Tree{}, corrupt(where, "has arrays of %d and %d nodes", n, len(x.SplitType))
	}
	sets, err := x.sets(where, words)
	if err != nil {
		return Tree{}, err
	}
	return x.grow(where, sets)
}

// grow lays the nodes out as splits and leaves, breadth first.
func (x *xgboostTree) grow(where string, sets map[int32]Categories) (Tree, error) {
	var t Tree
	nodes, splits := []int32{0}, 0
	place := func(node int32) (int, error) {
		if node < 0 || int(node) >= len(x.LeftChildren) || len(nodes) == len(x.LeftChildren) {
			return 0, corrupt(where, "node %d does not exist or is reached twice", node)
		}
		nodes = append(nodes, node)
		if x.LeftChildren[node] >= 0 {
			splits++
			return splits, nil
		}
		t.Leaves = append(t.Leaves, Leaf{Value: float64(x.SplitConditions[node]), Weight: float64(x.SumHessian[node])})
		return ^(len(t.Leaves) - 1), nil
	}
	if x.LeftChildren[0] < 0 {
		t.Leaves = []Leaf{{Value: float64(x.SplitConditions[0]), Weight: float64(x.SumHessian[0])}}
	}
	for i := 0; i < len(nodes); i++ {
		node := nodes[i]
		if x.LeftChildren[node] < 0 {
			continue
		}
		left, err := place(x.LeftChildren[node])
		if err != nil {
			return Tree{}, err
		}
		right, err := place(x.RightChildren[node])
		if err != nil {
			return Tree{}, err
		}
		s, err := x.split(where, node, sets)
		if err != nil {
			return Tree{}, err
		}
		if s.Left, s.Right = left, right; s.Categories != nil {
			s.Left, s.Right = right, left
		}
		t.Splits = append(t.Splits, s)
	}
	return t, nil
}

// split is the question of a node, without its children. XGBoost goes left when x < condition, which is x <= the number
// before it; categories of the set go right in XGBoost and left here, so that the children change sides.
func (x *xgboostTree) split(where string, node int32, sets map[int32]Categories) (Split, error) {
	s := Split{Input: int(x.SplitIndices[node]), Missing: MissingNaN, DefaultLeft: x.DefaultLeft[node] != 0, Gain: float64(x.LossChanges[node])}
	if !finite(s.Gain) {
		s.Gain = 0
	}
	if len(x.SplitType) > 0 && x.SplitType[node] != 0 {
		var ok bool
		if s.Categories, ok = sets[node]; !ok || x.SplitType[node] != 1 {
			return s, corrupt(where, "node %d has split_type %d and no categories", node, x.SplitType[node])
		}
		s.DefaultLeft = !s.DefaultLeft
		return s, nil
	}
	condition, least := x.SplitConditions[node], float32(math.Inf(-1))
	if !(condition > least) {
		return s, refuse(where, "node %d splits at %v", node, condition)
	}
	s.Threshold = float64(math.Nextafter32(condition, least))
	return s, nil
}

// sets are the categories by node.
func (x *xgboostTree) sets(where string, words *int) (map[int32]Categories, error) {
	n := len(x.CategoriesNodes)
	if len(x.CategoriesSegments) != n || len(x.CategoriesSizes) != n {
		return nil, corrupt(where, "has categories of %d nodes, with %d segments and %d sizes", n, len(x.CategoriesSegments), len(x.CategoriesSizes))
	}
	sets := make(map[int32]Categories, n)
	for i, node := range x.CategoriesNodes {
		from, size := x.CategoriesSegments[i], x.CategoriesSizes[i]
		if from < 0 || size < 0 || from > int64(len(x.Categories)) || size > int64(len(x.Categories))-from {
			return nil, corrupt(where, "node %d has categories %d to %d of %d", node, from, from+size, len(x.Categories))
		}
		codes := x.Categories[from : from+size]
		most := int32(0)
		for _, c := range codes {
			if c < 0 || c > MaxCategory {
				return nil, corrupt(where, "node %d has category %d, not 0 to %d", node, c, MaxCategory)
			}
			most = max(most, c)
		}
		if *words += int(most)/32 + 1; *words > maxSetWords {
			return nil, corrupt(where, "the category sets are larger than the limit of %d words", maxSetWords)
		}
		set := make(Categories, most/32+1)
		for _, c := range codes {
			set[c/32] |= 1 << (c % 32)
		}
		sets[node] = set
	}
	return sets, nil
}
