package model

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/millrace/millrace/internal/failure"
)

// ForestSpec is what a Forest is made of.
type ForestSpec struct {
	Inputs    []string // LightGBM text separates names by blanks, so that unless Float32 they have none
	Ranges    []string // LightGBM's feature_infos, "[min:max]", categories "1:2:3" or "none"; nil is "none" for all
	Objective Objective
	Sigmoid   float64  // steepness of a logistic link; 0 is 1
	SqrtLabel bool     // LightGBM's reg_sqrt: trained on the root of the label
	Average   bool     // the margin is the mean of the trees of an output, not their sum (LightGBM's random forest)
	Classes   []string // names of the outputs of a Multiclass forest; nil is "0", "1", … up to the highest of the trees
	Shrinkage float64  // the learning rate, for the reader only
	Trees     []Tree

	// CategoryNames is, by input, the names of the codes 0, 1, … that the file keeps; nil of an input without names, and of a file without any.
	CategoryNames [][]string

	// Float32 is XGBoost's arithmetic: inputs, thresholds and sums are float32, Split's Missing is MissingNaN, and
	// explanations weigh leaves by Weight. Else inputs, thresholds and sums are float64, and leaves weigh by Rows.
	Float32 bool
	Base    []float64 // per output, what the margin begins with (XGBoost's base_score); nil is 0
}

// Forest is a sum of trees per output. Its margins are the sums of the leaf values in the order of the trees: what the
// library that trained it computes.
type Forest struct {
	spec    ForestSpec
	meaning meaning
	classes []string
	methods []string
	narrow  *flat[float32] // of a Float32 forest
	wide    *flat[float64] // of the others
	bias    []float64      // per output, mean margin of the training rows
	counts  []float64      // per output, its trees; nil when the sum is not to be divided by them
}

// NewForest checks spec and lays it out for scoring. It keeps spec's slices: don't change them afterwards. Its errors are of kind Corrupt.
func NewForest(spec ForestSpec) (*Forest, error) {
	if spec.Sigmoid == 0 {
		spec.Sigmoid = 1
	}
	if spec.Ranges == nil {
		spec.Ranges = slices.Repeat([]string{"none"}, len(spec.Inputs))
	}
	f := &Forest{spec: spec}
	if err := f.build(); err != nil {
		return nil, failure.Wrap(failure.Corrupt, "", "checking forest", err)
	}
	return f, nil
}

func (f *Forest) build() error {
	if err := f.spec.check(); err != nil {
		return err
	}
	f.meaning, _ = f.spec.meaning()
	f.classes = f.spec.outputs(f.meaning.task)
	base := f.spec.Base
	if base == nil {
		base = make([]float64, len(f.classes))
	}
	if f.spec.Float32 {
		f.narrow = flatten[float32](&f.spec, base)
		f.bias, f.methods = f.narrow.biases(), f.narrow.methods()
	} else {
		f.wide = flatten[float64](&f.spec, base)
		f.bias, f.methods = f.wide.biases(), f.wide.methods()
	}
	if f.spec.Average {
		f.counts = make([]float64, len(f.classes))
		for _, t := range f.spec.Trees {
			f.counts[t.Output]++
		}
		f.average(f.bias)
	}
	return nil
}

func (s *ForestSpec) meaning() (meaning, bool) {
	objectives := lightGBMObjectives
	if s.Float32 {
		objectives = xgboostObjectives
	}
	m, ok := objectives[s.Objective]
	if s.SqrtLabel {
		m.link = signedSquare
	}
	return m, ok
}

// outputs names what the forest gives.
func (s *ForestSpec) outputs(task Task) []string {
	switch {
	case task != TaskMulticlass:
		return oneOutput
	case s.Classes != nil:
		return s.Classes
	}
	names := []string{"0"}
	for _, t := range s.Trees {
		for len(names) <= t.Output {
			names = append(names, strconv.Itoa(len(names)))
		}
	}
	return names
}

func (s *ForestSpec) check() error {
	if err := checkNames(s.Inputs); err != nil {
		return err
	}
	for _, text := range slices.Concat(s.Inputs, s.Ranges) {
		if !s.Float32 && (text == "" || strings.ContainsAny(text, " \t\r\n")) {
			return fmt.Errorf("%q cannot be written as LightGBM text: it is empty or has a blank", text)
		}
	}
	meaning, known := s.meaning()
	switch {
	case len(s.Ranges) != len(s.Inputs):
		return fmt.Errorf("%d ranges for %d inputs", len(s.Ranges), len(s.Inputs))
	case !known:
		return fmt.Errorf("objective %q is not known", s.Objective)
	case s.SqrtLabel && s.Objective != Regression:
		return fmt.Errorf("objective %q is not trained on the root of the label", s.Objective)
	case !(s.Sigmoid > 0) || !finite(s.Sigmoid):
		return fmt.Errorf("sigmoid is %v, not a number above 0", s.Sigmoid)
	case !finite(s.Shrinkage):
		return fmt.Errorf("shrinkage is %v", s.Shrinkage)
	case len(s.Trees) > MaxTrees:
		return fmt.Errorf("%d trees, above the limit of %d", len(s.Trees), MaxTrees)
	}
	if err := s.checkOutputs(meaning.task); err != nil {
		return err
	}
	return s.checkTrees()
}

// checkOutputs looks at the classes and the trees' outputs. It comes before anything that is made per output.
func (s *ForestSpec) checkOutputs(task Task) error {
	limit := 1
	if task == TaskMulticlass {
		limit = MaxOutputs
		if s.Classes != nil {
			limit = len(s.Classes)
		}
	}
	if limit > MaxOutputs || limit < 1 {
		return fmt.Errorf("%d classes, not 1 to %d", limit, MaxOutputs)
	}
	for i := range s.Trees {
		if o := s.Trees[i].Output; o < 0 || o >= limit {
			return fmt.Errorf("tree %d adds to output %d of %d", i, o, limit)
		}
	}
	names := s.outputs(task)
	seen := make(map[string]bool, len(names))
	for _, n := range names {
		if n == "" || seen[n] {
			return fmt.Errorf("class %q has no name, or is there twice", n)
		}
		seen[n] = true
	}
	if s.Base != nil && len(s.Base) != len(names) {
		return fmt.Errorf("%d base scores for %d outputs", len(s.Base), len(names))
	}
	for _, b := range s.Base {
		if !finite(b) {
			return fmt.Errorf("a base score is %v", b)
		}
	}
	return nil
}

func (s *ForestSpec) checkTrees() error {
	nodes, words := 0, 0
	for i := range s.Trees {
		t := &s.Trees[i]
		if err := t.check(len(s.Inputs)); err != nil {
			return fmt.Errorf("tree %d %w", i, err)
		}
		nodes += 2 * len(t.Leaves)
		for j := range t.Splits {
			words += len(t.Splits[j].Categories)
			if !s.Float32 && t.Splits[j].Categories != nil && t.Splits[j].DefaultLeft {
				return fmt.Errorf("tree %d split %d sends a missing category left, which LightGBM cannot", i, j)
			}
			if s.Float32 && t.Splits[j].Missing != MissingNaN {
				return fmt.Errorf("tree %d split %d has missing type %d, and XGBoost has %d alone", i, j, t.Splits[j].Missing, MissingNaN)
			}
		}
	}
	if nodes > math.MaxInt32 {
		return fmt.Errorf("%d nodes, above the limit of %d", nodes, math.MaxInt32)
	}
	if words > maxSetWords {
		return fmt.Errorf("category sets of %d words, above the limit of %d", words, maxSetWords)
	}
	return nil
}

// checkNames reports inputs that are too many, unnamed or named twice.
func checkNames(names []string) error {
	if len(names) == 0 || len(names) > MaxInputs {
		return fmt.Errorf("%d inputs, not 1 to %d", len(names), MaxInputs)
	}
	seen := make(map[string]bool, len(names))
	for _, n := range names {
		if n == "" {
			return fmt.Errorf("an input has no name")
		}
		if seen[n] {
			return fmt.Errorf("input %q is there twice", n)
		}
		seen[n] = true
	}
	return nil
}

// WithClasses is the forest with names for the outputs of its classes. Its errors are of kind Corrupt.
func (f *Forest) WithClasses(names []string) (*Forest, error) {
	if f.meaning.task != TaskMulticlass || len(names) != len(f.classes) {
		return nil, failure.New(failure.Corrupt, "classes", "%d are named for a %s model of %d outputs", len(names), f.meaning.task, len(f.classes))
	}
	spec := f.spec
	spec.Classes = names
	return NewForest(spec)
}

// Inputs names the columns of a row.
func (f *Forest) Inputs() []string { return f.spec.Inputs }

// Outputs names the classes, or is "score".
func (f *Forest) Outputs() []string { return f.classes }

// Kind is "forest".
func (f *Forest) Kind() string { return "forest" }

// Task is what a score means.
func (f *Forest) Task() Task { return f.meaning.task }

// Objective is what the forest was trained for.
func (f *Forest) Objective() Objective { return f.spec.Objective }

// Trees are the forest's trees, in order. The caller must not change them.
func (f *Forest) Trees() []Tree { return f.spec.Trees }

// Predict is the one score, or the highest of those of the classes. It does not allocate.
func (f *Forest) Predict(row []float64) float64 {
	var few [16]float64 // on the stack
	if len(f.classes) > len(few) {
		return f.best(row, make([]float64, len(f.classes)))
	}
	return f.best(row, few[:len(f.classes)])
}

func (f *Forest) best(row, out []float64) float64 {
	f.PredictInto(row, out)
	return slices.Max(out)
}

// PredictInto writes the score of each output. It does not allocate.
func (f *Forest) PredictInto(row, out []float64) {
	f.sums(row, out)
	f.scores(out)
}

// scores makes scores of the outputs' sums.
func (f *Forest) scores(out []float64) {
	f.average(out)
	f.meaning.link.apply(out[:len(f.classes)], f.spec.Sigmoid)
}

// PredictRows is PredictInto for many rows. It does not allocate.
func (f *Forest) PredictRows(rows [][]float64, out []float64) {
	n := len(f.classes)
	if f.narrow != nil {
		f.narrow.marginsRows(rows, out)
	} else {
		f.wide.marginsRows(rows, out)
	}
	for i := range rows {
		f.scores(out[i*n : (i+1)*n])
	}
}

// Margin is the margin of the first output.
func (f *Forest) Margin(row []float64) float64 {
	var few [16]float64
	out := few[:]
	if len(f.classes) > len(few) {
		out = make([]float64, len(f.classes))
	}
	f.Margins(row, out)
	return out[0]
}

// Margins writes the sum of the leaves that the row ends in, per output. It does not allocate.
func (f *Forest) Margins(row, out []float64) {
	f.sums(row, out)
	f.average(out)
}

func (f *Forest) sums(row, out []float64) {
	if f.narrow != nil {
		f.narrow.margins(row, out)
	} else {
		f.wide.margins(row, out)
	}
}

// average makes means of sums, where the forest is of that kind.
func (f *Forest) average(sums []float64) {
	for i, n := range f.counts {
		if n > 0 {
			sums[i] /= n
		}
	}
}

// forestMethods are what Explain knows.
var forestMethods = []string{Saabas, TreeSHAP}

// Methods are Saabas and, unless a tree is deeper than 512 splits, TreeSHAP.
func (f *Forest) Methods() []string { return f.methods }

// Explain attributes the margin of an output to the inputs. The bias is the mean margin of the training rows, the same
// as the last column of LightGBM's pred_contrib and XGBoost's pred_contribs. Saabas does not allocate.
func (f *Forest) Explain(row []float64, output int, method string, out []float64) (bias float64, used string) {
	out = out[:len(f.spec.Inputs)]
	clear(out)
	used = Saabas
	if method == TreeSHAP && len(f.methods) > 1 {
		used = TreeSHAP
	}
	switch {
	case used == TreeSHAP && f.narrow != nil:
		f.narrow.shap(row, output, out)
	case used == TreeSHAP:
		f.wide.shap(row, output, out)
	case f.narrow != nil:
		f.narrow.saabas(row, output, out)
	default:
		f.wide.saabas(row, output, out)
	}
	f.averageOf(output, out)
	return f.bias[output], used
}

// averageOf makes means of what the trees of an output add up to, where the forest is of that kind.
func (f *Forest) averageOf(output int, contributions []float64) {
	if f.counts != nil && f.counts[output] > 0 {
		for i := range contributions {
			contributions[i] /= f.counts[output]
		}
	}
}

// PredictExplained finds the row's leaves once for the scores and for Saabas' contributions. It does not allocate.
func (f *Forest) PredictExplained(row, out, contributions []float64) (output int, method string) {
	contributions = contributions[:len(f.spec.Inputs)]
	clear(contributions)
	if f.narrow != nil {
		output = predictExplained(f, f.narrow, row, out, contributions)
	} else {
		output = predictExplained(f, f.wide, row, out, contributions)
	}
	f.averageOf(output, contributions)
	return output, Saabas
}

func predictExplained[T real](f *Forest, trees *flat[T], row, out, contributions []float64) (output int) {
	s := trees.landed(row)
	trees.sumLanded(s, out)
	f.scores(out)
	output = Highest(out[:len(f.classes)])
	trees.explanation(s, output, contributions)
	trees.pool.Put(s)
	return output
}
