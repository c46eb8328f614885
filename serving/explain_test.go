package serving

import (
	"encoding/json"
	"math"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/millrace/millrace/registry/model"
	"github.com/millrace/millrace/schemas"
)

// classes is a forest of three classes, on the mean delay and the distance: one leaf each, but for the third class.
func classes(t *testing.T) model.ForestSpec {
	t.Helper()
	stump := func(value float64, output int) model.Tree {
		return model.Tree{Leaves: []model.Leaf{{Value: value, Rows: 4}}, Output: output}
	}
	third := model.Tree{
		Splits: []model.Split{
			{Input: 0, Threshold: 20, Missing: model.MissingNaN, Left: ^0, Right: 1},
			{Input: 1, Threshold: 500, Missing: model.MissingNaN, Left: ^1, Right: ^2},
		},
		Leaves: []model.Leaf{{Value: 0, Rows: 2}, {Value: 1, Rows: 1}, {Value: 2, Rows: 1}},
		Output: 2,
	}
	return model.ForestSpec{
		Inputs: []string{"origin_delays.delay_mean_1h", "distance"}, Objective: model.Multiclass, Classes: []string{"early", "on_time", "late"},
		Trees: []model.Tree{stump(0.5, 0), stump(1, 1), third},
	}
}

func TestScoreOfClasses(t *testing.T) {
	w := newWorld(t)
	w.apply(arrival{"ATL", noon.Add(-30 * time.Minute), 30})
	m := byDelay(1)
	m.spoil = func(b *model.Bundle) {
		f := must[*model.Forest](t)(model.NewForest(classes(t)))
		*b = must[model.Bundle](t)(model.NewBundle(b.Signature, f, b.Golden))
	}
	w.promote(m)
	w.start()
	w.awaitReady()

	ask := func(query string) schemas.Prediction {
		r := must[*http.Request](t)(http.NewRequest(http.MethodPost, w.server.URL+"/v1/models/late:score"+query, strings.NewReader(flight)))
		resp := must[*http.Response](t)(w.server.Client().Do(r))
		var a struct{ Predictions []json.RawMessage }
		w.decode(resp, &a)
		if resp.StatusCode != http.StatusOK || len(a.Predictions) != 1 {
			t.Fatalf("%d %+v", resp.StatusCode, a)
		}
		var p struct {
			Score        float64
			Class        string
			Classes      []schemas.ClassScore
			ReasonMethod string `json:"reason_method"`
			Reasons      []struct {
				Input        string
				Contribution float64
			}
		}
		if err := json.Unmarshal(a.Predictions[0], &p); err != nil {
			t.Fatal(err)
		}
		out := schemas.Prediction{Score: p.Score, Class: p.Class, Classes: p.Classes, ReasonMethod: p.ReasonMethod}
		for _, r := range p.Reasons {
			out.Reasons = append(out.Reasons, schemas.Contribution{Input: r.Input, Value: r.Contribution})
		}
		return out
	}

	p := ask("")
	sum := math.Exp(0.5) + math.Exp(1) + math.Exp(2)
	if p.Class != "late" || math.Abs(p.Score-math.Exp(2)/sum) > 1e-12 || len(p.Classes) != 3 {
		t.Fatalf("%+v", p)
	}
	for i, margin := range []float64{0.5, 1, 2} {
		if c := p.Classes[i]; c.Class != classes(t).Classes[i] || math.Abs(c.Score-math.Exp(margin)/sum) > 1e-12 {
			t.Errorf("%+v, want %v", c, math.Exp(margin)/sum)
		}
	}
	// By the path, from the means 0.75, 1.5 and 2.
	checkReasons(t, p, model.Saabas, 0.75, 0.5)
	// By both orders: distance is worth 0.25 before the delay is known and 0.5 after, the delay 0.75 and 1.
	checkReasons(t, ask("?explain=tree_shap"), model.TreeSHAP, 0.875, 0.375)
	checkReasons(t, ask("?explain=linear"), model.Saabas, 0.75, 0.5)

	resp := must[*http.Response](t)(w.server.Client().Post(w.server.URL+"/v1/models/late:score?explain=lime", "application/json", strings.NewReader(flight)))
	var a answerBody
	w.decode(resp, &a)
	if a.Status != 400 || a.Field != "explain" || !strings.Contains(a.Detail, "tree_shap") || strings.Contains(a.Detail, "lime") {
		t.Errorf("%+v", a)
	}
	resp = must[*http.Response](t)(w.server.Client().Post(w.server.URL+"/v1/models/late:score?explain=%zz", "application/json", strings.NewReader(flight)))
	if resp.StatusCode != http.StatusBadRequest {
		t.Errorf("a query that cannot be read: status %d", resp.StatusCode)
	}
	_ = resp.Body.Close()
}

func checkReasons(t *testing.T, p schemas.Prediction, method string, delay, distance float64) {
	t.Helper()
	if p.ReasonMethod != method || len(p.Reasons) != 2 || math.Abs(p.Reasons[0].Value-delay) > 1e-12 || math.Abs(p.Reasons[1].Value-distance) > 1e-12 {
		t.Errorf("reasons %+v by %s, want %v and %v by %s", p.Reasons, p.ReasonMethod, delay, distance, method)
	}
}
