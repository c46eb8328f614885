package openapi

import (
	"net/url"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"github.com/millrace/millrace/project"
	"github.com/millrace/millrace/serving"
)

// document is one in the making.
type document struct {
	api     *huma.OpenAPI
	maxRows int
	answers map[string]*huma.Schema // by name, in the components
}

// Describe makes the document of models, groups and the sources that can be pushed to.
func Describe(version string, maxRows int, models []serving.Model, groups []*project.Group, pushSources []string) *huma.OpenAPI {
	registry := huma.NewMapRegistry("#/components/schemas/", huma.DefaultSchemaNamer)
	d := &document{maxRows: maxRows, answers: registry.Map(), api: &huma.OpenAPI{
		OpenAPI: "3.1.0",
		Info: &huma.Info{Title: "Millrace serving", Version: version, Description: "Scores and features of the project's models, in the forms that its " +
			"clients speak: its own JSON (v1), the Open Inference Protocol (v2), and Feast's."},
		Paths: map[string]*huma.PathItem{},
		Components: &huma.Components{Schemas: registry, SecuritySchemes: map[string]*huma.SecurityScheme{
			"token": {Type: "http", Scheme: "bearer", Description: "Where the server was started with --tokens."},
		}},
		Security: []map[string][]string{{}, {"token": {}}},
	}}
	d.components()
	d.server()
	for _, m := range models {
		d.model(&m)
	}
	for _, g := range groups {
		d.group(g)
	}
	if len(groups) > 0 {
		d.features(groups)
	}
	if len(pushSources) > 0 {
		d.push(pushSources)
	}
	return d.api
}

// operation is what the paths have in common.
type operation struct {
	id, summary, tag string
	parameters       []*huma.Param
	body             *huma.Schema
	answer           *huma.Schema
	failures         map[string]string // by status
	v2               bool              // whose failures are {"error"}
	optionalBody     bool
}

// Failures that a path can have, by what it does.
var (
	wrong    = map[string]string{"400": "The request is not as this document says: code and field tell what is wrong.", "401": unauthenticated, "403": forbidden}
	reading  = with(wrong, map[string]string{"404": "There is no such thing.", "408": "The body did not come in time.", "413": "The body, or the number of rows, is beyond the limit.", "415": "The body is compressed.", "429": "As many requests as are allowed are under way; Retry-After says when to come back.", "500": "A fault of the server's, or a stored state that cannot be read.", "503": "Features or champion are not available.", "504": "The deadline passed."})
	scoring  = with(reading, map[string]string{"422": "No row was scored: the model must not answer without the inputs that are missing."})
	infering = with(scoring, map[string]string{"409": "Another version than the one asked for answered."})
	looking  = map[string]string{"401": unauthenticated, "403": forbidden, "404": "There is no such thing.", "503": "Not ready."}
)

const (
	unauthenticated = "There is no token that is known."
	forbidden       = "The token is not for this."
)

func with(some, more map[string]string) map[string]string {
	all := map[string]string{}
	for _, m := range []map[string]string{some, more} {
		for status, text := range m {
			all[status] = text
		}
	}
	return all
}

func (d *document) add(method, path string, o operation) {
	op := &huma.Operation{OperationID: o.id, Summary: o.summary, Tags: []string{o.tag}, Parameters: o.parameters, Responses: map[string]*huma.Response{
		"200": {Description: "The answer.", Content: content("application/json", o.answer)},
	}}
	if o.body != nil {
		op.RequestBody = &huma.RequestBody{Required: !o.optionalBody, Content: content("application/json", o.body)}
	}
	for status, text := range o.failures {
		r := &huma.Response{Description: text, Content: content("application/problem+json", ref("Problem"))}
		if o.v2 {
			r.Content = content("application/json", ref("InferenceError"))
		}
		switch status {
		case "401":
			r.Headers = map[string]*huma.Param{"WWW-Authenticate": {Schema: &huma.Schema{Type: huma.TypeString}}}
		case "429":
			r.Headers = map[string]*huma.Param{"Retry-After": {Description: "seconds", Schema: &huma.Schema{Type: huma.TypeInteger}}}
		}
		op.Responses[status] = r
	}
	item := d.api.Paths[path]
	if item == nil {
		item = &huma.PathItem{}
		d.api.Paths[path] = item
	}
	if method == "GET" {
		item.Get = op
	} else {
		item.Post = op
	}
}

func content(media string, s *huma.Schema) map[string]*huma.MediaType {
	return map[string]*huma.MediaType{media: {Schema: s}}
}

func ref(name string) *huma.Schema { return &huma.Schema{Ref: "#/components/schemas/" + name} }

// timeoutHeader is the deadline that a client may set.
func timeoutHeader() *huma.Param {
	return &huma.Param{Name: serving.HeaderTimeout, In: "header", Description: "milliseconds that the client has; the model's own timeout caps them", Schema: &huma.Schema{
		Type: huma.TypeInteger, Minimum: pointer(1.0), Maximum: pointer(float64(serving.MaxHeaderTimeout.Milliseconds())),
	}}
}

func (d *document) server() {
	status := func(members ...string) *huma.Schema {
		s := object()
		for _, m := range members {
			s.Properties[m] = &huma.Schema{Type: huma.TypeBoolean}
		}
		s.Required = members
		return s
	}
	d.add("GET", "/healthz", operation{id: "healthz", summary: "Whether the process answers.", tag: "health", answer: &huma.Schema{Type: huma.TypeObject}})
	d.add("GET", "/readyz", operation{id: "readyz", summary: "Whether every model has a champion that answers: status ready; or another version in its place: degraded.", tag: "health", answer: &huma.Schema{Type: huma.TypeObject}, failures: map[string]string{"503": "A model has none."}})
	d.add("GET", "/v1/models", operation{id: "models", summary: "The models.", tag: "v1", answer: &huma.Schema{
		Type: huma.TypeObject, Required: []string{"models"}, Properties: map[string]*huma.Schema{"models": {Type: huma.TypeArray, Items: ref("Model")}},
	}, failures: looking})
	d.add("GET", "/v2", operation{id: "v2_server", summary: "The server.", tag: "v2", v2: true, answer: &huma.Schema{Type: huma.TypeObject, Required: []string{"name", "version", "extensions"}}, failures: looking})
	d.add("GET", "/v2/health/live", operation{id: "v2_live", summary: "Whether the process answers.", tag: "v2", v2: true, answer: status("live")})
	d.add("GET", "/v2/health/ready", operation{id: "v2_ready", summary: "Whether every model has a champion that answers.", tag: "v2", v2: true, answer: status("ready"), failures: map[string]string{"503": "A model has none."}})
	d.add("POST", "/v2/repository/index", operation{
		id: "v2_index", summary: "The models and their states.", tag: "v2", v2: true, optionalBody: true,
		body:     &huma.Schema{Type: huma.TypeObject, Properties: map[string]*huma.Schema{"ready": {Type: huma.TypeBoolean, Description: "only those that are"}}},
		answer:   &huma.Schema{Type: huma.TypeArray, Items: &huma.Schema{Type: huma.TypeObject, Required: []string{"name", "state", "reason"}}},
		failures: with(wrong, map[string]string{"408": "The body did not come in time.", "413": "The body is too large."}),
	})
}

func (d *document) model(m *serving.Model) {
	name := "/v1/models/" + url.PathEscape(m.Name)
	d.answers["Request_"+m.Name] = requestOf(m.Source.Schema, m.Fetched, d.maxRows)
	d.add("GET", name, operation{id: "model_" + m.Name, summary: "The model " + m.Name + ": its champion, inputs and the form of a row.", tag: "v1", answer: ref("Model"), failures: looking})
	d.add("POST", name+":score", operation{
		id: "score_" + m.Name, summary: "Scores of rows of " + m.Source.Name + " by the model " + m.Name + ".", tag: "v1", parameters: []*huma.Param{timeoutHeader()},
		body: ref("Request_" + m.Name), failures: scoring,
		answer: &huma.Schema{Type: huma.TypeObject, Required: []string{"predictions"}, Properties: map[string]*huma.Schema{"predictions": {Type: huma.TypeArray, Items: ref("Prediction")}}},
	})
	d.add("GET", name+"/predictions/{join_key}", operation{
		id: "prediction_" + m.Name, summary: "The last prediction of this process for a join key.", tag: "v1", answer: ref("Prediction"), failures: looking,
		parameters: []*huma.Param{pathParameter("join_key", "text of the column that labels are joined by")},
	})
	v2 := "/v2/models/" + url.PathEscape(m.Name)
	d.add("GET", v2, operation{id: "v2_model_" + m.Name, summary: "Tensors and versions of the model " + m.Name + ".", tag: "v2", v2: true, answer: &huma.Schema{Type: huma.TypeObject, Required: []string{"name", "versions", "platform", "inputs", "outputs"}}, failures: looking})
	d.add("GET", v2+"/ready", operation{id: "v2_ready_" + m.Name, summary: "Whether it has a champion that answers.", tag: "v2", v2: true, answer: &huma.Schema{Type: huma.TypeObject, Required: []string{"name", "ready"}}, failures: looking})
	d.add("POST", v2+"/infer", operation{
		id: "v2_infer_" + m.Name, summary: "Scores by the model " + m.Name + ", of one tensor for each column (" + strings.Join(columnsOf(m.Source.Schema), ", ") + ") or of its inputs (inputs).",
		tag: "v2", v2: true, parameters: []*huma.Param{timeoutHeader()}, body: inferenceRequest(m, d.maxRows), answer: ref("InferenceAnswer"), failures: infering,
	})
}

func pathParameter(name, description string) *huma.Param {
	return &huma.Param{Name: name, In: "path", Required: true, Description: description, Schema: &huma.Schema{Type: huma.TypeString, MinLength: pointer(1)}}
}

func (d *document) group(g *project.Group) {
	path := "/v1/features/" + url.PathEscape(g.Name)
	var parameters []*huma.Param
	for _, c := range g.Entity {
		path += "/{" + c + "}"
		parameters = append(parameters, pathParameter(c, "of the entity"))
	}
	parameters = append(parameters, timeoutHeader(), &huma.Param{Name: "at", In: "query", Description: "time that the features are to be as of; now without it", Schema: instant("")})
	d.add("GET", path, operation{id: "features_" + g.Name, summary: "The features of one entity of " + g.Name + ".", tag: "v1", parameters: parameters, answer: ref("Entity"), failures: reading})
}
