package training

import (
	"time"

	"github.com/millrace/millrace/features"
	"github.com/millrace/millrace/internal/duration"
	"github.com/millrace/millrace/project"
	"github.com/millrace/millrace/registry/model"
)

// description is the content of a features artefact: all that says what the columns of a dataset mean.
type description struct {
	Source string                 `json:"source"`
	Schema string                 `json:"schema"` // Avro parsing canonical form
	Inputs []model.SignatureInput `json:"inputs"`
	Groups []groupDescription     `json:"groups"`
	Label  labelDescription       `json:"label"`
	Weight string                 `json:"weight,omitempty"` // of a training row, an expression
}

type groupDescription struct {
	Name     string               `json:"name"`
	Version  string               `json:"version"`
	Source   string               `json:"source"`
	Entity   []string             `json:"entity"`
	Where    string               `json:"where,omitempty"`
	Windows  []string             `json:"windows"`
	Lateness string               `json:"lateness"`
	TTL      string               `json:"ttl"`
	Features []featureDescription `json:"features"`
}

type featureDescription struct {
	Name      string   `json:"name"`
	Aggregate string   `json:"aggregate"`
	Windows   []string `json:"windows,omitempty"`
	Where     string   `json:"where,omitempty"`
	Default   *float64 `json:"default,omitempty"`
}

type labelDescription struct {
	Source  string   `json:"source"`
	Join    string   `json:"join"`
	Value   string   `json:"value"`
	Task    string   `json:"task,omitempty"` // of a model that is not binary
	Classes []string `json:"classes,omitempty"`
	Within  string   `json:"within"`
}

func describe(m *project.Model) description {
	d := description{
		Source: m.On.Name, Schema: m.On.Schema.Canonical(), Inputs: Signature(m),
		Label: labelDescription{
			Source: m.Label.Source.Name, Join: m.Label.Join, Value: m.Label.Value.Meaning(), Within: text(m.Label.Within), Classes: m.Label.Classes,
		},
	}
	if !m.Binary() {
		d.Label.Task = string(m.Task)
	}
	if m.Train.Weight != nil {
		d.Weight = m.Train.Weight.Meaning()
	}
	for _, g := range m.Groups() {
		d.Groups = append(d.Groups, groupDescription{
			Name: g.Name, Version: g.Version, Source: g.Source.Name, Entity: g.Entity, Where: g.Where, Windows: g.Windows,
			Lateness: text(g.Lateness), TTL: text(g.TTL), Features: describeFeatures(g.Features),
		})
	}
	return d
}

func describeFeatures(definitions []features.FeatureDefinition) []featureDescription {
	descriptions := make([]featureDescription, len(definitions))
	for i, f := range definitions {
		descriptions[i] = featureDescription{f.Name, f.Aggregate, f.Windows, f.Where, f.Default}
	}
	return descriptions
}

func text(d time.Duration) string { return duration.Format(d) }
