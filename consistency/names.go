package consistency

import (
	"fmt"

	"github.com/millrace/millrace/internal/failure"
	"github.com/millrace/millrace/project"
	"github.com/millrace/millrace/registry"
	"github.com/millrace/millrace/registry/model"
	"github.com/millrace/millrace/schemas"
)

// codeNames finds what the codes of categories stood for: a prediction has those of the model that answered, whose signature names them.
type codeNames struct {
	registry *registry.Registry
	models   map[string]map[string]*project.Categories // by digest and input; nil of one that the registry does not have
}

func newCodeNames(r *registry.Registry) *codeNames {
	return &codeNames{registry: r, models: map[string]map[string]*project.Categories{}}
}

// of is the names of an input of a kind, to the model of a digest; nil of a number. known is false where they cannot be found.
func (n *codeNames) of(digest, input string, kind schemas.Kind) (names *project.Categories, known bool, err error) {
	if kind != schemas.String {
		return nil, true, nil
	}
	if digest == "" {
		return nil, false, nil
	}
	inputs, read := n.models[digest]
	if !read {
		if inputs, err = n.read(digest); err != nil {
			return nil, false, fmt.Errorf("reading the categories of the model: %w", err)
		}
		n.models[digest] = inputs
	}
	return inputs[input], inputs[input] != nil, nil
}

// read is the categories of a model's inputs; nil where the registry does not have it.
func (n *codeNames) read(digest string) (map[string]*project.Categories, error) {
	_, content, err := n.registry.Read(digest)
	if err != nil {
		if failure.Of(err) == failure.NotFound {
			return nil, nil
		}
		return nil, err
	}
	b, err := model.DecodeBundle(content)
	if err != nil {
		return nil, err
	}
	inputs := map[string]*project.Categories{}
	for _, in := range b.Signature {
		if in.Categories != nil {
			inputs[in.Name] = project.NewCategories(in.Categories)
		}
	}
	return inputs, nil
}
