package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/millrace/millrace/consistency"
	"github.com/millrace/millrace/internal/failure"
	"github.com/millrace/millrace/registry"
)

// explainedPrediction is what explain shows of a prediction: what the log has of it, its features computed again, and its model.
type explainedPrediction struct {
	*consistency.Explained
	Model *explainedModel `json:"model_artefact"` // nil where this registry does not have it
}

// explainedModel is the artefact that gave a score.
type explainedModel struct {
	Version string            `json:"version"`
	Digest  string            `json:"digest"`
	Code    string            `json:"code"`
	Rows    int64             `json:"training_rows"`
	MadeOf  []registry.Ref    `json:"made_of"`
	Facts   map[string]string `json:"annotations"`
}

// shownEvents is how many events of an entity are printed.
const shownEvents = 10

// explainPrediction rebuilds a prediction from the log.
func (c *explainCommand) explainPrediction(ctx context.Context, env *environment) error {
	rt, err := c.open(ctx, env, opening{kafka: true})
	if err != nil {
		return err
	}
	defer rt.close()
	deps := consistency.Deps{Project: rt.project, Kafka: rt.kafka, OfflineDir: rt.offlineDir(), Registry: rt.registry}
	found, err := consistency.Explain(ctx, consistency.Default(), deps, c.Feature, shownEvents)
	if err != nil {
		return err
	}
	e := explainedPrediction{Explained: found}
	if p := &found.Prediction; p.Digest != "" {
		m, err := rt.registry.Manifest(p.Digest)
		if err != nil && failure.Of(err) != failure.NotFound {
			return err
		}
		if err == nil {
			e.Model = &explainedModel{fmt.Sprintf("%s@%d", p.Model, p.Version), p.Digest, m.Code, m.Rows, m.Inputs, m.Annotations}
		}
	}
	if c.JSON {
		return json.NewEncoder(env.out).Encode(e)
	}
	return e.print(env.out)
}

func (e *explainedPrediction) print(out io.Writer) error {
	p := &e.Prediction
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "prediction\t%s, from %s, scored at %s in %d us\n", p.ID, p.Source, instant(p.ScoredAt), p.LatencyMicros)
	score := fmt.Sprintf("%.6g", p.Score)
	if p.Refused {
		score = "refused"
	}
	fmt.Fprintf(w, "answer\t%s, by rung %s of arm %s\n", score, p.Rung, p.Arm)
	if p.Reason != "" {
		fmt.Fprintf(w, "because\t%s\n", p.Reason)
	}
	for _, column := range p.Request {
		fmt.Fprintf(w, "asked\t%s = %s\n", column.Name, column.Text)
	}
	fmt.Fprintf(w, "as of\t%s\n", instant(p.At))
	for _, r := range p.Reasons {
		fmt.Fprintf(w, "moved by\t%s: %+.4g (%s)\n", r.Input, r.Value, p.ReasonMethod)
	}
	for _, in := range p.Inputs {
		value := in.Status
		if in.Value != nil {
			value = fmt.Sprintf("%g", *in.Value)
		}
		if in.Status == "overridden" {
			value += " (given by the request)"
		}
		fmt.Fprintf(w, "input\t%s = %s\n", in.Name, value)
	}
	e.printModel(w)
	for _, r := range e.Reads {
		fmt.Fprintf(w, "read\t%s of %s@%s, made of %d events\n", r.Entity, r.Group, r.Version, r.Applied)
		if r.Pending {
			fmt.Fprintln(w, "\tit saw events that are not in the offline files yet: try again")
		}
		for _, ev := range r.Events {
			var columns []string
			for _, name := range slices.Sorted(maps.Keys(ev.Columns)) {
				columns = append(columns, name+"="+ev.Columns[name])
			}
			fmt.Fprintf(w, "\tevent %d/%d at %s: %s\n", ev.Partition, ev.Offset, instant(ev.Time), strings.Join(columns, " "))
		}
		for _, v := range r.Values {
			verdict := "as served"
			if !v.Same {
				verdict = "SERVED WAS " + v.Served
			}
			fmt.Fprintf(w, "\t%s computed again: %s, %s\n", v.Feature, v.Recomputed, verdict)
		}
	}
	return w.Flush()
}

func (e *explainedPrediction) printModel(w io.Writer) {
	if e.Model == nil {
		fmt.Fprintf(w, "model\t%s %s is not in this registry\n", e.Prediction.Model, e.Prediction.Digest)
		return
	}
	fmt.Fprintf(w, "model\t%s %s, trained on %d rows", e.Model.Version, e.Model.Digest, e.Model.Rows)
	if e.Model.Code != "" {
		fmt.Fprintf(w, " by code %s", e.Model.Code)
	}
	fmt.Fprintln(w)
	for _, made := range e.Model.MadeOf {
		fmt.Fprintf(w, "\tof %s %s\n", made.Role, made.Digest)
	}
	for _, name := range slices.Sorted(maps.Keys(e.Model.Facts)) {
		fmt.Fprintf(w, "\t%s: %s\n", name, e.Model.Facts[name])
	}
}
