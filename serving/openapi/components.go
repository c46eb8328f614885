package openapi

import (
	"slices"

	"github.com/danielgtaylor/huma/v2"

	"github.com/millrace/millrace/project"
	"github.com/millrace/millrace/serving"
)

func texts(names ...string) map[string]*huma.Schema {
	s := map[string]*huma.Schema{}
	for _, n := range names {
		s[n] = &huma.Schema{Type: huma.TypeString}
	}
	return s
}

func number(nullable bool) *huma.Schema {
	return &huma.Schema{Type: huma.TypeNumber, Nullable: nullable}
}

func list(of *huma.Schema) *huma.Schema { return &huma.Schema{Type: huma.TypeArray, Items: of} }

// components is the answers that several paths give. They may grow members; those named here stay.
func (d *document) components() {
	problem := &huma.Schema{Type: huma.TypeObject, Description: "RFC 9457. Type and code do not change between versions.", Required: []string{"type", "title", "status", "code", "detail"}, Properties: texts("type", "title", "code", "field", "detail", "hint")}
	problem.Properties["status"] = &huma.Schema{Type: huma.TypeInteger}
	problem.Properties["predictions"] = list(ref("Prediction"))
	d.answers["Problem"] = problem
	d.answers["InferenceError"] = &huma.Schema{Type: huma.TypeObject, Required: []string{"error"}, Properties: texts("error")}

	input := &huma.Schema{Type: huma.TypeObject, Required: []string{"name", "value", "status"}, Properties: texts("name", "status")}
	input.Properties["value"] = number(true)
	reason := &huma.Schema{Type: huma.TypeObject, Required: []string{"input", "contribution"}, Properties: texts("input")}
	reason.Properties["contribution"] = number(true)
	prediction := &huma.Schema{Type: huma.TypeObject, Required: []string{"id", "score", "model", "version", "rung", "reason"}, Properties: texts("id", "model", "digest", "rung", "reason", "join_key", "reason_method", "source")}
	prediction.Properties["score"] = &huma.Schema{Type: huma.TypeNumber, Nullable: true, Description: "null where the row was refused"}
	prediction.Properties["version"] = &huma.Schema{Type: huma.TypeInteger}
	prediction.Properties["features"], prediction.Properties["reasons"] = list(input), list(reason)
	for _, at := range []string{"at", "scored_at"} {
		prediction.Properties[at] = &huma.Schema{Type: huma.TypeString, Format: "date-time"}
	}
	d.answers["Prediction"] = prediction

	d.answers["Model"] = &huma.Schema{Type: huma.TypeObject, Required: []string{"name", "on", "state"}, Properties: texts("name", "on", "state", "digest", "kind", "fault")}
	feature := &huma.Schema{Type: huma.TypeObject, Required: []string{"name", "value", "status", "window"}, Properties: texts("name", "status", "window")}
	entity := &huma.Schema{Type: huma.TypeObject, Required: []string{"group", "version", "entity", "at", "features"}, Properties: texts("group", "version")}
	entity.Properties["entity"] = &huma.Schema{Type: huma.TypeObject, AdditionalProperties: &huma.Schema{Type: huma.TypeString}}
	entity.Properties["features"] = list(feature)
	d.answers["Entity"] = entity

	tensor := &huma.Schema{Type: huma.TypeObject, Required: []string{"name", "datatype", "shape"}, Properties: texts("name", "datatype")}
	tensor.Properties["shape"] = list(&huma.Schema{Type: huma.TypeInteger})
	answer := &huma.Schema{Type: huma.TypeObject, Required: []string{"model_name", "outputs"}, Properties: texts("model_name", "model_version", "id")}
	answer.Properties["outputs"] = list(tensor)
	d.answers["InferenceAnswer"] = answer
}

// inferenceRequest is an inference request. What must fit what, as shape and data, JSON Schema cannot say: such faults are a 400.
func inferenceRequest(m *serving.Model, maxRows int) *huma.Schema {
	names := []any{"inputs"}
	for _, c := range columnsOf(m.Source.Schema) {
		if c != "inputs" {
			names = append(names, c)
		}
	}
	for _, c := range m.Fetched {
		names = append(names, "override."+c.Name)
	}
	tensor := &huma.Schema{Type: huma.TypeObject, Required: []string{"name", "datatype", "shape"}, Properties: map[string]*huma.Schema{
		"name":     {Type: huma.TypeString, Enum: names},
		"datatype": {Type: huma.TypeString, Enum: []any{"BOOL", "INT8", "INT16", "INT32", "INT64", "UINT8", "UINT16", "UINT32", "UINT64", "FP32", "FP64", "BYTES"}},
		"shape":    {Type: huma.TypeArray, MinItems: pointer(1), MaxItems: pointer(2), Items: &huma.Schema{Type: huma.TypeInteger, Minimum: pointer(1.0), Maximum: pointer(float64(maxRows))}},
		"data":     {Type: huma.TypeArray},
	}}
	request := &huma.Schema{Type: huma.TypeObject, Required: []string{"inputs"}, Properties: texts("id")}
	request.Properties["inputs"] = &huma.Schema{Type: huma.TypeArray, Items: tensor, MinItems: pointer(1)}
	request.Properties["outputs"] = list(&huma.Schema{Type: huma.TypeObject, Required: []string{"name"}, Properties: texts("name")})
	return request
}

// features is the reading half of Feast's server. That the entities are those of the features, JSON Schema cannot say.
func (d *document) features(groups []*project.Group) {
	var features []any
	var keys []string
	for _, g := range groups {
		for _, o := range g.Outputs {
			features = append(features, g.Name+":"+o.Name)
		}
		keys = append(keys, g.Entity...)
	}
	slices.Sort(keys)
	entities := &huma.Schema{Type: huma.TypeObject, Properties: map[string]*huma.Schema{}, Description: "the join keys of the feature views asked for, each with one value for each row"}
	for _, k := range slices.Compact(keys) {
		entities.Properties[k] = &huma.Schema{Type: huma.TypeArray, MinItems: pointer(1)}
	}
	vector := &huma.Schema{Type: huma.TypeObject, Required: []string{"values", "statuses", "event_timestamps"}, Properties: map[string]*huma.Schema{
		"values": {Type: huma.TypeArray}, "event_timestamps": list(&huma.Schema{Type: huma.TypeString, Format: "date-time"}),
		"statuses": list(&huma.Schema{Type: huma.TypeString, Enum: []any{"PRESENT", "NULL_VALUE", "NOT_FOUND", "OUTSIDE_MAX_AGE"}}),
	}}
	d.add("POST", "/get-online-features", operation{
		id: "feast_features", summary: "Features of entities, in Feast's form.", tag: "feast", failures: reading, parameters: []*huma.Param{timeoutHeader()},
		body: &huma.Schema{Type: huma.TypeObject, Required: []string{"entities"}, Properties: map[string]*huma.Schema{
			"features":        {Type: huma.TypeArray, Items: &huma.Schema{Type: huma.TypeString, Enum: features}},
			"feature_service": {Type: huma.TypeString, Nullable: true, Description: "a model: the features that it is made of, whatever features says"},
			"entities":        entities, "full_feature_names": {Type: huma.TypeBoolean},
		}},
		answer: &huma.Schema{Type: huma.TypeObject, Required: []string{"metadata", "results"}, Properties: map[string]*huma.Schema{
			"metadata": {Type: huma.TypeObject, Required: []string{"feature_names"}, Properties: map[string]*huma.Schema{"feature_names": list(&huma.Schema{Type: huma.TypeString})}},
			"results":  list(vector),
		}},
	})
}

// push is its writing half. What columns a source has is in its own schema.
func (d *document) push(sources []string) {
	names := make([]any, len(sources))
	for i, s := range sources {
		names[i] = s
	}
	d.add("POST", "/push", operation{
		id: "feast_push", summary: "Rows to the topic of a source, acknowledged by Kafka before the answer.", tag: "feast", failures: reading,
		body: &huma.Schema{Type: huma.TypeObject, Required: []string{"push_source_name", "df"}, Properties: map[string]*huma.Schema{
			"push_source_name": {Type: huma.TypeString, Enum: names}, "to": {Type: huma.TypeString, Enum: []any{"online", "offline", "online_and_offline"}},
			"df": {Type: huma.TypeObject, Description: "the rows' values by column", AdditionalProperties: &huma.Schema{Type: huma.TypeArray}},
		}},
		answer: &huma.Schema{Type: huma.TypeObject},
	})
}
