package feast

import (
	"context"
	"encoding/json"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/millrace/millrace/project"
	"github.com/millrace/millrace/serving"
)

// featuresRequest is the body of POST /get-online-features.
type featuresRequest struct {
	FeatureService  string                       `json:"feature_service"` // goes before features
	Features        []string                     `json:"features"`        // "view:feature"
	Entities        map[string][]json.RawMessage `json:"entities"`        // the rows' values by join key
	FullFeatureName bool                         `json:"full_feature_names"`
}

// featuresAnswer is the answer to it: first the join keys, then the features, each with one element for each row.
type featuresAnswer struct {
	Metadata struct {
		FeatureNames []string `json:"feature_names"`
	} `json:"metadata"`
	Results []vector `json:"results"`
}

type vector struct {
	Values          []any    `json:"values"`
	Statuses        []string `json:"statuses"`
	EventTimestamps []string `json:"event_timestamps"`
}

// statuses of the protocol, by those of the stage.
var statuses = map[string]string{
	"present": "PRESENT", "null": "NULL_VALUE", "overflow": "NULL_VALUE", "not_found": "NOT_FOUND", "expired": "OUTSIDE_MAX_AGE",
}

// epoch is the event timestamp where there is none: the clients read a time.
const epoch = "1970-01-01T00:00:00Z"

// view is a feature group that is asked for.
type view struct {
	group   *project.Group
	outputs []int // of the group, by column of the answer
	names   []string
}

func answerFeatures(w http.ResponseWriter, r *http.Request, s Stage) {
	allowed, p := serving.TimeoutOf(r)
	if p != nil {
		p.Write(w)
		return
	}
	var asked featuresRequest
	if p := read(w, r, s, &asked); p != nil {
		p.Write(w)
		return
	}
	views, p := asked.views(r.Context(), s)
	if p != nil {
		p.Write(w)
		return
	}
	keys, rows, p := asked.rows(views)
	if p != nil {
		p.Write(w)
		return
	}
	var reads []serving.EntityRead
	for _, v := range views {
		for _, row := range rows {
			reads = append(reads, entityOf(v.group, row))
		}
	}
	read, p := s.ReadEntities(r.Context(), serving.Call{Timeout: allowed}, reads)
	if p != nil {
		p.Write(w)
		return
	}
	write(w, compose(&asked, views, keys, read, len(rows)))
}

// views is the feature groups that a request asks for, with the features of each, in the order of the first mention.
func (q *featuresRequest) views(ctx context.Context, s Stage) ([]*view, *serving.Problem) {
	refs, p := q.refs(ctx, s)
	if p != nil {
		return nil, p
	}
	if len(refs) == 0 {
		return nil, badRequest("missing_field", "features", "no feature is asked for")
	}
	var views []*view
	seen := map[string]bool{}
	for _, ref := range refs {
		i := slices.IndexFunc(views, func(v *view) bool { return v.group.Name == ref.Group })
		if i < 0 {
			g, p := s.Group(ctx, ref.Group)
			if p != nil {
				p.Field = "features"
				return nil, p
			}
			i = len(views)
			views = append(views, &view{group: g})
		}
		v := views[i]
		output := v.group.Output(ref.Feature)
		if output < 0 {
			return nil, badRequest("unknown_field", "features", "the feature view %s has no such feature", v.group.Name)
		}
		name := ref.Feature
		if q.FullFeatureName {
			name = ref.Group + "__" + name
		}
		if seen[name] {
			return nil, badRequest("malformed", "features", "two features are named %s: ask with full_feature_names", name)
		}
		seen[name] = true
		v.outputs, v.names = append(v.outputs, output), append(v.names, name)
	}
	return views, nil
}

func (q *featuresRequest) refs(ctx context.Context, s Stage) ([]serving.FeatureRef, *serving.Problem) {
	if q.FeatureService != "" {
		return s.FeaturesOf(ctx, q.FeatureService)
	}
	refs := make([]serving.FeatureRef, len(q.Features))
	for i, text := range q.Features {
		group, feature, ok := strings.Cut(text, ":")
		if !ok {
			return nil, badRequest("wrong_type", "features["+strconv.Itoa(i)+"]", "must be of the form view:feature")
		}
		refs[i] = serving.FeatureRef{Group: group, Feature: feature}
	}
	return refs, nil
}

// rows is the entities' values by row and join key, and the join keys in the order of the views.
func (q *featuresRequest) rows(views []*view) (keys []string, rows []map[string]json.RawMessage, p *serving.Problem) {
	for _, v := range views {
		for _, key := range v.group.Entity {
			if slices.Contains(keys, key) {
				continue
			}
			values, ok := q.Entities[key]
			if !ok {
				return nil, nil, badRequest("missing_field", "entities."+key, "the feature view %s is of this join key", v.group.Name)
			}
			if len(keys) > 0 && len(values) != len(rows) {
				return nil, nil, badRequest("malformed", "entities."+key, "%d values, where %s has %d", len(values), keys[0], len(rows))
			}
			if len(keys) == 0 {
				rows = make([]map[string]json.RawMessage, len(values))
				for i := range rows {
					rows[i] = map[string]json.RawMessage{}
				}
			}
			for i, v := range values {
				rows[i][key] = v
			}
			keys = append(keys, key)
		}
	}
	for key := range q.Entities {
		if !slices.Contains(keys, key) {
			return nil, nil, badRequest("unknown_field", "entities", "there is a join key that no feature asked for has")
		}
	}
	if len(rows) == 0 {
		return nil, nil, badRequest("no_rows", "entities", "there is no entity")
	}
	return keys, rows, nil
}

// entityOf names an entity; one with a null in its key is nobody.
func entityOf(g *project.Group, row map[string]json.RawMessage) serving.EntityRead {
	read := serving.EntityRead{Group: g.Name, Entity: map[string]string{}}
	for _, key := range g.Entity {
		text := string(row[key])
		if text == "null" {
			return serving.EntityRead{Group: g.Name}
		}
		var s string
		if json.Unmarshal(row[key], &s) == nil {
			text = s
		}
		read.Entity[key] = text
	}
	return read
}

func compose(q *featuresRequest, views []*view, keys []string, read []serving.EntityFeatures, rows int) *featuresAnswer {
	var a featuresAnswer
	for _, key := range keys {
		v := vector{}
		for _, value := range q.Entities[key] {
			v.add(value, "PRESENT", epoch)
		}
		a.Metadata.FeatureNames, a.Results = append(a.Metadata.FeatureNames, key), append(a.Results, v)
	}
	for i, asked := range views {
		of := read[i*rows : (i+1)*rows]
		for j, output := range asked.outputs {
			v := vector{}
			for _, e := range of {
				f := &e.Features[output]
				v.add(f.Value, statuses[f.Status], timestamp(e.Newest))
			}
			a.Metadata.FeatureNames, a.Results = append(a.Metadata.FeatureNames, asked.names[j]), append(a.Results, v)
		}
	}
	return &a
}

func (v *vector) add(value any, status, at string) {
	if status != "PRESENT" {
		value = nil
	}
	v.Values, v.Statuses, v.EventTimestamps = append(v.Values, value), append(v.Statuses, status), append(v.EventTimestamps, at)
}

func timestamp(ms int64) string {
	if ms == 0 {
		return epoch
	}
	return time.UnixMilli(ms).UTC().Format("2006-01-02T15:04:05.000Z")
}
