package model

// maxShapDepth is how deep the trees of a forest may be to be explained by TreeSHAP: it takes time and memory by the
// square of the depth.
const maxShapDepth = 512

// pathElement is an input on the way to a node: the share of training rows that go this way when it is not known, and
// whether the row does when it is. weight is that of the subsets of as many known inputs as there are elements before.
type pathElement struct {
	zero, one, weight float64
	input             int32
}

// shap walks trees as algorithm 2 of Lundberg, Erion and Lee, "Consistent Individualized Feature Attribution for Tree
// Ensembles" (arXiv:1802.03888), in float64.
type shap[T real] struct {
	trees *flat[T]
	x     []T
	out   []float64
	paths [][]pathElement // per depth
}

// shap adds to out the Shapley values of the row's inputs for the sum of an output's trees.
func (f *flat[T]) shap(row []float64, output int, out []float64) {
	s := f.take(1)
	walk := shap[T]{trees: f, x: s.x[:len(f.columns)], out: out}
	f.fill(walk.x, row)
	for t, root := range f.roots {
		if int(f.outputs[t]) == output {
			walk.visit(root, nil, pathElement{zero: 1, one: 1, input: -1}, 0)
		}
	}
	f.pool.Put(s)
}

// visit adds what the leaves below a node say. before is the path to its parent, last the step from there.
func (s *shap[T]) visit(at int32, before []pathElement, last pathElement, depth int) {
	if len(s.paths) <= depth {
		s.paths = append(s.paths, nil)
	}
	path := extend(append(s.paths[depth][:0], before...), last)
	s.paths[depth] = path
	hot := s.trees.next(s.x, at)
	if hot == at {
		for i := 1; i < len(path); i++ {
			s.out[path[i].input] += unwoundSum(path, i) * (path[i].one - path[i].zero) * s.trees.means[at]
		}
		return
	}
	first := s.trees.nodes[at].next
	cold := first + (first + 1 - hot)
	input := s.trees.input(at)
	zero, one := 1.0, 1.0
	for i := 1; i < len(path); i++ {
		if path[i].input == input {
			zero, one = path[i].zero, path[i].one
			path = unwind(path, i)
			break
		}
	}
	share := s.trees.share(at, hot)
	for _, step := range [2]struct {
		to   int32
		last pathElement
	}{{hot, pathElement{zero * share, one, 0, input}}, {cold, pathElement{zero * (1 - share), 0, 0, input}}} {
		if step.last.zero != 0 || step.last.one != 0 { // else nothing ever goes there
			s.visit(step.to, path, step.last, depth+1)
		}
	}
}

// share is the part of a node's training rows that go to a child; where none are known, half.
func (f *flat[T]) share(at, child int32) float64 {
	if all := f.covers[at]; all > 0 {
		return f.covers[child] / all
	}
	return 0.5
}

// extend adds an input to a path.
func extend(path []pathElement, last pathElement) []pathElement {
	d := len(path)
	if last.weight = 0; d == 0 {
		last.weight = 1
	}
	path = append(path, last)
	for i := d - 1; i >= 0; i-- {
		path[i+1].weight += last.one * path[i].weight * float64(i+1) / float64(d+1)
		path[i].weight *= last.zero * float64(d-i) / float64(d+1)
	}
	return path
}

// unwind takes an input out of a path: the inverse of extend.
func unwind(path []pathElement, at int) []pathElement {
	d := len(path) - 1
	zero, one, next := path[at].zero, path[at].one, path[d].weight
	for i := d - 1; i >= 0; i-- {
		if one != 0 {
			was := path[i].weight
			path[i].weight = next * float64(d+1) / (float64(i+1) * one)
			next = was - path[i].weight*zero*float64(d-i)/float64(d+1)
		} else {
			path[i].weight *= float64(d+1) / (zero * float64(d-i))
		}
	}
	for i := at; i < d; i++ {
		path[i].zero, path[i].one, path[i].input = path[i+1].zero, path[i+1].one, path[i+1].input
	}
	return path[:d]
}

// unwoundSum is the sum of the weights of unwind(path, at).
func unwoundSum(path []pathElement, at int) float64 {
	d := len(path) - 1
	zero, one, next, sum := path[at].zero, path[at].one, path[d].weight, 0.0
	for i := d - 1; i >= 0; i-- {
		if one != 0 {
			w := next * float64(d+1) / (float64(i+1) * one)
			sum += w
			next = path[i].weight - w*zero*float64(d-i)/float64(d+1)
		} else {
			sum += path[i].weight * float64(d+1) / (zero * float64(d-i))
		}
	}
	return sum
}
