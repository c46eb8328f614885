package serving

import (
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/millrace/millrace/registry/model"
	"github.com/millrace/millrace/schemas"
)

// parameterExplain is the query parameter that asks for a method of explanation: ?explain=tree_shap.
const parameterExplain = "explain"

// explanations are the methods that may be asked for. A model that lacks the one asked for uses its own; the answer's
// reason_method says which was used.
var explanations = []string{model.Saabas, model.TreeSHAP, model.Linear}

// explanation is the method that a request asks for, "" when it does not say.
func explanation(r *http.Request) (string, *problem) {
	if r.URL.RawQuery == "" {
		return "", nil
	}
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return "", badRequest(codeMalformed, "query", "the query cannot be read")
	}
	method := query.Get(parameterExplain)
	if method != "" && !slices.Contains(explanations, method) {
		return "", badRequest(codeUnknown, parameterExplain, "is no method of explanation; there are %s", strings.Join(explanations, ", "))
	}
	return method, nil
}

// appendClasses writes the scores of the classes, for models that have any.
func appendClasses(b []byte, p *schemas.Prediction) []byte {
	if len(p.Classes) == 0 {
		return b
	}
	b = appendText(append(b, `,"class":`...), p.Class)
	b = append(b, `,"classes":[`...)
	for i, c := range p.Classes {
		b = appendText(append(comma(b, i), `{"class":`...), c.Class)
		b = append(appendNumber(append(b, `,"score":`...), c.Score), '}')
	}
	return append(b, ']')
}
